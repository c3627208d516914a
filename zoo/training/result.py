"""A finished run, as `finetune` and `resume` return it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo.errors import InputError
from zoo.models import Model
from zoo.rates import Plan
from zoo.settings import Preset
from zoo.tasks import AnyEvaluation
from zoo.training.evaluation import evaluate
from zoo.training.report import show_run
from zoo.training.run_claim import name_model


@dataclass(frozen=True, repr=False)
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
    model: Model
    plan: Plan
    preset: Preset
    metrics: list[dict[str, Any]]
    evaluation: AnyEvaluation | None
    proof: dict[str, Any]

    def predict(self, sources: Any, **options: Any) -> Any:
        """Say what is on images; see the model's own `predict`."""
        if not callable(getattr(self.model, "predict", None)):
            raise InputError(
                f"{type(self.model).__name__} has no predict(). Call run.model(images) with a batch of tensors."
            )
        return self.model.predict(sources, **options)

    def embed(self, sources: Any, **options: Any) -> Tensor:
        """Return the features that the head is shown of images, `(N, D)`; see the model's own `embed`."""
        if not callable(getattr(self.model, "embed", None)):
            raise InputError(f"{type(self.model).__name__} has no embed(): features are those of a classifier.")
        features: Tensor = self.model.embed(sources, **options)
        return features

    def evaluate(self, data: Any, **options: Any) -> AnyEvaluation:
        """Score the model on other data; see `zoo.evaluate`."""
        return evaluate(self.model, data, **options)

    def _repr_html_(self) -> str:
        """Return scores and curves as a notebook shows them."""
        return show_run(self.folder)

    def __repr__(self) -> str:
        scores = "not evaluated" if self.evaluation is None else str(self.evaluation)
        return f"<Run {self.folder}: {name_model(self.model)}, {len(self.metrics)} epochs, {scores}>"

    def __str__(self) -> str:
        return f"run in {self.folder}: {self.evaluation or 'not evaluated'}"
