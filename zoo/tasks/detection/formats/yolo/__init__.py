"""Boxes of the folders that YOLO is trained from: images, a label file for each, and perhaps a yaml or lists.

Where the labels of an image are looked for follows what the trainers do that such folders are made for. Source: the
page on detection data sets of the Ultralytics documentation.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zoo.data import plain_name
from zoo.errors import DataError, InputError
from zoo.files import lies_inside, to_path
from zoo.tasks.detection.annotations import Annotated, BoxSource, BoxSplit, Key, no_boxes
from zoo.tasks.detection.formats._files import (
    Findings,
    ImageFiles,
    clip,
    count,
    deduplicate_class_names,
    read_text,
    show_path,
    walk_files,
)
from zoo.tasks.detection.formats._format import BoxFormat
from zoo.tasks.detection.formats.yolo.data_yaml import SUFFIXES, YoloYaml, find_yaml
from zoo.tasks.detection.formats.yolo.labels import parse_labels
from zoo.tasks.detection.formats.yolo.pairs import TXT, Pairs, expect_labels, is_label_file
from zoo.tasks.detection.formats.yolo.parts import Part, Parts, find_parts

EXPECTED = (
    "data.yaml with names, train and val; or obj.data, or train.txt and val.txt; or images/train, images/val "
    "beside labels/train, labels/val; or train/ and valid/ with images/ and labels/; and a label file *.txt for each "
    "image"
)

UNLABELLED = "splits without labels"  # a kind of finding
NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")
MAX_NAME_BYTES = 10_000_000
MAX_LABEL_BYTES = 10_000_000


def read_yolo(root: Path) -> BoxSource | None:
    """Read the boxes of a folder with a label file for each image.

    Labels of `.../images/...` are in `.../labels/...`, or else beside the image. An image that has none counts as one
    with nothing in it, unless none of its split has any. Splits are those of the yaml, else of lists, else of folders.

    Args:
        root: The folder, or its yaml.

    Returns:
        What was read, with boxes in shares of the images' sides; None if there is nothing of the kind.

    Raises:
        DataError: If the yaml cannot be used, or a folder cannot be listed.
    """
    root = to_path(root).absolute()
    if root.is_file() and root.suffix.lower() not in SUFFIXES:
        return None
    top = root.parent if root.is_file() else root
    findings = Findings()
    pairs = Pairs()
    yaml = find_yaml(root, findings)
    parts = find_parts(top, yaml, pairs, findings)
    if not parts.splits:
        return None
    names = _settle_names(top, yaml, parts, pairs, findings)
    splits: dict[str, BoxSplit] = {}
    for split, part in parts.splits.items():
        reader = _Reader(top, names, findings.at(split=split), yaml is not None and yaml.pose, pairs)
        splits |= reader.read(part)
    _tell_shared(splits, findings)
    if names is None:
        used = {int(key) for split in splits.values() for image in split.images for key in image.keys}
        names = {key: str(key) for key in sorted(used)}
        findings.note("class map", "there are no class names; classes are named by their numbers")
    here = findings.at(file=yaml.file if yaml else "")
    source = BoxSource(str(top), FORMAT.name, splits, deduplicate_class_names(names, here), tuple(findings.found))
    return replace(source, is_bare=_is_bare(source))


def _is_bare(source: BoxSource) -> bool:
    """Tell whether there are no labels but only a yaml, as some keep one beside COCO."""
    errors = {finding.kind for finding in source.findings if finding.level == "error"}
    return not source.find_file() and errors <= {UNLABELLED}


FORMAT = BoxFormat(name="YOLO", expected=EXPECTED, order=20, read=read_yolo, path="the data.yaml of YOLO")


class _Reader(NamedTuple):
    """Reads the labels of one split.

    `top` is the folder of the data; `names` are those of the classes, if known; `pose` tells that labels have key
    points.
    """

    top: Path
    names: Mapping[Key, str] | None
    findings: Findings
    pose: bool
    pairs: Pairs

    def read(self, part: Part) -> dict[str, BoxSplit]:
        """Return the split by its name; none if it is for testing and without labels, as many are."""
        split = self.findings.split
        labels = {image: self.pairs.find_label(image) for image in part.images}
        if labels and not any(labels.values()):
            here = self.findings.at(file=show_path(part.folders[0], self.top) if part.folders else "")
            text = f"none of {count(len(labels), 'image')} has a label file; {_tell_where(part.images[0], self.top)}"
            if split == "test":
                here.warn(UNLABELLED, f"{text}. The test split is skipped")
                return {}
            here.error(UNLABELLED, f"{text}. The split {split} is skipped")
            labels = {}
        used = frozenset(labels.values())
        for folder in part.folders:
            self._tell_orphans(folder, used)
        self._tell_same(labels)
        read = [(picture, image) for picture, label in labels.items() if (image := self._annotate(picture, label))]
        files = ImageFiles(tuple(str(picture) for picture, _ in read))
        return {split: BoxSplit(split, files, tuple(image for _, image in read), in_threads=True)}

    def _annotate(self, image: Path, label: Path | None) -> Annotated | None:
        name = show_path(image, self.top)
        if label is None:
            text = "it is used as an empty image"
            self.findings.at(file=name).warn("images without a label file", text)
            return Annotated(name, no_boxes(), (), (), np.zeros(0, np.bool_), is_relative=True)
        here = self.findings.at(file=show_path(label, self.top))
        try:
            text = read_text(label, MAX_LABEL_BYTES)
        except InputError as error:
            here.error("unreadable label files", f"{error}; the image is skipped")
            return None
        since = len(here.found)
        labels = parse_labels(text, self.names, here, pose=self.pose)
        if len(here.found) > since and not lies_inside(label, self.top):
            here.hide(since)
        return Annotated(
            name,
            np.array([label.box for label in labels]) if labels else no_boxes(),
            tuple(label.key for label in labels),
            tuple(label.line for label in labels),
            np.zeros(len(labels), np.bool_),
            here.file,
            is_relative=True,
            lost=here.count_errors(since),
        )

    def _tell_orphans(self, place: Path, used: Collection[Path | None]) -> None:
        """Tell label files of a folder that belong to no image."""
        folder = self.pairs.find_label_folder(place) or place
        for label in walk_files(folder, TXT):
            if label not in used and is_label_file(label) and not self.pairs.has_image(label):
                text = f"there is no image {clip(label.stem)} for it; its boxes are skipped"
                self.findings.at(file=show_path(label, self.top)).error("label files without an image", text)

    def _tell_same(self, labels: Mapping[Path, Path | None]) -> None:
        first: dict[Path, Path] = {}
        for image, label in labels.items():
            if label in first:
                text = f"it shares its label file with {first[label].name!r}; both use it"
                self.findings.at(file=show_path(image, self.top)).warn("images that share a label file", text)
            elif label:
                first[label] = image


def _tell_where(image: Path, top: Path) -> str:
    places = [show_path(path.parent, top) for path in expect_labels(image)]
    return f"expected {image.stem}.txt in {' or '.join(map(repr, places))}"


def _settle_names(
    top: Path, yaml: YoloYaml | None, parts: Parts, pairs: Pairs, findings: Findings
) -> Mapping[Key, str] | None:
    """Return the names of the classes: the yaml's, else those of darknet's file, else of the texts with the labels.

    Programs that mark images leave such a text in each folder, with the classes in the order in which they were met.
    One that has more names than another may go on from it.

    Raises:
        DataError: If two texts give one class two names, and nothing says which of them is right.
    """
    read = _read_names(top, parts, pairs, findings)
    if yaml and yaml.names:
        taken, names = yaml.file, yaml.names
    elif not read:
        return None
    else:
        longest = max(read, key=lambda path: len(read[path]))
        path = parts.names if parts.names in read else longest
        taken, names = show_path(path, top), read[path]
        findings.at(file=taken).note("class map", f"it lists {count(len(names), 'class', 'classes')}")
    is_said = bool(yaml and yaml.names) or parts.names in read
    for other, others in read.items():
        key = next((key for key, name in others.items() if key in names and names[key] != name), None)
        if key is None:
            continue
        text = f"{show_path(other, top)} names class {key} {clip(others[key])}, but {taken} names it {clip(names[key])}"
        if not is_said:
            raise DataError(
                f"{text}: one number for two classes. Use the same numbers in all folders and write a data.yaml with "
                "the names, or pass the path of one folder."
            )
        text = f"class {key} is {clip(others[key])} here, but {clip(names[key])} in {taken}, which is used"
        findings.at(file=show_path(other, top)).warn("contradictory class names", text)
    return names


def _read_names(top: Path, parts: Parts, pairs: Pairs, findings: Findings) -> dict[Path, dict[Key, str]]:
    """Read the texts with the name of a class on each line, by their paths."""
    folders = [top, top / "data", top / "labels", *_list_folders(top, parts, pairs)]
    usual = [folder / name for folder in dict.fromkeys(folders) for name in NAME_FILES]
    read: dict[Path, dict[Key, str]] = {}
    for path in dict.fromkeys([parts.names, *usual] if parts.names else usual):
        if not path.is_file():
            continue
        here = findings.at(file=show_path(path, top))
        try:
            lines = read_text(path, MAX_NAME_BYTES).rstrip().splitlines()
        except InputError as error:
            here.error("unreadable class names", str(error))
            continue
        read[path] = {key: plain_name(line).strip() or str(key) for key, line in enumerate(lines)}
    return read


def _list_folders(top: Path, parts: Parts, pairs: Pairs) -> list[Path]:
    """Return the folders of images, of their labels, and all between them and the top."""
    images = dict.fromkeys(image.parent for part in parts.splits.values() for image in part.images)
    labels = [found for folder in images if (found := pairs.find_label_folder(folder))]
    return [
        folder
        for below in (*images, *labels)
        for folder in (below, *below.parents)
        if folder == below or folder.is_relative_to(top)
    ]


def _tell_shared(splits: Mapping[str, BoxSplit], findings: Findings) -> None:
    """Tell how many images are in two splits."""
    for one, other in combinations(splits, 2):
        names = {image.name for image in splits[one].images}
        if both := [image.name for image in splits[other].images if image.name in names]:
            text = f"{count(len(both), 'image is', 'images are')} in {one} and in {other}, used in both"
            findings.at(split=other, file=both[0]).warn("images in two splits", text)
