"""What `predict` may be given - paths, patterns, folders, videos, images in memory - as a list of images."""

import glob
import os
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

from zoo.data.decode import begins_like_image, read_image
from zoo.data.folders import walk_files
from zoo.data.live import LiveStream, as_stream, read_live
from zoo.data.prefetch import submit_ahead
from zoo.data.video import is_video, read_frame, read_frames
from zoo.errors import InputError
from zoo.files import to_path

WRITABLE = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")  # of images with boxes
IMAGE_SUFFIXES = (  # a file with another one is looked into
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".ppm"),
    *(".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".avif", ".heic", ".heif"),
)
MOST_THREADS = min(8, os.cpu_count() or 1)  # that decode and resize images
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)

OnBad: TypeAlias = Callable[[InputError], object]

_Ready = TypeVar("_Ready")


class UnreadableError(InputError):
    """One of the images that were given cannot be read."""


class Source(NamedTuple):
    """An image or a video.

    Attributes:
        label: The path as it was given or found, or `image 3` by the place in what was given.
        item: What `zoo.data.decode.read_image` takes; or the path of a video.
        file: A file name for what is drawn of it, with folders below the one that was given; no two have the same.
    """

    label: str
    item: Any
    file: str


class FramePlace(NamedTuple):
    """Where a frame is; the arguments of `zoo.data.video.read_frame`."""

    path: str
    number: int
    ticks: int | None


class InputImage(NamedTuple):
    """An image, not necessarily read yet.

    Attributes:
        label: As `Source`.
        file: As `Source`; of a frame, a file in a folder with the name of the video.
        item: What `read_image` takes.
        place: Of the frame of a video; None for other images.
        seconds: Of the frame, None if unknown.
        fault: Why there is no image here: the rest of a video cannot be read.
        frame: The number of a frame, also of one that cannot be read again; None for other images.
    """

    label: str
    file: str
    item: Any
    place: FramePlace | None = None
    seconds: float | None = None
    fault: InputError | None = None
    frame: int | None = None


def iterate_sources(given: Any) -> Iterator[Source]:
    """Yield the images and videos that were given, one by one; only files whose names do not tell are looked into.

    Of a folder the names are kept, in a few bytes each, as they were at the start: what is written into it meanwhile
    is not read.

    Args:
        given: A path; a pattern such as `photos/*.jpg` (`**` for folders in folders); a folder, which stands for the
            images in it and in its folders; an image (PIL, array `(H, W, 3)` uint8, tensor `(3, H, W)` uint8 or
            float 0 to 1, bytes of a file, an open file); a batch of them as one array or tensor of four dimensions;
            the number of a camera; the URL of a stream;
            what this function gave; or a list or an iterator of any of these.

    Raises:
        InputError: Nothing was given, a folder or pattern has no images, or it is a web address; at once, unless an
            iterator was given.
    """
    return _name(_begin(_expand(given, _ignore), lambda: "no images were passed. Pass at least one."))


def count_sources(given: Any, on_other: Callable[[Path], object]) -> int:
    """Return how many there are; the arguments and errors are those of `iterate_sources`.

    Args:
        given: No iterator, which would be used up.
        on_other: Is given each file of a folder or pattern that is passed over, as it is no image.
    """
    return sum(1 for _ in _expand(given, on_other))


def read_sources(sources: Iterable[Source]) -> Iterator[InputImage]:
    """Yield the images of sources, frame by frame where they are videos or live; damaged ones end with a fault."""
    for label, item, file in sources:
        is_live = isinstance(item, LiveStream)
        if not is_live and (not isinstance(item, (str, os.PathLike)) or not is_video(item)):
            yield InputImage(label, file, item)
            continue
        folder = PurePosixPath(file).with_suffix("")
        try:
            for number, seconds, ticks, image in read_live(item) if is_live else read_frames(item):
                place = None if is_live else FramePlace(os.fspath(item), number, ticks)
                name = f"{folder}/frame-{number:06d}.jpg"
                yield InputImage(label, name, image, place, seconds, frame=number)
        except InputError as error:
            yield InputImage(label, file, item, fault=error)


def read_again(item: Any) -> Image.Image:
    """Read an image: what `read_image` takes, or a `FramePlace`."""
    return read_frame(*item) if isinstance(item, FramePlace) else read_image(item)


