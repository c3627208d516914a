"""Scores of a classifier over a data set: loss, top-1, top-5, precision and recall per class, confusion matrix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Evaluation:
    """Scores over one data set.

    Attributes:
        top1: Share of images whose most probable class is right, 0 to 1; outputs that are not numbers are wrong.
        top5: Share of images whose true class is among the five most probable (or all, if there are fewer).
        loss: Mean cross-entropy, nats.
        images: How many images.
        classes: Class names.
        confusion: `(C, C)` counts; rows are the truth, columns the prediction.
        unanswered: Images of each true class whose outputs are not numbers (NaN or infinity), which stand in no column
            of `confusion`; empty if there are none.
        answers: `true` and `predicted` class of each image `(N,)`, in the order of the data set; -1: no answer.
    """

    top1: float
    top5: float
    loss: float
    images: int
    classes: tuple[str, ...] = field(repr=False)
    confusion: tuple[tuple[int, ...], ...] = field(repr=False)
    unanswered: tuple[int, ...] = field(default=(), repr=False)
    answers: Mapping[str, NDArray[np.int32]] = field(default_factory=dict, repr=False, compare=False)

    def __add__(self, other: "Evaluation") -> "Evaluation":
        """Return the scores over the images of both, of the same classes; the answers of single images are left out."""
        images, pair = max(self.images + other.images, 1), (self, other)
        confusion = np.add(self.confusion, other.confusion).tolist()
        unanswered = np.sum([one.unanswered or [0] * len(one.classes) for one in pair], axis=0).tolist()
        return Evaluation(
            top1=sum(row[place] for place, row in enumerate(confusion)) / images,
            top5=sum(one.top5 * one.images for one in pair) / images,
            loss=sum(one.loss * one.images for one in pair) / images,
            images=self.images + other.images,
            classes=self.classes,
            confusion=tuple(map(tuple, confusion)),
            unanswered=tuple(unanswered) if sum(unanswered) else (),
        )

    @property
    def warning(self) -> str | None:
        """What is wrong with the outputs; None if nothing is."""
        count = sum(self.unanswered)
        return f"{count:,} of {self.images:,} images gave NaN or infinite outputs" if count else None

    @property
    def doubt(self) -> str | None:
        """What speaks against scores that are numbers: one answer for images of several classes; else None."""
        named = [sum(row[index] for row in self.confusion) for index in range(len(self.classes))]
        answered = sum(named)
        if answered not in named or sum(any(row) for row in self.confusion) < 2:
            return None
        only = self.classes[named.index(answered)]
        return (
            f"all {answered:,} images are predicted as {only!r}, no better than chance: the model is undertrained, "
            "or training has diverged"
        )

    @property
    def score(self) -> float:
        """What tells the better of two models: top-1."""
        return self.top1

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that were shown or predicted, 0 to 1."""
        known = [row["f1"] for row in self.per_class() if row["f1"] is not None]
        return sum(known) / len(known) if known else 0.0

    def record(self) -> dict[str, float]:
        """Return what the record of an epoch holds of it."""
        return {"val_loss": self.loss, "top1": self.top1, "top5": self.top5, "macro_f1": self.macro_f1}

    def per_class(self) -> list[dict[str, Any]]:
        """Return name, images, precision, recall and F1 of each class, 0 to 1; `None` where nothing can be divided."""
        rows = []
        columns = [sum(row[index] for row in self.confusion) for index in range(len(self.classes))]
        for index, name in enumerate(self.classes):
            right, said = self.confusion[index][index], columns[index]
            true = sum(self.confusion[index]) + (self.unanswered[index] if self.unanswered else 0)
            rows.append(
                {
                    "class": name,
                    "images": true,
                    "precision": right / said if said else None,
                    "recall": right / true if true else None,
                    "f1": 2 * right / (true + said) if true + said else None,
                }
            )
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return all scores as plain values."""
        scores = {
            "top1": self.top1,
            "top5": self.top5,
            "macro_f1": self.macro_f1,
            "loss": self.loss,
            "images": self.images,
        }
        if self.unanswered:
            scores["unanswered"] = sum(self.unanswered)
        return scores | {"per_class": self.per_class(), "confusion": [list(row) for row in self.confusion]}

    def rows(self) -> list[dict[str, str]]:
        """Return the table per class as text."""

        def percent(value: float | None) -> str:
            return "-" if value is None else f"{value:.1%}"

        return [
            {
                "class": row["class"],
                "images": f"{row['images']:,}",
                "precision": percent(row["precision"]),
                "recall": percent(row["recall"]),
                "F1": percent(row["f1"]),
            }
            for row in self.per_class()
        ]

    def __str__(self) -> str:
        text = f"top-1 {self.top1:.2%}, top-5 {self.top5:.2%}, loss {self.loss:.4f} on {self.images:,} images"
        return f"{text}; {self.warning} and count as wrong" if self.warning else text


class ClassificationMetrics:
    """Gathers logits and targets batch by batch; `compute` gives the scores."""

    def __init__(self, classes: Sequence[str], device: torch.device | str = "cpu") -> None:
        from torchmetrics import SumMetric
        from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

        self.classes, count = tuple(classes), len(classes)
        # Each process is handed the batches of all processes, so they have nothing to add up between them.
        options: dict[str, Any] = {"num_classes": count, "validate_args": False, "sync_on_compute": False}
        self._top1 = MulticlassAccuracy(**options, average="micro", top_k=1).to(device)
        self._top5 = MulticlassAccuracy(**options, average="micro", top_k=min(5, count)).to(device)
        self._confusion = MulticlassConfusionMatrix(**options).to(device)
        # A sum: MeanMetric with this strategy forgets the weights, so a short last batch would count as a whole one.
        self._loss = SumMetric(nan_strategy="disable", sync_on_compute=False).to(device)
        self._unanswered = torch.zeros(count, dtype=torch.int64, device=device)
        self.images = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add a batch: logits `(B, C)` and class indices `(B,)`, int64."""
        outputs = outputs.float()
        answered = are_answers(outputs)
        known, truth = outputs[answered], targets[answered]
        if len(truth):
            self._top1.update(known, truth)
            self._top5.update(known, truth)
            self._confusion.update(known.argmax(-1), truth)
        self._unanswered += torch.bincount(targets[~answered], minlength=len(self.classes))
        self._loss.update(torch.nn.functional.cross_entropy(outputs, targets, reduction="sum"))
        self.images += len(targets)

    def compute(self) -> Evaluation:
        """Return the scores over everything that was added."""
        unanswered = tuple(self._unanswered.tolist())
        answered = self.images - sum(unanswered)
        blank = [[0] * len(self.classes) for _ in self.classes]
        counts = self._confusion.compute().cpu().tolist() if answered else blank
        share = answered / self.images if self.images else 0.0
        return Evaluation(
            top1=float(self._top1.compute()) * share if answered else 0.0,
            top5=float(self._top5.compute()) * share if answered else 0.0,
            loss=float(self._loss.compute()) / max(self.images, 1),
            images=self.images,
            classes=self.classes,
            confusion=tuple(tuple(int(count) for count in row) for row in counts),
            unanswered=unanswered if sum(unanswered) else (),
        )


def are_answers(outputs: Tensor) -> Tensor:
    """Return for each row of logits `(B, C)` whether it makes probabilities: it may hold -infinity, but no NaN."""
    return ~outputs.float().softmax(-1).isnan().any(-1)
