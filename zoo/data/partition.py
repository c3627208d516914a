"""Images drawn into splits: the same share of every label in each, groups whole, the same draw wherever it is made."""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from zoo._text import list_lines
from zoo.errors import DataError

MOST_LISTED = 20  # labels that a message names


@dataclass
class _Part:
    """A split that is being filled.

    Attributes:
        name: Of the split.
        total: How many images it is to have.
        wanted: How many of each label.
        counts: How many it has of each label.
        indices: Of the images that it has.
    """

    name: str
    total: int
    wanted: Mapping[int, int]
    counts: Counter[int] = field(default_factory=Counter)
    indices: list[int] = field(default_factory=list)

    def need(self, counts: Mapping[int, int]) -> tuple[float, float]:
        """Return how much it lacks of some labels, and of images at all, as shares of what it is to have."""
        of_labels = (
            count * (1 - self.counts[label] / wanted if (wanted := self.wanted[label]) else -1)
            for label, count in counts.items()
        )
        return round(sum(of_labels), 9), 1 - len(self.indices) / max(1, self.total)

    def add(self, indices: Sequence[int], counts: Mapping[int, int]) -> None:
        """Give it images with these labels."""
        self.indices += indices
        self.counts.update(counts)


def draw_parts(
    labels: Sequence[Sequence[int]],
    names: Sequence[str],
    shares: Mapping[str, float],
    *,
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> list[str]:
    """Draw each image into a split: iterative stratification (after Sechidis et al. 2011), the rarest label first.

    Labels are taken in turn, and their groups, the largest first, go where their labels are missing most. The draw
    depends on names and seed alone, not on the order of the images.

    Args:
        labels: Label numbers of each image: one, several or none.
        names: What decides the draw, one for each image.
        shares: Of the splits beside train, each above 0; together below 1.
        groups: Of each image; those of a group are not parted. None: each image is a group.
        seed: Decides the draw.

    Returns:
        The split of each image: `train` or a key of `shares`.
    """
    units: dict[str | int, list[int]] = {}
    for index in range(len(labels)):
        units.setdefault(index if groups is None else groups[index], []).append(index)
    lots = {unit: min(_draw_lot(seed, names[index]) for index in same) for unit, same in units.items()}
    held = {unit: Counter(label for index in same for label in labels[index]) for unit, same in units.items()}
    parts = _make_parts(Counter(label for of in labels for label in of), len(labels), shares)
    of_label: dict[int, list[str | int]] = {}
    for unit, counts in held.items():
        for label in counts:
            of_label.setdefault(label, []).append(unit)
    for label in sorted(of_label, key=lambda label: (sum(held[unit][label] for unit in of_label[label]), label)):
        for unit in sorted(of_label[label], key=lambda unit: (-held[unit][label], lots[unit])):
            if unit in units:
                max(parts, key=lambda part: part.need(held[unit])).add(units.pop(unit), held[unit])
    for unit in sorted(units, key=lambda unit: (-len(units[unit]), lots[unit])):  # those without labels
        max(parts, key=lambda part: part.need(held[unit])).add(units[unit], held[unit])
    found = {index: part.name for part in parts for index in part.indices}
    return [found[index] for index in range(len(labels))]


def check_parts(
    labels: Sequence[Sequence[int]], classes: Sequence[str], parts: Sequence[str], wanted: Sequence[str], what: str
) -> None:
    """Refuse a draw in which a split has no image of some class.

    Args:
        labels: As in `draw_parts`.
        classes: The names of the label numbers.
        parts: What `draw_parts` returned.
        wanted: The splits.
        what: What was drawn, `images` or `groups`.

    Raises:
        DataError: Naming the classes, with their numbers of images in each split.
    """
    counts = {part: Counter[int]() for part in wanted}
    for of, part in zip(labels, parts, strict=True):
        counts[part].update(of)
    lines = [
        f"{name}: {', '.join(f'{counts[part][number]:,} {part}' for part in wanted)}"
        for number, name in enumerate(classes)
        if not all(counts[part][number] for part in wanted)
    ]
    if lines:
        listed = list_lines(lines, MOST_LISTED)
        raise DataError(
            f"{len(lines):,} of {len(classes):,} classes cannot be in every split: they have too few {what}, or too "
            f"large ones:{listed}\nEach class needs {len(wanted)} {what} or more. Add images, ask for fewer splits, or "
            "split without --stratified."
        )


def _make_parts(counts: Mapping[int, int], total: int, shares: Mapping[str, float]) -> list[_Part]:
    """Return train and the other splits with what they need: at least one image of each label, if there are enough."""
    others = [
        _Part(name, _round(total, share), {label: _round(count, share) for label, count in counts.items()})
        for name, share in shares.items()
    ]
    rest = {label: count - sum(part.wanted[label] for part in others) for label, count in counts.items()}
    return [_Part("train", total - sum(part.total for part in others), rest), *others]


def _round(count: int, share: float) -> int:
    return min(max(1, round(count * share)), count - 1)


def _draw_lot(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/".encode() + os.fsencode(name)).digest()
