import copy
import warnings

import pytest
import torch
from timm.layers import BatchNormAct2d, Conv2dSame, StdConv2d
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

import zoo
from zoo.engine.frozen.folding import Folding, fold_norms

pytestmark = pytest.mark.numbers


def stir(network):
    """Give every norm statistics and weights that are far from those of a new one."""
    for module in network.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.5)
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.5)
    return network.eval()


def norms_of(network):
    return sum(isinstance(module, _BatchNorm) for module in network.modules())


def distance(found, expected):
    """Largest difference, relative to the largest value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


def fold_and_compare(network, images, **options):
    """Fold a stirred copy in float64; return what is said of it, the copy, and how far its outputs are off."""
    torch.manual_seed(0)
    plain = stir(copy.deepcopy(network)).double()
    folded = copy.deepcopy(plain)
    result = fold_norms(folded, **options)
    method = options.get("method", "forward")
    with torch.no_grad():
        off = distance(getattr(folded, method)(images.double()), getattr(plain, method)(images.double()))
    return result, folded, off


class Net(nn.Module):
    """Calls its parts in the way that a test wants: `run(self, x)`."""

    def __init__(self, run, **parts):
        super().__init__()
        self.run = run
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x):
        return self.run(self, x)


def conv(into=3, out=4, **options):
    return nn.Conv2d(into, out, 3, padding=1, **options)


IMAGES = torch.linspace(-1, 1, 2 * 3 * 8 * 8).sin().reshape(2, 3, 8, 8)
PAIRS = {
    "with bias": [conv(), nn.BatchNorm2d(4)],
    "without bias": [conv(bias=False), nn.BatchNorm2d(4, eps=0.1)],
    "strided, reflecting": [conv(stride=2, padding_mode="reflect"), nn.BatchNorm2d(4)],
    "grouped": [conv(3, 6, groups=3), nn.BatchNorm2d(6)],
    "norm without weights": [conv(), nn.BatchNorm2d(4, affine=False)],
    "padding of TensorFlow": [Conv2dSame(3, 4, 3, stride=2), nn.BatchNorm2d(4)],
    "with activation": [conv(), BatchNormAct2d(4, act_layer=nn.SiLU)],
    "nested": [nn.Sequential(conv()), nn.Sequential(nn.BatchNorm2d(4))],
}


@pytest.mark.parametrize("parts", PAIRS.values(), ids=PAIRS.keys())
def test_a_norm_after_a_convolution_goes_into_it(parts):
    result, folded, off = fold_and_compare(nn.Sequential(*parts, nn.ReLU()), IMAGES)
    assert result == Folding(1)
    assert norms_of(folded) == 0
    assert off < 1e-12


def test_both_branches_around_an_addition():
    def run(net, x):
        y = net.bn1(net.conv1(x)).relu_()
        return net.bn2(net.conv2(y)) + net.bn3(net.conv3(y))

    parts = {"conv1": conv(), "conv2": conv(4, 4), "conv3": conv(4, 4)}
    network = Net(run, **parts, bn1=nn.BatchNorm2d(4), bn2=nn.BatchNorm2d(4), bn3=nn.BatchNorm2d(4))
    result, folded, off = fold_and_compare(network, IMAGES)
    assert (result.norms, norms_of(folded)) == (3, 0)
    assert off < 1e-12


def used_twice(net, x):
    y = net.conv(x)
    return net.bn(y) + y


def called_twice(net, x):
    return net.bn(net.conv(x)) + net.conv(x.flip(1))


def one_norm_for_two(net, x):
    return net.bn(net.conv(x)) + net.bn(net.other(x))


def norm_first(net, x):
    return net.conv(net.bn(x).relu())


def something_between(net, x):
    return net.bn(net.conv(x).relu())


def read_elsewhere(net, x):
    return net.bn(net.conv(x)) * net.conv.weight.mean()


def by_keyword(net, x):
    return net.bn(input=net.conv(x))


UNFIT = [
    (used_twice, {"conv": conv(), "bn": nn.BatchNorm2d(4)}),
    (called_twice, {"conv": conv(), "bn": nn.BatchNorm2d(4)}),
    (one_norm_for_two, {"conv": conv(), "other": conv(), "bn": nn.BatchNorm2d(4)}),
    (norm_first, {"conv": conv(), "bn": nn.BatchNorm2d(3)}),
    (something_between, {"conv": conv(), "bn": nn.BatchNorm2d(4)}),
    (read_elsewhere, {"conv": conv(), "bn": nn.BatchNorm2d(4)}),
    (by_keyword, {"conv": conv(), "bn": nn.BatchNorm2d(4)}),
]


@pytest.mark.parametrize(("run", "parts"), UNFIT, ids=lambda value: getattr(value, "__name__", ""))
def test_what_does_not_fit_stays(run, parts):
    result, folded, off = fold_and_compare(Net(run, **parts), IMAGES)
    assert result == Folding(0)
    assert norms_of(folded) == 1
    assert off == 0


@pytest.mark.parametrize(
    "parts",
    [
        [StdConv2d(3, 4, 3), nn.BatchNorm2d(4)],  # changes its weight at each call
        [nn.ConvTranspose2d(3, 4, 2), nn.BatchNorm2d(4)],
        [conv(), nn.BatchNorm2d(4, track_running_stats=False)],
        [conv(), nn.InstanceNorm2d(4, track_running_stats=True)],
        [conv(), nn.GroupNorm(2, 4)],
    ],
    ids=lambda parts: type(parts[0]).__name__ + type(parts[1]).__name__,
)
def test_other_kinds_stay(parts):
    result, _, off = fold_and_compare(nn.Sequential(*parts), IMAGES)
    assert result.norms == 0
    assert off == 0


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("way", ["after", "before", "forward"])
def test_modules_that_do_more_when_they_are_called_stay(which, way):
    network = stir(nn.Sequential(conv(), nn.BatchNorm2d(4)))
    module = network[which]
    if way == "after":
        module.register_forward_hook(lambda module, args, output: output * 2)
    elif way == "before":
        module.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    else:
        plain = module.forward
        module.forward = lambda x: plain(x) * 2
    with torch.no_grad():
        expected = network(IMAGES)
        assert fold_norms(network) == Folding(0)
        assert torch.equal(network(IMAGES), expected)


def test_a_norm_in_training_or_registered_twice():
    network = nn.Sequential(conv(), nn.BatchNorm2d(4)).train()
    assert fold_norms(network) == Folding(0)
    pair = nn.Sequential(conv(), nn.BatchNorm2d(4))
    network = Net(lambda net, x: net.second[1](net.second[0](x)), first=pair, second=nn.Sequential(*pair))
    result, folded, off = fold_and_compare(network, IMAGES)
    assert (result.norms, norms_of(folded)) == (1, 0)
    assert off < 1e-12
    network = Net(lambda net, x: net.order[1](net.order[0](x)), conv=conv(), bn=BatchNormAct2d(4))
    network.order = [network.conv, network.bn]
    result, _, off = fold_and_compare(network, IMAGES)
    assert result == Folding(1)
    assert off < 1e-12


def test_tied_weights_are_taken_apart():
    network = nn.Sequential(conv(3, 3), nn.BatchNorm2d(3), conv(3, 3), nn.ReLU(), conv(3, 3))
    network[2].weight = network[4].weight = network[0].weight
    result, folded, off = fold_and_compare(network, IMAGES)
    assert result.norms == 1
    assert folded[2].weight is folded[4].weight is not folded[0].weight
    assert off < 1e-12


class Choosy(nn.Module):
    """Asks for the values of its input, which a trace does not know."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = conv(4, 4), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.bn(self.conv(x))
        return x if x.mean() > 0 else -x


