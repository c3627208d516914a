"""Charts as SVG inside a page: sharp at any size, in the colours of its style, with values where the pointer rests.

They hold no text of others that is not escaped, and need no script: what a pointer shows is an element `title`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from zoo.pages.elements import Markup, escape, join

WIDTH, HEIGHT = 480, 264
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 34  # margins around what is drawn
COLOURS = 6  # that a page's style has for lines; beyond, they are dashed
MOST_LINES = 12
MOST_COLUMNS = 240  # places along the horizontal axis; more cannot be pointed at
LOG_FROM = 20  # ratio of the lines' highest values from which they need a logarithmic axis
_STEPS = (1, 2, 5, 10)

Points = Mapping[float, float]


@dataclass(frozen=True)
class _Axis:
    """Turns values into places."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """Return where a value is, in units of the drawing."""
        low, high, value = (
            (math.log10(number) for number in (self.low, self.high, value))
            if self.is_log
            else (self.low, self.high, value)
        )
        share = (value - low) / ((high - low) or 1)
        return round(self.start + share * (self.end - self.start), 2)

    def ticks(self, most: int, *, whole: bool = False) -> list[float]:
        """Return round values between its ends."""
        if self.is_log:
            return [
                10.0**power
                for power in range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            ]
        rough = (self.high - self.low) / most or 1
        size = 10 ** math.floor(math.log10(rough))
        step = next(size * step for step in _STEPS if size * step >= rough * (1 - 1e-9))
        step = max(1, round(step)) if whole else step
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def draw_lines(
    lines: Mapping[str, Points],
    *,
    across: str,
    show: Callable[[float], str],
    logarithmic: bool = False,
    limits: tuple[float | None, float | None] = (None, None),
    ends: tuple[int, int] | None = None,
) -> Markup:
    """Draw lines over a common axis, with a legend below.

    Args:
        lines: Values by place on the horizontal axis, by name; what is not finite is left out.
        across: What the horizontal axis counts, in whole numbers.
        show: Writes a value.
        logarithmic: Whether the values may need a logarithmic axis; only those above 0 are drawn on one.
        limits: Lowest and highest value that the vertical axis must show; None: as the lines need.
        ends: First and last place of the horizontal axis; None: those of the lines.
    """
    drawn = {name: {x: y for x, y in line.items() if math.isfinite(y)} for name, line in lines.items()}
    drawn = {name: line for name, line in drawn.items() if line}
    if not drawn:
        return Markup('<p class="none">nothing to draw</p>')
    more = len(drawn) - MOST_LINES
    drawn = dict(list(drawn.items())[:MOST_LINES])
    is_log = logarithmic and _needs_log(drawn)
    places = sorted({x for line in drawn.values() for x in line})
    first, last = ends or (places[0], places[-1])
    room = 0.5 if first == last else 0
    x_axis = _Axis(first - room, last + room, LEFT, WIDTH - RIGHT)
    y_axis = _make_value_axis(drawn, limits, is_log=is_log)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(", ".join(drawn))} over {across}">']
    parts += _draw_grid(x_axis, y_axis, across, show)
    for number, line in enumerate(drawn.values()):
        parts.append(_draw_line(number, line, x_axis, y_axis))
    parts += _draw_columns(drawn, places, x_axis, across, show)
    legend = [
        f'<li class="l{number % COLOURS}{" far" * (number >= COLOURS)}">{escape(name)}</li>'
        for number, name in enumerate(drawn)
    ]
    legend += [f"<li>and {more} more</li>"] * (more > 0)
    return Markup("".join(parts) + "</svg>" + f'<ul class="legend">{"".join(legend)}</ul>')


def draw_matrix(counts: Sequence[Sequence[int]], names: Sequence[str]) -> Markup:
    """Draw a confusion matrix: a cell is as dark as its share of the true class; the pointer shows the counts.

    Args:
        counts: `(C, C)`; rows are the true classes, columns the predicted ones.
        names: Of the classes.
    """
    number = len(names)
    side = max(15, min(44, 560 // number))
    size = min(13.0, side * 0.62)
    beside = round(12 + 0.6 * size * max(len(_cut(name)) for name in names))
    width, height = beside + number * side + 1, round(number * side + 0.8 * beside + size)
    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="confusion matrix" '
        f'style="max-width:{max(width, 320)}px" font-size="{size:.3g}">'
    ]
    for row, values in enumerate(counts):
        total, y = sum(values), row * side
        parts.append(_write(beside - 6, y + side / 2, _cut(names[row]), "end", names[row]))
        parts.append(
            _write(
                0,
                0,
                _cut(names[row]),
                "end",
                names[row],
                f'transform="translate({beside + (row + 0.5) * side:g} {number * side + 8}) rotate(-50)"',
            )
        )
        for column, count in enumerate(values):
            share = count / total if total else 0
            told = f"true {names[row]}, predicted {names[column]}: {count:,} of {total:,} ({share:.1%})"
            x, kind = beside + column * side, "hit" if row == column else "miss"
            parts.append(
                f'<g class="{kind}"><title>{escape(told)}</title><rect x="{x}" y="{y}" width="{side - 1}" '
                f'height="{side - 1}" rx="2" fill-opacity="{max(0.05, math.sqrt(share)):.2f}"/>'
            )
            if count and number <= 20:
                parts.append(
                    f'<text x="{x + side / 2:g}" y="{y + side / 2:g}" dy=".35em" text-anchor="middle"'
                    f"{' class=over' if share > 0.35 else ''}>{count}</text>"
                )
            parts.append("</g>")
    return Markup("".join(parts) + "</svg>")


def _needs_log(lines: Mapping[str, Points]) -> bool:
    peaks = [peak for line in lines.values() if (peak := max(line.values())) > 0]
    return bool(peaks) and max(peaks) > LOG_FROM * min(peaks)


def _make_value_axis(lines: Mapping[str, Points], limits: tuple[float | None, float | None], *, is_log: bool) -> _Axis:
    values = [y for line in lines.values() for y in line.values()]
    if is_log:
        values = [value for value in values if value > 0]
        high = max(values)
        low = max(min(values), min(max(line.values()) for line in lines.values() if max(line.values()) > 0) / 200)
        return _Axis(10 ** math.floor(math.log10(low)), high * 1.3, HEIGHT - BOTTOM, TOP, is_log=True)
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1
    low = low - room if limits[0] is None else limits[0]
    high = high + room if limits[1] is None else limits[1]
    return _Axis(low, high if high > low else low + 1, HEIGHT - BOTTOM, TOP)


def _draw_grid(x_axis: _Axis, y_axis: _Axis, across: str, show: Callable[[float], str]) -> list[str]:
    parts = ['<g class="axes">']
    for value in y_axis.ticks(5):
        y = y_axis.place(value)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(_write(LEFT - 6, y, show(value), "end"))
    for value in x_axis.ticks(7, whole=True):
        parts.append(_write(x_axis.place(value), HEIGHT - BOTTOM + 12, f"{value:,.0f}", "middle"))
    parts.append(_write((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, across, "middle"))
    return [*parts, "</g>"]


def _draw_line(number: int, line: Points, x_axis: _Axis, y_axis: _Axis) -> str:
    lowest = y_axis.low if y_axis.is_log else -math.inf
    points = [f"{x_axis.place(x)} {y_axis.place(y)}" for x, y in _thin(sorted(line.items())) if y >= lowest]
    kind = f"l{number % COLOURS}{' far' * (number >= COLOURS)}"
    dots = "".join(f'<circle r="2.6" cx="{x}" cy="{y}"/>' for x, y in (point.split() for point in points))
    path = f'<path d="M{"L".join(points)}"/>' if len(points) > 1 else ""
    return f'<g class="{kind}">{path}{dots if len(points) <= 40 else ""}</g>'


def _draw_columns(
    lines: Mapping[str, Points], places: Sequence[float], axis: _Axis, across: str, show: Callable[[float], str]
) -> list[str]:
    """What the pointer rests on: a column for each place, with the values of all lines there."""
    shown = [place for place, _ in _thin([(place, 0.0) for place in places])]
    edges = [
        axis.start,
        *((axis.place(a) + axis.place(b)) / 2 for a, b in pairwise(shown)),
        axis.end,
    ]
    parts = []
    for place, (left, right) in zip(shown, pairwise(edges), strict=True):
        told = [f"{across} {place:,.0f}"]
        told += [f"{name}: {show(line[place])}" for name, line in lines.items() if place in line]
        parts.append(
            f'<rect class="point" x="{left:.2f}" y="{TOP}" width="{max(right - left, 0.5):.2f}" '
            f'height="{HEIGHT - TOP - BOTTOM}"><title>{join(told)}</title></rect>'
        )
    return parts


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points, or so many of them as can be told apart, the last among them."""
    stride = math.ceil(len(points) / MOST_COLUMNS)
    return [*points[:-1:stride], points[-1]]


def _write(x: float, y: float, text: str, anchor: str, title: str = "", placed: str = "") -> str:
    told = f"<title>{escape(title)}</title>" if title and title != text else ""
    return f'<text x="{x:g}" y="{y:g}" dy=".35em" text-anchor="{anchor}" {placed}>{escape(text)}{told}</text>'


def _cut(name: str, most: int = 16) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
