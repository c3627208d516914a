"""Tables of labelled images as splits: the rows are checked and told with their lines, and nothing is decoded."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from zoo._text import list_lines
from zoo.data.folders import SPLIT_NAMES
from zoo.data.images import Problem
from zoo.data.splits import FileReader, Split, printable_names
from zoo.data.tables import GROUP_COLUMNS, IMAGE_NAMES, SPLIT_COLUMNS, Row, Table, is_table, read_table
from zoo.errors import DataError, InputError

MOST_LISTED = 20  # rows or groups that a message names


class LabelReader(Protocol):
    """Reads the labels of the rows of one table.

    Attributes:
        column: What to call where they stand.
        classes: The class names, where the columns say them; None: the labels do.
    """

    column: str
    classes: tuple[str, ...] | None

    def __call__(self, row: Row, /) -> Any:
        """Return the label of a row.

        Raises:
            InputError: It cannot be used.
        """
        ...

    def unite(self, labels: Sequence[Any], /) -> Any:
        """Return the label of an image that several rows name.

        Raises:
            InputError: They contradict each other.
        """
        ...


@dataclass(frozen=True)
class TableSplits:
    """What tables say.

    Attributes:
        splits: `train`, `val`, `test`, or `all` where no column says it.
        skipped: Rows that cannot be used.
        notes: Which columns were taken, and what was united.
    """

    splits: dict[str, Split]
    skipped: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Entry:
    """An image of a table."""

    row: Row
    name: str
    label: Any
    split: str
    group: str


@dataclass
class _Rows:
    """The rows of one table: the images of the good ones, and what is wrong with the others, by line."""

    table: Table
    labels: LabelReader
    entries: list[_Entry] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def find_tables(folder: Path) -> dict[str, Path]:
    """Return the tables in a folder that are named after a split, such as `train.csv`, by split."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        split = SPLIT_NAMES.get(path.stem.casefold())
        if split and is_table(path) and path.is_file():
            if split in found:
                raise DataError(f"{folder} holds both {found[split].name!r} and {path.name!r}. Keep one of them.")
            found[split] = path
    return found


def read_splits(
    tables: dict[str, Path],
    read_labels: Callable[[Table], LabelReader],
    *,
    image_root: Path | None = None,
    skip_bad: bool = False,
    call: Callable[[str], str] = str,
) -> TableSplits:
    """Read tables of images and labels.

    Args:
        tables: By split; `all`: the table says the split of each row, or there is none.
        read_labels: Makes what reads the labels of a table.
        image_root: What paths are relative to, and must not leave; None: the folder of the first table.
        skip_bad: Leave out rows that cannot be used, instead of refusing them.
        call: Says what to call a split.

    Raises:
        DataError: With all rows that cannot be used, or the images and groups that are in several splits.
    """
    root = next(iter(tables.values())).parent if image_root is None else image_root
    if not root.is_dir():
        raise DataError(f"image_root is {str(root)!r}, which is no folder. Pass the folder that image paths start in.")
    read = [_read_rows(read_table(path), split, read_labels, root) for split, path in tables.items()]
    faulty = [Problem(rows.table.place(line), text) for rows in read for line, text in sorted(rows.faults.items())]
    entries = [(rows.table.place(entry.row.line), entry) for rows in read for entry in rows.entries]
    if faulty and not (skip_bad and entries):
        total = sum(len(rows.table.rows) + len(rows.table.faults) for rows in read)
        lines = [f"{problem.name}: {problem.reason}" for problem in faulty]
        hint = "Correct them, or pass skip_bad=True (--skip-bad) to leave them out."
        if len(faulty) == total and image_root is None and all("no image" in problem.reason for problem in faulty):
            hint = "If the images are elsewhere, set image_root (--image-root) to the folder that their paths start in."
        raise DataError(f"{len(faulty):,} of {total:,} rows cannot be used:{list_lines(lines, MOST_LISTED)}\n{hint}")
    _check_apart(entries)
    notes = dict.fromkeys(note for rows in read for note in rows.notes)
    classes = read[0].labels.classes
    return TableSplits(_make_splits([entry for _, entry in entries], root, classes, call), tuple(faulty), tuple(notes))


