"""One annotation file of COCO: images, boxes and categories by their ids.

A box is x, y, width and height in pixels, x and y from 0 at the left upper corner of the image. Source: the page
"Data format" of cocodataset.org. Ids are those of this file alone, and are compared by their value: 7, 7.0 and "7" are
one id, as many tools write ids as texts in one place and as numbers in another.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from zoo.data import plain_name
from zoo.errors import InputError
from zoo.files import Entry, read_lists
from zoo.tasks.detection.annotations import Key
from zoo.tasks.detection.formats._files import Findings, clip, read_text

LISTS = ("images", "annotations", "categories")
MAX_BYTES = 2**32
LEFT_OUT = "Skipped"
CROWD: dict[Any, bool] = {
    0: False,
    1: True,
    "0": False,
    "1": True,
    "false": False,
    "true": True,
    "": False,
    None: False,
}
WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,30})(\.0+)?")  # a text that is the number of an id; "007" is another id than 7
LONGEST_SIDE = 1e9  # pixels; no image is longer


class CocoImage(NamedTuple):
    """An entry of `images`: a path with forward slashes, height and width if stated, and its line."""

    name: str
    size: tuple[int, int] | None
    line: int


class CocoBox(NamedTuple):
    """An entry of `annotations`: ids of image and category; x1, y1, x2, y2 in pixels; what messages call it."""

    image: Key
    key: Key
    box: tuple[float, float, float, float]
    crowd: bool
    line: int
    name: str


class CocoCategory(NamedTuple):
    """An entry of `categories`: its name, and that of what it is a kind of; empty if of nothing."""

    name: str
    above: str
    line: int


@dataclass(frozen=True)
class CocoJson:
    """What is used of an annotation file.

    Attributes:
        images: By id.
        boxes: In the order of the file; their images and categories may be unknown.
        categories: By id.
        lost: How many annotations of an image, by its id, could not be read.
        unclear_images: Ids that two images have: nobody knows of which an annotation is.
        unclear_categories: Ids that categories of two names have.
        lists: Which of the lists are there, also empty ones.
    """

    images: dict[Key, CocoImage] = field(default_factory=dict)
    boxes: list[CocoBox] = field(default_factory=list)
    categories: dict[Key, CocoCategory] = field(default_factory=dict)
    lost: Counter[Key] = field(default_factory=Counter)
    unclear_images: set[Key] = field(default_factory=set)
    unclear_categories: set[Key] = field(default_factory=set)
    lists: set[str] = field(default_factory=set)


def read_json(path: Path, findings: Findings) -> CocoJson:
    """Read an annotation file; what cannot be used becomes findings, and of a file that is not JSON nothing is used."""
    content, kind = CocoJson(), "unreadable json files"
    try:
        for entry in read_lists(read_text(path, MAX_BYTES)):
            _take(entry, content, findings)
    except json.JSONDecodeError as error:
        findings.error(kind, f"it is not JSON: {error.msg}, column {error.colno:,}. The file is skipped", error.lineno)
    except RecursionError:
        findings.error(kind, "it is nested too deeply. The file is skipped")
    except MemoryError:
        findings.error(kind, "not enough memory to read it. The file is skipped")
    except (InputError, ValueError) as error:
        findings.error(kind, f"{error}. The file is skipped")
    else:
        if not content.images:
            findings.error("json files without images", "'images' is missing or has no usable entry")
        return content
    return CocoJson()


def _take(entry: Entry, content: CocoJson, findings: Findings) -> None:
    if entry.key not in LISTS:
        return
    is_list = entry.number is not None or entry.value == []
    if is_list:
        content.lists.add(entry.key)
    if entry.number is None:
        if not is_list:
            text = f"{entry.key} is {clip(entry.value)}; expected a list, [...]. {LEFT_OUT}"
            findings.error("entries of the wrong type", text, entry.line)
    elif not isinstance(entry.value, dict):
        text = f"{entry.key}[{entry.number}] is {clip(entry.value)}; expected an object, {{...}}. {LEFT_OUT}"
        findings.error("entries of the wrong type", text, entry.line)
    elif entry.key == "images":
        _take_image(entry.value, _name("image", entry), entry.line, content, findings)
    elif entry.key == "annotations":
        _take_box(entry.value, _name("annotation", entry), entry.line, content, findings)
    else:
        _take_category(entry.value, _name("category", entry), entry.line, content, findings)


def _name(kind: str, entry: Entry) -> str:
    """Return what to call an entry: `annotation 17` after its id, else by its place, as one line may hold them all."""
    key = _as_key(entry.value.get("id"))
    return f"{entry.key}[{entry.number}]" if key is None else f"{kind} {key if isinstance(key, int) else clip(key)}"


def _take_image(value: Mapping[str, Any], what: str, line: int, content: CocoJson, findings: Findings) -> None:
    name, key = value.get("file_name"), _as_key(value.get("id"))
    if key is None or not isinstance(name, str) or not name:
        text = f"{what}: id is {clip(value.get('id'))}, file_name is {clip(name)}; expected a number and a name"
        findings.error("images without id or file_name", f"{text}. {LEFT_OUT}", line)
        return
    name = name.replace("\\", "/")
    first = content.images.get(key)
    if first is None:
        content.images[key] = CocoImage(name, _parse_size(value), line)
    elif first.name == name:
        findings.warn("images listed twice", f"{what}, {clip(name)}, is already on line {first.line:,}", line)
    else:
        text = f"{what} is {clip(first.name)} on line {first.line:,} and {clip(name)} here; expected unique ids"
        findings.error("images with the same id", f"{text}. {LEFT_OUT}, with its annotations", line)
        content.unclear_images.add(key)


def _parse_size(value: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = (_as_number(value.get(side)) for side in ("height", "width"))
    if height is None or width is None or not 1 <= min(height, width) <= max(height, width) <= LONGEST_SIDE:
        return None
    return int(height), int(width)


def _take_box(value: Mapping[str, Any], what: str, line: int, content: CocoJson, findings: Findings) -> None:
    image, key = _as_key(value.get("image_id")), _as_key(value.get("category_id"))
    box = None
    if image is None or key is None:
        ids = f"image_id is {clip(value.get('image_id'))}, category_id is {clip(value.get('category_id'))}"
        findings.error("annotations without ids", f"{what}: {ids}; expected two numbers", line)
    elif box := _parse_box(value, what, line, findings):
        crowd = _parse_crowd(value.get("iscrowd"), what, line, findings)
        content.boxes.append(CocoBox(image, key, box, crowd, line, what))
    if image is not None and box is None:
        content.lost[image] += 1


def _parse_crowd(given: Any, what: str, line: int, findings: Findings) -> bool:
    plain = given.strip().casefold() if isinstance(given, str) else given
    if not isinstance(plain, (list, dict)) and plain in CROWD:
        return CROWD[plain]
    findings.warn("invalid iscrowd values", f"{what}: iscrowd is {clip(given)}; expected 0 or 1. 0 is used", line)
    return False


def _parse_box(
    value: Mapping[str, Any], what: str, line: int, findings: Findings
) -> tuple[float, float, float, float] | None:
    """Return the corners of a box, or of the one around a polygon; None, and a finding, if there is neither."""
    given = value.get("bbox")
    if given:
        sides = _as_numbers(given)
        if len(sides) == 4 and math.isfinite(sides[0] + sides[2]) and math.isfinite(sides[1] + sides[3]):
            return sides[0], sides[1], sides[0] + sides[2], sides[1] + sides[3]
        text = f"{what}: bbox is {clip(given)}; expected four numbers: x, y, width and height"
        findings.error("unreadable boxes", text, line)
        return None
    polygons = value.get("segmentation")
    parts = polygons if isinstance(polygons, list) else []
    if parts and not any(isinstance(part, list) for part in parts):
        parts = [parts]  # one polygon without the list around it
    points = [_as_numbers(part) for part in parts]
    if not points or any(len(part) < 6 or len(part) % 2 for part in points):
        findings.error("annotations without a box", f"{what}: there is neither a bbox nor a polygon", line)
        return None
    findings.warn("polygons without a box", f"{what}: its bounding box is used", line)
    xs, ys = [x for part in points for x in part[::2]], [y for part in points for y in part[1::2]]
    return min(xs), min(ys), max(xs), max(ys)


def _take_category(value: Mapping[str, Any], what: str, line: int, content: CocoJson, findings: Findings) -> None:
    key, name, above = _as_key(value.get("id")), _as_text(value.get("name")), _as_text(value.get("supercategory"))
    if key is None or not name:
        text = f"{what}: id is {clip(value.get('id'))}, name is {clip(value.get('name'))}; expected a number and a name"
        findings.error("categories without id or name", f"{text}. {LEFT_OUT}", line)
        return
    first = content.categories.setdefault(key, CocoCategory(name, above, line))
    if first.name != name:
        text = f"{what} is {clip(first.name)} on line {first.line:,} and {clip(name)} here; expected unique ids"
        findings.error("categories with the same id", text, line)
        content.unclear_categories.add(key)


def _as_key(value: Any) -> Key | None:
    """Return an id, a whole number or a text that is none; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        text = value.strip()
        return int(text.split(".")[0]) if WHOLE.fullmatch(text) else text
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _as_text(value: Any) -> str:
    return plain_name(str(value)).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


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
