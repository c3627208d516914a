import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from zoo.models.families.yolo_nas.blocks import (
    CSP,
    SPP,
    Bottleneck,
    ConvBlock,
    DownStage,
    QARep,
    UpStage,
    plain_conv,
    residual_qarep,
)

pytestmark = pytest.mark.numbers


def trained(block):
    """A block whose batch norms have weights and statistics of their own."""
    generator = torch.Generator().manual_seed(0)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low in ((module.weight, 0.5), (module.bias, -1), (module.running_mean, -1)):
                values.data.uniform_(low, 1.5, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return block.eval()


def pixels(channels, side=8, seed=0):
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(seed))


def by_hand(norm, x):
    shape = (1, -1, 1, 1)
    scale = norm.weight / (norm.running_var + 1e-3).sqrt()
    return (x - norm.running_mean.view(shape)) * scale.view(shape) + norm.bias.view(shape)


def test_every_norm_adds_a_thousandth_and_takes_three_hundredths_of_a_batch():
    norms = [module for module in QARep(4, 4).modules() if isinstance(module, nn.BatchNorm2d)]
    assert [(norm.eps, norm.momentum) for norm in norms] == [(1e-3, 0.03)] * 2
    block, x = ConvBlock(3, 5, kernel=3), pixels(3)
    block(x)
    assert torch.allclose(block.bn.running_mean, 0.03 * block.conv(x).mean((0, 2, 3)), atol=1e-6)


