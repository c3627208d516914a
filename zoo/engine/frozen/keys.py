"""The key of kept features - a digest of everything they depend on - and the folder that it names.

Features are used again only under the same key. What goes into it are plain facts; pictures go in by the digests of
their files, so that one changed byte, box or label makes another key.
"""

import hashlib
import json
import os
import re
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from zoo._version import DECODER, VERSION
from zoo.data import read_image
from zoo.errors import DataError, InputError
from zoo.files import cache_folder, read_object, write_file

ABOUT = "about.json"
FEATURES = 1  # to be raised when the same facts give other features
BATCH = 64  # pictures that a thread hashes at a time
THREADS = min(16, 2 * (os.cpu_count() or 1))  # more than cores: some wait for the disk
_BLOCK_BYTES = 1 << 20
_LIBRARIES = (
    "torch",  # computes
    "torchvision",  # crops, flips, scales
    "timm",  # has the networks that are asked of it
    "transformers",  # has those of D-FINE, RT-DETRv2 and RF-DETR
    "pillow",  # decodes, resizes
    "numpy",  # letterboxes
)

OnProgress: TypeAlias = Callable[[int, int], None]


class Pictures(Protocol):
    """Pictures by index, as `Images` and `BoxedImages` hold them; the first also has `targets`, the second `boxes`."""

    @property
    def reader(self) -> Callable[[int], Any]:
        """What gives a picture, or a pair of a picture and a label, by position."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """What to call each picture."""
        ...

    @property
    def positions(self) -> tuple[int, ...]:
        """Where the reader finds each."""
        ...


def make_key(facts: Mapping[str, Any]) -> str:
    """Return the key of facts: SHA-256, 64 hexadecimal digits. The order of the facts does not matter.

    Args:
        facts: Text, numbers, truth values and None, also in lists and in mappings by text. 1, 1.0 and True differ.

    Raises:
        InputError: A fact is something else, or no finite number.
    """
    _check_plain(facts, "facts")
    text = json.dumps(_plain(facts), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def find_versions() -> dict[str, str | int | None]:
    """Return the versions on which features depend; None for what is not installed. Nothing is imported."""
    found: dict[str, str | int | None] = {name: _find_version(name) for name in _LIBRARIES}
    return found | {"zoo": VERSION, "features": FEATURES, "decoder": DECODER}


def digest_images(images: Pictures, *, threads: int = THREADS, on_progress: OnProgress | None = None) -> str:
    """Return one digest of pictures in their order, and of their classes or boxes; names do not matter.

    Args:
        images: `Images` or `BoxedImages`.
        threads: That read and hash files.
        on_progress: Called with the number of pictures seen and of all.

    Returns:
        SHA-256, 64 hexadecimal digits.

    Raises:
        DataError: A picture cannot be read (any more).
    """
    sources = digest_sources(images, threads=threads, on_progress=on_progress)
    whole = hashlib.sha256()
    for part in (*_read_targets(images), "".join(sources).encode()):
        whole.update(len(part).to_bytes(8, "little") + part)
    return whole.hexdigest()


def digest_sources(images: Pictures, *, threads: int = THREADS, on_progress: OnProgress | None = None) -> list[str]:
    """Return a digest of each picture: of the bytes of its file, or of its pixels where it is in memory.

    Args:
        images: As `digest_images`, and so are the rest.
        threads: As there.
        on_progress: As there.

    Raises:
        DataError: As `digest_images`.
    """
    count = len(images.positions)
    batches = [range(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]
    digests: list[str] = []
    with ThreadPoolExecutor(threads) as pool:
        for found in _run(pool, images, batches, threads):
            digests += found
            if on_progress:
                on_progress(len(digests), count)
    return digests


def features_folder() -> Path:
    """Return the folder of all kept features, which need not exist."""
    return cache_folder() / "features"


def feature_folder(key: str) -> Path:
    """Return the folder of the features with a key of `make_key`, which need not exist."""
    if not re.fullmatch(r"[0-9a-f]{64}", key):
        raise InputError(f"{key!r:.80} is no key of features; expected 64 hexadecimal digits.")
    return features_folder() / key[:32]


def write_about(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write down what features are, for people and for `zoo cache`; they can be used without it.

    Args:
        folder: Of the features.
        facts: Plain values. `zoo cache` shows `model`, `images` and `views`; `created`, seconds since 1970, is added.
    """
    text = json.dumps({"created": time.time(), **facts}, indent=1, default=str)
    with suppress(OSError):  # a disk that is full now still has the features
        write_file(folder / ABOUT, text + "\n")


