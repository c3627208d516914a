"""Boxes of Pascal VOC folders, and of all that write one xml for each picture, as labelImg and Roboflow do.

The format counts pixels from 1 and names the first and the last of a box. Source: Everingham and Winn, The PASCAL
Visual Object Classes Challenge 2012 Development Kit. Many tools count from 0 instead, and nothing in the files says so;
but then some box begins at 0.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from zoo.annotation_files import (
    PICTURE_SUFFIXES,
    SPLITS,
    Findings,
    PictureFiles,
    clip,
    count,
    find_folder,
    leads_out,
    list_files,
    list_folders,
    natural_key,
    parse_number,
    read_limited,
    read_text,
    settle_names,
    show_path,
    tell_split,
)
from zoo.annotations import Annotated, BoxSource, BoxSplit, Floats, Key, no_boxes
from zoo.errors import DataError, InputError
from zoo.voc_xml import VocObject, VocXml, parse_xml

EXPECTED = (
    "Pascal VOC: Annotations/*.xml beside JPEGImages/ (with or without ImageSets/Main/train.txt), also in VOC2012/ and "
    "the like; or train/ and valid/ with *.xml beside the pictures"
)

XML_FOLDERS = ("annotations", "labels")
PICTURE_FOLDERS = ("jpegimages", "images", "data")
SIDES = ("xmin", "ymin", "xmax", "ymax")
MAX_XML_BYTES = 10_000_000
MAX_LIST_BYTES = 100_000_000
XML = frozenset({".xml"})


def read_voc(root: Path) -> BoxSource | None:
    """Read the boxes of a folder with one xml for each picture.

    Splits are those of `ImageSets/Main`, or the folders; else there is one, `all`. Classes are in the order of their
    names. Two equal ends, which would be one pixel if counted from 1, are kept as a box without area.

    Args:
        root: The folder; or one that holds such folders, as `VOCdevkit` does; its years are read together.

    Returns:
        What was read; None if there is nothing of the kind.

    Raises:
        DataError: If there are several data sets, or a folder cannot be listed.
    """
    root = root.expanduser().absolute()
    places = _find_places(root)
    if not places:
        return None
    findings = Findings()
    read: dict[str, list[_Read]] = {}
    for place in places:
        for split, stems in _list_splits(place, findings).items():
            read.setdefault(split, []).extend(_read_all(place, stems, findings.at(split=split)))
    offset = _find_offset([item for same in read.values() for item in same], findings)
    order = [split for split in SPLITS if split in read]
    splits = {split: _make_split(read[split], offset, findings.at(split=split)) for split in order}
    found = {str(key) for split in splits.values() for image in split.images for key in image.keys}
    names: dict[Key, str] = {name: name for name in sorted(found, key=natural_key)}
    return BoxSource(str(root), "Pascal VOC", splits, settle_names(names, findings), tuple(findings.found))


@dataclass(frozen=True)
class _Place:
    """Where xml files are, where their pictures are, and the folder around both, which may hold lists of splits.

    `root` is the folder of the data; `split` is what `base` is named after, if it is.
    """

    root: Path
    base: Path
    xmls: Path
    pictures: Path
    split: str | None = None

    def show(self, path: Path) -> str:
        """Return a path below the data's folder."""
        return show_path(path, self.root)


class _Read(NamedTuple):
    """A picture, its boxes with both ends as they are written, and the lines of objects that are difficult."""

    path: Path
    written: Annotated
    difficult: tuple[int, ...]


def _find_places(root: Path) -> list[_Place]:
    """Find xml files and their pictures in a folder, in the folders of splits, or in folders inside."""
    if place := _find_place(root, root):
        return [place]
    inside = [root / name for name in list_folders(root)]
    splits = [(folder, split) for folder in inside if (split := tell_split(folder.name))]
    named = [replace(place, split=split) for folder, split in splits if (place := _find_place(root, folder))]
    if named:
        return named
    deeper = [folder / name for folder in inside for name in list_folders(folder)]
    return _find_kits(root, inside) or _find_kits(root, deeper)


def _find_kits(root: Path, folders: Sequence[Path]) -> list[_Place]:
    """Return the folders that hold a data set each: one, or the years of a `VOCdevkit`."""
    kits = [folder for folder in folders if find_folder(folder, XML_FOLDERS[:1])]
    places = [place for folder in kits if (place := _find_place(root, folder))]
    others = [place.base for place in places if not re.fullmatch(r"(?i)voc[-_ ]?(20)?[0-9]{2}", place.base.name)]
    if len(places) > 1 and others:
        names = " and ".join(repr(place.show(place.base)) for place in places[:4])
        raise DataError(f"{str(root)!r} holds several data sets of Pascal VOC, {names}. Pass the path of one.")
    return places


