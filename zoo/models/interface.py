"""What all models of this package have in common, for whoever works with one without knowing its task."""

from typing import TYPE_CHECKING, Any

from torch import nn

from zoo.models.hooks import GroupHooks
from zoo.models.notebook import show_model
from zoo.weights import Licence, LoadReport


class Model(GroupHooks, nn.Module):
    """A network with its preprocessing, its classes, and what is known of its weights: what `zoo.get` returns.

    Attributes:
        task: What it does, the name of a folder in `zoo/tasks`.
        preprocess: What the weights expect of an image.
        classes: Class names, in the order of the outputs.
        licence: Of the code, and of the weights that were loaded.
        load_report: What was loaded from where; None for random weights.
        config: What a checkpoint needs to build this model again: registry name, options, origin.
        why_fixed: Why it cannot be trained, as a sentence; empty if it can.
    """

    task: str
    classes: tuple[str, ...]
    licence: Licence
    load_report: LoadReport | None
    config: dict[str, Any]
    why_fixed: str = ""

    def _repr_html_(self) -> str:
        """Return what is known of the model, and its parts, as a notebook shows them."""
        return show_model(self)

    if TYPE_CHECKING:  # what a task adds, a type checker does not know
        preprocess: Any
        num_classes: Any

        def predict(self, *args: Any, **options: Any) -> Any:
            """Say what is on images; see the model's own."""

        def __getattr__(self, name: str) -> Any: ...
