"""Boxes of the folders that YOLO is trained from: pictures, a label file for each, and perhaps a yaml.

Where the labels of a picture are looked for follows what the trainers do that such folders are made for. Source: the
page on detection data sets of the Ultralytics documentation.
"""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zoo.annotation_files import (
    PICTURE_SUFFIXES,
    SPLITS,
    Findings,
    PictureFiles,
    clip,
    count,
    find_folder,
    list_folders,
    natural_key,
    read_ends,
    read_text,
    settle_names,
    show_path,
    tell_split,
    walk_files,
)
from zoo.annotations import Annotated, BoxSource, BoxSplit, Key, no_boxes
from zoo.errors import InputError
from zoo.yolo_labels import is_label_line, parse_labels
from zoo.yolo_yaml import SUFFIXES, find_yaml

EXPECTED = (
    "YOLO: data.yaml with names, train and val; or images/train, images/val beside labels/train, labels/val; or train/ "
    "and valid/ with images/ and labels/; and a label file *.txt for each picture"
)

NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")
LABEL_FOLDERS = {"images": "labels", "Images": "Labels", "JPEGImages": "labels"}
MAX_NAME_BYTES = 10_000_000
MAX_LABEL_BYTES = 10_000_000
MAX_LIST_BYTES = 1_000_000_000
LINE_BYTES = 10_000  # of a text that may be labels
TXT = frozenset({".txt"})


def read_yolo(root: Path) -> BoxSource | None:
    """Read the boxes of a folder with a label file for each picture.

    Labels of `.../images/...` are in `.../labels/...`, or else beside the picture. A picture that has none counts as
    one with nothing in it, unless none of its split has any.

    Args:
        root: The folder, or its yaml.

    Returns:
        What was read, with boxes in shares of the pictures' sides; None if there is nothing of the kind.

    Raises:
        DataError: If the yaml cannot be used, or a folder cannot be listed.
    """
    root = root.expanduser().absolute()
    if root.is_file() and root.suffix.lower() not in SUFFIXES:
        return None
    top = root.parent if root.is_file() else root
    findings = Findings()
    yaml = find_yaml(root, findings)
    parts = yaml.entries if yaml and yaml.entries else _find_parts(top, findings)
    if not parts:
        return None
    names = (yaml and yaml.names) or _find_names(top, parts, findings)
    base = yaml.base if yaml else top
    splits: dict[str, BoxSplit] = {}
    for split in (split for split in SPLITS if split in parts):
        reader = _Reader(top, base, names, findings.at(split=split), yaml is not None and yaml.pose)
        splits |= reader.read(parts[split])
    _tell_shared(splits, findings)
    if names is None:
        used = {int(key) for split in splits.values() for image in split.images for key in image.keys}
        names = {key: str(key) for key in sorted(used)}
        findings.note("class map", "there are no names of the classes; they are called by their numbers")
    here = findings.at(file=yaml.file if yaml else "")
    return BoxSource(str(top), "YOLO", splits, settle_names(names, here), tuple(findings.found))


