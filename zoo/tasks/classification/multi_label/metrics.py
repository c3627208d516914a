"""Scores of labels over a data set: average precision, F1 at the thresholds, and which labels are named together."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from zoo.tasks.classification.multi_label.thresholds import DEFAULT


@dataclass(frozen=True)
class LabelScores:
    """Scores of one label.

    Attributes:
        name: Its name.
        images: Images that have it.
        ap: Average precision, 0 to 1; None without images.
        named: Images that it is named of.
        right: Of these, those that have it.
        threshold: From which probability on it is named.
    """

    name: str
    images: int
    ap: float | None
    named: int
    right: int
    threshold: float

    @property
    def f1(self) -> float | None:
        """F1 at the threshold; None if it is neither there nor named."""
        total = self.images + self.named
        return 2 * self.right / total if total else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "class": self.name,
            "images": self.images,
            "ap": self.ap,
            "precision": self.right / self.named if self.named else None,
            "recall": self.right / self.images if self.images else None,
            "f1": self.f1,
            "threshold": self.threshold,
        }


@dataclass(frozen=True)
class MultiLabelEvaluation:
    """Scores over one data set.

    Attributes:
        loss: Binary cross-entropy, summed over the labels, mean over the images, nats.
        images: How many images.
        labels: Scores of each label.
        plain_f1: Micro F1 if every label is named from a probability of 0.5 on.
        cooccurrence: `(C, C)` counts of images: rows have this label, columns are named.
        unanswered: Images whose outputs are not numbers; nothing is named of them.
    """

    loss: float
    images: int
    labels: tuple[LabelScores, ...] = field(repr=False)
    plain_f1: float
    cooccurrence: tuple[tuple[int, ...], ...] = field(repr=False)
    unanswered: int = 0

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels."""
        return tuple(label.name for label in self.labels)

    @property
    def map(self) -> float:
        """Mean average precision over the labels that any image has, 0 to 1."""
        return _mean([label.ap for label in self.labels])

    @property
    def micro_f1(self) -> float:
        """F1 over all labels of all images, at the thresholds, 0 to 1."""
        right = sum(label.right for label in self.labels)
        return 2 * right / max(sum(label.named + label.images for label in self.labels), 1)

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the labels that are there or named, at the thresholds, 0 to 1."""
        return _mean([label.f1 for label in self.labels])

    @property
    def score(self) -> float:
        """What tells the better of two models: mAP."""
        return self.map

    @property
    def warning(self) -> str | None:
        """What is wrong with the outputs; None if nothing is."""
        if not self.unanswered:
            return None
        return f"{self.unanswered:,} of {self.images:,} images gave NaN or infinite outputs"

    @property
    def doubt(self) -> str | None:
        """What speaks against scores that are numbers: no label is ever named; else None."""
        if any(label.named for label in self.labels) or not any(label.images for label in self.labels):
            return None
        return "no label reaches its threshold in any image: the model is undertrained, or training has diverged"

    def record(self) -> dict[str, float]:
        """Return what the record of an epoch holds of it."""
        return {"val_loss": self.loss, "map": self.map, "micro_f1": self.micro_f1, "macro_f1": self.macro_f1}

    def per_class(self) -> list[dict[str, Any]]:
        """Return the scores of each label."""
        return [label.to_dict() for label in self.labels]

    def to_dict(self) -> dict[str, Any]:
        """Return all scores as plain values."""
        scores = {"map": self.map, "micro_f1": self.micro_f1, "macro_f1": self.macro_f1}
        scores |= {"micro_f1_at_half": self.plain_f1, "loss": self.loss, "images": self.images}
        if self.unanswered:
            scores["unanswered"] = self.unanswered
        return scores | {"per_class": self.per_class(), "cooccurrence": [list(row) for row in self.cooccurrence]}

    def rows(self) -> list[dict[str, str]]:
        """Return the table per label as text."""

        def percent(value: float | None) -> str:
            return "-" if value is None else f"{value:.1%}"

        return [
            {
                "label": row["class"],
                "images": f"{row['images']:,}",
                "AP": percent(row["ap"]),
                "precision": percent(row["precision"]),
                "recall": percent(row["recall"]),
                "F1": percent(row["f1"]),
                "threshold": f"{row['threshold']:.2f}",
            }
            for row in self.per_class()
        ]

    def __str__(self) -> str:
        text = (
            f"mAP {self.map:.2%}, micro F1 {self.micro_f1:.2%}, macro F1 {self.macro_f1:.2%}, loss {self.loss:.4f} on "
            f"{self.images:,} images"
        )
        return f"{text}; {self.warning} and count as naming nothing" if self.warning else text


def compute_scores(
    logits: Tensor, targets: Tensor, classes: Sequence[str], thresholds: Sequence[float]
) -> MultiLabelEvaluation:
    """Return the scores of logits `(N, C)`, float32, against targets `(N, C)`, 0 or 1."""
    truth, answered = targets.bool(), ~logits.isnan().any(1)
    probabilities = logits.sigmoid().nan_to_num(0.0)
    named = (probabilities >= torch.tensor(thresholds)) & answered[:, None]
    plain = (probabilities >= DEFAULT) & answered[:, None]
    right = named & truth
    ranks = logits.masked_fill(~answered[:, None], -torch.inf)
    labels = tuple(
        LabelScores(
            name=name,
            images=int(truth[:, place].sum()),
            ap=_average_precision(ranks[:, place], truth[:, place]),
            named=int(named[:, place].sum()),
            right=int(right[:, place].sum()),
            threshold=thresholds[place],
        )
        for place, name in enumerate(classes)
    )
    losses = functional.binary_cross_entropy_with_logits(logits, targets.float(), reduction="none").sum(1)
    together = truth.double().T @ named.double()
    return MultiLabelEvaluation(
        loss=float(losses.double().mean()),
        images=len(logits),
        labels=labels,
        plain_f1=2 * int((plain & truth).sum()) / max(int(plain.sum()) + int(truth.sum()), 1),
        cooccurrence=tuple(tuple(map(int, row)) for row in together.tolist()),
        unanswered=int((~answered).sum()),
    )


def _average_precision(values: Tensor, truth: Tensor) -> float | None:
    """Return the average precision of a ranking; None if nothing is true.

    torchmetrics takes values beyond 0 to 1 for logits, and float32 makes equal probabilities of large ones: it is given
    the places of the values in their order, equal ones with the same place.
    """
    from torchmetrics.functional.classification import binary_average_precision

    if not truth.any():
        return None
    places = torch.unique(values, return_inverse=True)[1]
    return float(binary_average_precision(places.double() / max(len(values), 1), truth.long()))


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 0.0
