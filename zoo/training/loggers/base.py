"""The interface of a logger, and the set of loggers that follow one run."""

import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal

from zoo.progress import Progress
from zoo.rates import Plan
from zoo.settings import Preset
from zoo.tasks import Task
from zoo.training.kept_weights import KeptWeights
from zoo.training.position import Position
from zoo.training.run_folder import RunFolder


@dataclass(frozen=True)
class RunFacts:
    """What is known when a run starts.

    Attributes:
        folder: Where the run is kept.
        show: The terminal.
        preset: The effective preset.
        plan: Which parameter learns at which rate and when.
        task: Knows the columns and curves of its scores, and draws its examples.
        steps_per_epoch: Optimizer steps in one epoch.
        images: Validation images; None if there are none, or the data are loaders.
        records: One per finished epoch; a resumed run starts with some, and the run appends to them.
        is_stopping: Whether the run was asked to stop.
    """

    folder: RunFolder
    show: Progress
    preset: Preset
    plan: Plan
    task: Task
    steps_per_epoch: int
    images: Any = None
    records: Sequence[Mapping[str, Any]] = ()
    is_stopping: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class RunResult:
    """What a run has led to.

    Attributes:
        status: `interrupted` if it can be resumed.
        records: One per finished epoch: losses, scores (0 to 1), rates, speed.
        rates: For each group, its rate at every optimizer step.
        rate_changes: Rates set by callbacks: `step`, `group`, `lr`.
        proof: Digests of the frozen tensors at each moment.
        evaluation: Scores of the final weights; None if they were not scored.
        examples: What the task draws beside the scores.
        weights: Which weights each file holds; `evaluation` is of the first.
    """

    status: Literal["finished", "interrupted"]
    records: Sequence[Mapping[str, Any]]
    rates: Mapping[str, Sequence[float]]
    rate_changes: Sequence[Mapping[str, Any]] = ()
    proof: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Any = None
    examples: Any = ()
    weights: Mapping[str, KeptWeights] = field(default_factory=dict)


class Logger:
    """Base class of loggers: override what you need. Loggers run in the main process only.

    Attributes:
        order: Loggers are called in ascending order.
        is_required: Whether a run is not complete without its output. It then finishes while the run can still be
            resumed, and its errors end the run. Any other logger that fails is dropped, and the run goes on.
    """

    order: ClassVar[int] = 50
    is_required: ClassVar[bool] = False

    @classmethod
    def is_enabled(cls, facts: RunFacts) -> bool:
        """Return whether to follow this run; an opt-in logger asks the environment or the preset."""
        return True

    def start(self, facts: RunFacts) -> None:
        """Prepare, before the first step of a new or resumed run."""

    def step(self, position: Position, loss: float | None) -> None:
        """Log an optimizer step, at next to no cost; the loss is None if it was not fetched from the device."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Log the record of a finished epoch."""

    def finish(self, result: RunResult) -> None:
        """Log the result of a run that is finished or interrupted."""

    def close(self) -> None:
        """Let go of what is open, however the run has ended."""


class Loggers:
    """Calls the loggers of one run, and drops those that fail.

    Args:
        kinds: Their classes, in the order in which they are called.
        log: Told about each failure.
    """

    def __init__(self, kinds: Sequence[type[Logger]], log: Callable[[str], None]) -> None:
        self._kinds, self._say = kinds, log
        self._loggers: list[Logger] = []

    def start(self, facts: RunFacts) -> None:
        """Start the loggers that want to follow this run."""
        for kind in self._kinds:
            with self._surviving(kind):
                if kind.is_enabled(facts):
                    logger = kind()
                    logger.start(facts)
                    self._loggers.append(logger)

    def step(self, position: Position, loss: float | None) -> None:
        """Log a step, with those loggers that log steps."""
        for logger in self._loggers:
            if type(logger).step is not Logger.step:
                with self._surviving(type(logger)):
                    logger.step(position, loss)

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Log the record of an epoch."""
        for logger in self._loggers:
            with self._surviving(type(logger)):
                logger.epoch(record)

    def finish(self, result: RunResult, *, required: bool) -> None:
        """Finish the loggers that a run is not complete without, or the others."""
        for logger in self._loggers:
            if logger.is_required is required:
                with self._surviving(type(logger)):
                    logger.finish(result)

    def close(self) -> None:
        """Close the loggers, also those of a run that has failed."""
        for logger in self._loggers:
            with self._surviving(type(logger)):
                logger.close()

    @contextmanager
    def _surviving(self, kind: type[Logger]) -> Iterator[None]:
        """Drop a logger that fails, unless the run needs it."""
        try:
            yield
        except Exception as error:
            if kind.is_required:
                raise
            self._loggers = [logger for logger in self._loggers if type(logger) is not kind]
            reason = str(error).partition("\n")[0] or "no reason given"
            self._say(f"note: logger {kind.__name__} failed and is switched off: {type(error).__name__}: {reason}")


def find_loggers() -> list[type[Logger]]:
    """Return the logger of every module in this folder, in the order in which they are called."""
    names = [found.name for found in pkgutil.iter_modules([str(Path(__file__).parent)])]
    modules = [import_module(f"{__package__}.{name}") for name in names]
    loggers: list[type[Logger]] = [module.LOGGER for module in modules if hasattr(module, "LOGGER")]
    return sorted(loggers, key=lambda logger: (logger.order, logger.__name__))
