"""Images that look almost the same: a perceptual hash of 64 bits for each, and the closest pairs of hashes.

The hash (`imagehash.phash`) keeps the coarse light and dark of an image: resizing, compressing, brightening or cutting
off a thin border changes a few bits of it, while two different images differ in about half of them.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo.errors import InputError

# Blood cells (BCCD, 66,066 pairs): two shots of one field differ by 4 bits, the next pair by 14. CIFAR-10 (6,000
# images, 18 million pairs): up to 6 bits true duplicates, at 8 bits half of the pairs are not.
LIMIT = 6
ENOUGH = 128  # side in pixels to which an image is shrunk quickly, by whole factors, before it is hashed
PAIRS_AT_A_TIME = 4_000_000  # 36 MB
BITS = 64
FEW = 4000  # hashes that are compared with one another at once

Hashes = NDArray[np.uint64]


class Near(NamedTuple):
    """An image and the one that looks most like it.

    Attributes:
        place: Where its hash is.
        other: Where the other hash is.
        distance: Bits in which they differ.
    """

    place: int
    other: int
    distance: int


def check_installed() -> None:
    """Raise an `InputError` if the library that hashes is missing."""
    if find_spec("imagehash") is None:
        raise InputError(
            "finding near-duplicate images needs the library imagehash. Install it: pip install "
            "'zoo-finetune[detection]'."
        )


def hash_image(image: Image.Image) -> int:
    """Return the perceptual hash of an RGB image, 64 bits.

    Source:
        The library imagehash, `phash`: signs of the 8 x 8 lowest frequencies against their median.
    """
    import imagehash  # brings scipy

    factor = min(image.size) // ENOUGH
    shrunk = image.reduce(factor) if factor > 1 else image
    bits = imagehash.phash(shrunk).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def find_near_pairs(
    hashes: Hashes, marks: NDArray[np.int64], *, mirrored: Hashes | None = None, limit: int = LIMIT
) -> list[Near]:
    """Find for each image the one that looks most like it, and the one of those with another mark, for each mark.

    Only hashes that agree in one of `limit + 1` parts are compared: others differ in more bits. Memory is bounded.

    Args:
        hashes: `(N,)` uint64, from `hash_image`.
        marks: `(N, K)`, for example the numbers of the split and the class.
        mirrored: `(N,)` hashes of the mirrored images, to find mirrored copies too.
        limit: The most bits in which two hashes may differ.

    Returns:
        Each pair once, `place` before `other`, by `place` and `other`.
    """
    found: dict[tuple[int, int], int] = {}
    for pool in (hashes,) if mirrored is None else (hashes, mirrored):
        for rows, columns in _find_buckets(hashes, pool, limit):
            size = max(1, PAIRS_AT_A_TIME // len(columns))
            for start in range(0, len(rows), size):
                part = rows[start : start + size]
                distances = np.bitwise_count(hashes[part][:, None] ^ pool[columns][None, :])
                distances[part[:, None] == columns[None, :]] = BITS + 1
                near = np.flatnonzero((distances <= limit).any(axis=1))
                for row, column, distance in _choose(distances[near], marks[part[near]], marks[columns], limit):
                    first, second = sorted((int(part[near[row]]), int(columns[column])))
                    found[first, second] = min(distance, found.get((first, second), distance))
    return [Near(*pair, distance) for pair, distance in sorted(found.items())]


def _find_buckets(hashes: Hashes, pool: Hashes, limit: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield places in `hashes` and in `pool` that agree in a part of their bits."""
    if len(hashes) <= FEW:
        if len(hashes):
            yield np.arange(len(hashes)), np.arange(len(pool))
        return
    for part in np.array_split(np.arange(BITS, dtype=np.uint64), limit + 1):
        mask = np.bitwise_or.reduce(np.uint64(1) << part)
        keys, others = hashes & mask, pool & mask
        order, other_order = np.argsort(keys, kind="stable"), np.argsort(others, kind="stable")
        values, starts = np.unique(keys[order], return_index=True)
        lefts, rights = (np.searchsorted(others[other_order], values, side) for side in ("left", "right"))
        for rows, left, right in zip(np.split(order, starts[1:]), lefts, rights, strict=True):
            if left < right:
                yield rows, other_order[left:right]


def _choose(
    distances: NDArray[np.uint8], marks: NDArray[np.int64], others: NDArray[np.int64], limit: int
) -> Iterator[tuple[int, int, int]]:
    """Yield row, column and distance of the nearest in each row, and of the nearest with each other mark."""
    if not len(distances):
        return
    for mark in (None, *range(marks.shape[1])):
        left = distances
        if mark is not None:
            left = np.where(marks[:, mark][:, None] == others[:, mark][None, :], np.uint8(BITS + 1), distances)
        columns = left.argmin(axis=1)
        for row, column in enumerate(columns):
            if left[row, column] <= limit:
                yield row, int(column), int(left[row, column])


def find_near_duplicates(hashes: Hashes, others: Hashes | None = None, *, limit: int = LIMIT) -> list[Near]:
    """Find for each image the one that looks most like it.

    Memory is bounded; 5,000 x 20,000 images take about a second.

    Args:
        hashes: `(N,)` uint64, from `hash_image`.
        others: `(M,)` uint64, where to look; None looks among `hashes` themselves, and names each pair once.
        limit: The most bits in which two hashes may differ.

    Returns:
        Those that have one, by `place`.
    """
    if not len(hashes) or (others is not None and not len(others)):
        return []
    pool = hashes if others is None else others
    rows = max(1, PAIRS_AT_A_TIME // len(pool))
    found: list[Near] = []
    for start in range(0, len(hashes), rows):
        part = hashes[start : start + rows]
        distances = np.bitwise_count(part[:, None] ^ pool[None, :])
        places = np.arange(len(part))
        if others is None:
            distances[places, start + places] = limit + 1
        closest = distances.argmin(axis=1)
        least = distances[places, closest]
        found += [Near(start + int(i), int(closest[i]), int(least[i])) for i in np.flatnonzero(least <= limit)]
    if others is not None:
        return found
    pairs = {(near.place, near.other) for near in found}
    return [near for near in found if near.place > near.other or (near.other, near.place) not in pairs]
