"""The tasks: what a run of one kind of model does that the others do otherwise, behind one interface."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from accelerate import Accelerator
from torch import Tensor, nn

from zoo._model import ask
from zoo.data import Prepare
from zoo.engine import Supply
from zoo.errors import InputError
from zoo.models import Entry
from zoo.progress import Progress
from zoo.rates import Plan
from zoo.settings import Preset
from zoo.tasks.classification.task import Classification
from zoo.tasks.detection.task import Detection
from zoo.training import RunFolder


class Task(Protocol):
    """What the trainer asks of a task.

    Attributes:
        name: As models say it.
        columns: Scores in the line of each epoch: label by key of the record. By the first the best epoch is chosen.
        curves: Scores that are drawn over the epochs, likewise.
        defaults: Fields of the preset that this task has other defaults for, where no preset is named.
        scoring_batch: Images per forward pass when a model is scored.
    """

    name: str
    columns: Mapping[str, str]
    curves: Mapping[str, str]
    defaults: Mapping[str, Any]
    scoring_batch: int

    def open_data(self, source: Any, **options: Any) -> Any:
        """Open data with the options of `zoo.open_data`; return open data as it is."""

    def tell(self, data: Any, show: Progress) -> None:
        """Say what should be known of opened data before a training."""

    def check_preset(self, preset: Preset, model: Any = None) -> None:
        """Refuse fields that have no meaning here, or for this model."""

    def choose_preprocess(self, model: Any, preset: Preset) -> Any:
        """Return how images are prepared, with the preset's size, and keep that with the model."""

    def make_supply(
        self,
        model: nn.Module,
        data: Any,
        preset: Preset,
        plan: Plan,
        accelerator: Accelerator,
        show: Progress,
        folder: RunFolder,
    ) -> Supply:
        """Return where batches come from; the model's preprocessing is settled here."""

    def make_worst_batch(self, model: Any, data: Any, preset: Preset, count: int) -> tuple[Tensor, Any]:
        """Return images and targets of a batch that takes as much memory as any: to try what fits."""

    def make_loss(
        self, model: nn.Module, classes: Sequence[str], preset: Preset, compile: Callable[[Any], Any] | None = None
    ) -> Callable[[Any, Any], Tensor]:
        """Return what makes a scalar of outputs and targets."""

    def load_for_scoring(self, model: Any, images: Any, **options: Any) -> Any:
        """Return a loader of images that are not augmented."""

    def prepare_for_scoring(self, model: Any) -> Prepare:
        """Return what turns a batch of that loader into what the network takes."""

    def score(
        self,
        network: nn.Module,
        batches: Any,
        accelerator: Accelerator,
        *,
        model: Any,
        classes: Sequence[str],
        images: Any,
        loss: Callable[[Any, Any], Tensor] | None = None,
    ) -> tuple[Any, Any]:
        """Return the scores over all batches, and examples to draw; `loss` as `make_loss` gave it."""

    def draw(self, folder: RunFolder, evaluation: Any, examples: Any, images: Any) -> None:
        """Draw what came out."""


TASKS: dict[str, Task] = {task.name: task for task in (Classification(), Detection())}


def task_of(model: Any) -> Task:
    """Return the task of a model, an entry of the registry, or a name; any module that does not say is a classifier.

    Raises:
        InputError: There is no such task here.
    """
    name = (
        model
        if isinstance(model, str)
        else getattr(model, "task", "classification")
        if isinstance(model, Entry)
        else ask(model, "task", "classification")
    )
    if name not in TASKS:
        raise InputError(f"the task {name!r} is unknown; expected {' or '.join(TASKS)}.")
    return TASKS[name]


def open_data(source: Any, *, task: str = "classification", **options: Any) -> Any:
    """Open data of any kind, and find what cannot be used before anything is trained.

    Args:
        source: What `finetune` takes.
        task: `classification` or `detection`.
        options: `classes`, `val_fraction`, `seed`, `skip_bad`, `check`, `evaluation`, `only` and `on_progress`, as
            `zoo.tasks.classification.data.open_data` and `zoo.tasks.detection.data.open_box_data` explain them.

    Returns:
        A `zoo.tasks.classification.data.Data` or a `zoo.tasks.detection.data.BoxData`.

    Raises:
        DataError: If the data cannot be used; the text says what was found, what was expected, and what to do.
    """
    return task_of(task).open_data(source, **options)
