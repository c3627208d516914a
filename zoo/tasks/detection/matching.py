"""Which found boxes are right at an IoU of 0.5: for the confusion matrix, and for scores over the confidence.

Source: among boxes of one class the rule is pycocotools' (cocodataset/cocoapi, PythonAPI/pycocotools/cocoeval.py): the
surest box chooses first, and takes the free true box that it overlaps most.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zoo.tasks.detection.annotations import Floats
from zoo.tasks.detection.boxes import pairwise_iou

if TYPE_CHECKING:
    from zoo.tasks.detection.metrics import Found, Truth

IOU = 0.5  # from which a found box counts as a true one
CONF = 0.25  # from which a box counts in the confusion matrix, as in `predict`
THRESHOLDS = np.linspace(0, 1, 101)
BACKGROUND = "background"  # last row of the confusion matrix: nothing was there; last column: nothing was found


@dataclass(frozen=True, eq=False)
class ConfidenceCurves:
    """Scores over the confidence threshold, `(C, 101)` for the thresholds 0, 0.01, ... 1.

    Attributes:
        precision: Share of the kept boxes that are right; NaN where no box is kept.
        recall: Share of the true boxes that are found; NaN for a class without boxes.
        f1: Harmonic mean of both, 0 where no box is kept; NaN for a class without boxes.
    """

    precision: Floats
    recall: Floats
    f1: Floats


def match_boxes(overlaps: Floats) -> NDArray[np.int64]:
    """Give each found box at most one true box.

    Args:
        overlaps: `(N, M)` IoU of found boxes, surest first, with true boxes; 0 for pairs that may not be matched.

    Returns:
        `(N,)` the place of the true box, -1 for none.
    """
    overlaps, chosen = overlaps.copy(), np.full(len(overlaps), -1)
    for i, own in enumerate(overlaps):
        if own.size and own.max() >= IOU:
            chosen[i] = own.argmax()
            overlaps[:, chosen[i]] = 0
    return chosen


class Matches:
    """Gathers matches image by image.

    Args:
        classes: Number of classes, C.

    Attributes:
        confusion: `(C + 1, C + 1)` counts of boxes with a confidence of 0.25 or more; rows are the true classes,
            columns the predicted ones, the last of each is the background.
    """

    def __init__(self, classes: int) -> None:
        self.confusion = np.zeros((classes + 1, classes + 1), np.int64)
        self._boxes = np.zeros(classes, np.int64)
        self._kept: list[tuple[Floats, NDArray[Any], NDArray[np.bool_]]] = []  # score, class, whether right
        self._truth: list[NDArray[Any]] = []  # classes of the true boxes
        self._places: list[int] = []

    def update(self, found: "Found", truth: "Truth", place: int | None = None) -> None:
        """Add one image, by its place in its data set; None: the next one.

        A box on a crowd of its class is neither right nor wrong.
        """
        order = np.argsort(-np.asarray(found.scores), kind="stable")
        boxes, scores, labels = (np.asarray(part)[order] for part in (found.boxes, found.scores, found.labels))
        crowd = np.asarray(truth.crowd, bool)
        true_boxes, true_labels = np.asarray(truth.boxes)[~crowd], np.asarray(truth.labels)[~crowd]
        self._truth.append(true_labels)
        self._places.append(len(self._places) if place is None else place)
        self._boxes += np.bincount(true_labels.astype(np.int64), minlength=len(self._boxes))
        overlaps = pairwise_iou(boxes.reshape(-1, 4).astype(np.float64), true_boxes.reshape(-1, 4).astype(np.float64))
        chosen = match_boxes(overlaps * (labels[:, None] == true_labels[None]))
        on_crowd = _lie_on(boxes, labels, np.asarray(truth.boxes)[crowd], np.asarray(truth.labels)[crowd])
        counts = (chosen >= 0) | ~on_crowd
        self._kept.append((scores[counts].astype(np.float64), labels[counts], chosen[counts] >= 0))
        sure = counts & (scores >= CONF)
        self._confuse(overlaps[sure], labels[sure], chosen[sure], true_labels)

    def compute(self) -> ConfidenceCurves:
        """Return the curves over everything that was added."""
        precision, recall = np.full((2, len(self._boxes), len(THRESHOLDS)), np.nan)
        nothing = (np.zeros(0), np.zeros(0, np.int64), np.zeros(0, bool))
        scores, labels, right = map(np.concatenate, zip(nothing, *self._kept, strict=True))
        for number, boxes in enumerate(self._boxes):
            own = labels == number
            kept, hits = _count_from(scores[own]), _count_from(scores[own & right])
            np.divide(hits, kept, out=precision[number], where=kept > 0)
            if boxes:
                recall[number] = hits / boxes
        share = np.nan_to_num(precision)
        f1 = 2 * share * recall / np.maximum(share + recall, 1e-12)
        return ConfidenceCurves(precision, recall, f1)

    def list_answers(self) -> dict[str, NDArray[Any]]:
        """Return what a paired comparison needs of all that was added.

        Returns:
            Of each found box that is right or wrong, `(N,)`: `image`, its place; `label`, `score`, and whether it is
            `right`. Of each true box, `(M,)`: `true_image` and `true_label`.
        """
        nothing = (np.zeros(0), np.zeros(0, np.int64), np.zeros(0, bool))
        scores, labels, right = map(np.concatenate, zip(nothing, *self._kept, strict=True))
        places = np.array(self._places, np.int32)
        return {
            "image": np.repeat(places, [len(kept[0]) for kept in self._kept]),
            "label": labels.astype(np.int32),
            "score": scores.astype(np.float32),
            "right": right.astype(np.uint8),
            "true_image": np.repeat(places, list(map(len, self._truth))),
            "true_label": np.concatenate([np.zeros(0), *self._truth]).astype(np.int32),
        }

    def _confuse(
        self, overlaps: Floats, labels: NDArray[Any], chosen: NDArray[np.int64], true_labels: NDArray[Any]
    ) -> None:
        """Count pairs of one class first, then pairs of two classes, then what is left on either side."""
        chosen, wrong, background = chosen.copy(), np.flatnonzero(chosen < 0), len(self._boxes)
        free = np.ones(len(true_labels), bool)
        free[chosen[chosen >= 0]] = False
        chosen[wrong] = match_boxes(overlaps[wrong] * free)
        free[chosen[chosen >= 0]] = False
        rows = np.where(chosen >= 0, np.append(true_labels, background)[chosen], background)
        np.add.at(self.confusion, (rows.astype(np.int64), labels.astype(np.int64)), 1)
        self.confusion[:-1, background] += np.bincount(true_labels[free].astype(np.int64), minlength=background)


def _lie_on(boxes: Any, labels: Any, crowds: Any, crowd_labels: Any) -> NDArray[np.bool_]:
    """Which boxes have half of their area or more on a crowd of their class."""
    inside = np.zeros(len(boxes), bool)
    for crowd, label in zip(crowds, crowd_labels, strict=True):
        sides = np.minimum(boxes[:, 2:], crowd[2:]) - np.maximum(boxes[:, :2], crowd[:2])
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        inside |= (labels == label) & (np.clip(sides, 0, None).prod(axis=1) >= IOU * np.maximum(areas, 1e-9))
    return inside


def _count_from(scores: Floats) -> Floats:
    """How many scores reach each threshold."""
    counts: Floats = len(scores) - np.searchsorted(np.sort(scores), THRESHOLDS).astype(np.float64)
    return counts
