"""The plot of a plan: the network from input to output, and beside each part when it learns and how fast.

Plain values in, one PNG out. A row is a part: its name, its share of the parameters, and a strip over the epochs whose
colour is the rate, hatched while the part is frozen. Below, the same rates as lines.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from zoo._figures import (
    DOTS_PER_INCH,
    GREY,
    INK,
    LOG_FROM,
    MOST_POINTS,
    PALE,
    SHADES,
    VERMILION,
    entitle,
    format_rate,
    line_colours,
    log,
    look,
    make_figure,
    measure,
    on_one_line,
    place,
    save,
)
from zoo.errors import InputError
from zoo.files import to_path
from zoo.rates.plot_rows import FROZEN, MOST_ROWS_APART, Part, PlotRow, check_part, find_rows

DEPTHS = ListedColormap(SHADES(np.linspace(0.14, 1, 256)))  # the palest still differs from the ground
HATCHED: dict[str, Any] = {"facecolor": "#F4F4F4", "edgecolor": "#C8C8C8", "hatch": "/////", "linewidth": 0.0}
MOST_NAMED_LINES = 8

# Lengths in inches.
WIDTH, EDGE = 10.0, 0.12
HEAD, BETWEEN, CHART, FOOT = 1.1, 0.3, 2.1, 0.5
LOWEST_ROW, HIGHEST_ROW, ALL_ROWS = 0.155, 0.36, 7.5
LONGEST_NAME, LONGEST_NOTE, LONGEST_LINE_NAME, BAR = 2.0, 1.6, 1.2, 0.6


def draw_plan(
    parts: Sequence[Part],
    path: str | Path,
    *,
    epochs: int,
    steps_per_epoch: int,
    title: str = "What is trained when",
) -> Path:
    """Draw which part of a network learns when, and at which rate.

    The colours of the strips are on a logarithmic scale; the lines are if the parts' highest rates are more than 20
    times apart. Beyond 24 rows, neighbours with equal rates share one; beyond 60, neighbours share one whatever their
    rates: it then shows the highest at each time, and from the lowest to the highest peak.

    Args:
        parts: In the order of the network, input first.
        path: The PNG to write.
        epochs: How many the run has.
        steps_per_epoch: Optimizer steps in one epoch.
        title: Written on top.

    Returns:
        The path.

    Raises:
        InputError: A part has no rates or impossible ones, the run has no steps, or the path cannot be a PNG.
    """
    path = to_path(path)
    if path.suffix.lower() != ".png" or not path.parent.is_dir() or path.is_dir():
        raise InputError(f"cannot write a plot to {str(path)!r}; expected a .png file in an existing folder.")
    if epochs < 1 or steps_per_epoch < 1:
        raise InputError(f"the run has {epochs} epochs of {steps_per_epoch} steps; expected 1 or more of both.")
    for part in parts:
        check_part(part)
    with look():
        return save(_draw_plan(parts, epochs, steps_per_epoch, title), path)


def _draw_plan(parts: Sequence[Part], epochs: int, steps_per_epoch: int, title: str) -> Figure:
    rows = find_rows(parts, epochs)
    step = min(HIGHEST_ROW, max(LOWEST_ROW, ALL_ROWS / max(len(rows), 1)))
    height = HEAD + step * len(rows) + BETWEEN + CHART + FOOT
    figure = make_figure(WIDTH, height, dpi=DOTS_PER_INCH)  # so that texts are measured as they are drawn
    entitle(figure, _fit(figure, title, WIDTH - 2 * EDGE, 15, front=False))
    sheet = place(figure, 0, 0, WIDTH, height)
    sheet.set_axis_off()
    sheet.set(xlim=(0, WIDTH), ylim=(0, height), autoscale_on=False)
    sheet.text(EDGE, height - 0.36, _sum_up(parts, rows, epochs, steps_per_epoch), va="top", color=GREY)
    if not rows:
        return log(figure, "no parts")
    colours = _find_colours(rows)
    names = _find_names(figure, rows, colours)
    table = _lay_table(figure, rows, step, measure(figure, list(names.values()), 8) + 0.4 if names else 0)
    _write_table(sheet, table, rows, colours, step)
    left, across = table.left, table.right - table.left
    norm = _find_norm(rows)
    _draw_strips(place(figure, left, FOOT + CHART + BETWEEN, across, step * len(rows)), rows, norm, epochs, step)
    _draw_lines(place(figure, left, FOOT, across, CHART), rows, colours, epochs)
    _draw_key(figure, sheet, rows, norm, min(2.0, left - 1.2))
    _name_lines(sheet, names, colours, table.right + 0.15)
    return figure


def _sum_up(parts: Sequence[Part], rows: Sequence[PlotRow], epochs: int, steps_per_epoch: int) -> str:
    total = sum(part.parameters for part in parts)
    learning = sum(part.parameters for part in parts if any(part.rates))
    length = f"{_count(epochs, 'epoch')} of {_count(steps_per_epoch, 'optimizer step')}"
    size = f"{_abbreviate(total)} parameters in {_count(sum(part.tensors for part in parts), 'tensor')}"
    groups = _count(len(parts), "group") + (f" in {len(rows)} rows" if len(rows) < len(parts) else "")
    return f"{length}  ·  {groups}  ·  {size}  ·  {_percent(learning, total)} trained"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _percent(part: int, total: int) -> str:
    share = 100 * part / max(total, 1)
    if part in (0, total):
        return f"{share:.0f} %"
    return "< 0.1 %" if share < 0.1 else "> 99.9 %" if share > 99.9 else f"{share:.1f} %"


def _abbreviate(number: int) -> str:
    """Three digits and a unit: `640`, `2.05 k`, `25.6 M`, `1.1 G`."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * size:
            return f"{number / size:#.3g}".rstrip(".") + f" {unit}"
    return f"{number}"


