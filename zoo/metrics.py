"""Scores of a classifier over a data set: loss, top-1, top-5, precision and recall per class, confusion matrix."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Evaluation:
    """Scores over one data set.

    Attributes:
        top1: Share of images whose most probable class is right, 0 to 1.
        top5: Share of images whose true class is among the five most probable (or all, if there are fewer).
        loss: Mean cross-entropy, nats.
        images: How many images.
        classes: Class names.
        confusion: `(C, C)` counts; rows are the truth, columns the prediction.
    """

    top1: float
    top5: float
    loss: float
    images: int
    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]

    @property
    def score(self) -> float:
        """What tells the better of two models: top-1."""
        return self.top1

    def record(self) -> dict[str, float]:
        """Return what the record of an epoch holds of it."""
        return {"val_loss": self.loss, "top1": self.top1, "top5": self.top5}

    def per_class(self) -> list[dict[str, Any]]:
        """Return name, images, precision, recall and F1 of each class, 0 to 1; `None` where nothing can be divided."""
        rows = []
        columns = [sum(row[index] for row in self.confusion) for index in range(len(self.classes))]
        for index, name in enumerate(self.classes):
            right, true, said = self.confusion[index][index], sum(self.confusion[index]), columns[index]
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
        scores = {"top1": self.top1, "top5": self.top5, "loss": self.loss, "images": self.images}
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
        return f"top-1 {self.top1:.2%}, top-5 {self.top5:.2%}, loss {self.loss:.4f} on {self.images:,} images"


class ClassificationMetrics:
    """Gathers logits and targets batch by batch; `compute` gives the scores."""

    def __init__(self, classes: Sequence[str], device: torch.device | str = "cpu") -> None:
        from torchmetrics import MeanMetric
        from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

        self.classes, count = tuple(classes), len(classes)
        # Each process is handed the batches of all processes, so they have nothing to add up between them.
        options: dict[str, Any] = {"num_classes": count, "validate_args": False, "sync_on_compute": False}
        self._top1 = MulticlassAccuracy(**options, average="micro", top_k=1).to(device)
        self._top5 = MulticlassAccuracy(**options, average="micro", top_k=min(5, count)).to(device)
        self._confusion = MulticlassConfusionMatrix(**options).to(device)
        self._loss = MeanMetric(sync_on_compute=False).to(device)
        self.images = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add a batch: logits `(B, C)` and class indices `(B,)`, int64."""
        outputs = outputs.float()
        self._top1.update(outputs, targets)
        self._top5.update(outputs, targets)
        self._confusion.update(outputs.argmax(-1), targets)
        self._loss.update(torch.nn.functional.cross_entropy(outputs, targets), weight=len(targets))
        self.images += len(targets)

    def compute(self) -> Evaluation:
        """Return the scores over everything that was added."""
        counts = self._confusion.compute().cpu().tolist()
        return Evaluation(
            top1=float(self._top1.compute()),
            top5=float(self._top5.compute()),
            loss=float(self._loss.compute()),
            images=self.images,
            classes=self.classes,
            confusion=tuple(tuple(int(count) for count in row) for row in counts),
        )
