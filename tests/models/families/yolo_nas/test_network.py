import copy
import functools
import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import zoo
from yolo_nas_fill import fill, image, uniform, values
from zoo.errors import InputError
from zoo.models.families.yolo_nas import find_name
from zoo.models.families.yolo_nas.blocks import ConvBlock, QARep
from zoo.models.families.yolo_nas.network import SIZES, YoloNASNetwork
from zoo.rates.layers import order_layers

pytestmark = pytest.mark.numbers

FOLDER = Path(__file__).parents[3] / "fixtures" / "yolo_nas"
STATISTICS = ("shape", "stats", "probe16")
BLOCKS = ("backbone.stem.conv", "backbone.stage1.blocks.bottlenecks.0.cv1")  # without and with identity
PARAMETERS = {"s": 19_053_888, "m": 51_182_658, "l": 66_976_392}
DORMANT = {"s": 6_175_584, "m": 17_321_312, "l": 22_446_944}
MERGED = {"s": (12_184_240, 625), "m": (31_922_098, 653), "l": (42_017_784, 737)}  # parameters, entries
QAREP_FUSED = {"s": 12_175_888, "m": 31_906_578, "l": 41_999_192}
FUSED = {"s": 12_167_600, "m": 31_894_002, "l": 41_984_984}
NORMS = {"s": 129, "m": 135, "l": 153}


@functools.lru_cache(maxsize=1)  # they are large
def build(size):
    """A network with the weights of the recordings; it is shared, do not change it."""
    with torch.inference_mode(False):  # whoever asks first may be in it, and the next may need gradients
        return fill(YoloNASNetwork(SIZES[size])).eval()


@functools.cache
def recorded(name):
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


@pytest.fixture
def network():
    return copy.deepcopy(build("s"))


@pytest.fixture(scope="module")
def images():
    return image("input", 1, 128, 160).float() / 255


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def distance(ours, theirs):
    return float(np.abs(ours.detach().numpy().astype(np.float64) - theirs).max())


def merge(network):
    for module in network.modules():
        if isinstance(module, QARep):
            module.merge()
    return network


def fuse_qarep(network):
    for module in network.modules():
        if isinstance(module, QARep):
            module.fuse()
    return network


@pytest.mark.parametrize("size", SIZES, scope="module")
def test_the_state_dict_is_that_of_super_gradients(size):
    ours = [f"{name} {'x'.join(map(str, value.shape)) or 'scalar'}" for name, value in build(size).state_dict().items()]
    assert ours == (FOLDER / f"state_dict_{size}.txt").read_text("utf8").splitlines()
    for name, value in build(size).state_dict().items():
        assert value.dtype == (torch.int64 if name.endswith("num_batches_tracked") else torch.float32)


@pytest.mark.parametrize("size", SIZES, scope="module")
def test_there_are_as_many_parameters_and_norms(size):
    network = build(size)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert count(network) == PARAMETERS[size]
    assert zoo.describe(f"yolo_nas_{size}")["parameters"] == pytest.approx(PARAMETERS[size] / 1e6, abs=0.006)
    assert find_name({key: tuple(value.shape) for key, value in network.state_dict().items()}) == f"yolo_nas_{size}"
    assert len(norms) == NORMS[size]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.03)}


@pytest.mark.parametrize("size", SIZES, scope="module")
def test_outputs_are_those_of_super_gradients(size, images, record_property):
    expected = recorded(f"yolo_nas_{size}")
    with torch.inference_mode():
        (boxes, scores), raw = build(size)(images)
    pairs = {"boxes_xyxy": boxes, "scores": scores, "cls_logits": raw.class_logits, "reg_distri": raw.side_logits}
    found = {name: distance(ours, expected[name]) for name, ours in pairs.items()}
    record_property("max_abs_diff", found)
    for name, most in {"boxes_xyxy": 2e-3, "scores": 1e-5, "cls_logits": 1e-4, "reg_distri": 1e-4}.items():
        assert found[name] < most
    for ours, name in ((raw.anchors, "anchors"), (raw.anchor_points, "anchor_points"), (raw.strides, "stride_tensor")):
        assert np.array_equal(ours.numpy(), expected[name])
    assert list(raw.level_sizes) == expected["num_anchors_list"].tolist()


@pytest.mark.parametrize("size", SIZES, scope="module")
def test_what_is_inside_is_that_of_super_gradients(size, images):
    expected, seen = recorded(f"yolo_nas_{size}"), {}
    names = {key.split("/")[1] for key in expected if key.startswith("stage/")}
    network = build(size)
    with torch.inference_mode(), watched(network, seen):
        network(images)
    assert len(names) == 28
    for name in names:
        check_stage(seen[name], {key: expected.get(f"stage/{name}/{key}") for key in STATISTICS})
        assert seen[name].flatten()[:16].numpy() == pytest.approx(expected[f"stage/{name}/first16"], abs=1e-4)


