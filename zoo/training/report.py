"""What is left of a run to look at, whatever its task: how the scores and the rates went."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.tasks.classification import draw_curves, draw_rates
from zoo.training.run_folder import RunFolder


def draw_course(
    folder: RunFolder,
    records: Sequence[Mapping[str, Any]],
    rates: Mapping[str, Sequence[float]],
    *,
    scores: Mapping[str, str],
    steps_per_epoch: int,
) -> None:
    """Draw loss and scores over the epochs, and rates over the steps, into the run's folder.

    Args:
        folder: The run's.
        records: One per epoch.
        rates: For each group, its rate at every optimizer step.
        scores: Labels of the scores to draw, by their key in the records; the first has its best epoch marked.
        steps_per_epoch: Optimizer steps in one epoch.
    """
    folder.draw("curves.png", lambda path: draw_curves(records, path, scores=scores))
    folder.draw("rates.png", lambda path: draw_rates(rates, path, steps_per_epoch=steps_per_epoch))


def draw_plots(folder: RunFolder, plots: Mapping[str, Callable[[Path], Any]]) -> None:
    """Draw the plots of a task into the run's folder."""
    for name, draw in plots.items():
        folder.draw(name, draw)


def tell_undrawn(folder: RunFolder, say: Callable[[str], None]) -> None:
    """Say which pictures could not be drawn, and why."""
    for name, reason in folder.undrawn.items():
        say(f"note: the picture {name} could not be drawn: {reason}")
