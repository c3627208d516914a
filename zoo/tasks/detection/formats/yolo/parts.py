"""Which images of a YOLO folder are in which split: as a yaml, lists or folders say, in this order."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from zoo.tasks.detection.formats._files import (
    IMAGE_SUFFIXES,
    SPLITS,
    Findings,
    clip,
    count,
    find_folder,
    list_folders,
    natural_key,
    show_path,
    split_from_name,
    walk_files,
)
from zoo.tasks.detection.formats._path_ends import Items
from zoo.tasks.detection.formats._split_lists import LISTS, SplitList, read_named_lists, read_split_lists
from zoo.tasks.detection.formats._split_traces import tell_unread_folders, tell_unread_lists
from zoo.tasks.detection.formats.yolo.darknet import find_darknet_data
from zoo.tasks.detection.formats.yolo.data_yaml import YoloYaml
from zoo.tasks.detection.formats.yolo.pairs import IMAGE_FOLDERS, TXT, Pairs, is_label_file


class Part(NamedTuple):
    """One split: its images, and the folders whose label files are all of it."""

    images: tuple[Path, ...]
    folders: tuple[Path, ...] = ()


class Parts(NamedTuple):
    """All splits by name, in the usual order, and the file with the names of the classes if darknet's data has one."""

    splits: Mapping[str, Part]
    names: Path | None = None


def find_parts(top: Path, yaml: YoloYaml | None, pairs: Pairs, findings: Findings) -> Parts:
    """Tell the splits of a folder; none if nothing in it is labelled.

    Args:
        top: The folder of the data.
        yaml: What its yaml says; without any splits, lists and folders are looked for.
        pairs: Finds label files.
        findings: Takes what is wrong.

    Raises:
        DataError: If something cannot be told, such as which of two lists is that of a split.
    """
    base = yaml.base if yaml else top
    if yaml and yaml.entries:
        parts = _take_entries(yaml.entries, top, base, findings)
        if not parts.keys() & {"val", "test"}:
            _tell_unnamed(find_parts(top, None, pairs, Findings()), yaml.file, findings)
        return Parts(_order(parts))
    data = find_darknet_data(top, pairs.any_case, findings)
    folders = _find_folders(top, pairs, findings)
    if not folders and not data:
        return Parts({})
    items = _index(top, base)
    given = data.lists if data else ()
    listed = read_split_lists(top, top, items, findings, given=given, is_other=is_label_file)
    if not listed:
        splits = {split: Part(_walk(places), places) for split, places in folders.items()}
        tell_unread_lists(top, top, items, _list_items(splits), findings)
        return Parts(_order(splits), data.names if data else None)
    splits = {split: Part(tuple(map(Path, images))) for split, images in listed.items()}
    tell_unread_lists(top, top, items, listed, findings)
    _tell_unlisted(splits, top, findings)
    for split, part in splits.items():
        _tell_outside(part, top, findings.at(split=split), is_listed=True)
    return Parts(_order(splits), data.names if data else None)


def _take_entries(entries: Mapping[str, Sequence[Path]], top: Path, base: Path, findings: Findings) -> dict[str, Part]:
    """Return the splits that a yaml names, by folders and by lists."""
    lists = [SplitList(place, split) for split, places in entries.items() for place in places if _is_list(place)]
    listed = read_named_lists(lists, top, _index(top, base), findings) if lists else {}
    parts: dict[str, Part] = {}
    for split, places in entries.items():
        folders = tuple(place for place in places if place.is_dir())
        images = dict.fromkeys([*_walk(folders), *map(Path, listed.get(split, ()))])
        for place in places:
            if place.suffix.lower() in IMAGE_SUFFIXES and place.is_file():
                images[place] = None
            elif not place.is_dir() and not _is_list(place):
                here = findings.at(split=split, file=show_path(place, top))
                here.error("missing splits", "it is neither a folder nor a list of images, *.txt")
        if images or folders or split != "test":
            parts[split] = Part(tuple(images), folders)
        here = findings.at(split=split)
        _tell_outside(parts.get(split, Part(())), top, here, is_listed=bool(listed.get(split)))
    if not any(part.folders for part in parts.values()):
        _tell_unlisted(parts, top, findings)
    return parts


def _tell_unnamed(there: Parts, file: str, findings: Findings) -> None:
    """Tell what is there for val where the yaml names none: else some of train would take its place unseen."""
    for split in ("val", "test"):
        if (part := there.splits.get(split)) and part.images:
            images = count(len(part.images), "image is", "images are")
            text = f"it defines no val; {images} available for {split} but not used"
            findings.at(file=file, split=split).warn("splits not defined in the yaml", text)


