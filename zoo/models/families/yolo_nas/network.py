"""The network of YOLO-NAS: backbone, neck and heads, in the forms of training and of use.

Shapes: `B` images, `H` and `W` their sides in pixels, multiples of 32; `C` classes; `L` places, as
`zoo.models.families.yolo_nas.heads` counts them.

Source: super-gradients at e0ccacf (Apache-2.0), written anew; the state dict has its names and order, the outputs are
equal.
"""

import copy
import math
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.errors import InputError
from zoo.models.families.yolo_nas.blocks import CSP, SPP, ConvBlock, DownStage, QARep, UpStage, residual_qarep
from zoo.models.families.yolo_nas.heads import STRIDES, Features, Heads, Outputs, is_traced
from zoo.tasks.detection import Predictions

STEM_CHANNELS = 48
STAGE_CHANNELS = (96, 192, 384, 768)
STAGE_BOTTLENECKS = (2, 3, 5, 2)
NECK_CHANNELS = (192, 96, 192, 384)


@dataclass(frozen=True, kw_only=True)
class Size:
    """What sets the sizes of the network apart.

    Attributes:
        stage_hidden: Channels in the CSP layers of the backbone.
        stage_keeps_all: Whether these put all their steps together.
        neck_hidden: Channels in the CSP layers of the neck.
        neck_bottlenecks: Bottlenecks of these.
        head_widths: Channels in the heads.
    """

    stage_hidden: tuple[int, int, int, int]
    stage_keeps_all: tuple[bool, bool, bool, bool]
    neck_hidden: tuple[int, int, int, int]
    neck_bottlenecks: tuple[int, int, int, int]
    head_widths: tuple[int, int, int]


SIZES = {
    "s": Size(
        stage_hidden=(32, 64, 96, 192),
        stage_keeps_all=(False, False, False, False),
        neck_hidden=(64, 48, 64, 64),
        neck_bottlenecks=(2, 2, 2, 2),
        head_widths=(64, 128, 256),
    ),
    "m": Size(
        stage_hidden=(64, 128, 256, 384),
        stage_keeps_all=(True, True, True, False),
        neck_hidden=(192, 64, 192, 256),
        neck_bottlenecks=(2, 3, 2, 3),
        head_widths=(96, 192, 384),
    ),
    "l": Size(
        stage_hidden=(96, 128, 256, 512),
        stage_keeps_all=(True, True, True, True),
        neck_hidden=(128, 128, 128, 256),
        neck_bottlenecks=(4, 4, 4, 4),
        head_widths=(128, 256, 512),
    ),
}


