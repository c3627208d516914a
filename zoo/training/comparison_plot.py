"""Draws the curves of several runs in one picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from zoo._figures import GREY, arranged, line_colours, log, look, save, shorten
from zoo.training.loggers.plots import draw_line, number_epochs, widen


def draw_comparison(
    curves: Mapping[str, Sequence[Mapping[str, Any]]], path: str | Path, *, score: tuple[str, str]
) -> Path:
    """Draw loss and score of several runs over their epochs, side by side; one colour per run.

    Args:
        curves: The records of the epochs of each run by its name.
        path: The PNG to write.
        score: Key of the score that is drawn (0 to 1), and its label.

    Returns:
        The path.
    """
    plain = {name: [_keep_numbers(record) for record in records] for name, records in curves.items()}
    with look():
        return save(_draw(plain, *score), path)


def _draw(curves: Mapping[str, Sequence[Mapping[str, Any]]], key: str, label: str) -> Figure:
    figure = arranged(11, max(3.8, 0.2 * len(curves) + 1), "Runs compared")
    records = sorted((record for run in curves.values() for record in run), key=lambda record: record["epoch"])
    if not records:
        return log(figure, "no epochs")
    loss, scores = figure.subplots(1, 2)
    loss.set(title="Loss: validation, and training dotted", xlabel="epoch", ylabel="loss")
    scores.set(title=label, xlabel="epoch", ylabel="validation score, %")
    scores.yaxis.set_major_formatter(PercentFormatter(1, decimals=None, symbol=""))
    for (name, run), colour in zip(curves.items(), line_colours(len(curves)), strict=True):
        draw_line(loss, run, "loss", "_", colour, linestyle=":", marker="")
        draw_line(loss, run, "val_loss", "_", colour)
        draw_line(scores, run, key, "_", colour)
        # Also of a run without a score; matplotlib leaves a label out that begins with an underscore.
        scores.plot([], [], color=colour, label=f" {shorten(name, 34)}")
    for axes, least in ((loss, 0.1), (scores, 0.04)):
        widen(axes, least)
        number_epochs(axes, records)
    legend = figure.legend(loc="outside right upper", title="run", alignment="left")
    legend.get_title().set_color(GREY)
    return figure


def _keep_numbers(record: Mapping[str, Any]) -> dict[str, int | float]:
    return {key: value for key, value in record.items() if type(value) in (int, float)}
