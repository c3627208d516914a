import functools
import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import zoo
import zoo.models.catalog
from coloured_folder import write_coloured
from zoo._model import ModelInterface
from zoo.data.transforms import Preprocess
from zoo.errors import InputError, LicenceError, WeightsError
from zoo.models import registry
from zoo.models.classifier import build_timm
from zoo.models.registry import entries

TINY = {"epochs": 2, "batch_size": 6, "image_size": 32, "num_workers": 0, "progress": False, "device": "cpu"}


class Net(nn.Module):
    """A convolution and a linear layer.

    And more of it.
    """

    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, images):
        return self.fc(self.conv(images).relu().mean((2, 3)))


class NetWithHead(Net):
    head_prefixes = ("fc.",)


@pytest.fixture(autouse=True)
def _own_entries(monkeypatch):
    zoo.list_models()  # so that the families are registered, and stay so
    monkeypatch.setattr(registry, "_ENTRIES", entries())


def state_of(model, folder):
    folder.mkdir(exist_ok=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    return folder


def test_a_class_says_its_task_if_it_declares_itself():
    class Finder(ModelInterface, Net):
        task = "detection"

    class Foreign(Net):
        task = "anything"

    zoo.register_model("finder")(Finder)
    zoo.register_model("foreign")(Foreign)
    assert [entries()[name].task for name in ("finder", "foreign")] == ["detection", "classification"]


def test_a_class_is_built_by_name_and_seeded_like_the_others():
    assert zoo.register_model("my_net")(Net) is Net
    state, before = torch.random.get_rng_state(), zoo.get("My-Net", num_classes=3, seed=1)
    again, other = zoo.get("my_net", num_classes=3, seed=1), zoo.get("my_net", num_classes=3, seed=2)
    assert torch.equal(state, torch.random.get_rng_state())
    assert isinstance(before, Net)
    assert not before.training
    assert torch.equal(before.fc.weight, again.fc.weight)
    assert not torch.equal(before.fc.weight, other.fc.weight)
    assert (before.classes, before.preprocess, before.load_report) == (("0", "1", "2"), Preprocess(), None)
    assert (before.licence.code, before.licence.weights) == ("unknown", None)
    assert before.config["model"] == "my_net"
    assert zoo.get("my_net", classes=["ant", "bee"]).classes == ("ant", "bee")


def test_it_is_listed_and_described():
    zoo.register_model("my_net2", preprocess={"image_size": 64}, code_licence="MIT")(Net)
    zoo.register_model("my_net10", summary="mine")(Net)
    assert zoo.list_models("my*") == ["my_net2", "my_net10"]
    assert zoo.list_models("my*", pretrained=True) == []
    facts = zoo.describe("my_net2")
    assert (facts["summary"], facts["code_licence"]) == ("A convolution and a linear layer", "MIT")
    assert facts["preprocess"]["image_size"] == 64
    assert zoo.describe("my_net10")["summary"] == "mine"
    assert json.loads(json.dumps(facts)) == facts
    with pytest.raises(InputError, match=r"unknown model 'my_net3'\. Did you mean 'my_net2'"):
        zoo.get("my_net3")
    assert "_coco" not in zoo.models.catalog.list_families()


def test_the_name_is_that_of_the_class_or_function():
    @zoo.register_model()
    def tiny_thing(num_classes=7, drop_rate=0.0):
        return nn.Sequential(nn.Flatten(), nn.Dropout(drop_rate), nn.LazyLinear(num_classes))

    zoo.register_model()(Net)
    zoo.register_model("half")(functools.partial(Net))
    assert {"Net", "tiny_thing", "half"} <= set(zoo.list_models())
    assert zoo.get("tiny_thing")[2].out_features == 7
    assert zoo.get("tiny_thing", drop_rate=0.25)[1].p == 0.25
    assert isinstance(zoo.get("half", num_classes=2), Net)


@pytest.mark.parametrize(
    "name", ["", "a b", "my.net", "timm/x", "../x", "9net", "ünet", "a" * 101, "my_net\n", "<lambda>"]
)
def test_odd_names_are_refused(name):
    with pytest.raises(InputError, match=r"^register_model: invalid name .*\. Expected a letter, then letters"):
        zoo.register_model(name)(Net)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("resnet50", r"the name 'resnet50' is a built-in model\. Choose another name"),
        ("Res-Net-50", r"the name 'Res-Net-50' is a built-in model\. Choose another name\."),
        ("MobileNetV2_100", r"' is a built-in model\. Choose another name\."),
        ("timm", "'timm' is the name of a model family. Choose another name"),
        ("my-net", r"the name 'my-net' is tests\.models\.test_custom\.NetWithHead\. Choose another name"),
        ("my_net", r"the name 'my_net' is tests\.models\.test_custom\.NetWithHead\. Choose another name"),
    ],
)
def test_a_name_that_means_something_else(name, text):
    zoo.register_model("my_net")(NetWithHead)
    with pytest.raises(InputError, match=text):
        zoo.register_model(name)(Net)
    assert entries()["my_net"].build is NetWithHead