@pytest.mark.parametrize(("kernel", "stride", "side"), [(1, 1, 8), (3, 1, 8), (3, 2, 4)])
def test_a_convolution_block(kernel, stride, side):
    block, x = trained(ConvBlock(3, 5, kernel=kernel, stride=stride)), pixels(3)
    made = by_hand(block.bn, functional.conv2d(x, block.conv.weight, stride=stride, padding=kernel // 2))
    assert block(x).shape == (2, 5, side, side)
    assert torch.allclose(block(x), made.clamp(min=0), atol=1e-5)


@pytest.mark.parametrize(("channels", "stride", "identity"), [(3, 1, False), (3, 2, False), (5, 1, True)])
def test_qarep_adds_its_branches_between_two_norms(channels, stride, identity):
    block, x = trained(QARep(channels, 5, stride=stride, identity=identity)), pixels(channels)
    inner = by_hand(block.branch_3x3.bn, functional.conv2d(x, block.branch_3x3.conv.weight, stride=stride, padding=1))
    point = functional.conv2d(x, block.branch_1x1.weight, block.branch_1x1.bias, stride)
    total = inner + point + (x if identity else 0)
    assert torch.allclose(block(x), by_hand(block.post_bn, total).clamp(min=0), atol=1e-5)


@pytest.mark.parametrize(("channels", "stride", "identity"), [(3, 2, False), (5, 1, True)])
def test_merged_and_fused_qarep_computes_the_same(channels, stride, identity):
    block = trained(QARep(channels, 5, stride=stride, identity=identity)).double()
    x = pixels(channels).double()
    expected = block(x)
    block.merge()
    assert set(dict(block.named_children())) == {"post_bn", "rbr_reparam"}
    assert torch.allclose(block(x), expected, atol=1e-12)
    block.fuse()
    assert set(block.state_dict()) == {"rbr_reparam.weight", "rbr_reparam.bias"}
    assert torch.allclose(block(x), expected, atol=1e-12)


@pytest.mark.parametrize("identity", [True, False])
def test_merged_in_training_it_goes_on_from_there(identity):
    block, x = trained(QARep(4, 4, identity=identity)), pixels(4)
    merged = copy.deepcopy(block)
    merged.merge()
    block.branch_3x3.bn.eval()
    block.post_bn.train()
    merged.post_bn.train()
    assert torch.allclose(block(x), merged(x), atol=1e-5)
    assert torch.allclose(block.post_bn.running_var, merged.post_bn.running_var, atol=1e-5)


def test_the_dormant_convolution_wakes_when_it_is_merged():
    block = QARep(3, 4)
    assert not any(parameter.requires_grad for parameter in block.rbr_reparam.parameters())
    assert all(not parameter.any() for parameter in block.rbr_reparam.parameters())
    assert block.branch_1x1.weight.requires_grad
    block.merge()
    assert all(parameter.requires_grad for parameter in block.rbr_reparam.parameters())
    frozen = QARep(3, 4).requires_grad_(False)
    frozen.merge()
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_to_fuse_twice_is_to_fuse_once():
    for block in (trained(ConvBlock(3, 4, kernel=3)), trained(QARep(3, 4))):
        block.fuse()
        before = {name: value.clone() for name, value in block.state_dict().items()}
        block.fuse()
        assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())
    x = pixels(3)
    for block in (trained(ConvBlock(3, 4, kernel=3)), trained(QARep(3, 4))):
        expected = block(x)
        block = nn.SyncBatchNorm.convert_sync_batchnorm(block)
        assert any(isinstance(module, nn.SyncBatchNorm) for module in block.modules())
        block.fuse()
        assert not any(isinstance(module, nn.SyncBatchNorm) for module in block.modules())
        assert torch.allclose(block(x), expected, atol=1e-5)


@pytest.mark.parametrize("make", [lambda: ConvBlock(8, 16, kernel=3), lambda: QARep(8, 16)])
def test_fusing_keeps_type_and_memory_format(make):
    block = trained(make()).to(torch.bfloat16, memory_format=torch.channels_last)
    block.fuse()
    conv = block.conv if isinstance(block, ConvBlock) else block.rbr_reparam
    assert conv.weight.dtype == conv.bias.dtype == torch.bfloat16
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_alpha_multiplies_the_shortcut_of_bottlenecks_that_share_nothing():
    block = trained(Bottleneck(lambda: plain_conv(4)))
    block.alpha.data.fill_(3)
    x = pixels(4)
    assert torch.allclose(block(x), 3 * x + block.cv2(block.cv1(x)))
    assert next(iter(block.state_dict())) == "alpha"
    layer = CSP(6, 6, hidden=4, bottlenecks=3, make_block=residual_qarep)
    convs = [module for module in layer.bottlenecks.modules() if isinstance(module, QARep)]
    assert len(convs) == len({id(conv.branch_1x1.weight) for conv in convs}) == 6


@pytest.mark.parametrize("keep_all", [True, False])
def test_csp_puts_its_steps_together_in_order(keep_all):
    layer = trained(CSP(6, 10, hidden=4, bottlenecks=2, make_block=residual_qarep, keep_all=keep_all))
    x = pixels(6)
    first = layer.conv1(x)
    second = layer.bottlenecks[0](first)
    third = layer.bottlenecks[1](second)
    parts = [first, second, third, layer.conv2(x)] if keep_all else [third, layer.conv2(x)]
    assert torch.equal(layer(x), layer.conv3(torch.cat(parts, 1)))


def test_chained_pools_are_those_of_5_9_and_13_pixels():
    layer, x = trained(SPP(8)), pixels(8, side=20).requires_grad_()
    inner = layer.cv1(x)
    pools = [functional.max_pool2d(inner, side, 1, side // 2) for side in (5, 9, 13)]
    expected = layer.cv2(torch.cat([inner, *pools], 1))
    assert torch.equal(layer(x), expected)
    ours, theirs = (torch.autograd.grad(made.square().sum(), x)[0] for made in (layer(x), expected))
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_stages_join_resolutions():
    stage = trained(UpStage((5, 6, 7), 4, hidden=2, bottlenecks=1))
    below, beside, above = pixels(5, 4), pixels(6, 8), pixels(7, 16)
    inner, out = stage(below, beside, above)
    assert torch.equal(inner, stage.conv(below))
    joined = [stage.upsample(inner), stage.reduce_skip1(beside), stage.downsample(stage.reduce_skip2(above))]
    assert torch.equal(out, stage.blocks(stage.reduce_after_concat(torch.cat(joined, 1))))
    assert out.shape == (2, 4, 8, 8)
    stage = trained(DownStage((6, 5), 8, hidden=2, bottlenecks=1))
    above, beside = pixels(6, 8), pixels(5, 4)
    assert torch.equal(stage(above, beside), stage.blocks(torch.cat([stage.conv(above), beside], 1)))
    assert not any(isinstance(module, QARep) for module in stage.modules())
    assert stage(above, beside).shape == (2, 8, 4, 4)
