"""The blocks of YOLO-NAS: convolution with batch norm, QARepVGG, bottleneck, CSP layer, pooling, stages of the neck.

Blocks turn `(B, C, H, W)` into `(B, C', H', W')`; stride 2 halves the sides, which have to be even. Attributes are
called as in super-gradients, so that its checkpoints fit name by name.

A block with batch norms can be folded: `fuse()` puts them into the convolution before them, in place, which changes
nothing in eval mode but the speed. QARepVGG has a form in between, made by `merge()`: one convolution, then the last
batch norm. Both compute in float64.

Source: super-gradients at e0ccacf (Apache-2.0), written anew. QARepVGG: Chu et al., https://arxiv.org/abs/2212.01593.
CSP: Wang et al., https://arxiv.org/abs/1911.11929.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm  # the synchronised one is of it too
from torch.nn.utils.fusion import fuse_conv_bn_eval

NORM_EPSILON = 1e-3  # added to every variance
NORM_MOMENTUM = 0.03  # share of a batch in the running statistics
POOL_SIDE = 5  # pixels of the feature map
POOLS = 3

_Module = TypeVar("_Module", bound=nn.Module)


class ConvBlock(nn.Module):
    """Convolution without bias, batch norm, ReLU; padded so that stride 1 keeps the sides.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Side of the kernel in pixels, odd.
        stride: 1 or 2.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
        self.bn: nn.Module = _batch_norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features, 0 or more."""
        return functional.relu_(self.bn(self.conv(x)))

    def fuse(self) -> None:
        """Fold the batch norm into the convolution, which gets a bias."""
        if isinstance(self.bn, _BatchNorm):
            self.conv, self.bn = _like(_fold(self.conv, self.bn), self.conv), nn.Identity()


class QARep(nn.Module):
    """Three branches in training, one 3 × 3 convolution when deployed; then ReLU.

    `post_bn(BN(conv3x3(x)) + conv1x1(x) [+ x])`. The convolution that is to replace the branches, `rbr_reparam`, is in
    the state dict from the start, but dormant: it is zero, never used, and asks for no gradient until `merge()`.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: 1 or 2.
        identity: Whether the input itself is the third branch; for equal channels and stride 1.

    Attributes:
        is_merged: Whether `rbr_reparam` has taken the place of the branches.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, identity: bool = False) -> None:
        super().__init__()
        conv = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.branch_3x3 = nn.Sequential(OrderedDict(conv=conv, bn=_batch_norm(out_channels)))
        self.branch_1x1 = nn.Conv2d(in_channels, out_channels, 1, stride)
        self.post_bn: nn.Module = _batch_norm(out_channels)
        self.rbr_reparam = nn.Conv2d(in_channels, out_channels, 3, stride, 1).requires_grad_(False)
        for parameter in self.rbr_reparam.parameters():
            nn.init.zeros_(parameter)
        self.identity, self.is_merged = identity, False

    def forward(self, x: Tensor) -> Tensor:
        """Return the features, 0 or more."""
        if self.is_merged:
            return functional.relu_(self.post_bn(self.rbr_reparam(x)))
        total = self.branch_3x3(x) + self._point(x)
        return functional.relu_(self.post_bn(total + x if self.identity else total))

    def _point(self, x: Tensor) -> Tensor:
        """Return the 1 × 1 branch, with the pixels picked before it.

        torch 2.15's gradient of a strided 1 × 1 convolution writes out of bounds on the CPU if the input is channels
        last and has 3 channels (or any other number that is no multiple of 8, but 1 and 4).
        """
        step = self.branch_1x1.stride[0]
        picked = x if step == 1 else x[..., ::step, ::step]
        return functional.conv2d(picked, self.branch_1x1.weight, self.branch_1x1.bias)

    @torch.no_grad()
    def merge(self) -> None:
        """Put the branches into one convolution; `post_bn` stays, so that the block can still be trained well."""
        if self.is_merged:
            return
        branch: Any = self.branch_3x3
        merged, point = _fold(branch.conv, branch.bn), _exact(self.branch_1x1)
        merged.weight += functional.pad(point.weight, (1, 1, 1, 1))
        merged.bias += point.bias  # type: ignore[operator]
        if self.identity:
            merged.weight += nn.init.dirac_(torch.empty_like(merged.weight))
        self.rbr_reparam = _like(merged, branch.conv)
        del self.branch_3x3, self.branch_1x1
        self.is_merged = True

    def fuse(self) -> None:
        """Put the whole block but the ReLU into one convolution."""
        self.merge()
        if isinstance(self.post_bn, _BatchNorm):
            self.rbr_reparam = _like(_fold(self.rbr_reparam, self.post_bn), self.rbr_reparam)
            self.post_bn = nn.Identity()


class Bottleneck(nn.Module):
    """Two blocks and a shortcut that is multiplied by a learnable `alpha`, `(1,)`.

    Args:
        make_block: Makes a block that keeps the shape.
    """

    def __init__(self, make_block: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1))
        self.cv1, self.cv2 = make_block(), make_block()

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the input's shape."""
        features: Tensor = self.alpha * x + self.cv2(self.cv1(x))
        return features