def test_pools_of_different_sides_see_different_things(record_property):
    expected, seen = recorded("yolo_nas_s_320"), {}
    with torch.inference_mode(), watched(build("s"), seen):
        (boxes, _), raw = build("s")(image("input320", 1, 320, 320).float() / 255)
    pairs = {"boxes_step8": boxes[:, ::8], "cls_logits_step8": raw.class_logits[:, ::8]}
    found = {name: distance(ours, expected[name]) for name, ours in pairs.items()}
    record_property("max_abs_diff", found)
    assert found["boxes_step8"] < 2e-3
    assert found["cls_logits_step8"] < 1e-4
    check_stage(seen["backbone.stage4"], {key: expected[f"stage/backbone.stage4/{key}"] for key in STATISTICS})


def test_stages_behind_the_pools_were_recorded_with_two_pools_swapped():
    """The file's boxes and logits are of pools of 5, 9 and 13 px in this order, its later stages of 5, 13 and 9 px."""
    expected, seen, layer = recorded("yolo_nas_s_320"), {}, build("s").backbone.context_module
    with torch.inference_mode(), watched(build("s"), seen):
        build("s")(image("input320", 1, 320, 320).float() / 255)
        inner = seen["backbone.context_module.cv1"]
        pools = [functional.max_pool2d(inner, side, 1, side // 2) for side in (5, 13, 9)]
        swapped = layer.cv2(torch.cat([inner, *pools], 1))
    check_stage(swapped, {key: expected[f"stage/backbone.context_module/{key}"] for key in STATISTICS})


@pytest.mark.parametrize("size", SIZES, scope="module")
def test_dormant_parameters_cannot_learn(size):
    parameters, dormant = dict(build(size).named_parameters()), build(size).dormant_parameters()
    assert {name for name, parameter in parameters.items() if not parameter.requires_grad} == dormant
    assert sum(parameters[name].numel() for name in dormant) == DORMANT[size]


@pytest.mark.parametrize("size", SIZES, scope="module")
def test_a_fused_copy_computes_the_same(size, images, record_property):
    network = build(size)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fused = network.fuse()
    assert count(fused) == FUSED[size]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert not fused.training
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with torch.inference_mode():
        ours, theirs = fused(images).predictions, network(images).predictions
    boxes, scores = (float((mine - other).abs().max()) for mine, other in zip(ours, theirs, strict=True))
    record_property("max_abs_diff", {"boxes": boxes, "scores": scores})
    assert boxes < 5e-4  # float32 itself is only so exact: in float64 it is 1e-12
    assert scores < 1e-5


def test_every_norm_is_in_a_block_that_can_be_folded():
    network = build("l")
    owned = {
        id(module) for block in network.modules() if isinstance(block, (ConvBlock, QARep)) for module in block.modules()
    }
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(id(norm) in owned for norm in norms)


def test_in_double_precision_fusing_changes_nothing(network, images):
    network.double()
    with torch.inference_mode():
        ours, theirs = network.fuse()(images.double()).predictions, network(images.double()).predictions
    assert (ours.boxes - theirs.boxes).abs().max() < 1e-9
    assert (ours.scores - theirs.scores).abs().max() < 1e-12


def test_a_fused_copy_shares_nothing_and_can_be_fused_again(network, images):
    network.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        fused = network.fuse()
        expected = fused(images).predictions.boxes
    assert not any(parameter.is_inference() for parameter in fused.parameters())
    assert fused.backbone.stage2.downsample.rbr_reparam.weight.is_contiguous(memory_format=torch.channels_last)
    again = fused.fuse()
    for parameter in network.parameters():
        parameter.data.zero_()
    with torch.inference_mode():
        assert torch.equal(fused(images).predictions.boxes, expected)
        assert torch.equal(again(images).predictions.boxes, expected)


def test_merged_and_fused_kernels_are_those_of_super_gradients(network, record_property):
    found = {}
    for form, change in (("partial", QARep.merge), ("full", QARep.fuse)):
        for place in BLOCKS:
            block = network.get_submodule(place)
            change(block)
            for name, value in block.rbr_reparam.named_parameters():
                key = f"{place}.rbr_reparam.{name}/{form}"
                found[key] = distance(value, recorded("fusion_s")[key])
    record_property("max_abs_diff", max(found.values()))
    assert len(found) == 8
    assert max(found.values()) < 1e-5


def test_merged_and_fused_forms_have_the_entries_of_super_gradients(network):
    merge(network)
    assert (count(network), len(network.state_dict())) == MERGED["s"]
    assert network.dormant_parameters() == frozenset()
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert count(fuse_qarep(network)) == QAREP_FUSED["s"]


@pytest.mark.parametrize(("old", "new"), [(80, 3), (1, 5), (3, 1)])
def test_new_classes_make_new_predictors_only(old, new, network):
    network.replace_classes(old)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.replace_classes(new)
    assert network.num_classes == new
    for name, value in network.state_dict().items():
        assert ".cls_pred." in name or torch.equal(value, before[name])
    for head in network.heads.children():
        assert head.cls_pred.weight.shape[0] == new
        assert torch.allclose(head.cls_pred.bias, torch.tensor(-math.log(99)))
        assert head.cls_pred.weight.std() > 0
        assert head.cls_pred.weight.requires_grad
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 32, 32)).predictions.scores.shape == (1, 21, new)


