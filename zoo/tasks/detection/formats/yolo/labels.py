"""The lines of a YOLO label file: a class number and a box, in shares of the image's sides.

A line is `class cx cy w h`. More numbers are the corners of a polygon, `class x y x y x y ...`, or a box and its key
points, which only the data's yaml tells apart (`kpt_shape`). Source: the pages on detection, segmentation, oriented
boxes and pose of the Ultralytics documentation of data sets.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from zoo.tasks.detection.annotations import Key
from zoo.tasks.detection.formats._files import Findings, clip, count, parse_number

KEY_POINTS = (
    "it looks like a box with key points, each x y visibility; declare them in the yaml with kpt_shape, such as [17, 3]"
)
FARTHEST = 1.0  # how far outside of its image, in sides of it, a box may lie before it is taken for pixels


class Label(NamedTuple):
    """A box: class number; x1, y1, x2, y2 in shares of the image's sides; its line, from 1."""

    key: Key
    box: tuple[float, float, float, float]
    line: int


def parse_labels(text: str, keys: Collection[Key] | None, findings: Findings, *, pose: bool = False) -> list[Label]:
    """Return the boxes of a label file; lines that cannot be used become findings.

    Args:
        text: All of it; empty for an image of which is known that nothing is in it.
        keys: The class numbers that have names; None if any number may be a class.
        findings: Takes what is wrong.
        pose: Whether what follows the box are key points, which are not read, and not a polygon.
    """
    labels: list[Label] = []
    polygons: list[int] = []
    for number, line in enumerate(text.splitlines(), 1):
        columns = line.split()
        is_polygon = not pose and len(columns) >= 7 and len(columns) % 2 == 1
        try:
            if columns:
                _check_length(columns, is_polygon=is_polygon, pose=pose)
                if is_polygon and _are_key_points(columns):
                    raise _BadLineError("key points not declared in the yaml", KEY_POINTS)
                labels.append(_parse(columns, keys, number, is_polygon=is_polygon))
                polygons += [number] * is_polygon
        except _BadLineError as error:
            findings.error(error.kind, f"{error}. The line is skipped", number)
    if polygons:
        text = f"{count(len(polygons), 'polygon is', 'polygons are')} read as their bounding boxes"
        findings.warn("polygons", text, polygons[0])
    return labels


def is_label_line(line: str) -> bool:
    """Tell whether a line of a text looks like a label of any kind: a whole number, and four more numbers at least."""
    values = [parse_number(column) for column in line.split()]
    return len(values) >= 5 and None not in values and (values[0] or 0.0).is_integer()


class _BadLineError(Exception):
    """What is wrong with a line; `kind` is what to call all such lines."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def _check_length(columns: Sequence[str], *, is_polygon: bool, pose: bool) -> None:
    if is_polygon or len(columns) == 5 or (pose and len(columns) > 5):
        return
    text = f"{count(len(columns), 'column')} in {clip(' '.join(columns))}; expected 5, class cx cy w h"
    raise _BadLineError("label lines with the wrong number of columns", text)


def _are_key_points(columns: Sequence[str]) -> bool:
    """Tell whether a box is followed by key points with their visibility: 0, 1 or 2 in every third column.

    A polygon may have 0 and 1 there, but has no 2, which is outside of the image.
    """
    seen = {parse_number(column) for column in columns[7::3]}
    return (len(columns) - 5) % 3 == 0 and 2 in seen and seen <= {0, 1, 2}


def _parse(columns: Sequence[str], keys: Collection[Key] | None, line: int, *, is_polygon: bool) -> Label:
    kind = "unreadable label lines"
    values = [value for column in columns if (value := parse_number(column)) is not None]
    if len(values) < len(columns):
        wrong = next(column for column in columns if parse_number(column) is None)
        raise _BadLineError(kind, f"{clip(wrong)} is not a number; expected class cx cy w h")
    if not values[0].is_integer():
        raise _BadLineError(kind, f"class {columns[0]} is not a whole number")
    key = int(values[0])
    if key < 0 or (keys is not None and key not in keys):
        known = "0 or more" if keys is None else f"one of the {len(keys):,} named classes"
        raise _BadLineError("class numbers out of range", f"class {clip(columns[0])}; expected {known}")
    box = _around(values[1:]) if is_polygon else _corners(*values[1:5])
    if min(box) < -FARTHEST or max(box) > 1 + FARTHEST:
        text = (
            f"{clip(' '.join(columns[1:]))} are not between 0 and 1, relative to the image size; perhaps they are "
            "pixels"
        )
        raise _BadLineError("boxes not in relative coordinates", text)
    return Label(key, box, line)


def _corners(cx: float, cy: float, width: float, height: float) -> tuple[float, float, float, float]:
    return cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2


def _around(points: Sequence[float]) -> tuple[float, float, float, float]:
    xs, ys = points[::2], points[1::2]
    return min(xs), min(ys), max(xs), max(ys)
