"""From the boxes and scores of all anchors to the few detections of each image: thresholds and suppression.

Source: settings, order and strictness of comparisons as in super-gradients 3.7.1 (Deci-AI/super-gradients, commit
e0ccacf). Suppression is torchvision's.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from zoo.errors import InputError


class Predictions(NamedTuple):
    """What a detector decodes for a batch, before boxes of the same object are thinned out.

    Attributes:
        boxes: `(B, L, 4)` x1, y1, x2, y2 in pixels of the network's input, not clipped to the image.
        scores: `(B, L, C)` probability of each class, 0 to 1.
    """

    boxes: Tensor
    scores: Tensor


class Detections(NamedTuple):
    """What was found in one image, surest first.

    Attributes:
        boxes: `(N, 4)` float32, xyxy in pixels of the network's input; they may reach beyond it.
        scores: `(N,)` float32, 0 to 1.
        labels: `(N,)` int64, class.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


@dataclass(frozen=True, kw_only=True)
class Postprocess:
    """Which of the boxes that a detector predicts are kept.

    Attributes:
        conf: Least score, 0 to 1. With `multi_label` scores must be above it, otherwise they may be equal.
        iou: Two boxes that overlap by more than this IoU, 0 to 1, are taken for one object: the surer one is kept.
        nms_top_k: How many of the surest boxes of an image are compared with each other; the rest is dropped first.
        max_predictions: How many an image has at most in the end.
        multi_label: Whether an anchor may give a box for each class, or for its surest class only.
        class_agnostic: Whether boxes of different classes suppress each other.
    """

    conf: float = 0.25
    iou: float = 0.7
    nms_top_k: int = 1024
    max_predictions: int = 300
    multi_label: bool = True
    class_agnostic: bool = False

    def __post_init__(self) -> None:
        for name in ("conf", "iou"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise InputError(f"{name} is {value!r}; expected a number from 0 to 1.")
        for name in ("nms_top_k", "max_predictions"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InputError(f"{name} is {value!r}; expected an integer, 1 or more.")
        for name in ("multi_label", "class_agnostic"):
            if type(getattr(self, name)) is not bool:
                raise InputError(f"{name} is {getattr(self, name)!r}; expected true or false.")

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some values changed."""
        return replace(self, **changes)


VALIDATION = Postprocess(conf=0.01, nms_top_k=1000)  # of the metric during training
PUBLISHED = Postprocess(conf=0.03, iou=0.65, nms_top_k=1000)  # by which the authors' mAP on COCO was checked


@torch.no_grad()
def select_detections(boxes: Tensor, scores: Tensor, settings: Postprocess | None = None) -> list[Detections]:
    """Return the detections of each image, on the device of the boxes.

    Args:
        boxes: `(B, L, 4)` xyxy in pixels, any floating dtype.
        scores: `(B, L, C)` 0 to 1, any floating dtype.
        settings: Which are kept; the defaults of `Postprocess` if nothing is given.

    Raises:
        InputError: If the shapes do not belong together.
    """
    if boxes.ndim != 3 or scores.ndim != 3 or boxes.shape != (*scores.shape[:2], 4):
        raise InputError(
            f"boxes are {tuple(boxes.shape)} and scores {tuple(scores.shape)}; expected (B, L, 4) and (B, L, C)."
        )
    settings = settings or Postprocess()
    # Image by image: torchvision keeps groups apart by moving their boxes, and float32 has too few digits for many.
    return [_select(*image, settings) for image in zip(boxes.float(), scores.float(), strict=True)]


def _select(boxes: Tensor, scores: Tensor, settings: Postprocess) -> Detections:
    from torchvision.ops import batched_nms, nms

    anchors, labels, scores = _choose(scores, settings)
    if len(scores) > settings.nms_top_k:
        scores, top = scores.topk(settings.nms_top_k)
        anchors, labels = anchors[top], labels[top]
    boxes = boxes[anchors]
    if settings.class_agnostic:
        kept = nms(boxes, scores, settings.iou)
    else:
        kept = batched_nms(boxes, scores, labels, settings.iou)
    kept = kept[: settings.max_predictions]
    return Detections(boxes[kept], scores[kept], labels[kept])


def _choose(scores: Tensor, settings: Postprocess) -> tuple[Tensor, Tensor, Tensor]:
    """Return anchor, class and score of what is sure enough; `scores` are `(L, C)` of one image."""
    if settings.multi_label:
        anchors, labels = (scores > settings.conf).nonzero(as_tuple=True)
        return anchors, labels, scores[anchors, labels]
    best, labels = scores.max(dim=1)
    anchors = (best >= settings.conf).nonzero().squeeze(1)
    return anchors, labels[anchors], best[anchors]