class _Reader(NamedTuple):
    """Reads the labels of one split.

    `top` is the folder of the data, `base` the one that the yaml's paths begin at; `names` are those of the classes, if
    known; `pose` tells that labels have key points.
    """

    top: Path
    base: Path
    names: Mapping[Key, str] | None
    findings: Findings
    pose: bool

    def read(self, places: Sequence[Path]) -> dict[str, BoxSplit]:
        """Return the split by its name; none if it is for testing and without labels, as many are."""
        split = self.findings.split
        pictures = list(dict.fromkeys(picture for place in places for picture in self._list(place)))
        labels = {picture: _find_label(picture) for picture in pictures}
        if pictures and not any(labels.values()):
            text = f"none of {count(len(pictures), 'picture')} has a label file; {_tell_where(pictures[0], self.top)}"
            if split == "test":
                self.findings.warn("splits without labels", f"{text}. There is no test without them")
                return {}
            self.findings.error("splits without labels", f"{text}. Nothing of {split} is used")
            labels = {}
        used = frozenset(labels.values())
        for place in places:
            self._tell_orphans(place, used)
        self._tell_same(labels)
        read = [(picture, image) for picture, label in labels.items() if (image := self._annotate(picture, label))]
        files = PictureFiles(tuple(str(picture) for picture, _ in read))
        return {split: BoxSplit(split, files, tuple(image for _, image in read), in_threads=True)}

    def _list(self, place: Path) -> Iterator[Path]:
        """Yield the pictures of a folder and its folders, or of a list."""
        if place.is_dir():
            yield from walk_files(place, PICTURE_SUFFIXES)
            return
        here = self.findings.at(file=show_path(place, self.top))
        if place.suffix.lower() not in TXT:
            here.error("splits that are not there", "it is neither a folder nor a list of pictures, *.txt")
            return
        try:
            lines = read_text(place, MAX_LIST_BYTES).splitlines()
        except InputError as error:
            here.error("lists that cannot be read", str(error))
            return
        found: list[Path] = []
        for number, line in enumerate(lines, 1):
            name = line.strip().replace("\\", "/")
            paths = [Path(os.path.normpath(base / name)) for base in (place.parent, self.base, self.top) if name]
            there = [path for path in paths if os.path.isfile(path)]
            found += there[:1]
            if name and not there:
                text = f"there is no {clip(name)}, below {str(place.parent)!r} or elsewhere; it is left out"
                here.error("missing pictures", text, number)
        yield from sorted(found, key=lambda path: natural_key(str(path)))

    def _annotate(self, picture: Path, label: Path | None) -> Annotated | None:
        name = show_path(picture, self.top)
        if label is None:
            text = "it is taken for a picture with nothing in it"
            self.findings.at(file=name).warn("pictures without a label file", text)
            return Annotated(name, no_boxes(), (), (), np.zeros(0, np.bool_), is_relative=True)
        here = self.findings.at(file=show_path(label, self.top))
        try:
            text = read_text(label, MAX_LABEL_BYTES)
        except InputError as error:
            here.error("label files that cannot be read", f"{error}; the picture is left out")
            return None
        labels = parse_labels(text, self.names, here, pose=self.pose)
        return Annotated(
            name,
            np.array([label.box for label in labels]) if labels else no_boxes(),
            tuple(label.key for label in labels),
            tuple(label.line for label in labels),
            np.zeros(len(labels), np.bool_),
            here.file,
            is_relative=True,
        )

    def _tell_orphans(self, place: Path, used: Collection[Path | None]) -> None:
        """Tell label files of a folder that belong to no picture."""
        swapped = _swap(place)
        folder = swapped if swapped and swapped.is_dir() else place
        for label in walk_files(folder, TXT) if place.is_dir() else ():
            if label not in used and _is_label(label) and not _has_picture(label):
                text = f"there is no picture {clip(label.stem)} for it; its boxes are left out"
                self.findings.at(file=show_path(label, self.top)).error("label files without a picture", text)

    def _tell_same(self, labels: Mapping[Path, Path | None]) -> None:
        first: dict[Path, Path] = {}
        for picture, label in labels.items():
            if label in first:
                text = f"its label file is that of {first[label].name!r} too, and is used for both"
                self.findings.at(file=show_path(picture, self.top)).warn("pictures that share a label file", text)
            elif label:
                first[label] = picture


def _find_parts(top: Path, findings: Findings) -> dict[str, tuple[Path, ...]]:
    """Tell the splits of a folder without a yaml: folders in `images`, or with pictures and labels; or it is one."""
    images = find_folder(top, ["images"])
    if images and (labels := _swap(images)) and labels.is_dir() and any(map(_is_label, walk_files(labels, TXT))):
        named = {name: split for name in list_folders(images) if (split := tell_split(name))}
        parts = _gather(images, named)
        rest = sum(path.relative_to(images).parts[0] not in named for path in walk_files(images, PICTURE_SUFFIXES))
        if parts and rest:
            text = f"{count(rest, 'picture is', 'pictures are')} not in a folder for a split, and not used"
            findings.at(file=show_path(images, top)).warn("pictures in no split", text)
        return parts or {"all": (images,)}
    named = {name: split for name in list_folders(top) if (split := tell_split(name)) and _has_labels(top / name)}
    return _gather(top, named) or ({"all": (top,)} if _has_labels(top) else {})


