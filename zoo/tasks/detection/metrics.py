"""Scores of a detector over a data set, as COCO counts them: mean average precision, recall, per class and per size.

torchmetrics prepares what it is given and faster-coco-eval counts; the means are taken here, from the precision and
recall of each class in float64. The area of a box is its width times its height, and of each class the 100 surest
boxes of an image count.

Source: rules of matching and averaging as in pycocotools 2.0 (cocodataset/cocoapi, PythonAPI/pycocotools/cocoeval.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.errors import InputError
from zoo.tasks.detection.matching import ConfidenceCurves, Matches
from zoo.tasks.detection.postprocess import VALIDATION, Postprocess

Floats: TypeAlias = NDArray[np.float64]

IOUS = tuple(np.linspace(0.5, 0.95, 10).tolist())
RECALLS = tuple(np.linspace(0, 1, 101).tolist())
ALL_SIZES, SMALL, MEDIUM, LARGE = range(4)
INSTALL = "pip install 'zoo-finetune[detection]'"


class Truth(NamedTuple):
    """What is in one image.

    Attributes:
        boxes: `(N, 4)` xyxy in pixels of the image.
        labels: `(N,)` class numbers.
        crowd: `(N,)` bool: around many things at once; neither missed if not found, nor wrong if found.
    """

    boxes: NDArray[Any]
    labels: NDArray[Any]
    crowd: NDArray[Any]


class Found(NamedTuple):
    """What a detector found in one image.

    Attributes:
        boxes: `(N, 4)` xyxy in pixels of the image.
        scores: `(N,)` 0 to 1.
        labels: `(N,)` class numbers.
    """

    boxes: NDArray[Any]
    scores: NDArray[Any]
    labels: NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Scores of one class, 0 to 1; `None` where the class has no boxes to be found.

    Attributes:
        name: Of the class.
        boxes: How many there are to be found.
        ap: Average precision, mean over the IoU thresholds 0.5, 0.55, ... 0.95.
        ap50: At an IoU of 0.5.
        recall: Share that is found at all, mean over the same thresholds: COCO's AR, of 100 boxes at most.
        precision: At an IoU of 0.5, the best precision with at least a recall of 0, 0.01, ... 1 (`RECALLS`).
        best_f1: Largest harmonic mean of that precision and recall, as near as steps of 1 % recall tell.
        best_precision: The precision there.
        best_recall: The recall there.
        best_conf: The score from which boxes must be kept to have both; None if nothing was found.
    """

    name: str
    boxes: int
    ap: float | None = None
    ap50: float | None = None
    recall: float | None = None
    precision: tuple[float, ...] | None = field(default=None, repr=False)
    best_f1: float | None = None
    best_precision: float | None = None
    best_recall: float | None = None
    best_conf: float | None = None


