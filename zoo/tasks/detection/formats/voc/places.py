"""Where a Pascal VOC folder has its xml files and images, and which of them are in which split."""

import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath

from zoo.errors import DataError, InputError
from zoo.tasks.detection.formats._files import (
    IMAGE_SUFFIXES,
    Findings,
    count,
    find_folder,
    list_files,
    list_folders,
    read_ends,
    show_path,
    split_from_name,
    walk_files,
)
from zoo.tasks.detection.formats._path_ends import Items
from zoo.tasks.detection.formats._split_lists import read_split_lists
from zoo.tasks.detection.formats._split_traces import tell_unread_folders, tell_unread_lists

XML_FOLDERS = ("annotations", "labels", "xml", "xmls", "annotation")
IMAGE_FOLDERS = ("jpegimages", "images", "data", "img", "imgs", "image")
HEAD_BYTES = 1000  # of a text that may be an annotation
LOOKED_AT = 20  # xml files of a folder that may be annotations
XML = frozenset({".xml"})


@dataclass(frozen=True)
class Place:
    """Where xml files are, where their images are, and the folder around both, which may hold lists of splits.

    Attributes:
        root: The folder of the data.
        base: The folder around both.
        xmls: The folder of the xml files.
        images: The folder of the images.
        split: What `base` is named after, if it is.
    """

    root: Path
    base: Path
    xmls: Path
    images: Path
    split: str | None = None

    def show(self, path: Path) -> str:
        """Return a path below the data's folder."""
        return show_path(path, self.root)

    def list_xmls(self) -> dict[str, Path]:
        """Return the xml files by their path below their folder, without suffix."""
        return {_key(path, self.xmls): path for path in _list(self.xmls, XML, deep=self.xmls != self.base)}

    def list_images(self) -> list[str]:
        """Return the paths of the images below their folder."""
        deep = self.images != self.base or self.xmls != self.base
        return [path.relative_to(self.images).as_posix() for path in _list(self.images, IMAGE_SUFFIXES, deep=deep)]


def find_places(root: Path) -> list[Place]:
    """Find xml files and their images in a folder, in the folders of splits, or in folders inside.

    Raises:
        DataError: If there are several data sets.
    """
    if place := find_place(root, root):
        return [place]
    inside = [root / name for name in list_folders(root)]
    splits = [(folder, split) for folder in inside if (split := split_from_name(folder.name))]
    named = [replace(place, split=split) for folder, split in splits if (place := find_place(root, folder))]
    if named:
        return named
    deeper = [folder / name for folder in inside for name in list_folders(folder)]
    if kits := _find_kits(root, inside) or _find_kits(root, deeper):
        return kits
    around = root.parent
    if root.name.casefold() in XML_FOLDERS and (place := find_place(around, around)) and place.xmls == root:
        return [place]
    return _find_pair(root, inside)


def tell_other_places(places: Sequence[Place], findings: Findings) -> None:
    """Tell the folders beside those of splits that have annotations too, and names that tell no split."""
    splits = [place.split for place in places if place.split]
    if not splits:
        return
    root = places[0].root
    others = [root / name for name in list_folders(root) if not split_from_name(name)]
    tell_unread_folders([folder for folder in others if find_place(root, folder)], root, splits, findings)


def find_place(root: Path, base: Path) -> Place | None:
    """Tell where the xml files of a folder are, and where the images: each may lie in it without a folder."""
    xmls = _find_holder(base, XML_FOLDERS, XML) or base
    images = _find_holder(base, IMAGE_FOLDERS, IMAGE_SUFFIXES) or base
    if xmls != base:
        return Place(root, base, xmls, images)
    names = list_files(base, XML)
    if not names or (images == base and not list_files(base, IMAGE_SUFFIXES)):
        return None
    place = Place(root, base, base, images)
    stems = {PurePosixPath(name).stem for name in place.list_images()}
    is_meant = any(PurePosixPath(name).stem in stems for name in names) or _are_annotations(
        base / name for name in names
    )
    return place if is_meant else None