def _gather(folder: Path, named: Mapping[str, str]) -> dict[str, tuple[Path, ...]]:
    """Return the folders of each split."""
    return {split: tuple(folder / name for name in named if named[name] == split) for split in named.values()}


def _has_labels(folder: Path) -> bool:
    """Tell whether some text in a folder looks like labels and belongs to a picture."""
    return any(_is_label(path) and _has_picture(path) for path in walk_files(folder, TXT))


def _has_picture(label: Path) -> bool:
    parts = label.parts
    places = [place for place in range(1, len(parts) - 1) if parts[place].casefold() == "labels"][-1:]
    swapped = [Path(*parts[:place], name, *parts[place + 1 : -1]) for place in places for name in ("images", "Images")]
    folders = [label.parent, *swapped]
    return any(os.path.isfile(folder / f"{label.stem}{suffix}") for folder in folders for suffix in PICTURE_SUFFIXES)


def _is_label(path: Path) -> bool:
    """Tell whether the first line of a text is one of a label file."""
    try:
        lines = read_ends(path, LINE_BYTES)[0].decode("utf-8-sig", "replace").splitlines()
    except InputError:
        return False
    return is_label_line(next(filter(str.strip, lines), ""))


def _find_label(picture: Path) -> Path | None:
    beside = picture.with_suffix(".txt")
    swapped = _swap(beside)
    return next((path for path in (swapped, beside) if path and os.path.isfile(path)), None)


def _swap(path: Path) -> Path | None:
    """Return the path with its last folder for pictures replaced by that for labels; None if it has none."""
    for place in range(len(path.parts) - 1, 0, -1):
        if other := LABEL_FOLDERS.get(path.parts[place]):
            return Path(*path.parts[:place], other, *path.parts[place + 1 :])
    return None


def _tell_where(picture: Path, top: Path) -> str:
    swapped = _swap(picture.with_suffix(".txt"))
    places = [show_path(path.parent, top) for path in (swapped, picture) if path]
    return f"expected {picture.stem}.txt in {' or '.join(map(repr, places))}"


def _find_names(top: Path, parts: Mapping[str, Sequence[Path]], findings: Findings) -> dict[Key, str] | None:
    """Read the names of classes from a file with one on each line; None if there is no such file."""
    folders = [place for same in parts.values() for place in same if place.is_dir()]
    labels = [label for folder in folders if (label := _swap(folder))]
    everywhere = [top, top / "data", top / "labels", *folders, *labels]
    for path in (folder / name for folder in dict.fromkeys(everywhere) for name in NAME_FILES):
        if path.is_file():
            here = findings.at(file=show_path(path, top))
            try:
                lines = read_text(path, MAX_NAME_BYTES).rstrip().splitlines()
            except InputError as error:
                here.error("class names that cannot be read", str(error))
                continue
            here.note("class map", f"it names {count(len(lines), 'class', 'classes')}")
            return {key: line.strip() or str(key) for key, line in enumerate(lines)}
    return None


def _tell_shared(splits: Mapping[str, BoxSplit], findings: Findings) -> None:
    """Tell how many pictures are in two splits."""
    for one, other in combinations(splits, 2):
        names = {image.name for image in splits[one].images}
        if both := [image.name for image in splits[other].images if image.name in names]:
            text = f"{count(len(both), 'picture is', 'pictures are')} in {one} and in {other}, and used in both"
            findings.at(split=other, file=both[0]).warn("pictures in two splits", text)
