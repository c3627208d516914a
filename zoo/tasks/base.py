"""The interface of a task: what a run of one kind of model does that the others do otherwise.

A task knows data and outputs. It runs no network and writes no file: a split becomes a source that the engine makes
batches of, an evaluator scores outputs that it is handed, a plot is a function that takes a path.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from zoo._model import get_task
from zoo.errors import InputError, did_you_mean
from zoo.pages import make_fragment, make_table
from zoo.progress import Progress
from zoo.tasks.answers import PredictFlags
from zoo.tasks.options import list_tasks

if TYPE_CHECKING:  # a name is all that it takes to find a task; torch comes with the task itself
    import torch
    from torch import Tensor, nn

    from zoo.data import ImageSet, SplitSource, UserLoader

DEFAULT_TASK = "classification"  # of a module that does not say
LOSSES = ("val_loss", "loss")  # in the record of an epoch, lower is better


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What the card of a published model says of its task.

    Attributes:
        noun: What such a model is called, as in "a classifier of 3 classes".
        pipeline: The Hub's name for the task.
        dataset: What data without a name of its own is called in the metadata.
        scores: Key in the evaluation → metric of the Hub, label.
        columns: Key in the scores of a class → title.
        captions: Name of a plot's file without its ending → caption.
        counted: What the counts of each class in `data.json` count, where images are counted apart.
        former: Former keys in the scores of a class → those of today, for runs of earlier versions.
    """

    noun: str
    pipeline: str
    dataset: str
    scores: Mapping[str, tuple[str, str]]
    columns: Mapping[str, str]
    captions: Mapping[str, str]
    counted: str = "boxes"
    former: Mapping[str, str] = field(default_factory=dict)


class OpenedData(Protocol):
    """Data that a task has opened and checked; nothing outside the task reads more of it than this."""

    @property
    def train(self) -> "ImageSet | None":
        """Images to learn from; None where there are loaders, or only images to score."""
        ...

    @property
    def val(self) -> "ImageSet | None":
        """Images to score."""
        ...

    @property
    def test(self) -> "ImageSet | None":
        """More images to score."""
        ...

    @property
    def loaders(self) -> "Mapping[str, UserLoader] | None":
        """The user's own loaders by split, instead of images."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the class numbers."""
        ...

    @property
    def named(self) -> bool:
        """Whether the classes have names; if not, they are called by their numbers."""
        ...

    @property
    def source(self) -> str:
        """Where it came from: the path of a folder, or what kind of object."""
        ...

    @property
    def skipped(self) -> Sequence[Any]:
        """What was left out with `skip_bad`."""
        ...

    @property
    def options(self) -> Mapping[str, Any]:
        """The fields of the preset that it was opened with."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return plain values for a file, among them `source`, `classes`, and a `digest` that tells data sets apart."""
        ...

    def list_labels(self) -> dict[str, dict[str, Any]]:
        """Return the class of each image by split and name, of images that have one."""
        ...


def sum_up(data: OpenedData) -> str:
    """Return in one line where opened data comes from, and how many classes and images it has."""
    counts = ", ".join(f"{len(images):,} {name}" for name in ("train", "val") if (images := getattr(data, name)))
    return f"{data.source}: {len(data.classes)} classes, images: {counts or 'from loaders'}"


def show_data(data: OpenedData, counts: Mapping[str, Mapping[str, int]]) -> str:
    """Return opened data as a notebook shows it.

    Args:
        data: Of any task.
        counts: What there is of each class in each split.
    """
    rows = [{"class": name, **{split: f"{of[name]:,}" for split, of in counts.items()}} for name in data.classes]
    totals = {"class": "all", **{split: f"{sum(of.values()):,}" for split, of in counts.items()}}
    return make_fragment(sum_up(data), make_table(rows, totals, most=30) if counts else "")


class Evaluation(Protocol):
    """Scores over one split; its text is the line at the end of a run."""

    @property
    def score(self) -> float:
        """What tells the better of two models; higher is better."""
        ...

    @property
    def loss(self) -> float | None:
        """Mean loss; None if it was not computed."""
        ...

    def per_class(self) -> list[dict[str, Any]]:
        """Return the scores of each class, 0 to 1, with its name as `class`; None where nothing can be divided."""
        ...

    def record(self) -> dict[str, float]:
        """Return what the record of an epoch holds of it: `val_loss`, and the scores that the task has columns for."""
        ...

    def rows(self) -> list[dict[str, str]]:
        """Return the table per class as text."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return all scores as plain values."""
        ...


class AnyEvaluation(Evaluation, Protocol):
    """Scores of a task that a type checker does not know: beside what all have, the task's own, such as `top1`."""

    def __getattr__(self, name: str, /) -> Any:
        """Return a score of the task."""
        ...


