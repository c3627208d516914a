import pytest
import timm
from torch import nn

from zoo.errors import PlanError
from zoo.rates.layers import Layer, is_norm, order_layers


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)


class Net(nn.Module):
    """A token of its own, a stem with a norm, two blocks in a sequence, a list, and a head behind a pool."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(nn.Linear(2, 2).weight.data)
        self.stem = nn.Conv2d(3, 2, 1)
        self.norm = nn.GroupNorm(1, 2)
        self.blocks = nn.Sequential(Block(), nn.ReLU(), Block())
        self.more = nn.ModuleList([nn.Linear(2, 2), nn.LayerNorm(2)])
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(2, 2)


def names(model):
    return [layer.name for layer in order_layers(model)]


def test_layers_are_called_by_the_modules_that_they_hold():
    assert names(timm.create_model("resnet18"))[:3] == ["conv1 to bn1", "layer1.0", "layer1.1"]
    vit = names(timm.create_model("vit_tiny_patch16_224"))
    assert [vit[0], vit[1], *vit[-2:]] == ["cls_token to patch_embed", "blocks.0", "blocks.11 to norm", "head"]
    convnext = names(timm.create_model("convnext_atto"))
    assert "stages.1.downsample to stages.1.blocks.0" in convnext  # not `stages.1`, which holds more


def test_children_are_layers_sequences_are_taken_apart_and_a_lone_wrapper_off():
    assert order_layers(Net()) == (
        Layer("token", ("token",)),
        Layer("stem to norm", ("stem.weight", "stem.bias", "norm.weight", "norm.bias")),
        Layer("blocks.0", tuple(f"blocks.0.{n}" for n in ("conv.weight", "conv.bias", "norm.weight", "norm.bias"))),
        Layer("blocks.2", tuple(f"blocks.2.{n}" for n in ("conv.weight", "conv.bias", "norm.weight", "norm.bias"))),
        Layer("more", ("more.0.weight", "more.0.bias", "more.1.weight", "more.1.bias")),
        Layer("head", ("head.weight", "head.bias")),
    )

    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.pool = Net(), nn.AdaptiveAvgPool2d(1)

    assert names(Wrapper()) == [f"net.{name}".replace(" to ", " to net.") for name in names(Net())]


def test_a_part_that_knows_its_layers_is_asked():
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = timm.create_model("test_resnet", num_classes=0), nn.Linear(2, 2)

    expected = names(timm.create_model("test_resnet", num_classes=0))
    assert names(Wrapper()) == [f"backbone.{name}".replace(" to ", " to backbone.") for name in expected] + ["head"]


def test_every_parameter_is_in_one_layer_tied_ones_in_the_first():
    model = Net()
    model.head.weight = model.more[0].weight
    model.again = model.stem
    placed = [name for layer in order_layers(model) for name in layer.parameters]
    assert sorted(placed) == sorted(name for name, _ in model.named_parameters())
    assert order_layers(model)[-1] == Layer("head", ("head.bias",))


@pytest.mark.parametrize("matcher", [lambda name: None if name == "head.bias" else 0, {"blocks": r"^(\w+)"}, 3])
def test_an_order_that_is_none_is_told(matcher):
    model = Net()
    model.group_matcher = lambda coarse: matcher
    with pytest.raises(PlanError, match=r"group_matcher of Net does not order its parameters: .* Expected patterns as"):
        order_layers(model)


@pytest.mark.parametrize("model", [nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))])
def test_one_layer_is_no_order(model):
    with pytest.raises(PlanError, match=r": \w+ has 1 layer\. Pass a mapping of prefixes"):
        order_layers(model)


def test_what_a_norm_is():
    class NormLinear(nn.Linear):
        pass

    class NormBlock(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)

    class FancyNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain, self.act = nn.Parameter(nn.Linear(2, 2).bias.data), nn.ReLU()

    norms = [nn.BatchNorm2d(2), nn.GroupNorm(1, 2), nn.LayerNorm(2), nn.InstanceNorm1d(2), nn.RMSNorm(2), FancyNorm()]
    norms += [timm.layers.LayerNorm2d(2), timm.layers.BatchNormAct2d(2)]
    assert all(map(is_norm, norms))
    assert not any(map(is_norm, [nn.Linear(2, 2), nn.Conv2d(2, 2, 1), nn.ReLU(), NormLinear(2, 2), NormBlock(), Net()]))
