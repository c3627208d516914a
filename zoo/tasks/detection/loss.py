"""The loss of a detector, which is the model's own, as a whole and term by term."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from zoo._model import ask
from zoo.errors import InputError
from zoo.tasks.detection.batches import BoxTargets


@dataclass(frozen=True)
class ModelLoss:
    """The loss of a model with its settings.

    Attributes:
        model: Has `loss(outputs, rows, **params)`, and may have `loss_parts` with the same arguments.
        params: Settings of the loss.
    """

    model: Any
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not callable(ask(self.model, "loss")):
            raise InputError(
                f"{type(self.model).__name__} has no method loss(outputs, rows), which training a detector needs."
            )

    def __call__(self, outputs: Any, targets: BoxTargets) -> Tensor:
        """Return the loss of a batch, a scalar."""
        value: Tensor = self.model.loss(outputs, targets.rows, **self.params)
        return value

    def split(self, outputs: Any, targets: BoxTargets) -> dict[str, Tensor]:
        """Return the terms of the loss by name; one term without a name if the model does not tell them apart."""
        parts = ask(self.model, "loss_parts")
        if not callable(parts):
            return {"": self(outputs, targets)}
        terms: dict[str, Tensor] = parts(outputs, targets.rows, **self.params)
        return terms
