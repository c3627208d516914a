"""Which epochs the weights are of that a run keeps, and why these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

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
            return f"{which}, best {self.chosen_by}"
        return which if len(self.epochs) > 1 else f"{which}, the last"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; of the record only losses and scores."""
        shown = {key: value for key, value in self.metrics.items() if isinstance(value, float)}
        scores = {key: value for key, value in shown.items() if key not in _PACE}
        return {"epochs": [*self.epochs], "chosen_by": self.chosen_by, "moving_average": self.has_average, **scores}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return what `to_dict` described, without the scores."""
        return cls(values["epochs"], values["chosen_by"], values["moving_average"])


def name_epochs(epochs: Sequence[int]) -> str:
    """Return `epoch 3`, or `mean of epochs 6 to 10`."""
    return f"epoch {epochs[0]}" if len(epochs) == 1 else f"mean of epochs {epochs[0]} to {epochs[-1]}"