class Evaluator(Protocol):
    """Scores one split, batch by batch.

    With several processes, each observes its own batches, and all are told what any of them observed.

    Attributes:
        in_rows: An observation is a tensor, or several, with one row per image; else it is a list of plain objects,
            and images that fill up the last batch are cut off before the network sees them.
    """

    in_rows: bool

    @property
    def examples(self) -> Sequence[Any]:
        """What is worth a look, for `Task.make_plots`."""
        ...

    def observe(self, outputs: Any, targets: Any) -> Any:
        """Return what is needed of a batch, without changing anything."""
        ...

    def update(self, observed: Any) -> None:
        """Add the observations of all processes for one batch."""
        ...

    def compute(self) -> Evaluation:
        """Return the scores over all that was added."""
        ...


class Task(Protocol):
    """What training asks of a task. `options` is the effective preset everywhere.

    Attributes:
        name: As models say it, and the name of the task's folder; of a variant with that of its task, and a dot.
        card: For the card of a published model.
        columns: Scores in the line of each epoch: label by key of the record.
        monitors: Scores of the record that may choose the best epoch, higher is better; the first does so by default.
        class_monitors: Scores of a single class that may, by their keys in `Evaluation.per_class`.
        curves: Scores that are drawn over the epochs, likewise.
        secondary: Columns of the table per class that a narrow terminal leaves out, the least important first.
        defaults: Fields of the preset that this task has other defaults for, where no preset is named.
        scoring_batch: Images per forward pass when a model is scored.
        flags: Options of the command `zoo predict` that mean something here and not for every task.
        saves: What the command can write into a folder.
        opening: Fields of its options that `open_data` takes.
        calibrates: Whether a trained model is calibrated on its outputs for the training images.
        solves: Whether its linear head can be solved: an image has one class, and the loss is a cross-entropy.
    """

    name: ClassVar[str]
    card: ClassVar[CardFacts]
    columns: ClassVar[Mapping[str, str]]
    monitors: ClassVar[tuple[str, ...]]
    class_monitors: ClassVar[tuple[str, ...]]
    curves: ClassVar[Mapping[str, str]]
    secondary: ClassVar[tuple[str, ...]]
    defaults: ClassVar[Mapping[str, Any]]
    scoring_batch: ClassVar[int]
    flags: ClassVar[frozenset[str]]
    saves: ClassVar[tuple[str, ...]]
    opening: ClassVar[tuple[str, ...]]
    calibrates: ClassVar[bool]
    solves: ClassVar[bool]

    def choose(self, options: Any) -> "Task":
        """Return the variant of the task that the options ask for, mostly itself.

        Raises:
            InputError: They ask for one that the model of this task cannot be used for.
        """
        ...

    def settle(self, model: Any, data: Any) -> None:
        """Prepare a model for its first step, once it has the classes of the data."""
        ...

    def calibrate(self, model: Any, evaluator: Evaluator) -> None:
        """Set what a trained model decides by.

        Args:
            model: With its final weights.
            evaluator: It has seen the outputs for the training images.
        """
        ...

    def open_data(self, source: Any, **options: Any) -> OpenedData:
        """Open data with the options of `zoo.open_data`; return open data as it is."""
        ...

    def report(self, data: Any, options: Any, show: Progress) -> None:
        """Say what should be known of opened data before a training."""
        ...

    def check_options(self, options: Any, model: Any = None) -> None:
        """Refuse values that contradict each other, or that this model does not take."""
        ...

    def check_installed(self) -> None:
        """Refuse to begin a run where a library is missing that it needs."""
        ...

    def choose_preprocess(self, model: Any, options: Any) -> Any:
        """Return how images are prepared, with the size that the options say, and keep that with the model."""
        ...

    def make_training_source(self, model: Any, data: Any, options: Any, *, is_frozen: bool) -> "SplitSource":
        """Describe the training split of opened data.

        Args:
            model: It has its preprocessing, as `choose_preprocess` leaves it.
            data: Opened data with images to learn from.
            options: Seed, epochs and random changes.
            is_frozen: Whether the backbone is, so that features can be kept of images that do not change.
        """
        ...

    def make_scoring_source(self, model: Any, images: Any, seed: int = 0) -> "SplitSource":
        """Describe images that are scored: prepared as the model predicts, without random changes.

        Args:
            model: As above.
            images: A split of opened data.
            seed: For data sets that draw random numbers themselves.
        """
        ...

    def make_worst_batch(self, model: Any, data: Any, options: Any, count: int) -> "tuple[Tensor, Any]":
        """Return images and targets of a batch that takes as much memory as any: to try what fits."""
        ...

    def make_loss(
        self,
        model: "nn.Module",
        data: Any,
        options: Any,
        compile: Callable[[Any], Any] | None = None,
    ) -> "Callable[[Any, Any], Tensor]":
        """Return what makes a scalar of outputs and targets."""
        ...

    def describe_balance(self, data: Any, options: Any) -> Mapping[str, Mapping[str, float]]:
        """Return numbers per class that say how classes are balanced, for `data.json`; empty if they are not."""
        ...

    def make_evaluator(
        self,
        model: Any,
        classes: Sequence[str],
        images: Any,
        *,
        device: "torch.device",
        loss: "Callable[[Any, Any], Tensor] | None" = None,
    ) -> Evaluator:
        """Return what scores a split.

        Args:
            model: It has its preprocessing.
            classes: Names, in the order of the outputs.
            images: The split; None where its batches come from a loader of the user's.
            device: Where outputs are.
            loss: As `make_loss` gave it; None: the model's own.
        """
        ...

    def make_plots(self, evaluation: Any, examples: Any, images: Any) -> Mapping[str, Callable[[Path], Any]]:
        """Return the plots of an evaluation by the names of their files; each is drawn when it is called with a path.

        Args:
            evaluation: What the evaluator computed.
            examples: Of the evaluator.
            images: As the evaluator had them.
        """
        ...

    def predict_command(self, model: Any, sources: Any, flags: PredictFlags) -> None:
        """Print what a model says of images, and draw it or write it down where the flags say so."""
        ...