def read_ahead(
    prepare: Callable[[InputImage], _Ready],
    images: Iterable[InputImage],
    workers: int | None,
    *,
    ahead: int | None = None,
) -> Iterator[Callable[[], _Ready]]:
    """Yield what gives each image prepared, or raises why it cannot be read; in order.

    Args:
        prepare: Reads an image; called in threads.
        images: Run through in the calling thread.
        workers: Images that are prepared at the same time; None for as many as there are processors, 8 at most.
        ahead: Images that are prepared before they are asked for; None: twice the workers.
    """
    threads = MOST_THREADS if workers is None else workers

    def ready(image: InputImage) -> _Ready:
        if image.fault is not None:
            raise image.fault
        return prepare(image)

    # An object that was passed twice must not be decoded in two threads at once.
    known = (_read_now(image) if isinstance(image.item, Image.Image) else image for image in images)
    calls = submit_ahead(ready, known, threads=threads, ahead=2 * threads if ahead is None else ahead)
    yield from (call.result for call in calls)


def check_workers(workers: int | None) -> None:
    """Refuse what is no number of workers.

    Raises:
        InputError: It is neither None nor an integer, 1 or more.
    """
    if workers is not None and (type(workers) is not int or workers < 1):
        raise InputError(f"workers is {workers!r}; expected an integer, 1 or more, or None.")


def gather(reads: Iterable[Callable[[], _Ready]], size: int, on_bad: OnBad | None) -> Iterator[list[_Ready]]:
    """Yield what can be read, in lists of `size`; the last one may be shorter.

    Args:
        reads: Each returns one thing, or raises `InputError`.
        size: 1 or more.
        on_bad: Is given each error. None: the first one ends it, after what was read before it.

    Raises:
        UnreadableError: One cannot be read, and there is no `on_bad`.
    """
    ready: list[_Ready] = []
    for read in reads:
        try:
            ready.append(read())
        except InputError as error:
            if on_bad is not None:
                on_bad(error)
                continue
            if ready:
                yield ready
            raise UnreadableError(str(error)) from error
        if len(ready) == size:
            yield ready
            ready = []
    if ready:
        yield ready


@contextmanager
def skipping(skip_bad: bool | OnBad) -> Iterator[OnBad | None]:
    """Yield what `gather` does with errors: nothing for False; for True, all of them become one warning at the end."""
    if skip_bad is False:
        yield None
    elif callable(skip_bad):
        yield skip_bad
    else:
        errors: list[InputError] = []
        yield errors.append
        if errors:
            warnings.warn(f"skipped {len(errors):,} unreadable images. The first: {errors[0]}", stacklevel=2)


def _read_now(image: InputImage) -> InputImage:
    try:
        return image._replace(item=read_image(image.item))
    except InputError as error:
        return image._replace(fault=error)


def _ignore(other: Path) -> None:
    """Pass over a file that is no image."""


def _begin(sources: Iterable[Source], say_lacking: Callable[[], str]) -> Iterator[Source]:
    """Return the same sources; whether there is one, is known at once."""
    rest = iter(sources)
    first = next(rest, None)
    if first is None:
        raise InputError(say_lacking())
    return chain((first,), rest)


def _name(sources: Iterable[Source]) -> Iterator[Source]:
    """Give labels to those without one, and to each a file name of its own."""
    taken: set[str] = set()
    for index, found in enumerate(sources):
        source = found if found.label else Source(f"image {index}", found.item, f"image-{index}.jpg")
        yield source._replace(file=_unique(_drawn_name(source), taken))


def _expand(given: Any, on_other: Callable[[Path], object]) -> Iterable[Source]:
    """Return sources whose file names may be the same; those without a name have an empty label."""
    if isinstance(given, Source):
        return [given]
    if (stream := as_stream(given)) and not _is_image_address(given):
        return [Source(stream.label, stream, stream.file)]
    if isinstance(given, (str, os.PathLike)):
        return _expand_path(os.fspath(given), on_other)
    if isinstance(given, np.ndarray) and given.dtype.kind in "UO":  # of paths
        given = given.tolist()
    if isinstance(given, (np.ndarray, Tensor)):
        batch: Iterable[Any] = given if given.ndim == 4 else [given]
        return [Source("", image, "") for image in batch]
    if callable(getattr(given, "read", None)):
        return [Source("", given.read(), "")]
    if isinstance(given, Iterator):
        return (source for part in given for source in _expand(part, on_other))
    if isinstance(given, bytes) or not isinstance(given, Sequence):
        return [Source("", given, "")]
    return chain.from_iterable([_expand(part, on_other) for part in given])


