"""Labelled images that are drawn into splits, as a table of their paths: nothing is moved, and nothing is decoded."""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zoo._text import list_lines
from zoo.data import FileReader, check_parts, draw_parts
from zoo.errors import DataError, InputError
from zoo.files import write_file
from zoo.tasks.classification.kinds import find_kind
from zoo.tasks.classification.sources import find_splits

MOST_LISTED = 20  # files that a message names
JOINED = "|"  # between several labels of an image


@dataclass(frozen=True)
class SplitTable:
    """Images with their labels, splits and groups.

    Attributes:
        root: The folder that paths start in.
        images: Paths of the images.
        labels: Names of the classes of each.
        splits: `train`, `val` or `test`.
        groups: None if there are none.
        classes: All names.
    """

    root: Path
    images: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    splits: tuple[str, ...]
    groups: tuple[str, ...] | None
    classes: tuple[str, ...]

    def count(self) -> dict[str, dict[str, int]]:
        """Return the images of each class, by split and class; those of all classes together under an empty name."""
        counts = {split: Counter({"": 0}) for split in dict.fromkeys(sorted(self.splits, key=_ORDER.index))}
        for names, split in zip(self.labels, self.splits, strict=True):
            counts[split].update((*names, ""))
        return {split: {name: of[name] for name in (*self.classes, "")} for split, of in counts.items()}

    def write(self, path: Path) -> bool:
        """Write the table; return whether its paths start in its own folder, and not in `root`.

        Raises:
            InputError: There is such a file already.
        """
        if os.path.lexists(path):
            raise InputError(f"{path} already exists. Choose another file with --out, or remove it.")
        below = self.root.is_relative_to(path.absolute().parent)
        prefix = self.root.relative_to(path.absolute().parent) if below else Path()
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["image", "label", "split"] + ["group"] * (self.groups is not None))
        for index, image in enumerate(self.images):
            group = [] if self.groups is None else [self.groups[index]]
            cells = [(prefix / image).as_posix(), JOINED.join(self.labels[index]), self.splits[index], *group]
            table.writerow(cells)
        write_file(path, text.getvalue())
        return below


_ORDER = ("train", "val", "test")


def draw_split_table(
    source: str | os.PathLike[str],
    shares: Mapping[str, float],
    *,
    stratified: bool = False,
    group_by: str | None = None,
    seed: int = 0,
    image_root: str | os.PathLike[str] | None = None,
    labels: Literal["single", "multi"] = "single",
) -> SplitTable:
    """Draw the images of a folder of classes, or of a table, into splits.

    Args:
        source: It has no splits yet.
        shares: Of val and test; the rest is train.
        stratified: Whether each class has these shares in each split.
        group_by: A regular expression that finds the group of an image in its path: what its first parentheses match,
            or all of it. None: the groups of the table, if it has any.
        seed: Decides the draw.
        image_root: As in `zoo.tasks.classification.data.open_data`, and so is the other.
        labels: As there.

    Raises:
        InputError: The shares make no sense, or an image has no group.
        DataError: The images cannot be drawn so; the text says how many there are.
    """
    wanted = {name: share for name, share in shares.items() if share}
    if not wanted or min(wanted.values()) < 0 or sum(wanted.values()) >= 1:
        said = " and ".join(f"{name} {share:g}" for name, share in shares.items())
        raise InputError(f"the shares are {said}; expected 0 or more, one of them above 0, and less than 1 together.")
    kind = find_kind(labels)
    found = find_splits(source, None, kind, image_root, skip_bad=False)
    if found.splits.keys() != {"all"}:
        has = ", ".join(found.splits)
        raise InputError(f"{found.where} has splits already: {has}. Pass the folder or table of one of them.")
    split = found.splits["all"]
    assert isinstance(split.reader, FileReader)
    held = [tuple(map(str, kind.flatten([label]))) for label in split.labels or ()]
    classes = tuple(dict.fromkeys(split.classes or sorted({name for names in held for name in names})))
    groups = split.groups if group_by is None else find_groups(split.names, group_by)
    places = {name: number for number, name in enumerate(classes)}
    numbers = [tuple(places[name] for name in names) for names in held]
    parts = draw_parts(numbers if stratified else [()] * len(numbers), split.names, wanted, groups=groups, seed=seed)
    _check_filled(parts, ("train", *wanted), groups)
    if stratified:
        what = "images" if groups is None else "groups"
        check_parts(numbers, classes, parts, ("train", *wanted), what)
    named = None if groups is None else tuple(group.removeprefix("\0") for group in groups)
    return SplitTable(split.reader.root, split.reader.names, tuple(held), tuple(parts), named, classes)


def find_groups(names: Sequence[str], pattern: str) -> tuple[str, ...]:
    """Return the group of each image, which its path tells; as `group_by` of `draw_split_table`.

    Raises:
        InputError: The pattern is no regular expression, or finds nothing in some paths.
    """
    try:
        finder = re.compile(pattern)
    except re.error as error:
        raise InputError(f"--group-by is {pattern!r}, which is no regular expression: {error}.") from error
    matches = [finder.search(name) for name in names]
    groups = tuple(match[min(finder.groups, 1)] if match else "" for match in matches)
    if lost := [name for name, group in zip(names, groups, strict=True) if not group]:
        raise InputError(
            f"--group-by {pattern!r} finds no group in {len(lost):,} of {len(groups):,} paths:"
            f"{list_lines(lost, MOST_LISTED)}"
        )
    return groups


def _check_filled(parts: Sequence[str], wanted: Sequence[str], groups: Sequence[str] | None) -> None:
    """Refuse a draw in which a split has no image at all."""
    if empty := [name for name in wanted if name not in parts]:
        held = f"{len(parts):,} image{'s' * (len(parts) > 1)}"
        if groups is not None:
            sizes = Counter(groups).values()
            held += f" in {len(sizes):,} group{'s' * (len(sizes) > 1)}, the largest of {max(sizes):,}"
        raise DataError(f"{' and '.join(empty)} would be empty: there are {held}. Add images, or ask for fewer splits.")
