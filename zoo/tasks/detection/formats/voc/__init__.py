"""Boxes of Pascal VOC folders, and of all that write one xml for each image, as labelImg and Roboflow do.

The format counts pixels from 1 and names the first and the last of a box. Source: Everingham and Winn, The PASCAL
Visual Object Classes Challenge 2012 Development Kit. Many tools count from 0 instead, and nothing in the files says so;
but then some box begins at 0.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from zoo.data import plain_name
from zoo.errors import InputError
from zoo.files import lies_inside, to_path
from zoo.tasks.detection.annotations import Annotated, BoxSource, BoxSplit, Floats, Key, no_boxes
from zoo.tasks.detection.formats._files import (
    SPLITS,
    Findings,
    ImageFiles,
    clip,
    count,
    deduplicate_class_names,
    escapes_folder,
    list_folders,
    natural_key,
    parse_number,
    read_limited,
    split_from_name,
)
from zoo.tasks.detection.formats._format import BoxFormat
from zoo.tasks.detection.formats._path_ends import Items
from zoo.tasks.detection.formats.voc.places import Place, find_place, find_places, list_splits, tell_other_places
from zoo.tasks.detection.formats.voc.xml import VocObject, VocXml, parse_xml

EXPECTED = (
    "Annotations/*.xml beside JPEGImages/ (with or without ImageSets/Main/train.txt), also in VOC2012/ and "
    "the like; or train/ and valid/ with *.xml beside the images"
)

SIDES = ("xmin", "ymin", "xmax", "ymax")
FEW_FRACTIONS = 0.01  # share of boxes with fractions up to which the others are counted from 1: VOC2012 has some
MAX_XML_BYTES = 10_000_000


def read_voc(root: Path) -> BoxSource | None:
    """Read the boxes of a folder with one xml for each image.

    Splits are those of `ImageSets/Main`, or the folders; else there is one, `all`. Classes are in the order of their
    names. Two equal ends, which would be one pixel if counted from 1, are kept as a box without area.

    Args:
        root: The folder; or one that holds such folders, as `VOCdevkit` does; its years are read together.

    Returns:
        What was read; None if there is nothing of the kind.

    Raises:
        DataError: If there are several data sets, or a folder cannot be listed.
    """
    root = to_path(root).absolute()
    places = find_places(root)
    if not places:
        return None
    findings = Findings()
    tell_other_places(places, findings)
    read: dict[str, list[_Read]] = {}
    for place in places:
        for split, items in _read_place(place, findings).items():
            read.setdefault(split, []).extend(items)
    every = [item for same in read.values() for item in same]
    offset = _find_offset([*every, *_read_beside(root)], findings)
    order = [split for split in SPLITS if split in read]
    splits = {split: _make_split(read[split], offset, findings.at(split=split)) for split in order}
    found = {str(key) for split in splits.values() for image in split.images for key in image.keys}
    names: dict[Key, str] = {name: name for name in sorted(found, key=natural_key)}
    where = str(places[0].root)
    return BoxSource(where, FORMAT.name, splits, deduplicate_class_names(names, findings), tuple(findings.found))


FORMAT = BoxFormat(name="Pascal VOC", expected=EXPECTED, order=30, read=read_voc)


class _Read(NamedTuple):
    """An image, its boxes with both ends as they are written, and the lines of objects that are difficult."""

    path: Path
    written: Annotated
    difficult: tuple[int, ...]


def _read_beside(root: Path) -> list[_Read]:
    """Read the other splits of a folder that is one split: they are counted as it is."""
    others = list_folders(root.parent) if split_from_name(root.name) else []
    folders = [root.parent / name for name in others if split_from_name(name) and name != root.name]
    places = [place for folder in folders if (place := find_place(root.parent, folder))]
    return [item for place in places for items in _read_place(place, Findings()).values() for item in items]


def _read_place(place: Place, findings: Findings) -> dict[str, list[_Read]]:
    """Return the images of each split that can be used."""
    xmls, images = place.list_xmls(), place.list_images()
    finder = _ImageFinder(place, images, xmls)
    splits = list_splits(place, xmls, findings)
    described: dict[str, Path] = {}
    read: dict[str, list[_Read]] = {}
    for split, keys in splits.items():
        here = findings.at(split=split)
        found = (_read_one(place, xmls[key], key, finder, described, here) for key in keys)
        read[split] = [item for item in found if item]
    if sum(map(len, splits.values())) == len(xmls):  # lists need not list all that is there
        undescribed = (name for name in images if name not in described and _cut(name) not in xmls)
        for name in undescribed:
            split = next(iter(splits)) if len(splits) == 1 else ""
            here = findings.at(split=split, file=place.show(place.images / name))
            here.warn("images without an xml", "it is not annotated, so it is not used")
    return read


def _read_one(
    place: Place, path: Path, key: str, finder: "_ImageFinder", described: dict[str, Path], findings: Findings
) -> _Read | None:
    """Read one xml; None if it or its image cannot be used."""
    here, since = findings.at(file=place.show(path)), len(findings.found)
    xml = _parse(path, here)
    image = finder.find(xml.filename, key, here) if xml else None
    read = None
    if image and described.setdefault(image, path) != path:
        text = f"it describes {clip(image)}, like {place.show(described[image])}; skipped"
        here.error("images with two xml files", text)
    elif xml and image:
        read = _take_boxes(xml, place.images / image, place, here)
    if len(here.found) > since and not lies_inside(path, place.root):
        here.hide(since)
    return read


class _ImageFinder:
    """Finds the image of an xml in a place, of the paths of its images and of what its xml files are called."""

    def __init__(self, place: Place, images: Sequence[str], xmls: Mapping[str, Path]) -> None:
        self._place, self._xmls = place, xmls
        self._own = {_cut(name): name for name in reversed(images)}
        self._items = Items({name: name for name in images})

    def find(self, filename: str, key: str, findings: Findings) -> str | None:
        """Return the image that an xml names, or else the one that is called as the xml; None if there is neither."""
        named, place = filename.replace("\\", "/"), self._place
        mine = self._own.get(key) or self._items.find(key, place.images).item or None
        beside = str(PurePosixPath(key).parent / named)  # the folder of the xml, below the images
        named = next((name for name in (beside, named) if self._is_there(name)), named)
        if self._is_there(named) and mine in (None, named):
            return named
        if self._is_there(named) and mine:
            taken = mine if _cut(named) in self._xmls else named
            text = f"its filename is {clip(filename)}, but {clip(mine)} exists too; {clip(taken)} is used"
            findings.warn("xml files that name another image", text)
            return taken
        if mine is None:
            stem = PurePosixPath(key).name
            text = f"there is neither {clip(filename or stem)} in {place.show(place.images)!r}"
            findings.error("missing images", f"{text} nor an image file {clip(stem)}; skipped")
        elif escapes_folder(named):
            text = f"its filename {clip(filename)} is outside the folder; {clip(mine)} is used"
            findings.warn("file names outside the folder", text)
        return mine

    def _is_there(self, name: str) -> bool:
        return bool(name) and not escapes_folder(name) and os.path.isfile(self._place.images / name)


def _cut(name: str) -> str:
    """Return a path without its suffix."""
    return os.path.splitext(name)[0]


def _parse(path: Path, findings: Findings) -> VocXml | None:
    kind = "unreadable xml files"
    try:
        data = read_limited(path, MAX_XML_BYTES)
        return parse_xml(data)
    except expat.ExpatError as error:
        text = f"it is not XML: {expat.errors.messages.get(error.code, error)}; skipped"
        if error.code == expat.errors.codes[expat.errors.XML_ERROR_INVALID_TOKEN] and not _is_utf8(data):
            text += ". It is not UTF-8: save it as UTF-8, or declare its encoding in the first line"
        findings.error(kind, text, error.lineno)
    except (InputError, LookupError, ValueError) as error:  # of an encoding that is unknown
        findings.error(kind, f"{error}; skipped")
    return None


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _take_boxes(xml: VocXml, image: Path, place: Place, findings: Findings) -> _Read:
    good: list[tuple[VocObject, str, list[float]]] = []
    since = len(findings.found)
    for item in xml.objects:
        name = plain_name(item.texts.get("name", "")).strip()
        box = _parse_box(item, findings)
        if not name:
            findings.error("objects without a name", "expected <name>; skipped", item.line)
        elif box:
            good.append((item, name, box))
    height, width = (parse_number(xml.size.get(side, "")) for side in ("height", "width"))
    written = Annotated(
        place.show(image),
        np.array([box for _, _, box in good]) if good else no_boxes(),
        tuple(name for _, name, _ in good),
        tuple(item.line for item, _, _ in good),
        np.zeros(len(good), np.bool_),
        findings.file,
        None if height is None or width is None else (int(height), int(width)),
        lost=findings.count_errors(since),
    )
    return _Read(image, written, tuple(item.line for item, _, _ in good if item.texts.get("difficult") == "1"))


def _parse_box(item: VocObject, findings: Findings) -> list[float] | None:
    sides: list[float] = []
    for side in SIDES:
        text = item.texts.get(side)
        value = parse_number(text or "")
        if value is None:
            problem = f"{side} is missing" if text is None else f"{side} is {clip(text)}"
            line = item.lines.get(side, item.line)
            findings.error("unreadable boxes", f"{problem}; expected a number. The box is skipped", line)
            return None
        sides.append(value)
    return sides


def _find_offset(read: Sequence[_Read], findings: Findings) -> float:
    """Return what the first pixel is counted as, 1 or 0, in all splits, and tell it."""
    total = sum(len(item.written.boxes) for item in read)
    boxes = count(total, "box", "boxes")
    broken = [(item.written, row) for item in read for row in np.flatnonzero(_have_fractions(item.written.boxes))]
    if len(broken) > FEW_FRACTIONS * total:
        written, row = broken[0]
        text = (
            f"{len(broken):,} of {boxes} have fractions, so coordinates are used unchanged, not converted from 1-based"
        )
        findings.at(file=written.file).note("coordinates", text, written.lines[row])
        return 0.0
    firsts = [(item.written, row) for item in read for row in np.flatnonzero(_begin_at_zero(item.written.boxes))]
    if firsts:
        written, row = firsts[0]
        text = f"{len(firsts):,} of {boxes} start at 0, so coordinates are 0-based, not 1-based"
        findings.at(file=written.file).note("coordinates", text, written.lines[row])
        return 0.0
    if total:
        text = f"none of {boxes} starts at 0: coordinates are read as 1-based and converted to 0-based"
        if broken:
            text += f", except {len(broken):,} with fractions, used unchanged"
        findings.note("coordinates", text)
    return 1.0


def _have_fractions(boxes: Floats) -> NDArray[np.bool_]:
    fractions: NDArray[np.bool_] = np.any(boxes != np.floor(boxes), axis=1)
    return fractions


def _begin_at_zero(boxes: Floats) -> NDArray[np.bool_]:
    firsts = boxes[:, :2]
    at_zero: NDArray[np.bool_] = np.any((firsts >= 0) & (firsts < 1), axis=1)
    return at_zero


def _make_split(read: Sequence[_Read], offset: float, findings: Findings) -> BoxSplit:
    images = tuple(replace(item.written, boxes=_move(item.written.boxes, offset)) for item in read)
    if difficult := [(item.written.file, line) for item in read for line in item.difficult]:
        file, line = difficult[0]
        text = f"{count(len(difficult), 'object is', 'objects are')} marked difficult, and used like all others"
        findings.at(file=file).warn("difficult objects", text, line)
    return BoxSplit(findings.split, ImageFiles(tuple(str(item.path) for item in read)), images, in_threads=True)


def _move(boxes: Floats, offset: float) -> Floats:
    """Move the first ends to where their pixels begin, unless they have fractions, or are not before the last ones."""
    first, last = boxes[:, :2], boxes[:, 2:]
    is_moved = (first < last) & ~_have_fractions(boxes)[:, None]
    return np.concatenate([np.where(is_moved, first - offset, first), last], axis=1)
