"""Boxes of the layouts in which COCO's annotation files come: one file for each split, and its pictures."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zoo.annotation_files import (
    SPLITS,
    Findings,
    PictureFiles,
    clip,
    find_folder,
    leads_out,
    list_files,
    list_folders,
    natural_key,
    read_ends,
    settle_names,
    show_path,
    tell_split,
)
from zoo.annotations import Annotated, BoxSource, BoxSplit, Key, no_boxes
from zoo.coco_json import CocoBox, CocoCategory, CocoJson, read_json
from zoo.errors import DataError, InputError

EXPECTED = (
    "COCO: annotations/*.json, with the names of the splits in them as in instances_train2017.json, beside train2017/ "
    "or images/; or train/ and valid/ with _annotations.coco.json beside the pictures; or one *.json beside pictures"
)

FOREIGN = ("captions_", "person_keypoints_", "image_info_", "panoptic_", "stuff_")  # how files without boxes begin
PICTURE_FOLDERS = ("images", "data", "jpegimages")
EXPORTED = "_annotations.coco.json"
PEEK_BYTES = 2**16
JSON = frozenset({".json"})


def read_coco(root: Path) -> BoxSource | None:
    """Read the boxes of one annotation file for each split.

    Splits are told by the names of files or folders; a single file without such a name is `all`. Classes are in the
    order of the category ids of all files. Polygons and masks are not read where there are boxes.

    Args:
        root: The folder, or one annotation file.

    Returns:
        What was read; None if there is nothing of the kind.

    Raises:
        DataError: If several files could be the same split, or a folder cannot be listed.
    """
    root = root.expanduser().absolute()
    findings = Findings()
    files = _find_files(root, findings)
    if not files:
        return None
    top = root.parent if root.is_file() else root
    read = []
    for file in sorted(files, key=lambda file: SPLITS.index(file.split)):
        here = findings.at(split=file.split, file=show_path(file.path, top))
        read.append(_Read(top, file, here, read_json(file.path, here)))
    splits = {item.file.split: _make_split(item) for item in read}
    names = _name_classes(read, findings)
    return BoxSource(str(top), "COCO", splits, names, tuple(findings.found))


class _File(NamedTuple):
    """An annotation file, its split, and the folder that holds it and its pictures."""

    path: Path
    split: str
    base: Path


class _Read(NamedTuple):
    """An annotation file that was read; `top` is the folder of the data."""

    top: Path
    file: _File
    findings: Findings
    content: CocoJson


def _find_files(root: Path, findings: Findings) -> list[_File]:
    """Find annotation files: the one given, or those in `annotations`, in the folders of splits, or in the folder."""
    if root.is_file():
        base = root.parent.parent if root.parent.name.casefold() == "annotations" else root.parent
        is_json = root.suffix.lower() in JSON and _may_be_coco(root)
        return [_File(root, _split_of(root.stem), base)] if is_json else []
    folder = find_folder(root, ["annotations"])
    if folder and (found := list(_list_jsons(folder, findings))):
        return _choose([_File(path, _split_of(path.stem), root) for path in found], findings)
    in_splits: list[_File] = []
    for name in list_folders(root):
        if split := tell_split(name):
            paths = list(_list_jsons(root / name, findings))
            exported = [path for path in paths if path.name == EXPORTED]
            in_splits += [_File(path, split, root / name) for path in exported or paths]
    beside = [] if in_splits else list(_list_jsons(root, findings))
    return _choose(in_splits or [_File(path, _split_of(path.stem), root) for path in beside], findings)


def _list_jsons(folder: Path, findings: Findings) -> Iterator[Path]:
    for name in list_files(folder, JSON):
        if name.casefold().startswith(FOREIGN):
            findings.note("json files of other kinds", f"{clip(name)} is not read: by its name it has no boxes")
        elif _may_be_coco(folder / name):
            yield folder / name


def _may_be_coco(path: Path) -> bool:
    """Tell whether a file is meant as COCO, from its beginning and end; one that cannot be read may be."""
    try:
        head, tail = read_ends(path, PEEK_BYTES)
    except InputError:
        return True
    parts = head + b" " + tail
    has_lists = b'"images"' in parts or (b'"annotations"' in parts and b'"image_id"' in parts)
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{" and has_lists


def _split_of(stem: str) -> str:
    """Return the split that a file is named after; `all` if after none."""
    words = re.findall(r"[a-z]+", stem.casefold())
    return next((split for word in words if (split := tell_split(word))), "all")


def _choose(files: Sequence[_File], findings: Findings) -> list[_File]:
    """Take one file for each split, and none without a split beside those with one."""
    named = [file for file in files if file.split != "all"]
    for file in files:
        if named and file.split == "all":
            text = f"{clip(file.path.name)} is not read: its name tells no split, as those of others do"
            findings.warn("json files passed over", text)
    by_split: dict[str, list[_File]] = {}
    for file in named or files:
        by_split.setdefault(file.split, []).append(file)
    for split, same in by_split.items():
        if len(same) > 1:
            which = "the data" if split == "all" else split
            raise DataError(
                f"{str(same[0].base)!r} holds {' and '.join(repr(file.path.name) for file in same[:4])}, and either "
                f"could be {which}. Move away all but one, or pass the path of one."
            )
    return [same[0] for same in by_split.values()]


def _make_split(read: _Read) -> BoxSplit:
    """Join the boxes of each picture that is there."""
    boxes: dict[Key, list[CocoBox]] = {}
    for box in read.content.boxes:
        if box.picture not in read.content.pictures:
            text = f"image_id is {clip(box.picture)}, and no image has this id. It is left out"
            read.findings.error("annotations without an image", text, box.line)
        boxes.setdefault(box.picture, []).append(box)
    images: list[Annotated] = []
    paths: list[str] = []
    for path, ids in _find_pictures(read).items():
        size = read.content.pictures[ids[0]].size
        images.append(_annotate(path, size, [box for key in ids for box in boxes.get(key, ())], read))
        paths.append(str(path))
    return BoxSplit(read.file.split, PictureFiles(tuple(paths)), tuple(images), in_threads=True)


def _find_pictures(read: _Read) -> dict[Path, list[Key]]:
    """Return the ids of each picture that is there: usually one."""
    pictures, folder = read.content.pictures, _find_folder(read)
    found: dict[Path, list[Key]] = {}
    for key in sorted(pictures, key=lambda key: natural_key(pictures[key].name)):
        name, line = pictures[key].name, pictures[key].line
        path = folder / name
        if leads_out(name):
            text = f"{clip(name)} leads out of the folder; the picture is left out"
            read.findings.error("file names that lead out of the folder", text, line)
        elif path in found:
            text = f"{clip(name)} is that of line {pictures[found[path][0]].line:,} too; the boxes of both are joined"
            read.findings.warn("images of the same file name", text, line)
            found[path].append(key)
        elif os.path.isfile(path):
            found[path] = [key]
        else:
            text = f"there is no {clip(name)} in {show_path(folder, read.top)!r}; the picture is left out"
            read.findings.error("missing pictures", text, line)
    return found


def _find_folder(read: _Read) -> Path:
    """Return the folder in which most of the pictures are."""
    file, pictures = read.file, read.content.pictures.values()
    names = [picture.name for picture in pictures if not leads_out(picture.name)]
    around = [folder for folder in (find_folder(file.base, PICTURE_FOLDERS), file.base) if folder]
    own = [folder / name for folder in around for name in list_folders(folder) if tell_split(name) == file.split]
    exact = [folder for folder in own if file.path.stem.endswith(folder.name)]
    best, most = file.base, 0
    for folder in dict.fromkeys([*exact, *own, *around, file.path.parent]):
        there = sum(os.path.isfile(folder / name) for name in names)
        if there > most:
            best, most = folder, there
        if most == len(names):
            break
    return best


def _annotate(path: Path, size: tuple[int, int] | None, boxes: Sequence[CocoBox], read: _Read) -> Annotated:
    return Annotated(
        show_path(path, read.top),
        np.array([box.box for box in boxes]) if boxes else no_boxes(),
        tuple(box.key for box in boxes),
        tuple(box.line for box in boxes),
        np.array([box.crowd for box in boxes], np.bool_),
        read.findings.file,
        size,
    )


def _name_classes(read: Sequence[_Read], findings: Findings) -> dict[Key, str]:
    """Return the names of all category ids, ascending; tell what is odd about them."""
    used = {box.key for item in read for box in item.content.boxes}
    named: dict[Key, CocoCategory] = {}
    for item in read:
        for key, category in item.content.categories.items():
            first = named.setdefault(key, category)
            if first.name != category.name:
                text = (
                    f"category {key} is {clip(category.name)} here, and {clip(first.name)} in the file of another split"
                )
                item.findings.error("categories that differ between splits", f"{text}, which is taken", category.line)
    above = {category.above for category in named.values()}
    for key in [key for key, category in named.items() if key not in used and category.name in above]:
        text = (
            f"category {key}, {clip(named.pop(key).name)}, is what others are kinds of, and has no box: it is no class"
        )
        findings.note("class map", text)
    for key in _sort_keys(used - named.keys()):
        text = f"category {key} has boxes but is not among the categories; it is called {str(key)!r}"
        findings.warn("categories without a name", text)
    keys = _sort_keys(used | named.keys())
    if keys and keys != list(range(len(keys))):
        text = f"category ids are {_show_keys(keys)}; class numbers, 0 to {len(keys) - 1}, are in their order"
        findings.note("class map", text)
    return settle_names({key: named[key].name if key in named else str(key) for key in keys}, findings)


def _sort_keys(keys: Iterable[Key]) -> list[Key]:
    return sorted(keys, key=lambda key: (isinstance(key, str), key if isinstance(key, int) else natural_key(key)))


def _show_keys(keys: Sequence[Key]) -> str:
    first, last = keys[0], keys[-1]
    if isinstance(first, int) and isinstance(last, int):
        gaps = last - first + 1 - len(keys)
        return f"{first} to {last}" + (f", of which {gaps:,} are missing" if gaps else "")
    return f"{clip(first)} to {clip(last)}"
