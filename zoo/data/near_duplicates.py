"""Images that look almost the same: a perceptual hash of 64 bits for each, and the closest pairs of hashes.

The hash (`imagehash.phash`) keeps the coarse light and dark of an image: resizing, compressing, brightening or cutting
off a thin border changes a few bits of it, while two different images differ in about half of them.
"""

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