def _find_place(root: Path, base: Path) -> _Place | None:
    """Tell where the xml files of a folder are, and where the pictures: each may lie in it without a folder."""
    xmls = find_folder(base, XML_FOLDERS) or base
    pictures = find_folder(base, PICTURE_FOLDERS) or base
    if not list_files(xmls, XML) or (xmls == base and not list_files(pictures, PICTURE_SUFFIXES)):
        return None
    return _Place(root, base, xmls, pictures)


def _list_splits(place: _Place, findings: Findings) -> dict[str, list[str]]:
    """Return the names, without suffix, of the xml files of each split."""
    stems = [Path(name).stem for name in list_files(place.xmls, XML)]
    if place.split:
        return {place.split: stems}
    main, known = place.base / "ImageSets" / "Main", frozenset(stems)
    lists = {split: _read_list(place, main / f"{split}.txt", known, findings.at(split=split)) for split in SPLITS[:3]}
    if not lists["train"] and not lists["val"]:
        lists["train"] = _read_list(place, main / "trainval.txt", known, findings.at(split="train"))
    lists = {split: sorted(names, key=natural_key) for split, names in lists.items() if names}
    if not lists:
        return {"all": stems}
    _compare_lists(place, lists, stems, findings)
    return lists


def _read_list(place: _Place, path: Path, stems: frozenset[str], findings: Findings) -> list[str]:
    """Return the names in a list, without suffix; none if there is no such list."""
    if not path.exists():
        return []
    here = findings.at(file=place.show(path))
    try:
        lines = [line.strip() for line in read_text(path, MAX_LIST_BYTES).splitlines()]
    except InputError as error:
        here.error("lists that cannot be read", f"{error}. What it lists is not used")
        return []
    entries = [line for line in lines if line]
    if entries and stems.isdisjoint(entries) and all(re.fullmatch(r".*\S\s+-?[01]", entry) for entry in entries):
        here.warn("lists of a class", "it has a second column, so it is not taken for the list of a split")
        return []
    names = _take_names(lines, stems, here)
    if not names:
        here.warn("empty lists", "it lists nothing that is there")
    return names


def _take_names(lines: Sequence[str], stems: frozenset[str], findings: Findings) -> list[str]:
    """Return the different names of a list; what has no xml is told and left out."""
    names: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        with_suffix = line not in stems and Path(line).suffix.lower() in PICTURE_SUFFIXES | XML
        name = Path(line).stem if with_suffix else line
        if name in names:
            findings.warn("names listed twice", f"{clip(name)} is on line {names[name]:,} already", number)
        elif name in stems:
            names[name] = number
        elif name:
            text = f"there is no {clip(f'{name}.xml')}; it is left out"
            findings.error("listed pictures without an xml", text, number)
    return list(names)


def _compare_lists(place: _Place, lists: Mapping[str, Sequence[str]], stems: Sequence[str], findings: Findings) -> None:
    """Tell what is in two lists, and how much is in none."""
    seen: dict[str, str] = {}
    for split, names in lists.items():
        for name in names:
            other = seen.setdefault(name, split)
            if other != split:
                here = findings.at(split=split, file=place.show(place.xmls / f"{name}.xml"))
                here.warn("pictures in two splits", f"it is listed for {other} and for {split}, and used in both")
    if unlisted := [stem for stem in stems if stem not in seen]:
        text = f"{count(len(unlisted), 'xml file is', 'xml files are')} in no list, and not used"
        findings.at(file=place.show(place.xmls / f"{unlisted[0]}.xml")).warn("xml files in no list", text)


def _read_all(place: _Place, stems: Sequence[str], findings: Findings) -> Iterator[_Read]:
    """Yield the pictures of a split that can be used."""
    pictures = list_files(place.pictures, PICTURE_SUFFIXES)
    own = {Path(name).stem: name for name in reversed(pictures)}
    xmls = {Path(name).stem: name for name in list_files(place.xmls, XML)}
    described: dict[str, str] = {}
    for stem in stems:
        file = place.show(place.xmls / xmls[stem])
        here = findings.at(file=file)
        xml = _parse(place.xmls / xmls[stem], here)
        picture = _find_picture(place, xml.filename, stem, own, xmls.keys(), here) if xml else None
        if xml is None or picture is None:
            continue
        if picture in described:
            text = f"it is of {clip(picture)}, as {described[picture]} is; it is left out"
            here.error("pictures with two xml files", text)
            continue
        described[picture] = file
        yield _take_boxes(xml, place.pictures / picture, place, here)
    if findings.split in ("all", place.split):  # lists need not list all that is there
        for name in pictures:
            if name not in described and Path(name).stem not in xmls:
                here = findings.at(file=place.show(place.pictures / name))
                here.warn("pictures without an xml", "nobody has said what is in it, so it is not used")


