"""The plot of a confusion matrix, for every task that has classes; plain values in, one PNG out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from zoo._figures import (
    BLUE,
    INK,
    PALE,
    SHADES,
    entitle,
    look,
    make_figure,
    measure,
    place,
    save,
    shorten,
)
from zoo.errors import InputError

Counts = npt.NDArray[np.float64]

MOST_CLASSES_WITH_COUNTS = 20
MOST_TICKS = 50
MOST_PAIRS = 20


def draw_confusion(
    matrix: npt.ArrayLike,
    classes: Sequence[str],
    path: str | Path,
    *,
    title: str | None = None,
    totals: npt.ArrayLike | None = None,
) -> Path:
    """Draw a confusion matrix: colours are shares of each row, numbers are counts.

    Up to 20 classes every count is written; beyond that the most frequent confusions are listed beside the matrix.

    Args:
        matrix: `(C, C)` counts; rows are the true classes, columns the predicted ones.
        classes: The C names.
        path: The PNG to write.
        title: Of the plot; None: how many images are right.
        totals: `(C,)` what the counts of a row are shares of, where they do not add up to it; None: their sum.

    Returns:
        The path.

    Raises:
        InputError: The matrix is not square, not counts, or does not fit the names.
    """
    counts = np.asarray(matrix)
    if counts.shape != (len(classes), len(classes)) or not len(classes):
        shape = "x".join(map(str, counts.shape))
        raise InputError(
            f"confusion matrix is {shape} for {len(classes)} classes; expected one row and column per class."
        )
    if not np.issubdtype(counts.dtype, np.number) or not (np.isfinite(counts) & (counts >= 0)).all():
        raise InputError("confusion matrix has invalid counts; expected numbers, 0 or more.")
    with look():
        return save(_draw_confusion(counts.astype(np.float64), classes, title, totals), path)


def _draw_confusion(
    counts: Counts, classes: Sequence[str], title: str | None = None, totals: npt.ArrayLike | None = None
) -> Figure:
    number = len(classes)
    crowded = number > MOST_CLASSES_WITH_COUNTS
    figure = make_figure()
    rows = np.asarray(counts.sum(axis=1) if totals is None else totals, np.float64)[:, None]
    pairs = _find_pairs(counts, rows) if crowded else []
    confusions = [f"{shorten(classes[true], 22)} → {shorten(classes[predicted], 22)}" for true, predicted in pairs]

    size, side = (7, 7.5) if crowded else (9, max(2.8, 0.42 * number))
    shown = range(0, number, -(-number // MOST_TICKS))
    names = [shorten(classes[i], 22) for i in shown]
    beside = measure(figure, names, size)
    slant = 90 if crowded else 40 if beside > 0.95 * side / number else 0
    below = 0.15 + (beside - 0.15) * np.sin(np.deg2rad(slant))
    left, bottom, listed = beside + 0.42, below + 0.4, measure(figure, confusions, 8) if crowded else 0
    panel = listed + 2.2 if crowded else 0
    total, right = counts.sum(), np.trace(counts)
    score = f"{100 * right / total:.1f} % of {total:,.0f} images correct" if total else "no images"
    title = title or f"Confusion matrix: {score}"
    width = max(left + side + 1.3 + panel, 5.6, 1.2 * measure(figure, [title], 12) + 0.3)  # the title is bold
    figure.set_size_inches(width, bottom + side + (0.8 if crowded else 0.55))
    entitle(figure, title)

    axes = place(figure, left, bottom, side, side)
    _draw_shares(axes, counts, rows, place(figure, left + side + 0.2, bottom + 0.2 * side, 0.14, 0.6 * side))
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_yticks(shown, names, fontsize=size)
    axes.set_xticks(shown, names, fontsize=size, rotation=slant, rotation_mode="anchor" if slant else "default")
    for label in axes.get_xticklabels() if slant else ():
        label.set(ha="right", va="center" if crowded else "top")
    if crowded:
        what = "confusions" if totals is None else "pairs"
        listing = place(figure, left + side + 1.3 + listed, bottom, 1.6, side)
        _draw_pairs(listing, counts, rows, pairs, confusions, what)
    return figure


def _draw_shares(axes: Axes, counts: Counts, rows: Counts, key: Axes) -> None:
    """The matrix and its key: colours on a square-root scale, so that rare confusions are seen; no images, grey."""
    shares = 100 * np.divide(counts, rows, out=np.full_like(counts, np.nan), where=rows > 0)
    colours = SHADES.with_extremes(bad=PALE)
    image = axes.imshow(shares, cmap=colours, norm=PowerNorm(0.5, vmin=0, vmax=100), interpolation="nearest")
    axes.grid(visible=False)
    axes.spines[:].set_visible(True)
    axes.tick_params(length=2 if len(counts) > MOST_TICKS else 0)
    bar = axes.figure.colorbar(image, cax=key, label="share of the true class, %", ticks=[0, 5, 25, 50, 75, 100])
    bar.outline.set_visible(False)
    if len(counts) > MOST_CLASSES_WITH_COUNTS:
        return
    size = min(9.0, 40 / len(f"{counts.max():.0f}"))
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 36 else INK if count else "#B8B8B8"
        axes.text(column, row, f"{count:.0f}", ha="center", va="center", fontsize=size, color=colour)
    edges = np.arange(len(counts) + 1) - 0.5
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.grid(which="minor", color=PALE)
    axes.tick_params(which="minor", length=0)


def _find_pairs(counts: Counts, rows: Counts) -> list[tuple[int, int]]:
    """The most frequent confusions; among equals, first the larger share of its class."""
    mistaken = counts - np.diag(np.diag(counts))
    true, predicted = np.nonzero(mistaken)
    shares = mistaken[true, predicted] / rows[true, 0]
    order = np.lexsort((predicted, true, -shares, -mistaken[true, predicted]))[:MOST_PAIRS]
    return [(int(true[i]), int(predicted[i])) for i in order]


def _draw_pairs(
    axes: Axes, counts: Counts, rows: Counts, pairs: Sequence[tuple[int, int]], labels: Sequence[str], what: str
) -> None:
    axes.set_title(f"Most frequent {what}, true → predicted" if pairs else f"No {what}", x=1, ha="right")
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    numbers = [float(counts[pair]) for pair in pairs]
    bars = axes.barh(range(len(pairs)), numbers, color=BLUE, height=0.6)
    shares = [f"{counts[pair]:,.0f} ({100 * counts[pair] / rows[pair[0], 0]:.0f} %)" for pair in pairs]
    axes.bar_label(bars, shares, padding=3, fontsize=8, color=INK)
    axes.set_yticks(range(len(pairs)), labels, fontsize=8)
    axes.set_xticks([])
    axes.tick_params(length=0, labelcolor=INK)
    axes.set_ylim(MOST_PAIRS - 0.4, -0.6)
    axes.set_xlim(0, 1.5 * max(numbers, default=1))
