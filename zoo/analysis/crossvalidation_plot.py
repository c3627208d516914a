"""Draws a cross-validation: the score of every split with the interval of the mean, and the learning curve."""

from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

from zoo._figures import BLUE, GREY, INK, VERMILION, arranged, look, save, shorten

if TYPE_CHECKING:
    from zoo.analysis.crossvalidation import CrossValidation

SCORES = (("top1", "top-1", BLUE), ("macro_f1", "macro F1", VERMILION))
SPREAD = 0.3  # of the dots of one score, in distances between two scores


def draw_crossvalidation(found: "CrossValidation", path: str | Path) -> Path:
    """Draw scores and learning curve as one PNG, and return its path."""
    with look():
        return save(_draw(found), path)


def _draw(found: "CrossValidation") -> Figure:
    times = f" × {found.repeats}" * (found.repeats > 1)
    grouped = "" if found.groups is None else f", {found.groups:,} groups"
    title = f"Cross-validation of {shorten(found.model, 30)}"
    figure = arranged(9.6 if found.curve else 4.8, 4.0, title)
    axes = figure.subplots(1, 2 if found.curve else 1, squeeze=False, width_ratios=[2, 3] if found.curve else None)[0]
    _draw_splits(axes[0], found)
    axes[0].set_title(f"{found.folds} folds{times}, {found.images:,} images{grouped}")
    if found.curve:
        _draw_curve(axes[1], found)
    return figure


def _draw_splits(axes: Axes, found: "CrossValidation") -> None:
    for place, (key, _, colour) in enumerate(SCORES):
        score = found.scores[key]
        count = len(score.values)
        across = [place - 0.1 - SPREAD * (number + 0.5) / count for number in range(count)]
        axes.plot(across, score.values, "o", color=colour, alpha=0.45, markersize=4.5, markeredgewidth=0)
        reach = [[score.mean - score.low], [score.high - score.mean]]
        axes.errorbar([place + 0.08], [score.mean], reach, fmt="o", color=colour, capsize=5, markersize=6)
        axes.text(place + 0.17, score.mean, f"{score.mean:.1%}", color=INK, va="center", size=9)
    axes.set_xticks(range(len(SCORES)), [name for _, name, _ in SCORES])
    axes.set(
        xlim=(-0.55, len(SCORES) - 0.35), ylabel="held-out score, %", xlabel="each split, and mean with 95 % interval"
    )
    axes.grid(axis="x", visible=False)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None, symbol=""))


def _draw_curve(axes: Axes, found: "CrossValidation") -> None:
    sizes = [point.images_per_class for point in found.curve]
    for key, name, colour in SCORES:
        scores = [point.scores[key] for point in found.curve]
        axes.plot(sizes, [score.mean for score in scores], "o-", color=colour, markersize=4.5, label=name)
    top1 = [point.scores["top1"] for point in found.curve]
    low, high = [score.low for score in top1], [score.high for score in top1]
    axes.fill_between(sizes, low, high, color=BLUE, alpha=0.13, linewidth=0, label="95 % interval of top-1")
    for size, score in zip(sizes, top1, strict=True):
        dots = [size] * len(score.values)
        axes.plot(dots, score.values, "o", color=BLUE, alpha=0.35, markersize=3, markeredgewidth=0)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(sizes, [f"{size:.3g}" for size in sizes])
    axes.set_title(found.verdict.partition(":")[0])
    axes.set(xlabel="training images per class", ylabel="held-out score, %")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None, symbol=""))
    axes.legend(loc="lower right", labelcolor=GREY)
