"""The heads of YOLO-NAS: logits at every place of three maps, and the boxes and scores that they mean.

Shapes: `B` images, `C` classes; `L` places at which a box is predicted: the cells of three maps with 8, 16 and 32 px
per cell, one map after the other, row by row (8,400 for images of 640 × 640 px).

Source: super-gradients at e0ccacf (Apache-2.0), written anew. Sides of boxes as distributions: Li et al.,
https://arxiv.org/abs/2006.04388.
"""

import functools
import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.models.families.yolo_nas.blocks import ConvBlock
from zoo.tasks.detection import Predictions

HEAD_CHANNELS = (96, 192, 384)
STRIDES = (8, 16, 32)  # pixels per cell
BINS = 17  # distances 0 to 16 cells, from a place to a side of its box
ANCHOR_CELLS = 5.0  # side of the squares that the static assigner of the loss starts from
PRIOR = 0.01  # score of every class in a new predictor

Features = tuple[Tensor, Tensor, Tensor]


class RawOutputs(NamedTuple):
    """What the loss needs.

    The last four depend on the image size only and are shared between calls: do not change them in place.

    Attributes:
        class_logits: `(B, L, C)`, the scores before the sigmoid.
        side_logits: `(B, L, 68)`, left, top, right, bottom; 17 logits each, of the distances 0 to 16 cells.
        anchors: `(L, 4)` x1, y1, x2, y2 in pixels: squares of 5 cells around the places.
        anchor_points: `(L, 2)` x, y in pixels: the middle of the cells.
        level_sizes: Places of each of the three maps; in eval mode `(3,)`, int64.
        strides: `(L, 1)` pixels per cell.
    """

    class_logits: Tensor
    side_logits: Tensor
    anchors: Tensor
    anchor_points: Tensor
    level_sizes: tuple[int, ...] | Tensor
    strides: Tensor


class Outputs(NamedTuple):
    """What the network returns, in train and in eval mode alike.

    Attributes:
        predictions: Decoded boxes and scores.
        raw: What they were made of.
    """

    predictions: Predictions
    raw: RawOutputs