def _find_picture(
    place: _Place, filename: str, stem: str, own: Mapping[str, str], stems: Iterable[str], findings: Findings
) -> str | None:
    """Return the picture that an xml names, or else the one that is called as the xml; None if there is neither."""
    named, mine = filename.replace("\\", "/"), own.get(stem)
    is_there = bool(named) and not leads_out(named) and os.path.isfile(place.pictures / named)
    if is_there and mine in (None, named):
        return named
    if is_there and mine:
        taken = mine if Path(named).stem in stems else named
        text = f"its filename is {clip(filename)}, and there is {clip(mine)} too; {clip(taken)} is taken"
        findings.warn("xml files that name another picture", text)
        return taken
    if mine is None:
        text = f"there is neither {clip(filename or stem)} in {place.show(place.pictures)!r}"
        findings.error("missing pictures", f"{text} nor a {clip(stem)} with the suffix of a picture; it is left out")
    elif leads_out(named):
        text = f"its filename {clip(filename)} leads out of the folder; {clip(mine)} is taken"
        findings.warn("file names that lead out of the folder", text)
    return mine


def _parse(path: Path, findings: Findings) -> VocXml | None:
    kind = "xml files that cannot be read"
    try:
        return parse_xml(read_limited(path, MAX_XML_BYTES))
    except expat.ExpatError as error:
        text = f"it is not XML: {expat.errors.messages.get(error.code, error)}; it is left out"
        findings.error(kind, text, error.lineno)
    except (InputError, LookupError, ValueError) as error:  # of an encoding that is unknown, or of several bytes
        findings.error(kind, f"{error}; it is left out")
    return None


def _take_boxes(xml: VocXml, picture: Path, place: _Place, findings: Findings) -> _Read:
    good: list[tuple[VocObject, str, list[float]]] = []
    for item in xml.objects:
        name = " ".join(item.texts.get("name", "").split())
        box = _parse_box(item, findings)
        if not name:
            findings.error("objects without a name", "expected <name>; it is left out", item.line)
        elif box:
            good.append((item, name, box))
    height, width = (parse_number(xml.size.get(side, "")) for side in ("height", "width"))
    written = Annotated(
        place.show(picture),
        np.array([box for _, _, box in good]) if good else no_boxes(),
        tuple(name for _, name, _ in good),
        tuple(item.line for item, _, _ in good),
        np.zeros(len(good), np.bool_),
        findings.file,
        None if height is None or width is None else (int(height), int(width)),
    )
    return _Read(picture, written, tuple(item.line for item, _, _ in good if item.texts.get("difficult") == "1"))


def _parse_box(item: VocObject, findings: Findings) -> list[float] | None:
    sides: list[float] = []
    for side in SIDES:
        text = item.texts.get(side)
        value = parse_number(text or "")
        if value is None:
            problem = f"there is no {side}" if text is None else f"{side} is {clip(text)}"
            line = item.lines.get(side, item.line)
            findings.error("boxes that cannot be read", f"{problem}; expected a number. The box is left out", line)
            return None
        sides.append(value)
    return sides


def _find_offset(read: Sequence[_Read], findings: Findings) -> float:
    """Return what the first pixel is counted as, 1 or 0, and tell it."""
    firsts = [(item.written, row) for item in read for row in np.flatnonzero(_begin_at_zero(item.written.boxes))]
    total = sum(len(item.written.boxes) for item in read)
    if firsts:
        written, row = firsts[0]
        text = f"{len(firsts):,} of {count(total, 'box', 'boxes')} begin at 0, so pixels are counted from 0, not from 1"
        findings.at(file=written.file).note("coordinates", text, written.lines[row])
        return 0.0
    if total:
        findings.note("coordinates", f"none of {count(total, 'box', 'boxes')} begins at 0: pixels are counted from 1")
    return 1.0


def _begin_at_zero(boxes: Floats) -> NDArray[np.bool_]:
    firsts = boxes[:, :2]
    at_zero: NDArray[np.bool_] = np.any((firsts >= 0) & (firsts < 1), axis=1)
    return at_zero


def _make_split(read: Sequence[_Read], offset: float, findings: Findings) -> BoxSplit:
    images = tuple(replace(item.written, boxes=_move(item.written.boxes, offset)) for item in read)
    if difficult := [(item.written.file, line) for item in read for line in item.difficult]:
        file, line = difficult[0]
        text = f"{count(len(difficult), 'object is', 'objects are')} marked as difficult, and used like any other"
        findings.at(file=file).warn("difficult objects", text, line)
    return BoxSplit(findings.split, PictureFiles(tuple(str(item.path) for item in read)), images, in_threads=True)


def _move(boxes: Floats, offset: float) -> Floats:
    """Move the first ends to where their pixels begin, unless they are the last ones too."""
    first, last = boxes[:, :2], boxes[:, 2:]
    return np.concatenate([np.where(first == last, first, first - offset), last], axis=1)