def _is_list(place: Path) -> bool:
    return place.suffix.lower() in LISTS and not place.is_dir()


def _walk(folders: Sequence[Path]) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(image for folder in folders for image in walk_files(folder, IMAGE_SUFFIXES)))


def _list_items(splits: Mapping[str, Part]) -> dict[str, list[str]]:
    return {split: [str(image) for image in part.images] for split, part in splits.items()}


def _order(splits: Mapping[str, Part]) -> dict[str, Part]:
    return {split: splits[split] for split in SPLITS if split in splits}


def _index(top: Path, base: Path) -> Items:
    """Return the images that lists may name: those below the data's folder, and below the one that paths begin at."""
    names = {path.relative_to(top).as_posix(): str(path) for path in walk_files(top, IMAGE_SUFFIXES)}
    if not _is_below(base, top):
        names |= {path.relative_to(base).as_posix(): str(path) for path in walk_files(base, IMAGE_SUFFIXES)}

    def find_there(written: str, folder: Path) -> str:
        paths = (os.path.normpath(place / written) for place in dict.fromkeys((folder, base, top)))
        return next((path for path in paths if os.path.isfile(path)), "")

    return Items(names, find_there)


def _find_folders(top: Path, pairs: Pairs, findings: Findings) -> dict[str, tuple[Path, ...]]:
    """Tell the splits of a folder by its folders: those in `images`, or those with images and labels; or it is one."""
    images = find_folder(top, IMAGE_FOLDERS)
    if images and (labels := pairs.find_label_folder(images)) and any(map(is_label_file, walk_files(labels, TXT))):
        named = {name: split for name in list_folders(images) if (split := split_from_name(name))}
        parts = _gather(images, named)
        rest = sum(path.relative_to(images).parts[0] not in named for path in walk_files(images, IMAGE_SUFFIXES))
        if parts and rest:
            text = f"{count(rest, 'image is', 'images are')} not in a split folder, and not used"
            findings.at(file=show_path(images, top)).warn("images in no split", text)
            others = [images / name for name in list_folders(images) if name not in named]
            labelled = [folder for folder in others if _is_labelled(folder, pairs)]
            tell_unread_folders(labelled, top, parts, findings)
        return parts or {"all": (images,)}
    inside = [name for name in list_folders(top) if _has_labels(top / name, pairs)]
    named = {name: split for name in inside if (split := split_from_name(name))}
    parts = _gather(top, named)
    if parts:
        tell_unread_folders([top / name for name in inside if name not in named], top, parts, findings)
    return parts or ({"all": (top,)} if _has_labels(top, pairs) else {})


def _gather(folder: Path, named: Mapping[str, str]) -> dict[str, tuple[Path, ...]]:
    """Return the folders of each split."""
    return {split: tuple(folder / name for name in named if named[name] == split) for split in named.values()}


def _is_labelled(folder: Path, pairs: Pairs) -> bool:
    """Tell whether some image of a folder has a label file."""
    return any(pairs.find_label(image) for image in walk_files(folder, IMAGE_SUFFIXES))


def _has_labels(folder: Path, pairs: Pairs) -> bool:
    """Tell whether some text in a folder looks like labels and belongs to an image."""
    return any(is_label_file(path) and pairs.has_image(path) for path in walk_files(folder, TXT))


def _tell_unlisted(splits: Mapping[str, Part], top: Path, findings: Findings) -> None:
    """Tell how many images no list names."""
    listed = {image for part in splits.values() for image in part.images}
    rest = sorted((str(path) for path in walk_files(top, IMAGE_SUFFIXES) if path not in listed), key=natural_key)
    if rest:
        text = f"{count(len(rest), 'image is', 'images are')} in no list, and not used"
        findings.at(file=show_path(rest[0], top)).warn("images in no list", text)


def _tell_outside(part: Part, top: Path, findings: Findings, *, is_listed: bool) -> None:
    outside = [image for image in part.images if not _is_below(image, top)]
    if outside:
        first = clip(str(outside[0]), 200)
        text = f"{count(len(outside), 'image is', 'images are')} outside {str(top)!r}, such as {first}"
        (findings.warn if is_listed else findings.note)("images outside the data folder", text)


def _is_below(path: Path, top: Path) -> bool:
    return Path(os.path.normpath(path)).is_relative_to(top)