def list_splits(place: Place, xmls: Collection[str], findings: Findings) -> dict[str, list[str]]:
    """Return the xml files of each split: of the folder, of lists, or of folders in the folder.

    Args:
        place: Where they are.
        xmls: What `Place.list_xmls` calls them.
        findings: Takes what is wrong with lists.
    """
    if place.split:
        return {place.split: list(xmls)}
    items = _index(place, xmls)
    listed = read_split_lists(place.base, place.root, items, findings)
    if listed:
        seen = {key for keys in listed.values() for key in keys}
        _tell_rest(place, [key for key in xmls if key not in seen], "xml files in no list", "in no list", findings)
        tell_unread_lists(place.base, place.root, items, listed, findings)
        return listed
    splits: dict[str, list[str]] = {}
    rest: list[str] = []
    for key in xmls:
        split = split_from_name(key.split("/")[0]) if "/" in key else None
        (splits.setdefault(split, []) if split else rest).append(key)
    if not splits:
        splits, rest = {"all": rest}, []
    tell_unread_lists(place.base, place.root, items, splits, findings)
    _tell_rest(place, rest, "xml files in no split", "in no split folder", findings)
    others = dict.fromkeys(key.split("/")[0] for key in rest if "/" in key)
    tell_unread_folders([place.xmls / name for name in others], place.root, splits, findings)
    return splits


def _find_holder(base: Path, names: Sequence[str], suffixes: Collection[str]) -> Path | None:
    """Return the first folder with one of these names that holds, or whose folders hold, files that end so."""
    folders = [folder for name in names if (folder := find_folder(base, [name]))]
    return next((folder for folder in folders if any(walk_files(folder, suffixes))), None)


def _find_kits(root: Path, folders: Sequence[Path]) -> list[Place]:
    """Return the folders that hold a data set each: one, or the years of a `VOCdevkit`."""
    kits = [folder for folder in folders if find_folder(folder, XML_FOLDERS[:1])]
    places = [place for folder in kits if (place := find_place(root, folder))]
    others = [place.base for place in places if not re.fullmatch(r"(?i)voc[-_ ]?(20)?[0-9]{2}", place.base.name)]
    if len(places) > 1 and others:
        names = " and ".join(repr(place.show(place.base)) for place in places[:4])
        raise DataError(f"{str(root)!r} holds several Pascal VOC data sets, {names}. Pass the path of one.")
    return places


def _find_pair(root: Path, folders: Sequence[Path]) -> list[Place]:
    """Return the one folder with annotations and the one with images, whatever they are called."""
    xmls = [folder for folder in folders if _are_annotations(walk_files(folder, XML))]
    images = [folder for folder in folders if any(walk_files(folder, IMAGE_SUFFIXES))]
    return [Place(root, root, xmls[0], images[0])] if len(xmls) == len(images) == 1 and xmls != images else []


def _are_annotations(paths: Iterable[Path]) -> bool:
    """Tell whether one of the first xml files is an annotation by its beginning."""
    for path in islice(paths, LOOKED_AT):
        try:
            if b"<annotation" in read_ends(path, HEAD_BYTES)[0]:
                return True
        except InputError:
            continue
    return False


def _list(folder: Path, suffixes: Collection[str], *, deep: bool) -> list[Path]:
    if deep:
        return list(walk_files(folder, suffixes))
    return [folder / name for name in list_files(folder, suffixes)]


def _key(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _index(place: Place, xmls: Collection[str]) -> Items:
    """Return what lists may name: an xml file, or the image that is called as it."""

    def find_there(written: str, folder: Path) -> str:
        for base in (folder, place.base):
            path = Path(os.path.normpath(base / written))
            for around in (place.images, place.xmls):
                if path.suffix.lower() in IMAGE_SUFFIXES | XML and path.is_relative_to(around):
                    key = _key(path, around)
                    if key in xmls:
                        return key
        return ""

    return Items({key: key for key in xmls}, find_there)


def _tell_rest(place: Place, keys: Sequence[str], kind: str, where: str, findings: Findings) -> None:
    if keys:
        text = f"{count(len(keys), 'xml file is', 'xml files are')} {where}, and not used"
        findings.at(file=place.show(place.xmls / f"{keys[0]}.xml")).warn(kind, text)