def _find_colours(rows: Sequence[PlotRow]) -> dict[bytes, Any]:
    """A colour for each different curve, in the order of the network."""
    curves = dict.fromkeys(row.curve for row in rows if row.learns)
    return dict(zip(curves, line_colours(len(curves)), strict=True))


def _find_names(figure: Figure, rows: Sequence[PlotRow], colours: Mapping[bytes, Any]) -> dict[bytes, str]:
    """Whose curve it is, unless there is but one, or there are many."""
    if not 2 <= len(colours) <= MOST_NAMED_LINES:
        return {}
    names = {curve: [name for row in rows if row.curve == curve for name in row.names] for curve in colours}
    return {curve: _label(figure, those, ", ".join(those), LONGEST_LINE_NAME, 8) for curve, those in names.items()}


@dataclass(frozen=True)
class _Table:
    """What is written in each row, and where its columns are; numbers end at their places, the rest begins there."""

    labels: list[str]
    shares: list[str]
    numbers: list[str]
    rates: list[str]
    notes: list[str]
    size: float  # of the letters, in points
    bar: float
    share: float
    number: float
    left: float  # of the strips
    right: float
    note: float


def _lay_table(figure: Figure, rows: Sequence[PlotRow], step: float, beside: float) -> _Table:
    """Columns are as wide as what stands in them; the strips get the rest, but leave so much beside them."""
    size, total = min(9.0, 46 * step), sum(row.parameters for row in rows)
    labels = [_label(figure, row.names, row.label, LONGEST_NAME, size) for row in rows]
    shares = [_percent(row.parameters, total) for row in rows]
    numbers = [_abbreviate(row.parameters) for row in rows]
    rates = [_say_rate(row) for row in rows]
    notes = [_fit(figure, row.note, LONGEST_NOTE, size, front=False) for row in rows]
    bar = EDGE + 0.3 + max(measure(figure, labels, size), 0.75)
    share = bar + BAR + 0.1 + measure(figure, shares, size)
    number = share + 0.12 + max(measure(figure, numbers, size), 0.4)
    note = WIDTH - EDGE - (measure(figure, notes, size) or -0.12)
    right = note - 0.24 - max(measure(figure, rates, size), measure(figure, ["highest"], 8))
    right = min(right, WIDTH - EDGE - beside)
    return _Table(labels, shares, numbers, rates, notes, size, bar, share, number, number + 0.3, right, note)


def _label(figure: Figure, names: Sequence[str], whole: str, longest: float, size: float) -> str:
    """What all of them are called together if there is room for it, else as `a + 2`."""
    if len(names) == 1 or measure(figure, [on_one_line(whole)], size) <= longest:
        return _fit(figure, whole, longest, size)
    more = f" + {len(names) - 1}"
    return _fit(figure, names[0], longest - measure(figure, [more], size), size) + more


def _fit(figure: Figure, name: str, longest: float, size: float, *, front: bool = True) -> str:
    """A name on one line, in so many inches at most; what is too long loses its front, or its end."""
    name = on_one_line(name)

    def cut(lost: int) -> str:
        return name if not lost else f"..{name[lost:]}" if front else f"{name[:-lost]}.."

    return cut(bisect_left(range(len(name)), True, key=lambda lost: measure(figure, [cut(lost)], size) <= longest))


def _say_rate(row: PlotRow) -> str:
    low, high = (format_rate(peak) for peak in row.peaks)
    if row.state == FROZEN:
        return ""
    return high if low == high else f"{low} … {high}"


