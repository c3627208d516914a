"""What one look at each image tells: its size, what is odd about it, and what other images it resembles.

Facts are noted by the content of a file, so that a second look reads none that has not changed.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from io import BytesIO
from typing import Any, NamedTuple

import PIL
from PIL import ExifTags, Image, ImageOps, ImageStat

from zoo._version import DECODER
from zoo.data import FORMATS, THREADS, decode_image, hash_image, seeded_sample, submit_ahead
from zoo.errors import InputError
from zoo.files import cache_folder, read_note, write_note

SHRUNK = 256  # pixels of the shorter side that a JPEG is decoded at
TINY = 16  # pixels of the shorter side below which an image is tiny
LONG = 4  # times that a longer side is longer
FLAT = 3.0  # standard deviation, of 255, below which a channel is one colour
MOST_NOTED = 200_000  # images of one folder whose facts are noted

OnProgress = Callable[[int, int], None]


class Facts(NamedTuple):
    """What one look at an image tells.

    Attributes:
        size: Width and height in pixels, upright.
        odd: Words of `ODD` that are true of it.
        hash: Its perceptual hash, 64 bits; 0 without the library imagehash.
        mirrored: That of its mirror image.
    """

    size: tuple[int, int]
    odd: tuple[str, ...]
    hash: int
    mirrored: int


ODD = {
    "tiny": f"a side is shorter than {TINY} pixels",
    "elongated": f"one side is more than {LONG} times the other",
    "one colour": "almost all pixels have one colour",
    "16 bits": "16 bits per channel; 8 are used",
    "animated": "several frames; the first is used",
    "turned": "turned as its EXIF says",
    "CMYK": "stored as CMYK; used as RGB",
    "transparent": "transparent parts become white",
}


def can_hash() -> bool:
    """Whether the library that hashes is there."""
    return find_spec("imagehash") is not None


def look_at_images(images: Any, digests: Sequence[str], on_progress: OnProgress) -> list[Facts | None]:
    """Return the facts of each image of a split; None of one that cannot be read any more.

    Args:
        images: Of opened data.
        digests: Of each image; empty where it is not known.
        on_progress: Called with the number of images done, and of all.
    """
    key = f"pillow {PIL.__version__}, {DECODER}, {can_hash()}"
    root = os.path.abspath(getattr(images.reader, "root", "")) if images.in_threads else ""
    note = cache_folder() / "looks" / f"{hashlib.sha256(os.fsencode(f'{key} {root}')).hexdigest()[:32]}.json"
    noted = (read_note(note) or {}) if root else {}
    facts = [_read_facts(noted.get(digest)) if digest else None for digest in digests]
    unknown = [place for place, known in enumerate(facts) if known is None]
    sources = (_ask(images, place) for place in unknown)
    done = len(images) - len(unknown)
    for place, future in zip(unknown, submit_ahead(_look, sources, threads=THREADS, ahead=4 * THREADS), strict=True):
        facts[place] = future.result()
        done += 1
        on_progress(done, len(images))
    if root and unknown and len(images) <= MOST_NOTED:
        new = {digests[place]: facts[place] for place in unknown if digests[place] and facts[place] is not None}
        write_note(note, noted | new)
    return facts


def _read_facts(noted: Any) -> Facts | None:
    try:
        (width, height), odd, own, mirrored = noted
        return Facts((int(width), int(height)), tuple(map(str, odd)), int(own), int(mirrored))
    except (TypeError, ValueError):
        return None


def _ask(images: Any, place: int) -> Any:
    if images.in_threads:
        return images.find_source(place)
    with seeded_sample(0, 0, place, everywhere=True):  # a data set may draw random numbers
        return images.find_source(place)


def _shrink(width: int, height: int) -> tuple[float, float]:
    """Need so many pixels that the shorter side is `SHRUNK / 2`; decoders give at least twice as many."""
    factor = min(1.0, SHRUNK / 2 / min(width, height))
    return width * factor, height * factor


def _look(source: Any) -> Facts | None:
    try:
        odd = list(_describe_header(source))
        image, _, size = decode_image(source, _shrink)
    except InputError:
        return None
    if min(size) < TINY:
        odd.append("tiny")
    if max(size) > LONG * min(size):
        odd.append("elongated")
    is_flat = max(ImageStat.Stat(image).stddev) < FLAT
    if is_flat:
        odd.append("one colour")
    hashes = (hash_image(image), hash_image(ImageOps.mirror(image))) if can_hash() and not is_flat else (0, 0)
    return Facts(size, tuple(odd), *hashes)


def _describe_header(source: Any) -> Iterator[str]:
    """Yield what the beginning of a file says; nothing of what is no file, or damaged."""
    if not isinstance(source, (str, os.PathLike, bytes)):
        return
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            yield from _describe(image)
    except Exception:  # a damaged header may raise anything; decoding says what is wrong
        return


def _describe(image: Image.Image) -> Iterator[str]:
    tile = getattr(image, "tile", None)
    if image.mode.startswith("I") or (tile and "16" in str(tile[0][3])):
        yield "16 bits"
    if getattr(image, "n_frames", 1) > 1:
        yield "animated"
    if image.mode == "CMYK":
        yield "CMYK"
    if image.has_transparency_data:
        yield "transparent"
    if image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9):
        yield "turned"