def _read_rows(table: Table, split: str, read_labels: Callable[[Table], LabelReader], root: Path) -> _Rows:
    image = table.get_column(IMAGE_NAMES, "images")
    labels = read_labels(table)
    where, group = table.find_column(SPLIT_COLUMNS), table.find_column(GROUP_COLUMNS)
    if split != "all" or where is None or not any(row.cells[where] for row in table.rows):
        where = None
    rows = _Rows(table, labels, faults=dict(table.faults))
    known: dict[str, list[_Entry]] = {}
    for row in table.rows:
        try:
            name = _find_image(str(row.cells[image]), root)
            part = split if where is None else _read_split(str(row.cells[where]))
            of = "" if group is None else str(row.cells[group])
            entry = _Entry(row, name, labels(row), part, of)
            known.setdefault(name, []).append(entry)
        except InputError as error:
            rows.faults[row.line] = str(error)
    for same in known.values():
        try:
            rows.entries.append(_unite(same, labels))
        except InputError as error:
            rows.faults[same[1].row.line] = str(error)
    parts = [f"images from {table.columns[image]!r}", f"labels from {labels.column}"]
    parts += [f"splits from {table.columns[where]!r}"] if where is not None else []
    parts += [f"groups from {table.columns[group]!r}"] if group is not None else []
    rows.notes.append(f"{table.path.name}: {', '.join(parts)}")
    if repeats := sum(len(same) - 1 for same in known.values()):
        rows.notes.append(f"{table.path.name}: {repeats:,} rows name an image again; each image is used once")
    return rows


def _find_image(text: str, root: Path) -> str:
    """Return the path of an image below a folder, with forward slashes; Windows writes others."""
    if not text:
        raise InputError("the image is missing")
    name = text if os.path.lexists(root / text) else text.replace("\\", "/")
    path = PurePosixPath(os.path.normpath(root / name))
    if not path.is_relative_to(root):
        raise InputError(f"'{text}' is outside '{root}'; set image_root (--image-root) to a folder above it")
    if not os.path.isfile(path):
        raise InputError(f"there is no image '{text}' in '{root}'")
    return str(path.relative_to(root))


def _read_split(text: str) -> str:
    if found := SPLIT_NAMES.get(text.casefold()):
        return found
    raise InputError(f"the split is {text!r}; expected train, val or test" if text else "the split is missing")


def _unite(same: Sequence[_Entry], labels: LabelReader) -> _Entry:
    """Return one entry for an image that several rows name."""
    first = same[0]
    if len(same) == 1:
        return first
    for entry in same[1:]:
        where = f"{entry.name!r} is in line {first.row.line}, too, in the"
        if entry.split != first.split:
            raise InputError(f"{where} split {first.split}, not {entry.split}")
        if entry.group != first.group:
            raise InputError(f"{where} group {first.group!r}, not {entry.group!r}")
    try:
        label = labels.unite([entry.label for entry in same])
    except InputError as error:
        raise InputError(f"{first.name!r} is in line {first.row.line}, too: {error}") from error
    return _Entry(first.row, first.name, label, first.split, first.group)


def _check_apart(entries: Sequence[tuple[str, _Entry]]) -> None:
    """Refuse images and groups that are in several splits."""
    places: dict[tuple[str, str], dict[str, str]] = {}
    for where, entry in entries:
        places.setdefault(("image", entry.name), {}).setdefault(entry.split, where)
        if entry.group:
            places.setdefault(("group", entry.group), {}).setdefault(entry.split, where)
    lines = [
        f"{what} {name!r}: {', '.join(f'{split} ({where})' for split, where in splits.items())}"
        for (what, name), splits in places.items()
        if len(splits) > 1
    ]
    if lines:
        listed = list_lines(lines, MOST_LISTED)
        raise DataError(
            f"images or groups are in several splits:{listed}\nKeep each of them in one split: a score on images "
            "that a model has learnt from means nothing."
        )


def _make_splits(
    entries: Sequence[_Entry], root: Path, classes: tuple[str, ...] | None, call: Callable[[str], str]
) -> dict[str, Split]:
    splits = {}
    for name in ("train", "val", "test", "all"):
        chosen = [entry for entry in entries if entry.split == name]
        if not chosen:
            continue
        files = tuple(entry.name for entry in chosen)
        splits[name] = Split(
            call(name),
            FileReader(root, files),
            printable_names(files),
            tuple(entry.label for entry in chosen),
            classes,
            in_threads=True,
            groups=tuple(_give_groups(chosen)) if any(entry.group for entry in chosen) else None,
        )
    return splits


def _give_groups(entries: Sequence[_Entry]) -> Iterator[str]:
    """Yield the group of each image; one without is a group of its own."""
    return (entry.group or f"\0{entry.name}" for entry in entries)
