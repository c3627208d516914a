import json
import pkgutil

import pytest
import timm
import torch
from safetensors.torch import save_file

import zoo
import zoo.models.catalog
from zoo.data.transforms import Preprocess
from zoo.errors import InputError, LicenceError
from zoo.models import registry
from zoo.models.build import from_config
from zoo.models.catalog import find_entry
from zoo.models.classifier import build_timm
from zoo.models.config import ModelConfig
from zoo.models.registry import entries, register
from zoo.weights.spec import Weights

TINY = "timm/test_resnet"


@pytest.fixture
def models(monkeypatch):
    """Three more models: without weights, for another task; with free weights; with weights that are not free."""
    zoo.list_models()  # so that the families are registered, and stay so
    monkeypatch.setattr(registry, "_ENTRIES", entries())
    facts = {"parameters": 0.1, "preprocess": Preprocess()}
    weights = {"repo": "org/tiny", "revision": None, "sha256": None}

    @register(task="detection", weights=None, **facts)
    def tinynet2(**options):
        return build_timm("test_resnet", **options)

    @register(task="classification", weights=Weights(licence="mit", **weights), **facts)
    def tinynet10(**options):
        return build_timm("test_resnet", **options)

    @register(task="classification", weights=Weights(licence="cc-by-nc-4.0", **weights), **facts)
    def tinynet9(**options):
        return build_timm("test_resnet", **options)


@pytest.mark.parametrize("name", ["resnet50", "ResNet50", "RESNET-50", "res_net_50", "resnet_50"])
def test_case_and_separators_do_not_matter(name):
    assert find_entry(name).name == "resnet50"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("resnet5", r"unknown model 'resnet5'\. Did you mean 'resnet50' or 'resnet\d+'\? There are \d+"),
        ("Mobilenet-v3", "Did you mean 'mobilenetv2_"),
        ("efficientnet_b0", r"unknown model 'efficientnet_b0'\. Did you mean 'timm/efficientnet_b0'\?"),
        (
            "xyz",
            r"^unknown model 'xyz'\. There are \d+ \(`zoo models`, zoo\.list_models\(\)\); 'timm/<name>' loads any",
        ),
        ("", "^unknown model ''"),
        ("resnet/resnet50", "^unknown model 'resnet/resnet50'"),
        ("timm/", "timm has no model ''"),
        ("../resnet50", "^unknown model"),
        (None, "a model name is a string, not NoneType"),
        (50, "a model name is a string, not int"),
    ],
)
def test_names_that_are_unknown(name, text):
    with pytest.raises(InputError, match=text):
        find_entry(name)


def test_every_name_and_alias_begins_with_its_family_so_that_one_file_is_opened():
    zoo.list_models()
    families = [module.name.replace("_", "") for module in pkgutil.iter_modules(zoo.models.families.__path__)]
    for entry in entries().values():
        for name in (entry.name, *entry.aliases):
            plain = name.lower().replace("_", "").replace("-", "")
            assert any(plain.startswith(family) for family in families), name


def test_the_rest_of_timm_is_behind_a_prefix():
    entry = find_entry("timm/test_resnet.r160_in1k")
    assert entry.name == "timm/test_resnet.r160_in1k"
    assert entry.preprocess.image_size == 160
    assert entry.name not in zoo.list_models()
    assert find_entry("timm/convnext_tiny.in12k_ft_in1k_384").preprocess.crop_mode == "squash"


def test_filters(models):
    names = zoo.list_models()
    assert {"resnet18", "mobilenetv2_050", "tinynet2"} <= set(names)
    assert zoo.list_models("tiny*") == ["tinynet2", "tinynet9", "tinynet10"]  # by number, not by letter
    assert zoo.list_models("resnet?8") == ["resnet18"]
    assert zoo.list_models("tiny*", task="classification") == ["tinynet9", "tinynet10"]
    detectors = zoo.list_models(task="detection")
    assert {"tinynet2", "yolo_nas_l", "yolo_nas_m", "yolo_nas_s"} <= set(detectors)
    assert not {"tinynet9", "resnet18"} & set(detectors)
    assert zoo.list_models("tiny*", pretrained=True) == ["tinynet9", "tinynet10"]
    assert zoo.list_models("tiny*", pretrained=False) == ["tinynet2"]
    assert zoo.list_models("tiny*", commercial=True) == ["tinynet2", "tinynet10"]
    bound = set(zoo.list_models(commercial=False))
    assert {"tinynet9", "yolo_nas_l", "yolo_nas_m", "yolo_nas_s"} <= bound
    assert not {"resnet18", "tinynet2", "tinynet10"} & bound
    assert zoo.list_models("nothing*") == zoo.list_models(task="nothing") == []


