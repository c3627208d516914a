"""What a detector gives behind its network in an exported file: boxes after thresholds and suppression."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo.tasks.detection.metrics import DetectionMetrics, Found, Truth
from zoo.tasks.parity import SCORE_BOUND, Parity

OUTPUTS = ("boxes", "scores", "labels")
RAW_OUTPUTS = ("boxes", "scores")
SAME_IOU = 0.99  # of two boxes that are the same detection


class Tail(nn.Module):
    """Turns what the network gives into the detections of each image, as `select_detections` chooses them.

    Args:
        model: Knows how to decode, and its thresholds.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.decode, self.settings = model.decode, model.postprocess

    def forward(self, outputs: Any) -> tuple[Tensor, ...]:
        """Return boxes `(N, K, 4)` in pixels of the input, scores `(N, K)` and labels `(N, K)`, the surest first.

        K is the largest number of detections of an image; behind the last one there are zeros.
        """
        settings = self.settings
        boxes, scores = self.decode(outputs)
        scores, anchors, labels = self._choose(scores.float())
        boxes = boxes.float().gather(1, anchors[..., None].expand(-1, -1, 4))
        apart = torch.zeros_like(labels) if settings.class_agnostic else labels
        kept = torch.ops.zoo.suppress(boxes, scores, apart, settings.iou)
        scores, order = kept.topk(min(settings.max_predictions, kept.shape[1]))
        is_found = scores > 0
        boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
        return boxes * is_found[..., None], scores, labels.gather(1, order) * is_found

    def _choose(self, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return score, anchor and class of the surest places of each image; scores that are too low are 0."""
        settings, (_, places, classes) = self.settings, scores.shape
        if settings.multi_label:
            top, index = scores.flatten(1).topk(min(settings.nms_top_k, places * classes))
            return torch.where(top > settings.conf, top, 0.0), index // classes, index % classes
        best, labels = scores.max(-1)
        top, anchors = best.topk(min(settings.nms_top_k, places))
        return torch.where(top >= settings.conf, top, 0.0), anchors, labels.gather(1, anchors)


class RawTail(nn.Module):
    """Turns what the network gives into the boxes and scores of all places, before thresholds and suppression.

    Args:
        model: Knows how to decode.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.decode = model.decode

    def forward(self, outputs: Any) -> tuple[Tensor, ...]:
        """Return boxes `(N, L, 4)` in pixels of the input, and scores `(N, L, C)`."""
        boxes, scores = self.decode(outputs)
        return boxes.float(), scores.float()


@torch.library.custom_op("zoo::suppress", mutates_args=())
def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float) -> Tensor:
    """Return the scores with 0 for each box that overlaps a surer one of its group by more than an IoU.

    An operation of its own, so that each format can use the suppression of its runtime.

    Args:
        boxes: `(N, K, 4)` xyxy, float32.
        scores: `(N, K)`, float32; boxes with 0 are no candidates.
        groups: `(N, K)`, int64.
        iou: 0 to 1.
    """
    from torchvision.ops import batched_nms

    kept = torch.zeros_like(scores)
    for image, (box, score, group) in enumerate(zip(boxes, scores, groups, strict=True)):
        places = (score > 0).nonzero().squeeze(1)
        chosen = places[batched_nms(box[places], score[places], group[places], iou)]
        kept[image, chosen] = score[chosen]
    return kept


@suppress.register_fake
def _(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float) -> Tensor:
    return torch.empty_like(scores)


class Comparison:
    """Compares the detections of two detectors, image by image.

    Args:
        classes: Names, in the order of the class numbers.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.metrics = tuple(DetectionMetrics(classes) for _ in range(2))
        self.differences, self.matched, self.total, self.images = list[float](), 0, 0, 0
        self.has_truth = False
        self.first: str | None = None

    def add(self, name: str, ours: Any, theirs: Mapping[str, Any], target: Any = None) -> None:
        """Add an image.

        Args:
            name: Of the image.
            ours: The model's `DetectionResult`.
            theirs: The other's `detections`.
            target: The boxes in it; None: not known.
        """
        mine = Found(ours.boxes, ours.scores, ours.labels)
        rows = theirs["detections"]
        other = Found(
            np.array([row["box"] for row in rows], np.float32).reshape(-1, 4),
            np.array([row["score"] for row in rows], np.float32),
            np.array([row["label"] for row in rows], np.int64),
        )
        gaps = _match(mine, other)
        total = max(len(mine.scores), len(other.scores))
        self.images, self.matched, self.total = self.images + 1, self.matched + len(gaps), self.total + total
        self.differences += gaps
        if target is not None:
            self.has_truth = True
            for metric, found in zip(self.metrics, (mine, other), strict=True):
                metric.update([found], [Truth(*target)])
        if self.first is None and (len(gaps) < total or max(gaps, default=0.0) > SCORE_BOUND):
            self.first = name

    def compute(self) -> Parity:
        """Return what all images show; the metric is the mAP of what stays above the model's own thresholds."""
        ours, theirs = (metric.compute().map if self.has_truth else None for metric in self.metrics)
        share = self.matched / self.total if self.total else 1.0
        largest, mean = max(self.differences, default=0.0), float(np.mean(self.differences or [0.0]))
        return Parity(self.images, largest, mean, share, "mAP", ours, theirs, self.first, compared=self.total)


def _match(mine: Found, other: Found) -> list[float]:
    """Return the difference of the scores of each pair of detections with the same class and nearly the same box."""
    from torchvision.ops import box_iou

    overlaps = box_iou(torch.from_numpy(mine.boxes).float(), torch.from_numpy(other.boxes).float()).numpy()
    overlaps = np.where(mine.labels[:, None] == other.labels[None], overlaps, 0.0)
    free, gaps = np.ones(len(other.scores), bool), list[float]()
    for row, score in zip(overlaps, mine.scores, strict=True):
        candidates = np.flatnonzero((row >= SAME_IOU) & free)
        if len(candidates):
            best = candidates[np.abs(other.scores[candidates] - score).argmin()]
            free[best] = False
            gaps.append(float(abs(other.scores[best] - score)))
    return gaps
