"""The loss of YOLO-NAS: how sure of each class, how well the boxes fit, and where each side is.

Sources: varifocal loss, Zhang et al. 2021, arXiv 2008.13367; quality and distribution focal loss (DFL), Li et al. 2020,
arXiv 2006.04388; GIoU, Rezatofighi et al. 2019, arXiv 1902.09630. How they are put together: PP-YOLOE, Xu et al. 2022,
arXiv 2203.16250, and super-gradients 3.7.1 (Deci-AI/super-gradients, commit e0ccacf), whose values these are. Its mode
that assigns image by image, and drops boxes which no prediction overlaps by 3 % or so, is not offered.

Letters: B images, L anchors of an image, C classes, P positive anchors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor, distributed
from torch.nn import functional
from torchvision.ops import box_convert

from zoo.errors import InputError, did_you_mean
from zoo.models.detector import check_loss_weight
from zoo.models.families.yolo_nas.assigners import Assigner, Assignment, Grid, Proposals, TaskAlignedAssigner, Truths
from zoo.models.families.yolo_nas.boxes import generalized_iou, xyxy_to_distances
from zoo.models.families.yolo_nas.heads import BINS, RawOutputs, decode_boxes

Classification: TypeAlias = Literal["varifocal", "focal", "balanced-focal"]

NEGATIVE_WEIGHT = 0.75
POSITIVE_WEIGHT = 0.25
LARGEST_DISTANCE = BINS - 1 - 0.01  # cells; what is farther cannot be said by a side's distribution
COLUMNS = ("image index", "class", "centre x", "centre y", "width", "height")


class DetectionLosses(NamedTuple):
    """The loss and its parts, already weighted; scalars in float32.

    Attributes:
        total: The sum of the parts, with gradient.
        classification: Without gradient, as the others.
        iou: How badly the boxes fit.
        dfl: How far the sides are off.
    """

    total: Tensor
    classification: Tensor
    iou: Tensor
    dfl: Tensor


def share_of_processes(scores: Tensor) -> Tensor:
    """Return the sum of a scalar over all processes of torch.distributed, at least 1, divided by their number."""
    if not distributed.is_available() or not distributed.is_initialized():
        return scores.clamp(min=1)
    total = scores.clone()
    distributed.all_reduce(total)
    return total.clamp(min=1) / distributed.get_world_size()


@dataclass(frozen=True, kw_only=True)
class YoloNasLoss:
    """The loss of YOLO-NAS.

    The sums over all images are divided by the sum of the assigned scores, at least 1; where no image has a box, the
    classification is thus a plain sum. Everything is computed in float32, also inside of autocast.

    In training with several processes that sum is taken over all of them and shared out, so that gradients averaged
    over the processes are those of one process with all images. (In super-gradients each process has a least of 1.) All
    processes then have to compute their losses at the same time; give another `divisor` where they do not.

    Attributes:
        assigner: Decides which anchors are positive.
        classification: `varifocal`; `focal`; `balanced-focal`, which weights positives by 0.25 and negatives by 0.75
            (super-gradients has it for `focal` with the static assigner).
        class_weight: Weight of the classification.
        iou_weight: Weight of 1 - GIoU.
        dfl_weight: Weight of the distribution of the sides.
        divisor: Turns the sum of assigned scores of this process, a scalar, into what its sums are divided by.
    """

    assigner: Assigner = field(default_factory=TaskAlignedAssigner)
    classification: Classification = "varifocal"
    class_weight: float = 1.0
    iou_weight: float = 2.5
    dfl_weight: float = 0.5
    divisor: Callable[[Tensor], Tensor] = share_of_processes

    def __post_init__(self) -> None:
        names = get_args(Classification)
        if self.classification not in names:
            hint = did_you_mean(str(self.classification), names)
            raise InputError(f"classification is {self.classification!r}; expected {', '.join(names)}.{hint}")
        for name in ("class_weight", "iou_weight", "dfl_weight"):
            check_loss_weight(name, getattr(self, name))

    def __call__(self, raw: RawOutputs | Sequence[Any], targets: Tensor) -> DetectionLosses:
        """Return the loss of a batch.

        Args:
            raw: What the heads give, or the same six in a plain tuple.
            targets: `(N, 6)` image index, class, centre x, centre y, width, height; boxes in pixels of the network's
                input, rows in any order. Images without boxes have no row. As in super-gradients, a box whose four
                corner coordinates sum to 0 or less is left out.

        Raises:
            InputError: If targets do not fit the batch or are no boxes.
        """
        raw = RawOutputs(*raw)
        with torch.autocast(raw.class_logits.device.type, enabled=False):
            raw = raw._replace(class_logits=raw.class_logits.float(), side_logits=raw.side_logits.float())
            truths = _read_targets(targets, raw.class_logits)
            grid = Grid(raw.anchor_points, raw.anchors, raw.level_sizes)
            return self._compare(raw, self.assigner(_propose(raw), grid, truths))

    def _compare(self, raw: RawOutputs, positives: Assignment) -> DetectionLosses:
        divisor = self.divisor(positives.scores.sum())
        iou, dfl = _locate(raw, positives)
        classification = self._classify(raw.class_logits, positives) * self.class_weight / divisor
        iou, dfl = iou * self.iou_weight / divisor, dfl * self.dfl_weight / divisor
        return DetectionLosses(classification + iou + dfl, classification.detach(), iou.detach(), dfl.detach())

    def _classify(self, logits: Tensor, positives: Assignment) -> Tensor:
        """Return the sum over all images, anchors and classes; gradients flow through the weights, too."""
        places = positives.images, positives.anchors, positives.labels
        goals, scores = torch.zeros_like(logits).index_put_(places, positives.scores), logits.sigmoid()
        if self.classification == "varifocal":
            weights = (NEGATIVE_WEIGHT * scores.square()).index_put_(places, positives.scores)
        else:
            weights = (scores - goals).square()
        if self.classification == "balanced-focal":
            weights = weights * (NEGATIVE_WEIGHT + (POSITIVE_WEIGHT - NEGATIVE_WEIGHT) * goals)
        return (weights * functional.binary_cross_entropy_with_logits(logits, goals, reduction="none")).sum()


def _read_targets(targets: Tensor, logits: Tensor) -> Truths:
    """Check targets, and sort their columns out."""
    if not isinstance(targets, Tensor) or targets.ndim != 2 or targets.shape[1] != len(COLUMNS):
        found = f"a tensor {tuple(targets.shape)}" if isinstance(targets, Tensor) else f"a {type(targets).__name__}"
        raise InputError(f"targets are {found}; expected a tensor (N, 6): {', '.join(COLUMNS)}.")
    targets = targets.detach().float()
    _check_rows(targets, len(logits), logits.shape[2])
    boxes = box_convert(targets[:, 2:], "cxcywh", "xyxy")
    kept = boxes.sum(dim=1) > 0
    rows, boxes = targets[kept].to(logits.device), boxes[kept].to(logits.device)
    return Truths(rows[:, 0].long(), rows[:, 1].long(), boxes)


def _check_rows(targets: Tensor, images: int, classes: int) -> None:
    limits = targets.new_tensor([images, classes])
    indices, sizes = targets[:, :2], targets[:, 4:]
    wrong = ~targets.isfinite()
    wrong[:, :2] |= (indices < 0) | (indices >= limits) | (indices != indices.floor())
    wrong[:, 4:] |= sizes < 0
    if not wrong.any():
        return
    row, column = (int(index) for index in wrong.nonzero()[0])
    expected = (f"an integer from 0 to {images - 1}", f"an integer from 0 to {classes - 1}", *["a number"] * 2)
    raise InputError(
        f"targets: {COLUMNS[column]} of row {row} is {float(targets[row, column]):g}; expected "
        f"{[*expected, *['a number, 0 or more'] * 2][column]}. The row is {targets[row].tolist()}."
    )


@torch.no_grad()
def _propose(raw: RawOutputs) -> Proposals:
    return Proposals(raw.class_logits, decode_boxes(raw.side_logits, raw.anchor_points, raw.strides))


def _locate(raw: RawOutputs, positives: Assignment) -> tuple[Tensor, Tensor]:
    """Return the sums over positive anchors of 1 - GIoU and of the cross-entropy of the sides' distances."""
    strides = raw.strides[positives.anchors]
    points, boxes = raw.anchor_points[positives.anchors] / strides, positives.boxes / strides  # in cells
    sides = raw.side_logits[positives.images, positives.anchors]  # (P, 68); without a positive anchor its gradient is 0
    found = decode_boxes(sides[None], points, torch.ones_like(strides))[0]
    iou = (positives.scores * (1 - generalized_iou(found, boxes))).sum()
    distances = xyxy_to_distances(boxes, points).clamp(0, LARGEST_DISTANCE)
    dfl = (positives.scores * _side_entropy(sides.view(-1, 4, BINS), distances)).sum()
    return iou, dfl


def _side_entropy(logits: Tensor, distances: Tensor) -> Tensor:
    """Return how far distributions are from distances, shared between the two bins next to each.

    Args:
        logits: `(P, 4, 17)`.
        distances: `(P, 4)` in cells, 0 to less than 16.

    Returns:
        `(P,)` cross-entropy, the mean of the four sides.
    """
    below = distances.floor()
    share = (distances - below)[..., None]  # of the bin above
    bins = below.long()[..., None]
    logs = logits.log_softmax(dim=-1)
    return -(logs.gather(-1, bins) * (1 - share) + logs.gather(-1, bins + 1) * share).mean(dim=(1, 2))
