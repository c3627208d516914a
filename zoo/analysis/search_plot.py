"""Draws the trials of a search: their scores, and which settings they depend on."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from zoo._figures import BLUE, GREY, VERMILION, arranged, look, save, shorten
from zoo.analysis.study import Trial


def draw_search(
    trials: Sequence[Trial], importance: Mapping[str, Mapping[str, float]], path: str | Path, *, metric: str
) -> Path:
    """Draw scores over trials, and the importance of the settings beside them.

    Args:
        trials: With scores.
        importance: Shares by setting, by the trials that they are of.
        path: The PNG to write.
        metric: The score's name.

    Returns:
        The path.
    """
    bars = sum(len(shares) for shares in importance.values()) + len(importance)
    with look():
        figure = arranged(11, max(4.0, 0.32 * bars + 1.4), "Search")
        scores, shares = figure.subplots(1, 2, width_ratios=[3, 2])
        _draw_scores(scores, trials, metric)
        _draw_importance(shares, importance)
        return save(figure, path)


def _draw_scores(axes: Axes, trials: Sequence[Trial], metric: str) -> None:
    complete = [trial for trial in trials if trial.state == "complete"]
    pruned = [trial for trial in trials if trial.state == "pruned"]
    axes.set(title="Scores, cross-validated within train", xlabel="trial", ylabel=metric)
    for group, label, style in (
        (pruned, "pruned, on its folds so far", f"x{GREY}"),
        (complete, "complete", f"o{BLUE}"),
    ):
        if group:
            numbers, values = [trial.number for trial in group], [trial.score or 0.0 for trial in group]
            axes.plot(numbers, values, marker=style[0], color=style[1:], linestyle="", markersize=5, label=label)
    best = list(accumulate((trial.score or 0.0 for trial in complete), max))
    axes.step([trial.number for trial in complete], best, where="post", color=VERMILION, label="best so far")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    values = sorted(trial.score or 0.0 for trial in trials)
    if all(0 <= value <= 1 for value in values):
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.legend(loc="lower right")


def _draw_importance(axes: Axes, importance: Mapping[str, Mapping[str, float]]) -> None:
    axes.set(title="What the scores depend on")
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("share of the variance that is explained (fANOVA)")
    names: list[str] = []
    for group, shares in importance.items():
        names.append(group)
        for name, share in sorted(shares.items(), key=lambda pair: -pair[1]):
            axes.barh(len(names), share, color=BLUE, height=0.6)
            axes.annotate(f"{share:.0%}", (share, len(names)), (4, 0), textcoords="offset points", va="center")
            names.append(f"{shorten(name, 24)}  ")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, 1.12)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        label.set_fontweight("bold" if name in importance else "normal")
    if not names:
        axes.text(0.5, 0.5, "too few trials", ha="center", transform=axes.transAxes, color=GREY)