@dataclass(frozen=True, kw_only=True)
class DetectionEvaluation:
    """Scores over one data set, 0 to 1; `None` where there are no boxes to be found.

    Attributes:
        map: Mean over the classes of the average precision, over the IoU thresholds 0.5, 0.55, ... 0.95.
        map50: The same at an IoU of 0.5.
        map75: At an IoU of 0.75.
        map_small: Of boxes under 32 x 32 pixels of the image.
        map_medium: Of boxes in between.
        map_large: Of boxes over 96 x 96 pixels.
        mar100: Mean over the classes and IoU thresholds of the share that is found at all.
        images: How many images.
        boxes: How many boxes there were to be found.
        of_classes: Scores of each class, in the order of the class numbers.
        settings: Which of the predicted boxes were counted.
        loss: Mean loss, if it was computed.
        losses: The terms that it is the sum of, if the model tells them apart.
        confusion: `(C + 1, C + 1)` counts at an IoU of 0.5 and a confidence of 0.25; rows are the true classes, columns
            the predicted ones, the last of each is the background.
        by_conf: Precision, recall and F1 of each class over the confidence threshold, at an IoU of 0.5.
        answers: What `Matches.list_answers` returns.
    """

    map: float | None
    map50: float | None
    map75: float | None
    map_small: float | None
    map_medium: float | None
    map_large: float | None
    mar100: float | None
    images: int
    boxes: int
    of_classes: tuple[ClassScores, ...] = field(repr=False)
    settings: Postprocess = field(default=VALIDATION, repr=False)
    loss: float | None = None
    losses: Mapping[str, float] = field(default_factory=dict)
    confusion: tuple[tuple[int, ...], ...] = field(default=(), repr=False)
    by_conf: ConfidenceCurves | None = field(default=None, repr=False, compare=False)
    answers: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        return tuple(scores.name for scores in self.of_classes)

    @property
    def score(self) -> float:
        """What the best model is chosen by, higher is better: `map`, or 0 where there was nothing to be found."""
        return self.map or 0.0

    def record(self) -> dict[str, float]:
        """Return what is written down of each epoch; what could not be computed is left out."""
        values = {"val_loss": self.loss, "map": self.map, "map50": self.map50, "map75": self.map75}
        values |= {f"val_loss_{name}": value for name, value in self.losses.items()}
        return {name: value for name, value in values.items() if value is not None}

    def per_class(self) -> list[dict[str, Any]]:
        """Return name, boxes and scores of each class; `None` where there was nothing to be found."""
        return [
            {
                "class": of.name,
                "boxes": of.boxes,
                "ap": of.ap,
                "ap50": of.ap50,
                "ar100": of.recall,
                "best_f1": of.best_f1,
                "best_precision": of.best_precision,
                "best_recall": of.best_recall,
                "best_conf": of.best_conf,
            }
            for of in self.of_classes
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return all scores as plain values; `precision` has the curve of each class at an IoU of 0.5."""
        names = ("map", "map50", "map75", "map_small", "map_medium", "map_large", "mar100", "loss", "images", "boxes")
        kept = {name: getattr(self.settings, name) for name in ("conf", "iou", "max_predictions")}
        curves = {of.name: list(of.precision) for of in self.of_classes if of.precision is not None}
        scores = {name: getattr(self, name) for name in names}
        return scores | {
            "losses": dict(self.losses),
            "settings": kept,
            "per_class": self.per_class(),
            "precision": curves,
            "confusion": [list(row) for row in self.confusion],
        }

    def rows(self) -> list[dict[str, str]]:
        """Return the table per class as text; precision and recall are those of the best F1, at its confidence."""
        return [
            {
                "class": of.name,
                "boxes": f"{of.boxes:,}",
                "AP": _percent(of.ap),
                "AP@.5": _percent(of.ap50),
                "AR@100": _percent(of.recall),
                "best F1": _percent(of.best_f1),
                "precision": _percent(of.best_precision),
                "recall": _percent(of.best_recall),
                "at conf": "-" if of.best_conf is None else f"{of.best_conf:.2f}",
            }
            for of in self.of_classes
        ]

    def __str__(self) -> str:
        return (
            f"mAP@[.5:.95] {_percent(self.map)}, mAP@.5 {_percent(self.map50)} on {self.images:,} images, "
            f"{self.boxes:,} boxes (conf {self.settings.conf:g}, IoU {self.settings.iou:g})"
        )


class DetectionMetrics:
    """Gathers what was found and what is there, image by image; `compute` gives the scores."""

    def __init__(self, classes: Sequence[str], settings: Postprocess = VALIDATION) -> None:
        check_installed()
        from torchmetrics.detection import MeanAveragePrecision

        self.classes, self.settings = tuple(classes), settings
        self._metric = MeanAveragePrecision(
            backend="faster_coco_eval",
            iou_type="bbox",
            iou_thresholds=list(IOUS),  # the library's own are rounded to float32, and an IoU of exactly 0.6 is none
            rec_thresholds=list(RECALLS),
            extended_summary=True,  # also holds the scores of each class, without counting all again for each
            sync_on_compute=False,  # each process is handed the images of all processes
        )
        self._metric.warn_on_many_detections = False
        self._boxes = np.zeros(len(self.classes), np.int64)
        self._matches = Matches(len(self.classes))
        self.images = 0

    def update(self, found: Sequence[Found], truth: Sequence[Truth], places: Sequence[int] | None = None) -> None:
        """Add images.

        Args:
            found: What was found in each.
            truth: What is in each, in the same order.
            places: Of the images in their data set; None: they are the next ones.

        Raises:
            InputError: If lengths, shapes or class numbers do not fit, or a value is not a finite number.
        """
        if len(found) != len(truth):
            raise InputError(f"found has {len(found)} images and truth {len(truth)}; expected the same images in both.")
        predicted = [self._to_tensors("found", of.boxes, of.labels, scores=of.scores) for of in found]
        there = [self._to_tensors("truth", of.boxes, of.labels, iscrowd=of.crowd) for of in truth]
        self._metric.update(predicted, there)
        places = range(self.images, self.images + len(truth)) if places is None else places
        for one in zip(found, truth, places, strict=True):
            self._matches.update(*one)
        for image in there:
            single = image["labels"][image["iscrowd"] == 0]
            self._boxes += np.bincount(single.numpy(), minlength=len(self.classes))
        self.images += len(truth)

    def compute(self, loss: float | None = None, losses: Mapping[str, float] | None = None) -> DetectionEvaluation:
        """Return the scores over everything that was added; the loss and its terms are only handed on."""
        precision, recall, scores = self._count()
        return DetectionEvaluation(
            map=_mean(precision[ALL_SIZES]),
            map50=_mean(precision[ALL_SIZES, :, 0]),
            map75=_mean(precision[ALL_SIZES, :, IOUS.index(0.75)]),
            map_small=_mean(precision[SMALL]),
            map_medium=_mean(precision[MEDIUM]),
            map_large=_mean(precision[LARGE]),
            mar100=_mean(recall[ALL_SIZES]),
            images=self.images,
            boxes=int(self._boxes.sum()),
            of_classes=tuple(
                _score_class(name, int(boxes), precision[ALL_SIZES, k], recall[ALL_SIZES, k], scores[ALL_SIZES, k, 0])
                for k, (name, boxes) in enumerate(zip(self.classes, self._boxes, strict=True))
            ),
            settings=self.settings,
            loss=loss,
            losses=dict(losses or {}),
            confusion=tuple(map(tuple, self._matches.confusion.tolist())),
            by_conf=self._matches.compute(),
            answers=self._matches.list_answers(),
        )

    def _to_tensors(self, what: str, boxes: Any, labels: Any, **values: Any) -> dict[str, Tensor]:
        """Check one image and give its values the types that torchmetrics expects."""
        ((name, value),) = values.items()
        boxes, labels = np.asarray(boxes, np.float64), np.asarray(labels)
        value = np.asarray(value, np.float64 if name == "scores" else np.int64)
        if labels.ndim != 1 or boxes.shape != (len(labels), 4) or value.shape != labels.shape:
            raise InputError(
                f"{what}: boxes are {boxes.shape}, labels {labels.shape} and {name} {value.shape}; "
                "expected (N, 4), (N,) and (N,)."
            )
        if not (np.isfinite(boxes).all() and np.isfinite(value).all()):
            raise InputError(f"{what}: a box or a score is not a finite number; check the loss and the learning rate.")
        last = len(self.classes) - 1
        wrong = [label for label in labels.tolist() if label not in range(last + 1)]
        if wrong:
            raise InputError(f"{what}: a box has class {wrong[0]!r}; expected a class number from 0 to {last}.")
        arrays = {"boxes": boxes, "labels": labels.astype(np.int64), name: value}
        return {key: torch.from_numpy(np.array(array)) for key, array in arrays.items()}

    def _count(self) -> tuple[Floats, Floats, Floats]:
        """Return precision, recall and scores by size, class, IoU (and recall); -1 where there is nothing to find."""
        shape = (4, len(self.classes), len(IOUS))
        precision, scores = np.full((2, *shape, len(RECALLS)), -1.0)
        recall = np.full(shape, -1.0)
        if self.images:
            counted = self._metric.compute()
            seen = counted["classes"].reshape(-1).numpy()
            # (IoU, recall, class, size, most boxes), of which the last is 100
            precision[:, seen] = counted["precision"][..., -1].permute(3, 2, 0, 1).numpy()
            scores[:, seen] = counted["scores"][..., -1].permute(3, 2, 0, 1).numpy()
            recall[:, seen] = counted["recall"][..., -1].permute(2, 1, 0).numpy()
        return precision, recall, scores


def check_installed() -> None:
    """Raise an InputError if what counts the scores is not installed; call it before a training begins."""
    try:
        import_module("faster_coco_eval")
    except ImportError as error:
        raise InputError(
            f"evaluating detectors needs faster-coco-eval, which cannot be imported ({error}). Install it: {INSTALL}"
        ) from error


def _score_class(name: str, boxes: int, precision: Floats, recall: Floats, scores: Floats) -> ClassScores:
    """Scores of a class from `(IoU, recall)` precision, `(IoU,)` recall and `(recall,)` scores at an IoU of 0.5."""
    if boxes == 0:
        return ClassScores(name=name, boxes=0)
    curve = precision[0]
    f1 = 2 * curve * RECALLS / np.maximum(curve + RECALLS, 1e-9)
    best = int(f1.argmax())
    return ClassScores(
        name=name,
        boxes=boxes,
        ap=_mean(precision),
        ap50=_mean(curve),
        recall=_mean(recall),
        precision=tuple(curve.tolist()),
        best_f1=float(f1[best]),
        best_precision=float(curve[best]),
        best_recall=RECALLS[best],
        best_conf=float(scores[best]) if f1[best] > 0 else None,
    )


def _mean(values: Floats) -> float | None:
    """The mean of what could be counted."""
    counted = values[values > -1]
    return float(counted.mean()) if counted.size else None


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
