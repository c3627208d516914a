"""Digests of images by content: of the bytes of their files, or of their pixels where they are in memory."""

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

from zoo.data.decode import read_image
from zoo.data.prefetch import submit_ahead
from zoo.errors import DataError, InputError

BATCH = 64  # images that a thread hashes at a time
THREADS = min(16, 2 * (os.cpu_count() or 1))  # more than cores: some wait for the disk
_BLOCK_BYTES = 1 << 20

OnProgress: TypeAlias = Callable[[int, int], None]


class ImageSet(Protocol):
    """The images of a split, by index; `Images` is one, and a task with other targets has its own."""

    def __len__(self) -> int: ...

    @property
    def names(self) -> tuple[str, ...]:
        """What to call each image."""
        ...

    @property
    def in_threads(self) -> bool:
        """Whether several threads may read at once."""
        ...

    def find_source(self, index: int, /) -> Any:
        """Return what `read_image` takes of an image."""
        ...

    def target_bytes(self) -> list[bytes]:
        """Return all targets as bytes, after a word for what they are: kept features depend on them."""
        ...


def digest_images(images: ImageSet, *, threads: int = THREADS, on_progress: OnProgress | None = None) -> str:
    """Return one digest of images in their order, and of their targets; names do not matter.

    Args:
        images: Of one split.
        threads: That read and hash files.
        on_progress: Called with the number of images seen and of all.

    Returns:
        SHA-256, 64 hexadecimal digits.

    Raises:
        DataError: An image cannot be read (any more).
    """
    sources = digest_sources(images, threads=threads, on_progress=on_progress)
    whole = hashlib.sha256()
    for part in (*images.target_bytes(), "".join(sources).encode()):
        whole.update(len(part).to_bytes(8, "little") + part)
    return whole.hexdigest()


def digest_sources(images: ImageSet, *, threads: int = THREADS, on_progress: OnProgress | None = None) -> list[str]:
    """Return a digest of each image: of the bytes of its file, or of its pixels where it is in memory.

    Args:
        images: As `digest_images`, and so are the rest.
        threads: As there.
        on_progress: As there.

    Raises:
        DataError: As `digest_images`.
    """
    count = len(images)
    batches = [range(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]
    digests: list[str] = []
    # The reader is asked in this thread only, for it may be anybody's; and files in memory do not pile up there.
    sources = ([(images.names[index], _read_source(images, index)) for index in batch] for batch in batches)
    for done in submit_ahead(_digest_batch, sources, threads=threads, ahead=threads):
        digests += done.result()
        if on_progress:
            on_progress(len(digests), count)
    return digests


def _read_source(images: ImageSet, index: int) -> str | os.PathLike[str] | bytes:
    """Return a path, the bytes of a file, or a digest of the pixels of an image that is in memory."""
    try:
        source = _ask_reader(images, index)
        if isinstance(source, (str, os.PathLike, bytes)):
            return source
        image = read_image(source)
    except InputError as error:
        raise DataError(f"image {images.names[index]!r}: {error}. Check the data.") from error
    size = f"{image.mode} {image.width} x {image.height}: "
    return size.encode() + hashlib.sha256(image.tobytes()).digest()


def _ask_reader(images: ImageSet, index: int) -> Any:
    if images.in_threads:
        return images.find_source(index)
    from zoo.data.loader import seeded_sample  # torch is imported only where it is needed

    with seeded_sample(0, 0, index, everywhere=True):  # a data set may draw random numbers
        return images.find_source(index)


def _digest_batch(sources: Sequence[tuple[str, str | os.PathLike[str] | bytes]]) -> list[str]:
    return [
        hashlib.sha256(source).hexdigest() if isinstance(source, bytes) else _digest_file(name, source)
        for name, source in sources
    ]


def _digest_file(name: str, path: str | os.PathLike[str]) -> str:
    """Hash a file by blocks that hold most images whole."""
    digest = hashlib.sha256()
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
            raise ValueError("it is not a regular file")
        with open(path, "rb", buffering=0) as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path, too
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"image {name!r} cannot be read: {reason}. Check the data.") from error
    return digest.hexdigest()
