"""Draws the curves and rates of a finished run, and what its task has to show."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

from zoo._figures import (
    BLUE,
    GREEN,
    GREY,
    LINES,
    LOG_FROM,
    MOST_POINTS,
    VERMILION,
    arranged,
    columns,
    format_rate,
    line_colours,
    log,
    look,
    save,
    shorten,
)
from zoo.training.loggers.base import Logger, RunFacts, RunResult
from zoo.training.loggers.penalty_plot import draw_penalty
from zoo.training.run_folder import SOLUTION
from zoo.training.run_stage import RECORD, read_record

MOST_LEGEND_LINES = 20
TERM = "val_loss_"  # before the name of a term of the loss in a record


class Plots(Logger):
    """Draws into the folder `plots` of the run. A plot that cannot be drawn is reported; the others are drawn."""

    order = 80

    def start(self, facts: RunFacts) -> None:
        """Remember what to draw with."""
        self.facts = facts

    def finish(self, result: RunResult) -> None:
        """Draw, unless the run is asked to stop; it is finished without its plots, and resuming it draws them."""
        facts, folder = self.facts, self.facts.folder
        if result.status != "finished":
            return
        if not facts.is_stopping():
            self._draw_training(result)
        if not facts.is_stopping() and result.evaluation is not None:
            for name, draw in facts.task.make_plots(result.evaluation, result.examples, facts.images).items():
                folder.draw(name, draw)
        if facts.is_stopping():
            return
        for name, reason in folder.undrawn.items():
            facts.show.log(f"note: the plot {name} could not be drawn: {reason}")
        if not folder.undrawn:
            folder.write_json(RECORD, read_record(folder.path) | {"pictures": True})

    def _draw_training(self, result: RunResult) -> None:
        """Draw the curves and rates of what was trained in steps, and the penalties of a head that was solved."""
        folder, scores, steps = self.facts.folder, self.facts.task.curves, self.facts.steps_per_epoch
        solution = folder.read_json(SOLUTION) if folder.file(SOLUTION).is_file() else {}
        if not self.facts.preset.solver:
            folder.draw("curves.png", lambda path: draw_curves(result.records, path, scores=scores))
            folder.draw("rates.png", lambda path: draw_rates(result.rates, path, steps_per_epoch=steps))
        if solution.get("path"):
            folder.draw("penalty.png", lambda path: draw_penalty(solution, path))


def draw_curves(records: Sequence[Mapping[str, Any]], path: str | Path, *, scores: Mapping[str, str]) -> Path:
    """Draw loss and scores over the epochs, side by side.

    Args:
        records: One per epoch: `epoch` (from 1), `loss`, and, where evaluated, `val_loss`, its terms as `val_loss_...`,
            and the scores (0 to 1).
        path: The PNG to write.
        scores: Label of each score by its key; of the first the best epoch is marked.

    Returns:
        The path.
    """
    with look():
        return save(_draw_curves(records, scores), path)


def draw_rates(rates: Mapping[str, Sequence[float]], path: str | Path, *, steps_per_epoch: int) -> Path:
    """Draw the learning rate of each group over the optimizer steps.

    The axis is logarithmic if the groups' highest rates are more than 20 times apart. Groups that always had the same
    rate share one line; those whose rate was always 0 are named as frozen.

    Args:
        rates: For each group, its rate at every optimizer step.
        path: The PNG to write.
        steps_per_epoch: Optimizer steps in one epoch, for the marks at the top.

    Returns:
        The path.
    """
    with look():
        return save(_draw_rates(rates, steps_per_epoch), path)


def _draw_curves(records: Sequence[Mapping[str, Any]], scores: Mapping[str, str]) -> Figure:
    figure = arranged(9, 3.8, "Training")
    if not records:
        return log(figure, "no epochs")
    loss, accuracy = figure.subplots(1, 2)
    first = next(iter(scores))
    loss.set(title="Loss", xlabel="epoch", ylabel="loss")
    draw_line(loss, records, "loss", "training", BLUE)
    draw_line(loss, records, "val_loss", "validation", VERMILION)
    terms = list(dict.fromkeys(key for record in records for key in record if key.startswith(TERM)))
    for key, colour in zip(terms, LINES[2:], strict=False):
        draw_line(loss, records, key, f"validation: {key.removeprefix(TERM)}", colour, linestyle="--", marker="")
    widen(loss, 0.1)
    loss.legend()
    number_epochs(loss, records)
    values = [(record[first], record["epoch"]) for record in records if record.get(first) is not None]
    if not values:
        accuracy.set_axis_off()
        accuracy.text(0.5, 0.5, "not evaluated", ha="center", va="center", color=GREY, transform=accuracy.transAxes)
        return figure
    best, epoch = max(values, key=lambda value: value[0])
    accuracy.set(
        title=f"Best {scores[first]} {100 * best:.1f} %, epoch {epoch}", xlabel="epoch", ylabel="validation score, %"
    )
    accuracy.yaxis.set_major_formatter(PercentFormatter(1, decimals=None, symbol=""))
    for (key, label), colour in reversed(list(zip(scores.items(), (VERMILION, GREEN, BLUE), strict=False))):
        draw_line(accuracy, records, key, label, colour)
    accuracy.plot(epoch, best, "o", color=VERMILION, markersize=9, markerfacecolor="none")
    widen(accuracy, 0.04)
    bottom, top = accuracy.get_ylim()
    accuracy.set_ylim(max(bottom, -0.004), min(top, 1.01))
    accuracy.legend()
    number_epochs(accuracy, records)
    return figure


def draw_line(
    axes: Axes, records: Sequence[Mapping[str, Any]], key: str, label: str, colour: Any, **style: Any
) -> None:
    """Draw what the records have under a key over the epochs."""
    points = [(record["epoch"], record[key]) for record in records if record.get(key) is not None]
    if points:
        style = {"marker": "o" if len(points) <= 40 else "", "ms": 3.5} | (style if len(points) > 1 else {})
        axes.plot(*zip(*points, strict=True), color=colour, label=label, **style)


def widen(axes: Axes, least: float) -> None:
    """Show at least so much of the vertical axis, so that a hair's breadth does not look like a gap."""
    bottom, top = axes.get_ylim()
    missing = max(least - (top - bottom), 0) / 2
    axes.set_ylim(bottom - missing, top + missing)


