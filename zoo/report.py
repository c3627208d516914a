"""What is left of a run to look at, whatever its task: how the scores and the rates went."""

from collections.abc import Mapping, Sequence
from typing import Any

from zoo.checkpoint import RunFolder
from zoo.pictures import draw_curves, draw_rates


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
    draw_curves(records, folder.pictures / "curves.png", scores=scores)
    draw_rates(rates, folder.pictures / "rates.png", steps_per_epoch=steps_per_epoch)
