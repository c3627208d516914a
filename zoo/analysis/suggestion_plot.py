"""Draws candidates: how good over how slow."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.ticker import PercentFormatter

from zoo._figures import BLUE, GREY, VERMILION, arranged, look, save, shorten

if TYPE_CHECKING:
    from zoo.analysis.suggestion import Candidate


def draw_suggestion(candidates: "Sequence[Candidate]", path: str | Path, *, images: int) -> Path:
    """Draw top-1 over milliseconds per image; the Pareto front is a line.

    Args:
        candidates: Marked.
        path: The PNG to write.
        images: That they were scored on.

    Returns:
        The path.
    """
    with look():
        figure = arranged(8, 5, "Backbones for these images")
        axes = figure.subplots()
        front = sorted((one for one in candidates if one.is_front), key=lambda one: one.milliseconds)
        axes.step(
            [one.milliseconds for one in front],
            [one.top1 for one in front],
            where="post",
            color=VERMILION,
            label="Pareto front",
        )
        for one in candidates:
            colour = BLUE if one.is_front else GREY
            axes.errorbar(one.milliseconds, one.top1, one.error, fmt="o", color=colour, capsize=2, elinewidth=1)
            name = shorten(Path(one.model).name, 28)
            axes.annotate(name, (one.milliseconds, one.top1), (6, 6), textcoords="offset points", fontsize=8)
        axes.set(xlabel="milliseconds per image", ylabel=f"top-1, cross-validated on {images:,} images")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        axes.margins(x=0.25, y=0.2)
        axes.legend(loc="lower right")
        return save(figure, path)
