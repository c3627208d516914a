"""Draws how the penalty of a solved head was chosen."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, PercentFormatter

from zoo._figures import BLUE, GREEN, GREY, arranged, look, save


def draw_penalty(solution: Mapping[str, Any], path: str | Path) -> Path:
    """Draw cost and accuracy of held-out training images over the penalties, side by side.

    Args:
        solution: `solution.json` of a run, with the `path` of penalties and the chosen `l2`.
        path: The PNG to write.

    Returns:
        The path.
    """
    with look():
        return save(_draw(solution["path"], solution["l2"]), path)


def _draw(points: Sequence[Mapping[str, float]], chosen: float) -> Figure:
    figure = arranged(9, 3.8, "L2 penalty by cross-validation within the training images")
    loss, scores = figure.subplots(1, 2)
    penalties = [point["l2"] for point in points]
    cost = [point["cost"] for point in points]
    low, high = ([point["cost"] + sign * point["error"] for point in points] for sign in (-1, 1))
    loss.fill_between(penalties, low, high, color=BLUE, alpha=0.15, linewidth=0)
    loss.plot(penalties, cost, color=BLUE, marker=".")
    loss.set(title="Loss of held-out images ± standard error", xlabel="L2 penalty", ylabel="loss")
    scores.plot(penalties, [point["accuracy"] for point in points], color=GREEN, marker=".")
    scores.set(title="Top-1 of held-out images", xlabel="L2 penalty", ylabel="top-1, %")
    scores.yaxis.set_major_formatter(PercentFormatter(1, decimals=None, symbol=""))
    for axes in (loss, scores):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.axvline(chosen, color=GREY, linestyle=":")
        axes.annotate(
            f"chosen: {chosen:.3g}",
            (chosen, 0.97),
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            textcoords="offset points",
            va="top",
            color=GREY,
        )
    return figure