def test_new_predictors_are_where_the_old_ones_were(network):
    network.to(torch.bfloat16).replace_classes(4)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.bfloat16}
    network.to("meta").replace_classes(5)
    assert network.heads.head2.cls_pred.weight.is_meta


@pytest.mark.parametrize("form", [lambda network: network, merge, YoloNASNetwork.fuse])
@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_other_channels_see_a_grey_image_as_before(channels, form, network, images):
    network = form(network)
    grey = images[:, :1]
    expected = network.backbone.stem(grey.expand(-1, 3, -1, -1))
    network.replace_in_channels(channels)
    assert network.in_channels == channels
    assert torch.allclose(network.backbone.stem(grey.expand(-1, channels, -1, -1)), expected, atol=1e-5)
    with torch.inference_mode():
        assert network(grey.expand(-1, channels, -1, -1)).predictions.boxes.shape == (1, 420, 4)


def test_channels_of_the_stem_can_be_changed(network):
    conv = network.backbone.stem.conv
    before = conv.branch_3x3.conv.weight.clone()
    network.replace_in_channels(3)
    assert torch.equal(conv.branch_3x3.conv.weight, before)
    network.replace_in_channels(4)
    assert torch.allclose(conv.branch_3x3.conv.weight[:, :3], before * 0.75)
    assert torch.allclose(conv.branch_3x3.conv.weight[:, 3], before.mean(1) * 0.75)
    norms = [conv.branch_3x3.bn, conv.post_bn]
    assert [(norm.eps, norm.momentum) for norm in norms] == [(1e-3, 0.03)] * 2
    assert conv.branch_3x3.conv.weight.requires_grad
    assert not conv.rbr_reparam.weight.requires_grad
    ours = YoloNASNetwork(SIZES["s"], in_channels=4).state_dict()
    theirs = build("s").state_dict()
    different = {name for name, value in ours.items() if value.shape != theirs[name].shape}
    stem = "backbone.stem.conv"
    assert different == {f"{stem}.{name}.weight" for name in ("branch_3x3.conv", "branch_1x1", "rbr_reparam")}


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "3", None])
def test_counts_are_whole_numbers(value, network):
    for name in ("num_classes", "in_channels"):
        with pytest.raises(InputError, match=rf"{name} is .*; expected a whole number, 1 or more\."):
            YoloNASNetwork(SIZES["s"], **{name: value})
    with pytest.raises(InputError, match=r"num_classes is "):
        network.replace_classes(value)
    with pytest.raises(InputError, match=r"in_channels is "):
        network.replace_in_channels(value)


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((1, 3, 65, 70), r"images are 65 x 70 px; YOLO-NAS needs multiples of 32\. Pad them to 96 x 96 px\."),
        ((1, 3, 64, 1), r"Pad them to 64 x 32 px\."),
        ((1, 3, 0, 64), r"images are 0 x 64 px; .*Pad them to 32 x 64 px\."),
        ((3, 64, 64), r"images have shape \(3, 64, 64\); expected \(B, 3, H, W\)\."),
        ((1, 1, 64, 64), r"images have 1 channels; this network takes 3\. .*replace_in_channels\(1\)"),
    ],
)
def test_images_that_do_not_fit(shape, text):
    with pytest.raises(InputError, match=text):
        build("s")(torch.zeros(shape))
    with pytest.raises(InputError, match=text):
        build("s").trunk(torch.zeros(shape))


