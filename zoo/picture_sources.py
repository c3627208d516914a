"""What `predict` may be given - paths, patterns, folders, videos, pictures in memory - as a list of pictures."""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from zoo.decode import read_image
from zoo.errors import InputError
from zoo.frames import is_video, read_frame, read_frames

PICTURE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm"),
    *(".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".avif"),
)
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class Source(NamedTuple):
    """A picture or a video.

    Attributes:
        label: The path as it was given or found, or `image 3` by the place in what was given.
        item: What `zoo.decode.read_image` takes; or the path of a video.
        file: A file name for what is made of it, with folders below the one that was given; no two have the same.
    """

    label: str
    item: Any
    file: str


class FramePlace(NamedTuple):
    """Where a frame is; the arguments of `zoo.frames.read_frame`."""

    path: str
    number: int
    ticks: int | None


class Picture(NamedTuple):
    """A picture, not necessarily read yet.

    Attributes:
        label: As `Source`.
        file: As `Source`; of a frame, a file in a folder with the name of the video.
        item: What `read_image` takes.
        place: Of the frame of a video; None for other pictures.
        seconds: Of the frame, None if unknown.
    """

    label: str
    file: str
    item: Any
    place: FramePlace | None = None
    seconds: float | None = None


def find_sources(given: Any) -> list[Source]:
    """List the pictures and videos that were given; no picture is opened.

    Args:
        given: A path; a pattern such as `photos/*.jpg` (`**` for folders in folders); a folder, which stands for the
            pictures in it and in its folders; a picture (PIL, array `(H, W, 3)` uint8, tensor `(3, H, W)` uint8 or
            float 0 to 1, bytes of a file); a batch of them as one array or tensor of four dimensions; or a list of any
            of these.

    Raises:
        InputError: Nothing was given, a folder or pattern has no pictures, or it is a web address.
    """
    pairs = _expand(given)
    if not pairs:
        raise InputError("there is nothing to predict: no images were passed. Pass at least one.")
    taken: set[str] = set()
    return [Source(label, item, _unique(file, taken)) for label, item, file in pairs]


def read_sources(sources: Iterable[Source]) -> Iterator[Picture]:
    """Yield the pictures of sources, frame by frame where they are videos.

    Raises:
        InputError: If a video cannot be read.
    """
    for label, item, file in sources:
        if not isinstance(item, (str, os.PathLike)) or not is_video(item):
            yield Picture(label, file, item)
            continue
        path, folder = os.fspath(item), PurePosixPath(file).with_suffix("")
        for frame in read_frames(path):
            place = FramePlace(path, frame.number, frame.ticks)
            yield Picture(label, f"{folder}/frame-{frame.number:06d}.jpg", frame.picture, place, frame.seconds)


def read_again(item: Any) -> Image.Image:
    """Read a picture: what `read_image` takes, or a `FramePlace`."""
    return read_frame(*item) if isinstance(item, FramePlace) else read_image(item)


def _expand(given: Any) -> list[Source]:
    """Return sources whose file names may be the same."""
    if isinstance(given, (str, os.PathLike)):
        return _expand_path(os.fspath(given))
    if isinstance(given, (np.ndarray, Tensor)):
        batch: Iterable[Any] = given if given.ndim == 4 else [given]
        return [_unnamed(index, image) for index, image in enumerate(batch)]
    if isinstance(given, bytes) or not isinstance(given, Sequence):
        return [_unnamed(0, given)]
    found: list[Source] = []
    for part in given:
        inside = _expand(part)
        is_named = isinstance(part, (str, os.PathLike))
        found += inside if is_named else [_unnamed(len(found) + i, one.item) for i, one in enumerate(inside)]
    return found


def _unnamed(index: int, item: Any) -> Source:
    return Source(f"image {index}", item, f"image-{index}.jpg")


def _expand_path(path: str) -> list[Source]:
    if ADDRESS.match(path):
        raise InputError(f"cannot read {path!r}: it is a web address; expected a file. Download it first.")
    if os.path.isdir(path):
        return _expand_folder(Path(path))
    if any(mark in path for mark in "*?[") and not os.path.lexists(path):
        return _expand_pattern(path)
    return [Source(str(Path(path)), Path(path), Path(path).name)]


def _expand_folder(folder: Path) -> list[Source]:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    if not files:
        raise InputError(f"the folder {folder} holds no files. Expected images to predict.")
    pictures = [file for file in files if file.suffix.lower() in PICTURE_SUFFIXES]
    if not pictures:
        hint = " Pass videos by their paths or a pattern." if any(map(is_video, files)) else ""
        raise InputError(f"the folder {folder} holds no pictures, but {_describe(files)}.{hint}")
    return [Source(str(file), file, file.relative_to(folder).as_posix()) for file in pictures]


def _expand_pattern(pattern: str) -> list[Source]:
    files = sorted(Path(found) for found in glob.iglob(pattern, recursive=True) if os.path.isfile(found))
    if not files:
        where = "" if os.path.isabs(pattern) else f" Looked in {Path.cwd()}."
        raise InputError(f"no file fits the pattern {pattern!r}.{where}")
    usable = [file for file in files if file.suffix.lower() in PICTURE_SUFFIXES or is_video(file)]
    if not usable:
        raise InputError(f"no picture or video fits the pattern {pattern!r}, but {_describe(files)}.")
    root = os.path.commonpath([file.parent for file in usable])
    return [Source(str(file), file, Path(os.path.relpath(file, root)).as_posix()) for file in usable]


def _describe(files: Sequence[Path]) -> str:
    count, first = len(files), files[0].name
    return f"{count:,} other files such as {first!r}" if count > 1 else f"the file {first!r}"


def _unique(file: str, taken: set[str]) -> str:
    """Return the name, with a number if it is taken; names that differ in case only are one on many disks."""
    path, number, name = PurePosixPath(file), 1, file
    while name.lower() in taken:
        number += 1
        name = str(path.with_stem(f"{path.stem}-{number}"))
    taken.add(name.lower())
    return name