class YoloNASNetwork(nn.Module):
    """A detector: backbone and neck are its backbone, the heads its head.

    A new network has random weights; the predictors of classes start with a score of 0.01.

    Args:
        size: One of `SIZES`.
        num_classes: `C`.
        in_channels: Channels of the images.

    Attributes:
        in_channels: Channels of the images.
        head_prefixes: Prefixes of the head's parameters; all others belong to the backbone.
    """

    task = "detection"
    head_prefixes = ("heads.",)

    def __init__(self, size: Size, *, num_classes: int = 80, in_channels: int = 3) -> None:
        super().__init__()
        _check_count("num_classes", num_classes)
        _check_count("in_channels", in_channels)
        self.in_channels = in_channels
        self.backbone = Backbone(size, in_channels)
        self.neck = Neck(size)
        self.heads = Heads(size.head_widths, num_classes)

    @property
    def num_classes(self) -> int:
        """Number of classes, `C`."""
        return self.heads.num_classes

    def forward(self, images: Tensor) -> Outputs | Predictions:
        """Turn images into boxes and scores.

        Args:
            images: `(B, 3, H, W)` RGB, float, pixel values / 255; the channels are those that the weights know.

        Returns:
            `Outputs`; while `torch.jit.trace` records, the `Predictions` only.

        Raises:
            InputError: `H` or `W` is no multiple of 32, or the images have other channels or are of integers.
        """
        outputs = self.head(self.trunk(images))
        return outputs.predictions if is_traced() else outputs

    def trunk(self, images: Tensor) -> Features:
        """Turn images `(B, 3, H, W)` into maps of 96, 192 and 384 channels, with 8, 16 and 32 px per cell."""
        if not is_traced():
            _check_images(images, self.in_channels)
        features: Features = self.neck(self.backbone(images))
        return features

    def head(self, features: Features) -> Outputs:
        """Turn the maps of the backbone into outputs."""
        outputs: Outputs = self.heads(features)
        return outputs

    def get_finetune_lr_dict(self, lr: float) -> dict[str, float]:
        """Return the rates of a fine-tune: the heads learn at `lr`, the rest is frozen."""
        return {"heads": lr, "default": 0.0}

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Return patterns that order the parameters in 11 layers, as timm's models do, for rates that fall with depth.

        Args:
            coarse: No difference here; timm's callers pass it.
        """
        return {
            "stem": r"^backbone\.stem",
            "stages": r"^backbone\.stage(\d)",
            "context": r"^backbone\.context_module",
            "neck": r"^neck\.neck(\d)",
            "heads": r"^heads",
        }

    def dormant_parameters(self) -> frozenset[str]:
        """Return the names of parameters that `forward` does not use: each `rbr_reparam` until its block is merged.

        They are there because checkpoints hold them. They cannot learn and get no gradient: keep them out of an
        optimizer, and `requires_grad` off, as it is in a new network.
        """
        return frozenset(
            f"{prefix}.rbr_reparam.{name}"
            for prefix, module in self.named_modules()
            if isinstance(module, QARep) and not module.is_merged
            for name, _ in module.rbr_reparam.named_parameters()
        )

    def replace_classes(self, num_classes: int) -> None:
        """Make the predictors of classes anew, with a score of 0.01 at the start; everything else is kept.

        Raises:
            InputError: `num_classes` is below 1 or no integer.
        """
        _check_count("num_classes", num_classes)
        self.heads.replace_classes(num_classes)

    def replace_in_channels(self, in_channels: int) -> None:
        """Take images of other channels, with kernels made from those of the stem.

        Channels in front keep their kernels if there are more than before; all others get the mean kernel. All are
        scaled so that an image with the same values in every channel gives the same features as before.

        Raises:
            InputError: `in_channels` is below 1 or no integer.
        """
        _check_count("in_channels", in_channels)
        if in_channels == self.in_channels:
            return
        for module in self.backbone.stem.modules():
            if isinstance(module, nn.Conv2d):
                module.weight = _spread_kernels(module.weight, in_channels)
                module.in_channels = in_channels
        self.in_channels = in_channels

    def fuse(self) -> "YoloNASNetwork":
        """Return a copy for use, not for training: every batch norm is folded into the convolution before it.

        It is in eval mode, asks for no gradient and shares nothing with this network, which stays as it is.
        """
        with torch.inference_mode(False):  # the copy may outlive a prediction
            twin = copy.deepcopy(self)
            for module in twin.modules():
                if isinstance(module, (ConvBlock, QARep)):
                    module.fuse()
        return twin.eval().requires_grad_(False)

    def take_form(self, names: Collection[str]) -> None:
        """Bring every block into the form in which a state dict holds it, so that its names are expected.

        Blocks may be in the form of training, merged (QARepVGG as one convolution and `post_bn`) or fused, each by
        itself. Merging cannot be undone: start from a new network. The weights make sense only after they are loaded.

        Args:
            names: Of the tensors in the state dict.
        """
        for prefix, module in list(self.named_modules()):
            if isinstance(module, ConvBlock) and f"{prefix}.conv.bias" in names:
                module.fuse()
            has_branches = f"{prefix}.branch_3x3.conv.weight" in names
            if isinstance(module, QARep) and f"{prefix}.rbr_reparam.weight" in names and not has_branches:
                module.merge()
                if f"{prefix}.post_bn.weight" not in names:
                    module.fuse()


class Backbone(nn.Module):
    """Images to four maps, with 4, 8, 16 and 32 px per cell.

    Args:
        size: One of `SIZES`.
        in_channels: Channels of the images.
    """

    def __init__(self, size: Size, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(OrderedDict(conv=QARep(in_channels, STEM_CHANNELS, stride=2)))
        self.stage1, self.stage2, self.stage3, self.stage4 = (_stage(size, index) for index in range(4))
        self.context_module = SPP(STAGE_CHANNELS[-1])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Turn images `(B, 3, H, W)` into maps of 96, 192, 384 and 768 channels."""
        c2 = self.stage1(self.stem(images))
        c3 = self.stage2(c2)
        c4 = self.stage3(c3)
        return c2, c3, c4, self.context_module(self.stage4(c4))


