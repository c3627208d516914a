"""A finished run, as `finetune` and `resume` return it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import InputError
from zoo.rates import Plan
from zoo.settings import Preset
from zoo.training.evaluation import evaluate


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: Where everything of it is.
        model: The trained model, in eval mode.
        plan: Which parameter learnt at which rate.
        preset: The effective preset.
        metrics: One record per epoch: `loss`, `val_loss`, the scores (0 to 1), `lr` of each group, speed.
        evaluation: Scores of the model on the validation images; None if there were none.
        proof: Digests of the frozen tensors at each moment.
    """

    folder: Path
    model: Any
    plan: Plan
    preset: Preset
    metrics: list[dict[str, Any]]
    evaluation: Any
    proof: dict[str, Any]

    def predict(self, sources: Any, **options: Any) -> Any:
        """Say what is on images; see the model's own `predict`."""
        if not callable(getattr(self.model, "predict", None)):
            raise InputError(
                f"{type(self.model).__name__} has no predict(); run.model(images) gives its outputs for tensors."
            )
        return self.model.predict(sources, **options)

    def evaluate(self, data: Any, **options: Any) -> Any:
        """Score the model on other data; see `zoo.evaluate`."""
        return evaluate(self.model, data, **options)

    def __str__(self) -> str:
        return f"run in {self.folder}: {self.evaluation or 'not evaluated'}"
