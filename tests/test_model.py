"""Only models that declare themselves are asked: every name of the interface may mean something else elsewhere."""

import copy
import pickle

import pytest
import torch
from torch import nn

import zoo
from coloured_folder import write_coloured
from zoo._model import (
    ModelInterface,
    ask,
    cut,
    find_loss,
    find_method,
    find_parts,
    get_fact,
    head_prefixes,
    set_fact,
)
from zoo.data.transforms import Preprocess
from zoo.errors import InputError

NAMES = (
    "loss", "classes", "task", "preprocess", "num_classes", "takes_targets", "head_name", "predict", "licence", "trunk",
    "head", "head_prefixes", "class_prefixes", "fuse", "config", "load_report", "dormant_parameters", "take_form",
    "group_matcher", "get_finetune_lr_dict", "initialize_param_groups", "update_param_groups", "scoring", "size_step",
    "decode", "postprocess", "fused_copy", "run_backbone", "run_head", "network", "options", "origin", "name", "model",
)  # fmt: skip
HOOKS = {"get_finetune_lr_dict", "initialize_param_groups", "update_param_groups", "group_matcher"}  # if methods


class Net(nn.Module):
    """A network of somebody else's."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, images):
        return self.last(self.body(images).relu().mean((2, 3)))


def refuse(self, *_):
    raise AssertionError("this was not to be asked")


def with_methods(*names):
    return type("Net", (Net,), {name: refuse for name in names if name not in HOOKS})()


def with_properties(*names):
    return type("Net", (Net,), {name: property(lambda self: 7) for name in names})()


def with_layers(*names):
    net = Net()
    for name in names:
        net.add_module(name, nn.Linear(1, 1))
    return net


def with_parameters(*names):
    net = Net()
    for name in names:
        net.register_parameter(name, nn.Parameter(torch.ones(2)))
    return net


def with_buffers(*names):
    net = Net()
    for name in names:
        net.register_buffer(name, torch.ones(2))
    return net


def with_values(*names):
    net = Net()
    for name in names:
        setattr(net, name, {"of": ["somebody", "else"]})
    return net


MAKERS = (with_methods, with_properties, with_layers, with_parameters, with_buffers, with_values)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return zoo.open_data(write_coloured(tmp_path_factory.mktemp("data"), train=3, val=1, size=16))


@pytest.fixture(scope="module")
def expected(data, tmp_path_factory):
    return train(Net(), data, tmp_path_factory.mktemp("plain") / "run")


def train(net, data, out):
    options = {"epochs": 1, "image_size": 16, "num_workers": 0, "progress": False, "batch_size": 4}
    return zoo.finetune(net, data, {"last": 0.1, "default": 0}, out=out, **options)


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_a_module_with_names_of_its_own_is_a_plain_module(make, data, expected, tmp_path):
    net = make(*NAMES)
    run = train(net, data, tmp_path / "run")
    assert torch.equal(net.last.weight, expected.model.last.weight)
    assert str(run.evaluation) == str(expected.evaluation)
    again = make(*NAMES)
    zoo.load(run.folder, again)
    assert torch.equal(again.last.weight, net.last.weight)
    assert zoo.evaluate(net, data, progress=False).top1 == run.evaluation.top1


def test_a_configuration_of_somebody_else_is_none_of_this_package(data, tmp_path):
    net = Net()
    net.config, net.load_report, net.task = {"zoo": 1, "model": 3}, 5, "detection"
    run = train(net, data, tmp_path / "run")
    assert zoo.evaluate(run.model, data, progress=False).top1 == run.evaluation.top1


def test_what_is_kept_with_a_module_is_an_attribute_where_the_name_is_free():
    net = Net()
    set_fact(net, "classes", ("ant", "bee"))
    assert net.classes == get_fact(net, "classes") == ("ant", "bee")
    net.classes = ("cat", "dog")
    assert get_fact(net, "classes") == ("cat", "dog")
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert get_fact(other, "classes") == ("cat", "dog")


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_and_is_kept_out_of_sight_where_it_is_not(make):
    net = make("classes")
    before = getattr(net, "classes", None) if make is not with_methods else None
    assert get_fact(net, "classes") is None
    set_fact(net, "classes", ("ant",))
    assert get_fact(net, "classes") == ("ant",)
    assert make is with_methods or net.classes is before or net.classes == before
    assert get_fact(copy.deepcopy(net), "classes") == ("ant",)


def test_who_sets_a_preprocessing_of_this_package_knows_the_names():
    net = Net()
    net.classes = ["ant"]
    assert get_fact(net, "classes") is None
    net.preprocess = Preprocess(image_size=16)
    assert get_fact(net, "classes") == ["ant"]
    assert get_fact(net, "preprocess").image_size == 16


def test_a_hook_is_a_method_and_a_class_that_derives_is_asked():
    assert find_method(with_methods("step"), "step") is not None
    for make in MAKERS[1:]:
        assert find_method(make("get_finetune_lr_dict"), "get_finetune_lr_dict") is None

    class Own(ModelInterface, Net):
        num_classes = 3

    assert ask(Own(), "num_classes") == 3
    assert ask(type("Other", (Net,), {"num_classes": 3})(), "num_classes", 0) == 0
    assert ask(Own(), "nothing", "default") == "default"


class Cut(Net):
    head_prefixes = ("last.",)

    def trunk(self, images):
        return self.body(images).relu().mean((2, 3))

    def head(self, features):
        return self.last(features)


def test_a_module_says_by_three_names_together_how_it_is_cut():
    assert find_parts(Cut()) == ("trunk", "head") == cut(Cut())
    assert head_prefixes(Cut()) == ("last.",)
    for changed in ({"head_prefixes": ("nose.",)}, {"head_prefixes": 7}, {"trunk": None}, {"head_prefixes": ()}):
        net = type("Net", (Cut,), changed)()
        assert find_parts(net) is None
        with pytest.raises(InputError, match=r"Net has no separate backbone\. Add methods trunk\(images\)"):
            cut(net)


def test_a_layer_called_head_does_not_say_it():
    class Layers(Net):
        head_prefixes = ("head.",)

        def __init__(self):
            super().__init__()
            self.trunk, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    assert find_parts(Layers()) is None


def test_a_loss_is_declared_by_its_signature(data, tmp_path):
    class Weighted(Net):
        def loss(self, outputs, targets, *, label_smoothing):
            return outputs.sum()

    class Other(Net):
        def loss(self, outputs):
            raise AssertionError("this was not to be asked")

    assert find_loss(Weighted()) is not None
    assert find_loss(Other()) is find_loss(Net()) is find_loss(with_layers("loss")) is None
    run = train(Weighted(), data, tmp_path / "run")
    assert (run.model.last.bias < Net().last.bias).all()  # the gradients of cross-entropy sum to 0