def _write_table(sheet: Axes, table: _Table, rows: Sequence[PlotRow], colours: dict[bytes, Any], step: float) -> None:
    """All that is left and right of the strips."""
    top = sheet.get_ylim()[1] - HEAD
    bottom = top - step * len(rows)
    _write_heads(sheet, table, top + 0.1)
    chain = EDGE + 0.2
    sheet.plot([chain, chain], [top + 0.06, bottom - 0.06], color="#B0B0B0", linewidth=1.2, zorder=0)
    sheet.text(EDGE, bottom - 0.1, "output", va="top", size=8, color=GREY)
    largest = max(row.parameters for row in rows) or 1
    for i, row in enumerate(rows):
        middle, high = top - step * (i + 0.5), 0.76 * step
        _draw_box(sheet, (EDGE, middle - high / 2), table.bar - 0.15 - EDGE, high, learns=row.learns)
        bar = max(BAR * row.parameters / largest, 0.008)
        sheet.add_patch(Rectangle((table.bar, middle - 0.2 * step), bar, 0.4 * step, color="#8A8A8A"))
        if row.learns:
            mark = (table.left - 0.14, middle - high / 2)
            sheet.add_patch(Rectangle(mark, 0.09, high, color=colours[row.curve]))
        for x, text, side, shade in (
            (EDGE + 0.08, table.labels[i], "left", INK if row.learns else GREY),
            (table.share, table.shares[i], "right", INK),
            (table.number, table.numbers[i], "right", GREY),
            (table.note - 0.12, table.rates[i], "right", INK),
            (table.note, table.notes[i], "left", GREY),
        ):
            sheet.text(x, middle, text, ha=side, va="center_baseline", size=table.size, color=shade)


def _draw_box(sheet: Axes, corner: tuple[float, float], across: float, high: float, *, learns: bool) -> None:
    face, edge = ("white", "#8A8A8A") if learns else (PALE, PALE)
    style = f"round,pad=0,rounding_size={min(0.05, high / 3)}"
    sheet.add_patch(FancyBboxPatch(corner, across, high, boxstyle=style, facecolor=face, edgecolor=edge, linewidth=0.8))


def _write_heads(sheet: Axes, table: _Table, y: float) -> None:
    for x, text, side in (
        (EDGE, "input", "left"),
        (table.bar, "parameters", "left"),
        (table.note - 0.12, "highest\nrate", "right"),
        (table.note, "why", "left"),
    ):
        if text != "why" or any(table.notes):
            sheet.text(x, y, text, ha=side, va="bottom", size=8, color=GREY)


def _draw_strips(axes: Axes, rows: Sequence[PlotRow], norm: LogNorm, epochs: int, step: float) -> None:
    axes.set(xlim=(0, epochs), ylim=(len(rows), 0))
    axes.add_patch(Rectangle((0, 0), epochs, len(rows), **HATCHED))
    shown = np.stack([row.rates for row in rows])
    image = axes.imshow(shown, cmap=DEPTHS, norm=norm, interpolation="nearest", extent=(0, epochs, len(rows), 0))
    image.set(zorder=1.5)  # above the hatching, which shows through where a rate is NaN
    axes.set_aspect("auto")
    gaps = axes.hlines(np.arange(len(rows) + 1), 0, epochs, color="white", linewidth=0.2 * 72 * step)
    gaps.set(capstyle="projecting", clip_on=False)
    for i, row in enumerate(rows):
        _mark_start(axes, i, row, norm, step)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_yticks([])
    axes.xaxis.tick_top()
    axes.tick_params(length=2)
    _number_epochs(axes.xaxis)
    axes.set_xlabel("epoch", size=8)
    axes.xaxis.set_label_position("top")


def _find_norm(rows: Sequence[PlotRow]) -> LogNorm:
    """From a thirtieth of the lowest peak to the highest: what is lower still is as pale as that."""
    peaks = [peak for row in rows for peak in row.peaks if peak] or [1.0]
    drawn = np.concatenate([row.rates for row in rows])
    lowest = np.min(drawn, where=drawn > 0, initial=max(peaks))
    return LogNorm(min(max(lowest, min(peaks) / 30), max(peaks) / 30), max(peaks), clip=True)