def read_about(folder: Path) -> dict[str, Any]:
    """Return what was written down about features; nothing if that is missing or cannot be read."""
    try:
        return read_object(folder / ABOUT)
    except (OSError, ValueError):
        return {}


def mark_used(folder: Path) -> None:
    """Note that features are used now: by the time of change of what was written down about them."""
    with suppress(OSError):
        os.utime(folder / ABOUT)


def _check_plain(value: Any, place: str) -> None:
    """Raise if JSON would not give a value back as it is."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if type(name) is not str:
                raise InputError(f"{place} has the name {name!r:.80}; expected text.")
            _check_plain(inner, f"{place}[{name!r}]")
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            _check_plain(inner, f"{place}[{index}]")
    elif not (value is None or type(value) in (str, int, bool) or (type(value) is float and np.isfinite(value))):
        raise InputError(
            f"{place} is {value!r:.80}, of the type {type(value).__name__}; expected text, a finite number, True, "
            "False, None, or lists and mappings of them."
        )


def _plain(value: Any) -> Any:
    """Return a checked value with mappings as dicts, which JSON asks for."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _find_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _read_targets(images: Any) -> list[bytes]:
    """Return classes, or boxes, as bytes."""
    if hasattr(images, "targets"):
        return [b"classes", np.asarray(images.targets, np.int64).tobytes()]
    counts = np.asarray([len(boxes.labels) for boxes in images.boxes], np.int64)
    columns = zip(*images.boxes, strict=True) if images.boxes else ()
    types = (np.float32, np.int64, np.bool_)
    joined = [np.concatenate(column).astype(kind).tobytes() for column, kind in zip(columns, types, strict=False)]
    return [b"boxes", counts.tobytes(), *joined]


def _run(pool: ThreadPoolExecutor, images: Pictures, batches: Sequence[range], threads: int) -> Iterator[list[str]]:
    """Yield the digests of each batch; the reader is asked in this thread only, for it may be anybody's."""
    running: deque[Future[list[str]]] = deque()
    for batch in batches:
        sources = [(images.names[index], _read_source(images, index)) for index in batch]
        running.append(pool.submit(_digest_batch, sources))
        if len(running) > threads:  # so that files that are in memory do not pile up there
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


def _read_source(images: Any, index: int) -> str | os.PathLike[str] | bytes:
    """Return a path, the bytes of a file, or a digest of the pixels of a picture that is in memory."""
    try:
        given = _ask_reader(images, index)
        source = given[0] if hasattr(images, "targets") else given
        if isinstance(source, (str, os.PathLike, bytes)):
            return source
        picture = read_image(source)
    except InputError as error:
        raise DataError(f"image {images.names[index]!r}: {error}. Check the data again.") from error
    size = f"{picture.mode} {picture.width} x {picture.height}: "
    return size.encode() + hashlib.sha256(picture.tobytes()).digest()


def _ask_reader(images: Any, index: int) -> Any:
    if getattr(images, "in_threads", False):
        return images.reader(images.positions[index])
    from zoo.data import making_sample

    with making_sample(0, 0, index, everywhere=True):  # a data set may draw random numbers
        return images.reader(images.positions[index])


def _digest_batch(sources: Sequence[tuple[str, str | os.PathLike[str] | bytes]]) -> list[str]:
    return [
        hashlib.sha256(source).hexdigest() if isinstance(source, bytes) else _digest_file(name, source)
        for name, source in sources
    ]


def _digest_file(name: str, path: str | os.PathLike[str]) -> str:
    """Hash a file by blocks that hold most pictures whole."""
    digest = hashlib.sha256()
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
            raise ValueError("it is not a regular file")
        with open(path, "rb", buffering=0) as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path, too
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"image {name!r} cannot be read (any more): {reason}. Check the data again.") from error
    return digest.hexdigest()
