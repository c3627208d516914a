"""Which epochs the weights are of that a run keeps, and why these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from zoo.tasks import LOSSES, find_scores

_PACE = ("images_per_second", "waiting", "seconds", "seconds_left")  # of a record: how fast the epoch was


@dataclass(frozen=True)
class KeptWeights:
    """Which weights of a run a file holds.

    Attributes:
        epochs: The epoch they are of, from 1; of several epochs the mean.
        chosen_by: The metric by which they are the best; None: they are those of the end.
        has_average: Whether they are a moving average (EMA).
        metrics: Record of the epoch; empty if the epoch was not scored, or for a mean.
    """

    epochs: Sequence[int]
    chosen_by: str | None = None
    has_average: bool = False
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        which = name_epochs(self.epochs) + ", moving average" * self.has_average
        if self.chosen_by:
            return f"{which}, best {label_metric(self.chosen_by)}"
        return which if len(self.epochs) > 1 else f"{which}, the last"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; of the record only losses and scores."""
        shown = {key: value for key, value in self.metrics.items() if isinstance(value, float)}
        scores = {key: value for key, value in shown.items() if key not in _PACE}
        return {"epochs": [*self.epochs], "chosen_by": self.chosen_by, "moving_average": self.has_average, **scores}

    def tell(self, key: str) -> str:
        """Return a metric of the epoch in words, such as `top-1 54.8 %`; empty if it was not measured."""
        value = self.metrics.get(key)
        if value is None:
            return ""
        return f"{label_metric(key)} {f'{value:.4g}' if key in LOSSES else f'{value:.2%}'}"

    @classmethod
    def find(cls, evaluation: Mapping[str, Any], file: str) -> Self | None:
        """Return what `evaluation.json` says of a file of weights, without its scores; None if it does not tell."""
        weights = evaluation.get("weights")
        kept = weights.get(file) if isinstance(weights, Mapping) else None
        if not isinstance(kept, Mapping) or not kept.get("epochs"):
            return None
        return cls(kept["epochs"], kept.get("chosen_by"), bool(kept.get("moving_average")))


def label_metric(key: str) -> str:
    """Return the label of a metric by its key in a record, such as `top-1` or `mAP`; other keys as they are."""
    return next((labels[key] for labels in find_scores().values() if key in labels), key)


def name_epochs(epochs: Sequence[int]) -> str:
    """Return `epoch 3`, or `mean of epochs 6 to 10`."""
    return f"epoch {epochs[0]}" if len(epochs) == 1 else f"mean of epochs {epochs[0]} to {epochs[-1]}"
