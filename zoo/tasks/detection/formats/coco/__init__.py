"""Boxes of the layouts in which COCO's annotation files come: one file for each split, and its images."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from zoo.files import to_path
from zoo.tasks.detection.annotations import Annotated, BoxSource, BoxSplit, Key, no_boxes
from zoo.tasks.detection.formats._files import SPLITS, Findings, ImageFiles, clip, natural_key, show_path
from zoo.tasks.detection.formats._format import BoxFormat
from zoo.tasks.detection.formats._path_ends import Items
from zoo.tasks.detection.formats._split_traces import FORMS, tell_unread_lists
from zoo.tasks.detection.formats.coco.classes import resolve_classes
from zoo.tasks.detection.formats.coco.files import CocoFile, find_files, find_look_alikes
from zoo.tasks.detection.formats.coco.images import ImagePlaces, escapes_folder
from zoo.tasks.detection.formats.coco.json import CocoBox, CocoJson, read_json

LISTS_HINT = "Write one json per split, such as train.json and val.json, or move the file elsewhere"
EXPECTED = (
    "annotations/*.json, with the names of the splits in them as in instances_train2017.json, beside train2017/ "
    "or images/; or train/ and valid/ with _annotations.coco.json beside the images; or one *.json beside images"
)


def read_coco(root: Path) -> BoxSource | None:
    """Read the boxes of one annotation file for each split.

    Splits are told by the names of files or folders; a single file without such a name is `all`. Classes are in the
    order of the category ids, or where the ids of the files differ, in that of the first file. Polygons and masks are
    not read where there are boxes.

    Args:
        root: The folder, or one annotation file.

    Returns:
        What was read; None if there is nothing of the kind.

    Raises:
        DataError: If several files could be the same split, or a folder cannot be listed.
    """
    root = to_path(root).absolute()
    findings = Findings()
    files = find_files(root, findings)
    if not files:
        return None
    top = root.parent if root.is_file() or files[0].base == root.parent else root
    read: list[_Read] = []
    for file in sorted(files, key=lambda file: SPLITS.index(file.split)):
        here = findings.at(split=file.split, file=show_path(file.path, top))
        content = read_json(file.path, here)
        if content.images and "annotations" not in content.lists:
            text = "it has no list of annotations"
            if file.split == "test":
                here.warn("json files without annotations", f"{text}. The test split is skipped")
                continue
            here.error("json files without annotations", f"{text}. The file is skipped")
            content = CocoJson(categories=content.categories)
        read.append(_Read(top, file, here, content))
    names, keys = resolve_classes([(item.content, item.findings) for item in read], findings)
    splits = {item.file.split: _make_split(item, own) for item, own in zip(read, keys, strict=True)}
    _tell_lists(root, splits, findings)
    return BoxSource(str(top), FORMAT.name, splits, names, tuple(findings.found))


FORMAT = BoxFormat(
    name="COCO",
    expected=EXPECTED,
    order=10,
    read=read_coco,
    path="the json or the folder annotations/ of COCO",
    find_look_alikes=find_look_alikes,
)


def _tell_lists(root: Path, splits: Mapping[str, BoxSplit], findings: Findings) -> None:
    """Tell lists of splits, which other formats have: here each split is a file of its own."""
    images = {split: [image.name for image in part.images] for split, part in splits.items()}
    items = Items({name: name for names in images.values() for name in names})
    if root.is_dir():
        tell_unread_lists(root, root, items, images, findings, hint=LISTS_HINT, forms=FORMS - {".json"})


class _Read(NamedTuple):
    """An annotation file that was read; `top` is the folder of the data."""

    top: Path
    file: CocoFile
    findings: Findings
    content: CocoJson


def _make_split(read: _Read, classes: Mapping[Key, Key]) -> BoxSplit:
    """Join the boxes of each image that is there.

    Args:
        read: The file.
        classes: The key of each category id that may be used.
    """
    boxes: dict[Key, list[CocoBox]] = {}
    for box in read.content.boxes:
        boxes.setdefault(box.image, []).append(box)
        _check(box, read, classes)
    images: list[Annotated] = []
    paths: list[str] = []
    for path, ids in _find_images(read).items():
        images.append(_annotate(path, ids, [box for key in ids for box in boxes.get(key, ())], read, classes))
        paths.append(str(path))
    return BoxSplit(read.file.split, ImageFiles(tuple(paths)), tuple(images), in_threads=True)


def _check(box: CocoBox, read: _Read, classes: Mapping[Key, Key]) -> None:
    """Tell a box of an image or a category that the file does not have."""
    if box.image not in read.content.images:
        text = f"{box.name}: no usable image has the image_id {clip(box.image)}. Skipped"
        read.findings.error("annotations without an image", text, box.line)
    if box.key not in classes and box.key not in read.content.unclear_categories:
        text = f"{box.name}: category_id is {clip(box.key)}, which is not among the categories of the file"
        read.findings.error("annotations with an unknown category", text, box.line)


def _find_images(read: _Read) -> dict[Path, list[Key]]:
    """Return the ids of each image that is there: usually one."""
    images = read.content.images
    places = ImagePlaces(read.file, [image.name for image in images.values()], read.top)
    located = {key: places.find(image.name) for key, image in images.items()}
    meant: dict[Path, set[str]] = {}  # the names of each image
    for key, place in located.items():
        if place:
            meant.setdefault(place.path, set()).add(PurePosixPath(images[key].name).as_posix())
    found: dict[Path, list[Key]] = {}
    for key in sorted(images, key=lambda key: natural_key(PurePosixPath(images[key].name).as_posix())):
        name, line, place = clip(images[key].name), images[key].line, located[key]
        others = found.get(place.path, []) if place else []
        if place and place.by_end and len(meant[place.path]) > 1:
            text = f"{name}: only {show_path(place.path, read.top)!r} matches, which is already used. Skipped"
            read.findings.error("missing images", text, line)
        elif place:
            if place.by_end:
                text = f"{name} does not exist; {show_path(place.path, read.top)!r} is used"
                read.findings.warn("images matched by file name", text, line)
            if others:
                text = f"{name} is also on line {images[others[0]].line:,}; the boxes of both are merged"
                read.findings.warn("images with the same file name", text, line)
            found.setdefault(place.path, []).append(key)
        elif escapes_folder(images[key].name):
            where = places.explain(images[key].name)
            text = f"{name} is outside the folder, and its file name is not in {where}; the image is skipped"
            read.findings.error("file names outside the folder", text, line)
        else:
            text = f"there is no {name} in {places.explain(images[key].name)}; the image is skipped"
            read.findings.error("missing images", text, line)
    return found


def _annotate(
    path: Path, ids: Sequence[Key], boxes: Sequence[CocoBox], read: _Read, classes: Mapping[Key, Key]
) -> Annotated:
    content = read.content
    good = [box for box in boxes if box.key in classes and box.image not in content.unclear_images]
    lost = sum(content.lost[key] for key in ids) + len(boxes) - len(good)
    return Annotated(
        show_path(path, read.top),
        np.array([box.box for box in good]) if good else no_boxes(),
        tuple(classes[box.key] for box in good),
        tuple(box.line for box in good),
        np.array([box.crowd for box in good], np.bool_),
        read.findings.file,
        content.images[ids[0]].size,
        lost=lost,
        ids=tuple(box.name for box in good),
    )