def test_the_same_lines_may_run_again():
    def cell(width):
        @zoo.register_model("from_a_cell")
        class Again(nn.Linear):
            def __init__(self, num_classes):
                super().__init__(width, num_classes)

    cell(3)
    cell(4)
    assert zoo.get("from_a_cell", num_classes=2).in_features == 4


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda classes: None, r"<lambda> has no argument 'num_classes'\. It is called with num_classes=N"),
        (nn.Linear, "Linear has no argument 'num_classes'"),
        (nn.Linear(2, 2), "a Linear is neither a class nor a function. Register its class"),
        (3, "a int is neither a class"),
    ],
)
def test_builders_that_cannot_be(build, text):
    with pytest.raises(InputError, match=text):
        zoo.register_model("my_net")(build)


def test_what_is_registered_has_to_be_a_module_with_a_preprocessing():
    with pytest.raises(InputError, match=r"register_model needs parentheses: @zoo\.register_model\(\)"):
        zoo.register_model(Net)
    with pytest.raises(InputError, match=r"unknown key 'size'"):
        zoo.register_model("my_net", preprocess={"size": 64})(Net)
    zoo.register_model("my_net")(lambda num_classes: "network")
    with pytest.raises(InputError, match=r"the builder of my_net returned a str; expected a torch\.nn\.Module"):
        zoo.get("my_net", num_classes=2)


def test_the_number_of_classes_has_to_be_known():
    zoo.register_model("my_net")(Net)
    with pytest.raises(InputError, match=r"my_net needs the number of classes\. Pass num_classes= or"):
        zoo.get("my_net")
    with pytest.raises(InputError, match=r"my_net does not support drop_rate"):
        zoo.get("my_net", num_classes=2, drop_rate=0.5)
    with pytest.raises(WeightsError, match=r"no pretrained weights are published for my_net\. Pass a path"):
        zoo.get("my_net", num_classes=2, pretrained=True)


@pytest.mark.parametrize(
    ("attributes", "names"),
    [
        ({"config": {"width": 3}}, "config"),
        ({"config": object(), "classes": nn.Linear(1, 1)}, "classes, config"),
        ({"preprocess": nn.Identity()}, "preprocess"),
    ],
)
def test_attributes_that_would_be_lost_are_refused(attributes, names):
    def build(num_classes):
        net = Net(num_classes)
        for name, value in attributes.items():
            setattr(net, name, value)
        return net

    zoo.register_model("my_net")(build)
    with pytest.raises(InputError, match=rf"Net defines the attributes {names}, .*Rename them in the class"):
        zoo.get("my_net", num_classes=2)


@pytest.mark.parametrize(("registered", "size"), [(None, 48), ({"image_size": 64}, 64)])
def test_the_preprocessing_is_the_registered_one_or_the_modules_own(registered, size):
    def build(num_classes):
        net = Net(num_classes)
        net.preprocess = Preprocess(image_size=48)
        return net

    zoo.register_model("my_net", preprocess=registered)(build)
    assert zoo.get("my_net", num_classes=2).preprocess.image_size == size


def test_a_builder_may_return_a_classifier():
    @zoo.register_model("my_resnet")
    def build(num_classes, drop_rate=0.0):
        return build_timm("test_resnet", num_classes=num_classes, drop_rate=drop_rate)

    model = zoo.get("my_resnet", num_classes=2, drop_rate=0.5)
    assert (model.num_classes, model.drop_rate, model.config["options"]) == (2, 0.5, {"drop_rate": 0.5})
    assert zoo.plan(model, lr=0.1).trained[0].name == "fc"