class CSP(nn.Module):
    """A layer whose input goes through bottlenecks and past them; both are put together at the end.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        hidden: Channels in between.
        bottlenecks: How many.
        make_block: Makes a block of a bottleneck, from `hidden` to `hidden` channels.
        keep_all: Whether what goes into the first bottleneck and comes out of each one is put together, not only what
            comes out of the last.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        hidden: int,
        bottlenecks: int,
        make_block: Callable[[int], nn.Module],
        keep_all: bool = False,
    ) -> None:
        super().__init__()
        parts = 2 + (bottlenecks if keep_all else 0)
        self.conv1 = ConvBlock(in_channels, hidden, kernel=1)
        self.conv2 = ConvBlock(in_channels, hidden, kernel=1)
        self.conv3 = ConvBlock(hidden * parts, out_channels, kernel=1)
        self.bottlenecks = nn.ModuleList(Bottleneck(lambda: make_block(hidden)) for _ in range(bottlenecks))
        self.keep_all = keep_all

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the input's sides."""
        steps = [self.conv1(x)]
        for bottleneck in self.bottlenecks:
            steps.append(bottleneck(steps[-1]))
        kept = steps if self.keep_all else steps[-1:]
        features: Tensor = self.conv3(torch.cat([*kept, self.conv2(x)], 1))
        return features


class SPP(nn.Module):
    """Features beside their maxima over squares of 5, 9 and 13 px of the map.

    A maximum over 5 px taken twice is one over 9 px, three times one over 13: equal values, less than half the work.

    Args:
        channels: Of the input and the output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1 = ConvBlock(channels, channels // 2, kernel=1)
        self.cv2 = ConvBlock(channels // 2 * (1 + POOLS), channels, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the input's shape."""
        maps = [self.cv1(x)]
        for _ in range(POOLS):
            maps.append(functional.max_pool2d(maps[-1], POOL_SIDE, stride=1, padding=POOL_SIDE // 2))
        features: Tensor = self.cv2(torch.cat(maps, 1))
        return features


class UpStage(nn.Module):
    """Stage of the neck to twice the resolution; it brings in two maps of the backbone.

    Args:
        in_channels: Channels of the input and of the two maps.
        out_channels: Channels of both outputs.
        hidden: Channels in the CSP layer.
        bottlenecks: Of the CSP layer.
    """

    def __init__(self, in_channels: tuple[int, int, int], out_channels: int, *, hidden: int, bottlenecks: int) -> None:
        super().__init__()
        below, beside, above = in_channels
        self.reduce_skip1 = ConvBlock(beside, out_channels, kernel=1)
        self.reduce_skip2 = ConvBlock(above, out_channels, kernel=1)
        self.conv = ConvBlock(below, out_channels, kernel=1)
        self.upsample = nn.ConvTranspose2d(out_channels, out_channels, 2, 2)
        self.downsample = ConvBlock(out_channels, out_channels, kernel=3, stride=2)
        self.reduce_after_concat = ConvBlock(3 * out_channels, out_channels, kernel=1)
        self.blocks = CSP(out_channels, out_channels, hidden=hidden, bottlenecks=bottlenecks, make_block=residual_qarep)

    def forward(self, below: Tensor, beside: Tensor, above: Tensor) -> tuple[Tensor, Tensor]:
        """Return the reduced input, and the features at twice its resolution.

        Args:
            below: `(B, C, H, W)`.
            beside: `(B, C', 2H, 2W)`.
            above: `(B, C'', 4H, 4W)`.
        """
        inner = self.conv(below)
        maps = [self.upsample(inner), self.reduce_skip1(beside), self.downsample(self.reduce_skip2(above))]
        return inner, self.blocks(self.reduce_after_concat(torch.cat(maps, 1)))


class DownStage(nn.Module):
    """Stage of the neck to half the resolution; it brings in what an up stage had reduced.

    Args:
        in_channels: Channels of the input and of that map.
        out_channels: Channels of the output.
        hidden: Channels in the CSP layer.
        bottlenecks: Of the CSP layer.
    """

    def __init__(self, in_channels: tuple[int, int], out_channels: int, *, hidden: int, bottlenecks: int) -> None:
        super().__init__()
        above, beside = in_channels
        self.conv = ConvBlock(above, out_channels // 2, kernel=3, stride=2)
        self.blocks = CSP(
            out_channels // 2 + beside, out_channels, hidden=hidden, bottlenecks=bottlenecks, make_block=plain_conv
        )

    def forward(self, above: Tensor, beside: Tensor) -> Tensor:
        """Return features at half the resolution.

        Args:
            above: `(B, C, 2H, 2W)`.
            beside: `(B, C', H, W)`.
        """
        features: Tensor = self.blocks(torch.cat([self.conv(above), beside], 1))
        return features


def residual_qarep(channels: int) -> nn.Module:
    """Make a QARepVGG block that keeps the shape, with the identity branch."""
    return QARep(channels, channels, identity=True)


def plain_conv(channels: int) -> nn.Module:
    """Make a 3 × 3 convolution block that keeps the shape."""
    return ConvBlock(channels, channels, kernel=3)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=NORM_EPSILON, momentum=NORM_MOMENTUM)


def _fold(conv: nn.Conv2d, norm: _BatchNorm) -> nn.Conv2d:
    """Return one convolution instead of two modules, exact."""
    return fuse_conv_bn_eval(_exact(conv), _exact(norm))


def _exact(module: _Module) -> _Module:
    """Return a copy in eval mode, in float64 on the CPU, because not every device has float64."""
    return copy.deepcopy(module).to("cpu", torch.float64).eval()


def _like(exact: nn.Conv2d, conv: nn.Conv2d) -> nn.Conv2d:
    """Return an exact convolution where the other is, in its type; it learns if that did."""
    weight = conv.weight
    return exact.to(weight.device, weight.dtype).requires_grad_(weight.requires_grad)