def test_images_of_integers():
    with pytest.raises(InputError, match=r"images are torch\.uint8; expected floating-point values,"):
        build("s")(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert uniform("abc", 4) == pytest.approx([0.6898170712, 0.0352691596, 0.5967816203, 0.5501148279], abs=1e-10)
    weight = values("neck.neck1.upsample.weight", (192, 192, 2, 2)).flatten()[:4]
    assert weight == pytest.approx([0.14986925, -0.10537244, 0.01284639, -0.09325545], abs=1e-8)
    assert values("backbone.stem.conv.post_bn.num_batches_tracked", ()) == 688
    assert np.array_equal(image("input", 1, 128, 160).numpy(), recorded("input")["image_u8"])


@pytest.mark.parametrize(("height", "width"), [(32, 32), (32, 96), (224, 64)])
def test_any_multiple_of_32_will_do(height, width):
    with torch.inference_mode():
        boxes, _ = build("s")(torch.zeros(1, 3, height, width)).predictions
    assert boxes.shape == (1, height * width * 21 // 1024, 4)
    assert torch.isfinite(boxes).all()


def test_forward_is_head_of_backbone_and_images_do_not_touch_each_other(images):
    network = build("s")
    with torch.inference_mode():
        features = network.trunk(images)
        assert [tuple(feature.shape) for feature in features] == [(1, 96, 16, 20), (1, 192, 8, 10), (1, 384, 4, 5)]
        assert torch.equal(network.head(features).predictions.boxes, network(images).predictions.boxes)
    batch = image("input", 3, 64, 96).float() / 255
    with torch.inference_mode():
        together = build("s")(batch).predictions.boxes
        alone = torch.cat([build("s")(one[None]).predictions.boxes for one in batch])
    assert torch.allclose(together, alone, atol=1e-3)


def test_it_has_eleven_layers_from_the_stem_to_the_heads():
    layers = order_layers(build("s"))
    stages = [f"backbone.stage{index}" for index in (1, 2, 3, 4)]
    necks = [f"neck.neck{index}" for index in (1, 2, 3, 4)]
    assert [layer.name for layer in layers] == [
        *("backbone.stem", *stages, "backbone.context_module"),
        *(*necks, "heads"),
    ]


def test_a_trace_gives_boxes_and_scores_at_any_size(images):
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning):  # torch 2.11 says the latter
            warnings.filterwarnings("ignore", r"`torch\.jit\.trace", category)
        traced = torch.jit.trace(build("s"), torch.zeros(1, 3, 32, 64), check_trace=False)
    with torch.inference_mode():
        boxes, scores = traced(images)
        expected = build("s")(images).predictions
    assert torch.allclose(boxes, expected.boxes, atol=1e-3)
    assert torch.allclose(scores, expected.scores, atol=1e-5)


def test_one_exported_graph_serves_all_sizes_with_every_output(images, monkeypatch):
    """Of a network with fewer blocks: what makes a graph depend on sizes stands around them."""
    monkeypatch.setattr("zoo.models.families.yolo_nas.network.STAGE_BOTTLENECKS", (1, 1, 1, 1))
    network = fill(YoloNASNetwork(replace(SIZES["s"], neck_bottlenecks=(1, 1, 1, 1)))).eval()
    height, width = (torch.export.Dim(name, min=1, max=20) for name in ("height", "width"))
    shapes = {0: torch.export.Dim("batch", min=1, max=8), 2: 32 * height, 3: 32 * width}
    exported = torch.export.export(network, (torch.zeros(2, 3, 64, 96),), dynamic_shapes=(shapes,)).module()
    with torch.inference_mode():
        for ours, theirs in zip(network(images), exported(images), strict=True):
            assert all(torch.allclose(one, other, atol=1e-3) for one, other in zip(ours, theirs, strict=True))


class watched:
    """Keeps what the modules of a network return, by name, while it is entered."""

    def __init__(self, network, seen):
        self.network, self.seen = network, seen

    def __enter__(self):
        self.hooks = [
            module.register_forward_hook(functools.partial(self.keep, name))
            for name, module in self.network.named_modules()
        ]

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()

    def keep(self, name, module, inputs, output):
        if isinstance(output, torch.Tensor):
            self.seen[name] = output.clone()
        elif name.startswith("heads.head"):
            self.seen[f"{name}.reg"], self.seen[f"{name}.cls"] = output
        elif name.startswith("neck."):
            self.seen[f"{name}.out0"], self.seen[f"{name}.out1"] = output


def check_stage(ours, expected):
    exact = ours.double()
    stats = [exact.mean(), exact.std(correction=0), exact.min(), exact.max(), exact.abs().mean()]
    places = [place * (ours.numel() - 1) // 15 for place in range(16)]
    assert list(ours.shape) == expected["shape"].tolist()
    assert [float(value) for value in stats] == pytest.approx(expected["stats"].tolist(), abs=1e-4)
    assert ours.flatten()[places].numpy() == pytest.approx(expected["probe16"], abs=1e-4)