def test_every_model_is_described_in_plain_values():
    for name in (*zoo.list_models(), TINY):
        facts = zoo.describe(name)
        assert json.loads(json.dumps(facts)) == facts
        assert facts["name"] == name
        assert facts["summary"]
    with pytest.raises(InputError, match="unknown model"):
        zoo.describe("xyz")
    with pytest.raises(InputError, match=rf"There are {len(zoo.list_models())} "):
        find_entry("xyz")


def test_a_model_as_it_is_built():
    model = zoo.get(TINY, num_classes=3)
    assert not any(module.training for module in model.modules())
    assert {(p.dtype, p.device.type) for p in model.parameters()} == {(torch.float32, "cpu")}
    assert (model.classes, model.load_report) == (("0", "1", "2"), None)
    assert (model.licence.weights, model.licence.commercial) == (None, True)
    assert model.config["model"] == TINY
    assert model.config["origin"] == {"init_seed": 0, "pretrained": False}
    assert zoo.get(TINY).num_classes == 1000
    assert len(set(zoo.get(TINY).classes)) == 1000
    model = zoo.get(TINY, classes=["ant", "bee"])
    assert (model.num_classes, model.classes) == (2, ("ant", "bee"))
    assert zoo.get(TINY, classes=("ant", "bee"), num_classes=2).classes == ("ant", "bee")


@pytest.mark.parametrize("number", [0, -1, 100_001, 2.0, "2", True], ids=repr)
def test_numbers_of_classes_out_of_range(number):
    with pytest.raises(InputError, match=rf"num_classes is {number!r}; expected a whole number from 1 to 100,000"):
        zoo.get(TINY, num_classes=number)


@pytest.mark.parametrize(
    ("classes", "text"),
    [
        ("ant", "classes is 'ant'; expected a sequence of names"),
        (5, "classes is 5; expected a sequence of names"),
        ({"ant", "bee"}, "expected a sequence of names"),
        ((name for name in ("ant", "bee")), "expected a sequence of names"),
        (["ant", 1], "expected a sequence of names"),
        (["ant", ""], "expected a sequence of names"),
        ([], "classes has 0 names"),
        (["ant", "bee", "ant"], r"classes has 3 names, but only 2 different ones; expected unique names\."),
        (["ant"], r"num_classes is 2 and classes has 1 names\. Pass only one of them\."),
    ],
)
def test_names_of_classes_that_cannot_be(classes, text):
    with pytest.raises(InputError, match=text):
        zoo.get(TINY, num_classes=2 if classes == ["ant"] else None, classes=classes)


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, float("nan")])
def test_drop_rates_out_of_range(share):
    with pytest.raises(InputError, match=rf"drop_rate is {share}; expected 0 <= drop_rate < 1"):
        zoo.get(TINY, drop_rate=share)


def test_the_drop_rate_is_kept_and_an_unknown_model_is_none():
    model = zoo.get(TINY, num_classes=2, drop_rate=0.25)
    assert model.drop_rate == model.config["options"]["drop_rate"] == 0.25
    assert from_config(ModelConfig(**model.config)).drop_rate == 0.25
    with pytest.raises(InputError, match=r"unknown model 'os\.system'"):
        from_config(ModelConfig(model="os.system"))


def test_weights_of_a_thousand_classes_bring_the_names_of_imagenet(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(timm.data, "ImageNetInfo", lambda info=timm.data.ImageNetInfo: made.append(info()) or made[-1])
    save_file(zoo.get(TINY).state_dict(), tmp_path / "model.safetensors")
    model = zoo.get(TINY, pretrained=tmp_path)
    assert (model.classes[0], model.classes[970], len(model.classes)) == ("tench, Tinca tinca", "alp", 1000)
    assert len(made) == 1  # it is slow
    assert zoo.get(TINY, pretrained=tmp_path, num_classes=3).classes == ("0", "1", "2")


@pytest.mark.parametrize("setting", ["1", "true"])
def test_weights_that_are_not_free_are_refused_before_any_download(models, hub, monkeypatch, setting):
    text = r"weights of tinynet9 have the licence cc-by-nc-4.0, .*commercial.*zoo.list_models\(commercial=True\)"
    with pytest.raises(LicenceError, match=text):
        zoo.get("tinynet9", pretrained=True, commercial=True)
    monkeypatch.setenv("ZOO_COMMERCIAL_ONLY", setting)
    with pytest.raises(LicenceError, match=text):
        zoo.get("tinynet9", pretrained=True)
    assert hub.requests == []


@pytest.mark.parametrize("setting", ["", "0", "1"])
def test_without_weights_nothing_is_refused(models, monkeypatch, setting):
    monkeypatch.setenv("ZOO_COMMERCIAL_ONLY", setting)
    assert zoo.get("tinynet9", num_classes=2).licence.commercial