def test_a_file_is_loaded_whole_with_a_report(tmp_path):
    zoo.register_model("my_net")(Net)
    first = zoo.get("my_net", num_classes=3, seed=5)
    model = zoo.get("my_net", num_classes=3, pretrained=state_of(first, tmp_path))
    assert torch.equal(model.fc.weight, first.fc.weight)
    assert model.load_report.loaded == ("conv.weight", "conv.bias", "fc.weight", "fc.bias")
    assert model.licence.weights == "unknown"
    assert model.config["origin"]["pretrained"] == str(tmp_path)
    with pytest.raises(LicenceError, match="the weights of my_net have the licence unknown"):
        zoo.get("my_net", num_classes=3, pretrained=tmp_path, commercial=True)


def test_a_file_for_other_classes_needs_to_know_the_head(tmp_path):
    zoo.register_model("my_net")(Net)
    zoo.register_model("with_head")(NetWithHead)
    first = zoo.get("my_net", num_classes=5)
    folder = state_of(first, tmp_path)
    text = (
        r"does not fit Net: 2 with a different shape: fc\.weight .* If it has a different number of classes, set the "
        r"prefixes of the head's parameters"
    )
    with pytest.raises(WeightsError, match=text + r" in the class, for example head_prefixes = \('fc\.',\)"):
        zoo.get("my_net", num_classes=3, pretrained=folder)
    model = zoo.get("with_head", num_classes=3, pretrained=folder)
    assert torch.equal(model.conv.weight, first.conv.weight)
    assert model.load_report.reinitialised == ("fc.weight", "fc.bias")
    assert torch.equal(zoo.get("with_head", num_classes=5, pretrained=folder).fc.weight, first.fc.weight)
    assert zoo.get("with_head", num_classes=5, pretrained=folder).load_report.reinitialised == ()


def test_a_head_for_other_names_is_made_anew(tmp_path):
    zoo.register_model("my_net")(Net)
    zoo.register_model("with_head")(NetWithHead)
    folder = state_of(zoo.get("with_head", classes=["ant", "bee"]), tmp_path)
    for name in ("with_head", "my_net"):
        (folder / "config.json").write_text(json.dumps({"model": name, "classes": ["ant", "bee"]}))
        same = zoo.get(name, pretrained=folder)
        assert (same.classes, same.load_report.reinitialised) == (("ant", "bee"), ())
    with pytest.raises(WeightsError, match="different classes, and my_net does not"):
        zoo.get("my_net", pretrained=folder, classes=["cow", "dog"])
    (folder / "config.json").write_text(json.dumps({"model": "with_head", "classes": ["ant", "bee"]}))
    other = zoo.get("with_head", pretrained=folder, classes=["cow", "dog"])
    assert (other.classes, other.load_report.reinitialised) == (("cow", "dog"), ("fc.weight", "fc.bias"))
    with pytest.raises(WeightsError, match=r"these weights are for with_head, not for my_net"):
        zoo.get("my_net", pretrained=folder)


@pytest.fixture
def run(tmp_path):
    zoo.register_model("my_net", preprocess={"image_size": 32})(Net)
    images = write_coloured(tmp_path / "images", train=6, val=3)
    (tmp_path / "my.yaml").write_text("model: my_net\nlr: 0.5\nmode: full\n")
    preset = zoo.load_preset(tmp_path / "my.yaml")
    model = zoo.get(preset.model, num_classes=3)
    return zoo.finetune(model, images, preset=preset, out=tmp_path / "run", **TINY)


def test_it_is_fine_tuned_by_name_at_one_rate(run):
    assert [group.name for group in run.plan.trained] == ["default", "default (no decay)"]
    assert len(run.metrics) == 2
    assert run.metrics[-1]["loss"] < run.metrics[0]["loss"]
    assert run.preset.model == "my_net"
    images = torch.randn(2, 3, 32, 32)
    loaded = zoo.load(run.folder)
    assert torch.equal(loaded(images), run.model(images))
    assert (loaded.classes, loaded.preprocess.image_size) == (("blue", "green", "red"), 32)
    repeated = zoo.load_preset(run.folder / "preset.yaml")
    assert (repeated.model, repeated.lr, repeated.mode) == ("my_net", 0.5, "full")
    continued = zoo.get("my_net", pretrained=run.folder)
    assert continued.classes == ("blue", "green", "red")
    assert len(continued.load_report.loaded) == 4


def test_a_run_is_loaded_only_where_the_model_is_registered(run):
    registry._ENTRIES.pop("my_net")
    text = r"checkpoint of 'my_net', a custom model that is not registered in this process\."
    with pytest.raises(InputError, match=text + " Import the module that registers it, or build the network"):
        zoo.load(run.folder)
    assert torch.equal(zoo.load(run.folder, model=Net(3)).fc.weight, run.model.fc.weight)
