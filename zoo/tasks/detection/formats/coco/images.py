"""Where the images are that a COCO file names: below the folder of the data, whatever machine the names are of."""

import os
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from zoo.tasks.detection.formats._files import (
    IMAGE_SUFFIXES,
    find_folder,
    list_folders,
    show_path,
    split_from_name,
    walk_files,
)
from zoo.tasks.detection.formats.coco.files import CocoFile

IMAGE_FOLDERS = ("images", "data", "jpegimages")
MOST_FOLDERS = 5  # that a message names


class Found(NamedTuple):
    """An image that is there, and whether only the end of its name leads to it."""

    path: Path
    by_end: bool = False


class ImagePlaces:
    """Finds the images that an annotation file names.

    A name is a path below the folder that most of the images are in. Else its end is looked for, as exports keep the
    paths of the machine that they come from (`../../label-studio/media/upload/4/x.jpg`, `/images/x.jpg`, a URL), and
    then an image of its name in deeper folders. Nothing is ever found outside of the data's folder.

    Args:
        file: The annotation file.
        names: The names in it, with forward slashes.
        top: The folder of the data.
    """

    def __init__(self, file: CocoFile, names: Sequence[str], top: Path) -> None:
        self._split, self._top, self._base = file.split, top, file.base
        self._folders = _list_folders(file)
        self._folder, self._is_sure = self._choose([inside for name in names if (inside := _stay_inside(name))])

    def find(self, name: str) -> Found | None:
        """Return the image of a name; None if there is none, or it could be several."""
        inside = _stay_inside(name)
        exact = self._below_top(name) if inside is None else self._folder / inside
        if exact and os.path.isfile(exact):
            return Found(exact)
        for start in range(len(parts := _split_name(name))):
            for folder in (self._folder, *self._folders):
                path = folder.joinpath(*parts[start:])
                if os.path.isfile(path):
                    return Found(path, by_end=True)
        deeper = self._deeper.get(_plain(parts[-1]), ()) if parts else ()
        ends = [path for path in deeper if [*map(_plain, path.parts[-len(parts) :])] == [*map(_plain, parts)]]
        return Found(ends[0], by_end=True) if len(ends) == 1 else None

    def explain(self, name: str) -> str:
        """Say where an image was looked for, and what is there that is called almost so."""
        folders = [self._folder] if self._is_sure else list(dict.fromkeys(self._folders))
        shown = [repr(show_path(folder, self._top)) for folder in folders[:MOST_FOLDERS]]
        parts = _split_name(name)
        stem = Path(parts[-1]).stem.casefold() if parts else ""
        near = [show_path(path, self._top) for path in self._stems.get(stem, ())]
        hint = f"; found {near[0]!r}" if near else ""
        return " or ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown) + hint

    def _choose(self, names: Sequence[str]) -> tuple[Path, bool]:
        """Return the folder in which most of the images are, and whether any is."""
        best, most = self._base, 0
        for folder in self._folders:
            there = sum(os.path.isfile(folder / name) for name in names)
            if there > most:
                best, most = folder, there
            if most == len(names):
                break
        return best, most > 0

    def _below_top(self, name: str) -> Path | None:
        """Return a whole path that leads into the folder of the data; of any other, nothing."""
        path = Path(os.path.normpath(name)) if "\0" not in name else Path()
        return path if path.is_relative_to(self._top) or path.is_relative_to(self._base) else None

    @cached_property
    def _images(self) -> list[Path]:
        """All images below, but for those in the folders of other splits."""
        own = (None, self._split) if self._split != "all" else (None, "train", "val", "test")
        return list(walk_files(self._base, IMAGE_SUFFIXES, enters=lambda name: split_from_name(name) in own))

    @cached_property
    def _deeper(self) -> dict[str, list[Path]]:
        return _group((_plain(path.name), path) for path in self._images)

    @cached_property
    def _stems(self) -> dict[str, list[Path]]:
        return _group((path.stem.casefold(), path) for path in self._images)


def escapes_folder(name: str) -> bool:
    """Tell whether a path leads out of the folder that it begins in, or begins in none."""
    return _stay_inside(name) is None


def _list_folders(file: CocoFile) -> list[Path]:
    """Return the folders that images may be in, the likely ones first."""
    around = [folder for folder in (find_folder(file.base, IMAGE_FOLDERS), file.base) if folder]
    own = [folder / name for folder in around for name in list_folders(folder) if split_from_name(name) == file.split]
    exact = [folder for folder in own if file.path.stem.endswith(folder.name)]
    beside = [file.path.parent, find_folder(file.path.parent, IMAGE_FOLDERS)]
    return [folder for folder in dict.fromkeys([*exact, *own, *around, *beside]) if folder]


def _stay_inside(name: str) -> str | None:
    """Return a relative path without detours; None if it leads out of its folder, or is none."""
    if PurePosixPath(name).is_absolute() or name[1:3] == ":/":
        return None
    parts: list[str] = []
    for part in PurePosixPath(name).parts:
        if part == ".." and not parts:
            return None
        parts = parts[:-1] if part == ".." else [*parts, part]
    return "/".join(parts) or "."


def _split_name(name: str) -> list[str]:
    """Return the folders and the file of a name, also of a URL; of a path that leads out, what comes after that."""
    if "://" in name:
        try:
            name = unquote(urlsplit(name).path)
        except ValueError:  # a URL of another kind
            return []
    parts = [part for part in PurePosixPath(name).parts if part != "/" and "\0" not in part]
    after = max((place + 1 for place, part in enumerate(parts) if part == ".." or part.endswith(":")), default=0)
    return parts[after:]


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _group(pairs: Iterable[tuple[str, Path]]) -> dict[str, list[Path]]:
    grouped: dict[str, list[Path]] = {}
    for key, path in pairs:
        grouped.setdefault(key, []).append(path)
    return grouped