def _expand_path(text: str, on_other: Callable[[Path], object]) -> Iterable[Source]:
    if ADDRESS.match(text):
        raise InputError(f"cannot read {text!r}: it is a URL; expected a file. Download it first.")
    path = to_path(text)
    if os.path.isdir(path):
        return _expand_folder(path, on_other)
    if any(mark in text for mark in "*?[") and not os.path.lexists(path):
        return _expand_pattern(str(path), on_other)
    return [Source(str(path), path, path.name)]


def _is_image_address(given: Any) -> bool:
    return isinstance(given, str) and PurePosixPath(given.partition("?")[0]).suffix.lower() in IMAGE_SUFFIXES


def _expand_folder(folder: Path, on_other: Callable[[Path], object]) -> Iterator[Source]:
    names, others = bytearray(), Others(on_other)
    for file in walk_files(folder):
        names += os.fsencode(file.relative_to(folder)) + b"\0"
    if not names:
        raise InputError(f"the folder {folder} holds no files. Expected images to predict.")
    files = (folder / os.fsdecode(name[0]) for name in re.finditer(rb"[^\0]+", names))
    sources = (
        Source(str(file), file, file.relative_to(folder).as_posix())
        for file in files
        if _is_image(file) or others.add(file)
    )

    def say_lacking() -> str:
        hint = " Pass videos by their paths or a pattern." if others.has_video else ""
        return f"the folder {folder} holds no images, but {others}.{hint}"

    return _begin(sources, say_lacking)


def _expand_pattern(pattern: str, on_other: Callable[[Path], object]) -> list[Source]:
    files = sorted(Path(found) for found in glob.iglob(pattern, recursive=True) if not os.path.isdir(found))
    if not files:
        where = "" if os.path.isabs(pattern) else f" Current folder: {Path.cwd()}."
        raise InputError(f"no file matches the pattern {pattern!r}.{where}")
    others = Others(on_other)
    usable = [file for file in files if is_video(file) or _is_image(file) or others.add(file)]
    if not usable:
        raise InputError(f"no image or video matches the pattern {pattern!r}, but {others}.")
    root = os.path.commonpath([file.parent for file in usable])
    return [Source(str(file), file, Path(os.path.relpath(file, root)).as_posix()) for file in usable]


class Others:
    """The files that are passed over, as they are no images; as text, what an error says of them.

    Args:
        on_other: Is given each.
    """

    def __init__(self, on_other: Callable[[Path], object]) -> None:
        self.on_other, self.count, self.first, self.has_video = on_other, 0, "", False

    def __str__(self) -> str:
        return f"{self.count:,} other files such as {self.first!r}" if self.count > 1 else f"the file {self.first!r}"

    def add(self, file: Path) -> bool:
        """Note one; return that it is no image."""
        self.count, self.first = self.count + 1, self.first or file.name
        self.has_video = self.has_video or is_video(file)
        self.on_other(file)
        return False


def _is_image(file: Path) -> bool:
    """Whether a file is one, by its name or by how it begins: a name says nothing against it, as in training."""
    return file.suffix.lower() in IMAGE_SUFFIXES or (not is_video(file) and begins_like_image(file))


def _drawn_name(source: Source) -> str:
    """Return the name of a source's file with an ending that can be written: 1.gif and 1.ppm both become 1.jpg."""
    path = PurePosixPath(source.file)
    if isinstance(source.item, LiveStream):
        return source.file
    if isinstance(source.item, (str, os.PathLike)) and is_video(source.item):
        return str(path.with_suffix(".mp4"))
    return str(path if path.suffix.lower() in WRITABLE else path.with_suffix(".jpg"))


def _unique(file: str, taken: set[str]) -> str:
    """Return the name, with a number if it is taken; on many disks names that differ in case or form only are one."""
    path, number, name = PurePosixPath(file), 1, file
    while (key := unicodedata.normalize("NFC", name).casefold()) in taken:
        number += 1
        name = str(path.with_stem(f"{path.stem}-{number}"))
    taken.add(key)
    return name