class Heads(nn.Module):
    """A predictor for each of the three maps, and the decoding of what they say.

    Args:
        widths: Channels inside of each.
        num_classes: `C`.
    """

    def __init__(self, widths: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        channels = zip(HEAD_CHANNELS, widths, strict=True)
        self.head1, self.head2, self.head3 = (Head(*pair, num_classes) for pair in channels)

    def forward(self, features: Features) -> Outputs:
        """Turn the maps of the neck into outputs."""
        p3, p4, p5 = features
        sides, classes = zip(self.head1(p3), self.head2(p4), self.head3(p5), strict=True)
        side_logits, class_logits = _in_rows(sides), _in_rows(classes)
        places = _find_places(features)
        boxes = decode_boxes(side_logits, places.points, places.strides)
        scores = class_logits.to(boxes.dtype).sigmoid()
        if not self.training:  # tensors only: exporters know no numbers among the outputs
            places = places._replace(level_sizes=_count_places(places.strides))
        raw = RawOutputs(class_logits, side_logits, *places)
        return Outputs(Predictions(boxes, scores), raw)

    @property
    def num_classes(self) -> int:
        """Number of classes, `C`."""
        return self.head1.cls_pred.out_channels

    def replace_classes(self, num_classes: int) -> None:
        """Make the predictors of classes anew, with a score of 0.01 at the start; everything else is kept."""
        for head in (self.head1, self.head2, self.head3):
            old = head.cls_pred
            head.cls_pred = _class_predictor(old.in_channels, num_classes).to(old.weight.device, old.weight.dtype)


class Head(nn.Module):
    """Predictor of one map.

    Args:
        in_channels: Channels of the map.
        width: Channels inside.
        num_classes: `C`.
    """

    def __init__(self, in_channels: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.stem = _nested(in_channels, width, kernel=1)
        self.cls_convs = nn.Sequential(_nested(width, width, kernel=3))
        self.reg_convs = nn.Sequential(_nested(width, width, kernel=3))
        self.cls_pred = _class_predictor(width, num_classes)
        self.reg_pred = nn.Conv2d(width, 4 * BINS, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of the sides' distances, `(B, 68, h, w)`, and of the classes, `(B, C, h, w)`."""
        x = self.stem(x)
        return self.reg_pred(self.reg_convs(x)), self.cls_pred(self.cls_convs(x))


def decode_boxes(side_logits: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """Turn distributions of distances into boxes, in float32 at least.

    Args:
        side_logits: `(B, L, 68)` left, top, right, bottom; 17 logits each, of the distances 0 to 16 cells.
        points: `(L, 2)` x, y in pixels.
        strides: `(L, 1)` pixels per cell.

    Returns:
        `(B, L, 4)` x1, y1, x2, y2 in pixels, not clipped to the image.
    """
    dtype = torch.promote_types(side_logits.dtype, torch.float32)
    shares = side_logits.reshape(*side_logits.shape[:2], 4, BINS).softmax(-1, dtype=dtype)
    # No matrix product: mixed precision and TF32 would round it, and boxes move by pixels.
    distances = (shares * torch.arange(BINS, dtype=dtype, device=shares.device)).sum(-1) * strides
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], -1)


class Places(NamedTuple):
    """Where boxes are predicted; the last four of `RawOutputs`."""

    anchors: Tensor
    points: Tensor
    level_sizes: tuple[int, ...] | Tensor
    strides: Tensor


def make_places(sides: Sequence[tuple[int, int]], device: torch.device) -> Places:
    """Return the places of maps whose heights and widths in cells these are, in float32."""
    points, strides = [], []
    for (height, width), stride in zip(sides, STRIDES, strict=True):
        y, x = (torch.arange(side, dtype=torch.float32, device=device) for side in (height, width))
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)
        points.append((grid + 0.5) * stride)
        strides.append(torch.full_like(points[-1][:, :1], stride))
    middles, cells = torch.cat(points), torch.cat(strides)
    reach = cells * (ANCHOR_CELLS / 2)
    anchors = torch.cat([middles - reach, middles + reach], -1)
    return Places(anchors, middles, tuple(height * width for height, width in sides), cells)


def _count_places(strides: Tensor) -> Tensor:
    """Return how many places have each of the three strides, without a look at the values from outside."""
    return torch.stack([(strides == stride).sum() for stride in STRIDES])


def is_traced() -> bool:
    """Whether `torch.jit.trace` records what is computed."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def _find_places(features: Features) -> Places:
    """Return the places of the maps; those of an image size seen before are at hand."""
    sides = tuple((feature.shape[-2], feature.shape[-1]) for feature in features)
    device = features[0].device
    # What a compiler or a tracer records stands for no memory of its own, so it must not be kept.
    is_recorded = torch.compiler.is_compiling() or is_traced() or type(features[0]) is not Tensor
    return make_places(sides, device) if is_recorded else _keep_places(sides, device)


@functools.lru_cache(maxsize=32)  # sizes of multi-scale training; 0.2 MB at 640 x 640 px
def _keep_places(sides: tuple[tuple[int, int], ...], device: torch.device) -> Places:
    with torch.inference_mode(False):  # the next call may be one of training
        return make_places(sides, device)


def _nested(in_channels: int, out_channels: int, *, kernel: int) -> nn.Module:
    """Make a convolution block under the name `seq`, as the heads have it."""
    return nn.Sequential(OrderedDict(seq=ConvBlock(in_channels, out_channels, kernel=kernel)))


def _class_predictor(width: int, num_classes: int) -> nn.Conv2d:
    conv = nn.Conv2d(width, num_classes, 1)
    assert conv.bias is not None
    nn.init.constant_(conv.bias, math.log(PRIOR / (1 - PRIOR)))
    return conv


def _in_rows(maps: Sequence[Tensor]) -> Tensor:
    """Turn maps `(B, D, h, w)` into one tensor `(B, L, D)`."""
    return torch.cat([values.permute(0, 2, 3, 1).flatten(1, 2) for values in maps], 1)