def number_epochs(axes: Axes, records: Sequence[Mapping[str, Any]]) -> None:
    """Number the horizontal axis from the first to the last epoch."""
    first, last = records[0]["epoch"], records[-1]["epoch"]
    room = 0.5 if first == last else 0.03 * (last - first)
    axes.set_xlim(first - room, last + room)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


def _draw_rates(rates: Mapping[str, Sequence[float]], steps_per_epoch: int) -> Figure:
    lines = min(len(rates), MOST_LEGEND_LINES + 1)
    figure = arranged(9, max(4, 0.2 * lines + 0.7), "Learning rates")
    steps = max(map(len, rates.values()), default=0)
    if not steps:
        return log(figure, "no steps")
    axes = figure.subplots()
    axes.set(xlabel="optimizer step", ylabel="learning rate")
    curves: dict[tuple[float, ...], list[str]] = {}
    for name, values in rates.items():
        curves.setdefault(tuple(values), []).append(name)
    moving = sorted((curve for curve in curves if any(curve)), key=max, reverse=True)
    peaks = [max(curve) for curve in moving]
    logarithmic = bool(peaks) and peaks[0] > LOG_FROM * peaks[-1]
    for curve, colour in zip(moving, line_colours(len(moving)), strict=True):
        _draw_rate(axes, curve, f"{_join(curves[curve])}: {format_rate(max(curve))}", colour, logarithmic=logarithmic)
    frozen = [name for curve, names in curves.items() if not any(curve) for name in names]
    if frozen:
        span = [] if moving else [1, steps]
        axes.plot(span, [0] * len(span), color=GREY, ls=":", label=f"{_join(frozen)}: frozen")
    if logarithmic:
        axes.set_yscale("log")
        axes.set_ylim(bottom=max(peaks[-1] / 200, min(rate for curve in moving for rate in curve if rate) * 0.8))
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif moving:
        axes.set_ylim(bottom=0)
    else:
        axes.set_yticks([0])
    axes.yaxis.set_major_formatter(FuncFormatter(format_rate))
    _number_steps(axes, steps, max(steps_per_epoch, 1))
    _list_groups(figure, axes)
    return figure


def _draw_rate(axes: Axes, curve: Sequence[float], label: str, colour: Any, *, logarithmic: bool) -> None:
    chosen = np.unique(np.linspace(0, len(curve) - 1, MOST_POINTS).round().astype(int))
    values = np.asarray(curve, dtype=np.float64)[chosen]
    if logarithmic:
        values[values <= 0] = np.nan
    axes.plot(chosen + 1, values, color=colour, label=label, marker="o" if len(curve) == 1 else "")


def _number_steps(axes: Axes, steps: int, steps_per_epoch: int) -> None:
    room = 0.5 if steps == 1 else 0.02 * steps
    axes.set_xlim(1 - room, steps + room)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    epochs = axes.secondary_xaxis("top", functions=(_scale(1 / steps_per_epoch), _scale(steps_per_epoch)))
    epochs.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    epochs.set_xlabel("epoch")
    epochs.spines["top"].set_visible(False)


def _scale(factor: float) -> Callable[[Any], Any]:
    return lambda values: np.asarray(values) * factor


def _list_groups(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    more = len(labels) - MOST_LEGEND_LINES
    if more > 0:
        handles, labels = handles[:MOST_LEGEND_LINES], labels[:MOST_LEGEND_LINES]
        labels[-1] += f"\n... and {more} more"
    legend = figure.legend(
        handles, labels, loc="outside right upper", title="group: peak learning rate", alignment="left"
    )
    legend.get_title().set_color(GREY)


def _join(names: Sequence[str]) -> str:
    listed = ", ".join(names)
    if len(names) == 1 or columns(listed) <= 34:
        return shorten(listed, 34)
    return f"{shorten(names[0], 26)} + {len(names) - 1} more"


LOGGER = Plots