def test_a_part_that_cannot_be_traced_stays_with_what_it_calls_and_the_rest_is_folded():
    network = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.Sequential(Choosy()), conv(4, 4), nn.BatchNorm2d(4))
    result, folded, off = fold_and_compare(network, IMAGES)
    assert result == Folding(2)
    assert [name for name, module in folded.named_modules() if isinstance(module, _BatchNorm)] == ["2.0.bn"]
    assert off < 1e-12
    choosy = Choosy()
    network = nn.Sequential(conv(), choosy, choosy.conv, nn.BatchNorm2d(4))
    result, _, off = fold_and_compare(network, IMAGES)
    assert result == Folding(0)
    assert off == 0


def test_a_network_that_cannot_be_traced_stays_as_it_is_and_says_why():
    network = stir(Choosy())
    before = copy.deepcopy(network.state_dict())
    result = fold_norms(network)
    assert result.norms == 0
    assert "TraceError: symbolically traced variables cannot be used as inputs to control flow" in result.problem
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert isinstance(network.bn, nn.BatchNorm2d)


def test_only_what_the_method_calls_is_folded():
    class Two(Choosy):
        def features(self, x):
            return self.bn(self.conv(x))

    result, folded, off = fold_and_compare(Two(), functional.pad(IMAGES, (0, 0, 0, 0, 0, 1)), method="features")
    assert result == Folding(1)
    assert isinstance(folded.bn, nn.Identity)
    assert off < 1e-12


def test_the_dtype_is_kept_and_random_numbers_are_not_drawn():
    network = stir(nn.Sequential(conv(), nn.BatchNorm2d(4))).bfloat16()
    state = torch.get_rng_state()
    assert fold_norms(network).norms == 1
    assert torch.equal(torch.get_rng_state(), state)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in network.parameters())


MODELS = [  # name, norms, those left, side in pixels
    ("resnet18", 20, 0, 64),
    ("resnet50", 53, 0, 64),
    ("mobilenetv2_100", 52, 0, 64),
    ("timm/efficientnet_b0", 49, 0, 64),
    ("timm/tf_efficientnet_b0", 49, 0, 64),
    ("timm/regnety_002", 44, 0, 64),
    ("timm/densenet121", 121, 62, 64),  # norms before convolutions stay
    ("timm/test_resnet", 15, 0, 64),
    ("timm/resnetblur18", 20, 0, 64),  # a filter after the activation
    ("timm/repvgg_a0", 61, 17, 64),  # norms of the input itself stay
    ("timm/mobilevit_xxs", 32, 9, 64),  # its blocks ask for sizes
    ("timm/convnext_atto", 0, 0, 64),
    ("timm/vit_tiny_patch16_224", 0, 0, 224),
]


@pytest.mark.parametrize(("name", "norms", "left", "side"), MODELS, ids=[model[0] for model in MODELS])
def test_models_compute_the_same(name, norms, left, side):
    torch.manual_seed(0)
    model, images = zoo.get(name, num_classes=3), torch.randn(2, 3, side, side)
    assert norms_of(model) == norms
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result, folded, off = fold_and_compare(model, images, method="run_backbone")
    assert result == Folding(norms - left)
    assert norms_of(folded) == left
    assert off < 1e-11
    plain = stir(model)
    folded = copy.deepcopy(plain)
    fold_norms(folded, method="run_backbone")
    with torch.no_grad():
        assert distance(folded.run_backbone(images), plain.run_backbone(images)) < 1e-5  # float32