class Neck(nn.Module):
    """Maps of the backbone to those of the heads: up to 8 px per cell, and down again to 32.

    Args:
        size: One of `SIZES`.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        (c2, c3, c4, c5), (n1, n2, n3, n4) = STAGE_CHANNELS, NECK_CHANNELS
        layers = zip(size.neck_hidden, size.neck_bottlenecks, strict=True)
        first, second, third, fourth = ({"hidden": hidden, "bottlenecks": count} for hidden, count in layers)
        self.neck1 = UpStage((c5, c4, c3), n1, **first)
        self.neck2 = UpStage((n1, c3, c2), n2, **second)
        self.neck3 = DownStage((n2, n2), n3, **third)
        self.neck4 = DownStage((n3, n1), n4, **fourth)

    def forward(self, maps: tuple[Tensor, Tensor, Tensor, Tensor]) -> Features:
        """Turn the maps of the backbone into three of 96, 192 and 384 channels, with 8, 16 and 32 px per cell."""
        c2, c3, c4, c5 = maps
        inner1, x = self.neck1(c5, c4, c3)
        inner2, p3 = self.neck2(x, c3, c2)
        p4 = self.neck3(p3, inner2)
        return p3, p4, self.neck4(p4, inner1)


def _stage(size: Size, index: int) -> nn.Module:
    """Make a stage of the backbone, which halves the sides."""
    into, out = (STEM_CHANNELS, *STAGE_CHANNELS)[index : index + 2]
    blocks = CSP(
        out,
        out,
        hidden=size.stage_hidden[index],
        bottlenecks=STAGE_BOTTLENECKS[index],
        make_block=residual_qarep,
        keep_all=size.stage_keeps_all[index],
    )
    return nn.Sequential(OrderedDict(downsample=QARep(into, out, stride=2), blocks=blocks))


def _spread_kernels(weight: Tensor, in_channels: int) -> nn.Parameter:
    """Turn kernels `(O, I, k, k)` into kernels of other input channels, of the same sum."""
    old = weight.detach()
    mean = old.mean(1, keepdim=True).expand(-1, in_channels, -1, -1)
    made = torch.cat([old, mean[:, old.shape[1] :]], 1) if in_channels > old.shape[1] else mean
    return nn.Parameter((made * (old.shape[1] / in_channels)).contiguous(), weight.requires_grad)


def _check_count(name: str, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} is {value!r}; expected a whole number, 1 or more.")


def _check_images(images: Tensor, in_channels: int) -> None:
    """Refuse what the network cannot take, in words."""
    if images.ndim != 4:
        raise InputError(f"images have shape {tuple(images.shape)}; expected (B, {in_channels}, H, W).")
    if images.shape[1] != in_channels:
        raise InputError(
            f"images have {images.shape[1]} channels; this network takes {in_channels}. Convert them, or call "
            f"replace_in_channels({images.shape[1]})."
        )
    if not images.is_floating_point():
        raise InputError(f"images are {images.dtype}; expected floating-point values, pixel values / 255.")
    height, width = images.shape[-2:]
    coarsest = STRIDES[-1]
    if height % coarsest or width % coarsest or not (height and width):
        fitting = [max(1, math.ceil(side / coarsest)) * coarsest for side in (height, width)]
        raise InputError(
            f"images are {height} x {width} px; YOLO-NAS needs multiples of {coarsest}. Pad them to {fitting[0]} x "
            f"{fitting[1]} px."
        )