def _mark_start(axes: Axes, line: int, row: PlotRow, norm: LogNorm, step: float) -> None:
    """Write what a strip cannot tell: from when its part learns, or that it never does."""
    epochs, middle = axes.get_xlim()[1], line + 0.5
    letters: dict[str, Any] = {"size": min(8.0, 42 * step), "va": "center_baseline", "color": INK}
    ground = {"facecolor": HATCHED["facecolor"], "edgecolor": "none", "pad": 0.5}
    if not row.learns:
        axes.text(epochs / 2, middle, row.state if row.start else "rate 0", ha="center", bbox=ground, **letters)
    elif row.start:
        axes.vlines(row.start, line + 0.1, line + 0.9, color=VERMILION, linewidth=2.5)
        text = axes.text(row.start, middle, f" {row.state} ", ha="right", **letters)
        if text.get_window_extent().x0 >= axes.get_window_extent().x0:
            text.set_bbox(ground)
        else:  # no room before the mark
            after = row.rates[~np.isnan(row.rates)][:200].mean()
            text.set(ha="left", color="white" if norm(after) > 0.45 else INK)


def _number_epochs(axis: Axis) -> None:
    axis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda epoch, _: f"{epoch:,.0f}"))


def _draw_lines(axes: Axes, rows: Sequence[PlotRow], colours: dict[bytes, Any], epochs: int) -> None:
    axes.set(xlim=(0, epochs), xlabel="epoch", ylabel="learning rate")
    _number_epochs(axes.xaxis)
    curves = {row.curve: row for row in rows if row.learns}
    if not curves:
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.text(0.5, 0.5, "nothing is trained", ha="center", va="center", color=GREY, transform=axes.transAxes)
        return
    peaks = [row.peaks[1] for row in curves.values()]
    logarithmic = max(peaks) > LOG_FROM * min(peaks)
    width = 1.8 if len(curves) <= MOST_ROWS_APART else 1.0
    # What starts first is drawn first: where lines meet, the one that joins is seen.
    for row in sorted(curves.values(), key=lambda row: row.start):
        _draw_line(axes, row, colours[row.curve], epochs, width, logarithmic=logarithmic)
    if logarithmic:
        drawn = np.concatenate([row.rates for row in curves.values()])
        axes.set_yscale("log")
        lowest = np.min(drawn, where=drawn > 0, initial=np.inf)
        axes.set_ylim(max(0.8 * lowest, min(peaks) / 200), 1.3 * max(peaks))
        _number_rates(axes.yaxis)
    else:
        axes.set_ylim(0, 1.06 * max(peaks))
        axes.yaxis.set_major_formatter(FuncFormatter(format_rate))


def _draw_line(axes: Axes, row: PlotRow, colour: Any, epochs: int, width: float, *, logarithmic: bool) -> None:
    rates = np.where(row.rates > 0, row.rates, np.nan) if logarithmic else row.rates
    edges = np.linspace(0, epochs, MOST_POINTS + 1)
    axes.plot(edges, np.append(rates, rates[-1]), drawstyle="steps-post", color=colour, linewidth=width)
    if row.start > 0:
        first = row.rates[~np.isnan(row.rates)][0]
        axes.plot(row.start, first, "o", color=colour, markersize=6, clip_on=False)


def _number_rates(axis: Axis) -> None:
    """Round numbers on a logarithmic axis, never crowded and never none."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0, 3.0) if high < 60 * low else (1.0,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(format_rate))


def _draw_key(figure: Figure, sheet: Axes, rows: Sequence[PlotRow], norm: LogNorm, across: float) -> None:
    """What colour, hatching and marks mean, left of the lines."""
    x, y = EDGE + 0.15, FOOT + CHART - 0.6
    letters: dict[str, Any] = {"va": "center_baseline", "size": 8, "color": GREY}
    if any(row.learns for row in rows):
        axes = place(figure, x, y, across, 0.13)
        bar = figure.colorbar(ScalarMappable(norm, DEPTHS), cax=axes, orientation="horizontal")
        bar.outline.set_visible(False)
        sheet.text(x, y + 0.23, "learning rate", **letters)
        _number_rates(axes.xaxis)
        axes.tick_params(length=2, labelsize=8)
        y -= 0.55
    if any(row.start for row in rows):
        sheet.add_patch(Rectangle((x, y - 0.08), 0.3, 0.16, **HATCHED))
        sheet.text(x + 0.4, y, "frozen", **letters)
        y -= 0.26
    if any(row.start and row.learns for row in rows):
        sheet.vlines(x + 0.15, y - 0.08, y + 0.08, color=VERMILION, linewidth=2.5)
        sheet.text(x + 0.4, y, "unfrozen", **letters)


def _name_lines(sheet: Axes, names: Mapping[bytes, str], colours: Mapping[bytes, Any], left: float) -> None:
    for i, (curve, name) in enumerate(names.items()):
        y = FOOT + CHART - 0.1 - 0.2 * i
        sheet.add_patch(Rectangle((left, y - 0.045), 0.16, 0.09, color=colours[curve]))
        sheet.text(left + 0.24, y, name, va="center_baseline", size=8, color=GREY)