class TaskDefaults:
    """What most tasks do without: variants, preparation of a new head, calibration."""

    calibrates: ClassVar[bool] = False
    solves: ClassVar[bool] = False

    def choose(self, options: Any) -> Task:
        """Return this task."""
        return cast(Task, self)

    def settle(self, model: Any, data: Any) -> None:
        """Leave the model as it is."""

    def calibrate(self, model: Any, evaluator: Any) -> None:
        """Leave the model as it is."""


def check_monitor(task: Task, name: str | None, classes: Sequence[str] | None = None) -> None:
    """Refuse a metric that no record of the task holds.

    Args:
        task: Has the metrics.
        name: Of the metric; None: the task's own. `f1:cat` is that of a class.
        classes: Of the data; None: not known yet.

    Raises:
        InputError: Naming those that there are.
    """
    score, _, of = (name or "").partition(":")
    known = (*task.monitors, *LOSSES)
    if not name or name in known:
        return
    if score not in task.class_monitors or not of:
        of_class = ", ".join(f"{score}:CLASS" for score in task.class_monitors)
        raise InputError(
            f"monitor is {name!r}; expected one of {', '.join(known)}, {of_class} for a {task.card.noun}."
            f"{did_you_mean(name, known)}"
        )
    if classes is not None and of not in classes:
        raise InputError(
            f"monitor is {name!r}, but the data has no class {of!r}; it has {', '.join(classes[:10])}"
            f"{' ...' if len(classes) > 10 else ''}.{did_you_mean(of, classes)}"
        )


def task_names() -> list[str]:
    """Return the names of all tasks, which are those of their folders, and of their variants."""
    return list_tasks()


def task_of(model: Any) -> Task:
    """Return the task of a model, of an entry of the registry, or of a name; any module that does not say classifies.

    Raises:
        InputError: There is no such task here.
    """
    name = model
    if not isinstance(model, str):
        name = get_task(model, DEFAULT_TASK) if callable(model) else getattr(model, "task", DEFAULT_TASK)
    if name not in (names := task_names()):
        raise InputError(f"unknown task {name!r}; expected {' or '.join(name for name in names if '.' not in name)}.")
    task: Task = importlib.import_module(f"zoo.tasks.{name}").TASK
    return task


def open_data(source: Any, *, task: str = DEFAULT_TASK, **options: Any) -> Any:
    """Open data of any kind, and find what cannot be used before anything is trained.

    Args:
        source: What `finetune` takes.
        task: `classification` or `detection`.
        options: `classes`, `val_fraction`, `seed`, `skip_bad`, `check`, `evaluation`, `only` and `on_progress`, and of
            classifiers `exclude`, `image_root` and `labels`, as `zoo.tasks.classification.data.open_data` and
            `zoo.tasks.detection.data.open_box_data` explain them.

    Returns:
        A `zoo.tasks.classification.data.Data` or a `zoo.tasks.detection.data.BoxData`.

    Raises:
        DataError: If the data cannot be used; the text says what was found, what was expected, and what to do.
    """
    return task_of(task).open_data(source, **options)
