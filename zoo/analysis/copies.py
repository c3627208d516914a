"""Images that are in the data more than once: the same file, the same pixels, or almost the same look."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from zoo.analysis.image_facts import Facts
from zoo.data import find_near_pairs, read_image
from zoo.errors import InputError

LOOSE = 10  # bits in which hashes of images may differ that the features find alike; at 14 a third are not


class Row(NamedTuple):
    """One image of the data.

    Attributes:
        split: Where it is.
        place: Its index there.
        name: What to call it.
        labels: All class numbers.
        digest: Of its content; empty if that is not known.
        facts: Of its look; None if it cannot be read.
    """

    split: str
    place: int
    name: str
    labels: tuple[int, ...]
    digest: str
    facts: Facts | None


class Copy(NamedTuple):
    """Two images that are the same, or nearly.

    Attributes:
        first: One row.
        second: The other; of two splits the later one.
        how: `same file`, `same pixels`, `mirrored`, or `near`.
        bits: Of 64, in which their perceptual hashes differ.
    """

    first: Row
    second: Row
    how: str
    bits: int = 0


def find_copies(rows: Sequence[Row], images: Mapping[str, Any]) -> list[Copy]:
    """Return each image's closest copies: at all, in another split, and of another class.

    Args:
        rows: All images.
        images: By split, to compare the pixels of those that look the same.
    """
    same = _find_same(rows)
    known = {frozenset((copy.first[:2], copy.second[:2])) for copy in same}
    seen = [row for row in rows if row.facts is not None and row.facts.hash]
    hashes, mirrored = (
        np.array([getattr(row.facts, name) for row in seen], np.uint64) for name in ("hash", "mirrored")
    )
    splits = sorted({row.split for row in seen})
    labels = sorted({row.labels for row in seen})
    numbers = {label: number for number, label in enumerate(labels)}
    marks = np.array([[splits.index(row.split), numbers[row.labels]] for row in seen], np.int64).reshape(-1, 2)
    near = []
    for pair in find_near_pairs(hashes, marks, mirrored=mirrored):
        first, second = seen[pair.place], seen[pair.other]
        if first.digest and first.digest == second.digest:
            continue
        if frozenset((first[:2], second[:2])) not in known:
            near.append(compare(first, second, images))
    return same + near


def compare(first: Row, second: Row, images: Mapping[str, Any]) -> Copy:
    """Say how two images that look alike differ."""
    assert first.facts is not None
    assert second.facts is not None
    bits = (first.facts.hash ^ second.facts.hash).bit_count()
    turned = (first.facts.hash ^ second.facts.mirrored).bit_count()
    if turned < bits:
        return Copy(first, second, "mirrored", turned)
    if not bits and first.facts.size == second.facts.size and _same_pixels(first, second, images):
        return Copy(first, second, "same pixels")
    return Copy(first, second, "near", bits)


def looks_alike(first: Row, second: Row) -> bool:
    """Whether two images, which the features find alike, are loosely alike by their hashes too."""
    if first.facts is None or second.facts is None or not first.facts.hash or not second.facts.hash:
        return False
    return any((first.facts.hash ^ other).bit_count() <= LOOSE for other in second.facts[2:])


def _find_same(rows: Sequence[Row]) -> list[Copy]:
    """Pair each file with the first of the same content: at all, in each other split, and of each other class."""
    by_content: dict[str, list[Row]] = {}
    for row in rows:
        if row.digest:
            by_content.setdefault(row.digest, []).append(row)
    copies = []
    for same in by_content.values():
        for number, row in enumerate(same[1:], 1):
            before = {
                (other.split == row.split, other.labels == row.labels): other for other in reversed(same[:number])
            }
            copies += [Copy(other, row, "same file") for other in before.values()]
    return copies


def _same_pixels(first: Row, second: Row, images: Mapping[str, Any]) -> bool:
    try:
        one, other = (read_image(images[row.split].find_source(row.place)) for row in (first, second))
    except InputError:
        return False
    return one.tobytes() == other.tobytes()
