"""One annotation file of COCO: pictures, boxes and categories by their ids.

A box is x, y, width and height in pixels, x and y from 0 at the left upper corner of the picture. Source: the page
"Data format" of cocodataset.org.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from zoo.annotation_files import Findings, clip, read_text
from zoo.annotations import Key
from zoo.errors import InputError
from zoo.json_lists import Entry, read_lists

LISTS = ("images", "annotations", "categories")
MAX_BYTES = 2**32
LEFT_OUT = "It is left out"


class CocoPicture(NamedTuple):
    """An entry of `images`: a path with forward slashes, height and width if stated, and its line."""

    name: str
    size: tuple[int, int] | None
    line: int


class CocoBox(NamedTuple):
    """An entry of `annotations`: ids of picture and category; x1, y1, x2, y2 in pixels."""

    picture: Key
    key: Key
    box: tuple[float, float, float, float]
    crowd: bool
    line: int


class CocoCategory(NamedTuple):
    """An entry of `categories`: its name, and that of what it is a kind of; empty if of nothing."""

    name: str
    above: str
    line: int


@dataclass(frozen=True)
class CocoJson:
    """What is used of an annotation file.

    Attributes:
        pictures: By id.
        boxes: In the order of the file; their pictures and categories may be unknown.
        categories: By id.
    """

    pictures: dict[Key, CocoPicture] = field(default_factory=dict)
    boxes: list[CocoBox] = field(default_factory=list)
    categories: dict[Key, CocoCategory] = field(default_factory=dict)


def read_json(path: Path, findings: Findings) -> CocoJson:
    """Read an annotation file; what cannot be used becomes findings, and of a file that is not JSON nothing is used."""
    content, kind = CocoJson(), "json files that cannot be read"
    try:
        for entry in read_lists(read_text(path, MAX_BYTES)):
            _take(entry, content, findings)
    except json.JSONDecodeError as error:
        findings.error(
            kind, f"it is not JSON: {error.msg}, column {error.colno:,}. Nothing of it is used", error.lineno
        )
    except RecursionError:
        findings.error(kind, "it is nested too deeply. Nothing of it is used")
    except (InputError, ValueError) as error:
        findings.error(kind, f"{error}. Nothing of it is used")
    else:
        if not content.pictures:
            findings.error("json files without images", "no entry of its 'images' can be used, or there is none")
        return content
    return CocoJson()


def _take(entry: Entry, content: CocoJson, findings: Findings) -> None:
    if entry.key not in LISTS:
        return
    if not entry.listed or not isinstance(entry.value, dict):
        what = f"an entry of {entry.key}" if entry.listed else entry.key
        expected = "an object, {...}" if entry.listed else "a list, [...]"
        text = f"{what} is {clip(entry.value)}; expected {expected}. {LEFT_OUT}"
        findings.error("entries of another kind", text, entry.line)
    elif entry.key == "images":
        _take_picture(entry.value, entry.line, content, findings)
    elif entry.key == "annotations":
        _take_box(entry.value, entry.line, content, findings)
    else:
        _take_category(entry.value, entry.line, content, findings)


def _take_picture(value: Mapping[str, Any], line: int, content: CocoJson, findings: Findings) -> None:
    name, key = value.get("file_name"), _as_key(value.get("id"))
    if key is None or not isinstance(name, str) or not name:
        text = f"id is {clip(value.get('id'))}, file_name is {clip(name)}; expected a number and a name. {LEFT_OUT}"
        findings.error("images without id or file_name", text, line)
    elif key in content.pictures:
        text = f"id {clip(key)} is that of line {content.pictures[key].line:,} too. {LEFT_OUT}"
        findings.error("images of the same id", text, line)
    else:
        height, width = (_as_number(value.get(side)) for side in ("height", "width"))
        size = None if height is None or width is None else (int(height), int(width))
        path = PurePosixPath(name.replace("\\", "/")).as_posix()
        content.pictures[key] = CocoPicture(path, size, line)


def _take_box(value: Mapping[str, Any], line: int, content: CocoJson, findings: Findings) -> None:
    picture, key = _as_key(value.get("image_id")), _as_key(value.get("category_id"))
    if picture is None or key is None:
        ids = f"image_id is {clip(value.get('image_id'))}, category_id is {clip(value.get('category_id'))}"
        findings.error("annotations without ids", f"{ids}; expected two numbers. {LEFT_OUT}", line)
    elif box := _parse_box(value, line, findings):
        content.boxes.append(CocoBox(picture, key, box, value.get("iscrowd") in (1, True), line))


def _parse_box(value: Mapping[str, Any], line: int, findings: Findings) -> tuple[float, float, float, float] | None:
    """Return the corners of a box, or of the one around a polygon; None, and a finding, if there is neither."""
    given = value.get("bbox")
    if given:
        sides = _as_numbers(given)
        if len(sides) == 4 and math.isfinite(sides[0] + sides[2]) and math.isfinite(sides[1] + sides[3]):
            return sides[0], sides[1], sides[0] + sides[2], sides[1] + sides[3]
        text = f"bbox is {clip(given)}; expected four numbers, x, y, width and height. {LEFT_OUT}"
        findings.error("boxes that cannot be read", text, line)
        return None
    polygons = value.get("segmentation")
    parts = [_as_numbers(part) for part in polygons] if isinstance(polygons, list) else []
    if not parts or any(len(part) < 6 or len(part) % 2 for part in parts):
        findings.error("annotations without a box", f"there is no bbox, and no polygon. {LEFT_OUT}", line)
        return None
    findings.warn("polygons without a box", "the box around it is taken", line)
    xs, ys = [x for part in parts for x in part[::2]], [y for part in parts for y in part[1::2]]
    return min(xs), min(ys), max(xs), max(ys)


def _take_category(value: Mapping[str, Any], line: int, content: CocoJson, findings: Findings) -> None:
    key, name, above = _as_key(value.get("id")), _as_text(value.get("name")), _as_text(value.get("supercategory"))
    if key is None or not name:
        text = f"id is {clip(value.get('id'))}, name is {clip(value.get('name'))}; expected a number and a name"
        findings.error("categories without id or name", f"{text}. {LEFT_OUT}", line)
        return
    first = content.categories.setdefault(key, CocoCategory(name, above, line))
    if first.name != name:
        text = f"category {key} is {clip(first.name)} on line {first.line:,} and {clip(name)} here. {LEFT_OUT}"
        findings.error("categories of the same id", text, line)


def _as_key(value: Any) -> Key | None:
    """Return an id, a whole number or a text; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, (int, str)) and not isinstance(value, bool) else None


def _as_text(value: Any) -> str:
    return str(value).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


def _as_number(value: Any) -> float | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number of 400 digits
        return None


def _as_numbers(values: Any) -> list[float]:
    """Return a list of numbers; nothing if it is anything else."""
    numbers = [_as_number(value) for value in values] if isinstance(values, list) else []
    known = [number for number in numbers if number is not None]
    return known if len(known) == len(numbers) else []
