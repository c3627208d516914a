"""One look at every image of a split: whether it can be read, its size and light, and what others it resembles."""

import hashlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image

from zoo.data import FORMATS, LYING, THREADS, decode_image, find_fault, hash_image, read_image, submit_ahead
from zoo.errors import InputError
from zoo.tasks.detection.annotations import BoxSplit

BATCH = 16  # images that a thread looks at, at a time
UPRIGHT = 1  # EXIF orientation of an image that is not turned


class Look(NamedTuple):
    """What one look at an image has told.

    Attributes:
        fault: Why it cannot be read; None if it can.
        size: Height and width in pixels, as it is seen.
        hash: Its perceptual hash; 0 if it was not decoded.
        content: A digest of its bytes; empty if it was not decoded.
        orientation: As its EXIF says, 1 to 8; 1 if it says nothing.
        brightest: The largest value of any channel, of 255; 255 if it was not decoded.
        remark: That it uses a small part of its 16 bits; else empty.
    """

    fault: str | None
    size: tuple[int, int] = (0, 0)
    hash: int = 0
    content: bytes = b""
    orientation: int = UPRIGHT
    brightest: int = 255
    remark: str = ""


class _Header(NamedTuple):
    """What the beginning of a file says: width and height, and EXIF orientation."""

    size: tuple[int, int]
    orientation: int
    turns_itself: bool  # the size may be that of the upright image already, which depends on the version of Pillow


def look_at_all(split: BoxSplit, *, check: bool, count: Callable[[int], None]) -> Iterator[Look]:
    """Yield what each image tells, in order.

    Args:
        split: The images.
        check: Whether they are decoded; else only their size is read where that is possible.
        count: Called with the number of images seen since the last call.
    """
    size = len(split.images)
    batches = [range(start, min(start + BATCH, size)) for start in range(0, size, BATCH)]
    for looks in _run(split, batches, check=check):
        count(len(looks))
        yield from looks


def _run(split: BoxSplit, batches: list[range], *, check: bool) -> Iterator[list[Look]]:
    if not split.in_threads:
        yield from (_look_at_some(split, batch, check=check) for batch in batches)
        return
    look = partial(_look_at_some, split, check=check)
    for done in submit_ahead(look, batches, threads=THREADS, ahead=4 * THREADS):  # millions of files do not wait
        yield done.result()


def _look_at_some(split: BoxSplit, positions: range, *, check: bool) -> list[Look]:
    looks: list[Look] = []
    for position in positions:
        try:
            image = split.reader(position)
        except InputError as error:
            looks.append(Look(str(error)))
            continue
        looks.append(_look(image) if check else _look_at_header(image))
    return looks


def _look(source: Any) -> Look:
    header = _read_header(source)  # before decoding, which turns a TIFF of Pillow's in place
    try:
        image, remark, _ = decode_image(source)
        content = _digest(source, image)
    except InputError as error:
        return Look(find_fault(source) or str(error))
    except OSError as error:  # it was there a moment ago
        return Look(f"it cannot be opened ({error.strerror or error})")
    return Look(
        None,
        (image.height, image.width),
        hash_image(image),
        content,
        header.orientation if header else UPRIGHT,
        int(np.max(image.getextrema())),
        remark,
    )


def _digest(source: Any, image: Image.Image) -> bytes:
    """Return a digest of a file's bytes, or of the pixels of what is no file."""
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    pixels = source if isinstance(source, bytes) else f"{image.size}".encode() + image.tobytes()
    return hashlib.sha256(pixels).digest()


def _look_at_header(source: Any) -> Look:
    """Read the size alone where that is possible."""
    header = _read_header(source) if isinstance(source, (str, os.PathLike)) and os.path.isfile(source) else None
    if header and not (header.turns_itself and header.orientation in LYING):
        width, height = header.size[::-1] if header.orientation in LYING else header.size
        return Look(None, (height, width), orientation=header.orientation)
    try:
        whole = read_image(source)
    except InputError as error:
        return Look(find_fault(source) or str(error))
    return Look(None, (whole.height, whole.width), orientation=header.orientation if header else UPRIGHT)


def _read_header(source: Any) -> _Header | None:
    """Read the beginning of an image; None if it has none, or a damaged one: reading it all says what is wrong."""
    if isinstance(source, Image.Image):
        return _describe(source)
    if not isinstance(source, (str, os.PathLike, bytes)):
        return None
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            return _describe(image)
    except Exception:  # a damaged header may raise anything
        return None


def _describe(image: Image.Image) -> _Header:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    except Exception:  # a damaged EXIF block says nothing about the pixels
        orientation = UPRIGHT
    known = isinstance(orientation, int) and orientation in range(UPRIGHT, 9)
    return _Header(image.size, orientation if known else UPRIGHT, image.format == "TIFF")
