"""The labels of images that have any number of them: of tables, data sets and folders, as class numbers."""

import ast
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from zoo._text import list_lines
from zoo.data import (
    Check,
    FileReader,
    Images,
    LabelReader,
    Row,
    Split,
    Table,
    digest_contents,
    number_labels,
    plain_labels,
    printable_names,
    scan_folder,
    split_of_dataset,
)
from zoo.errors import DataError, InputError
from zoo.tasks.classification.label_kind import (
    LABEL_NAMES,
    PLURAL_NAMES,
    SEPARATORS,
    call_split,
    draw_val,
)
from zoo.tasks.classification.multi_label.images import MultiLabelImages

MOST_LISTED = 20  # samples that a message names
YES, NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "-1", "false", "no", "")  # cells of a column for one label
MOSTLY = 0.5  # of the cells of such a column; the others are told as faults


class MultiLabel:
    """Any number of labels for each image; see `zoo.tasks.classification.label_kind.LabelKind`."""

    name: ClassVar[str] = "multi"

    def open_folder(self, root: Path) -> dict[str, Split]:
        """Return the splits of a folder with a folder for each label; the same file in several has all their labels."""
        return {name: _unite_copies(root, files, call_split(name)) for name, files in scan_folder(root).items()}

    def open_dataset(self, dataset: Any, name: str) -> Split:
        """Return a split of pairs `(image, labels)`, or of a column of lists; labels are numbers, names, or 0 and 1."""
        return split_of_dataset(dataset, name, find_label=_find_lists)

    def read_labels(self, table: Table) -> LabelReader:
        """Return what reads a column of labels, or one column of 0 and 1 for each label."""
        place = table.find_column((*PLURAL_NAMES, *LABEL_NAMES))
        return FlagColumns(table) if place is None else ListColumn(table, place)

    def plain(self, labels: Sequence[Any], names: Sequence[str], split: str) -> list[tuple[int | str, ...]]:
        """Turn labels into tuples of integers or of texts.

        Raises:
            DataError: Some are neither lists of these, nor 0 and 1 for each label.
        """
        lists, wrong = [], []
        for label, name in zip(labels, names, strict=True):
            if (found := _to_list(label)) is None:
                wrong.append(f"{name}: {' '.join(repr(label).split())[:40]} ({type(label).__name__})")
            else:
                lists.append(found)
        if wrong:
            raise DataError(
                f"{len(wrong):,} labels of {split} cannot be used; expected a list of numbers or names, or 0 and 1 for "
                f"each label:{list_lines(wrong, MOST_LISTED)}"
            )
        if _are_flags(lists):
            return [tuple(number for number, value in enumerate(values) if value) for values in lists]
        counts = [len(values) for values in lists]
        flat_names = [name for name, count in zip(names, counts, strict=True) for _ in range(count)]
        flat = iter(plain_labels(list(chain.from_iterable(lists)), flat_names, split))
        return [tuple(dict.fromkeys(next(flat) for _ in range(count))) for count in counts]

    def flatten(self, labels: Iterable[Any]) -> list[int | str]:
        """Return all labels."""
        return list(chain.from_iterable(labels))

    def number(self, split: Split, check: Check, classes: tuple[str, ...], origin: str, *, by_name: bool) -> Images:
        """Turn the usable samples of a split into images with label numbers."""
        names = tuple(split.names[position] for position in check.good)
        flat_names = [name for name, of in zip(names, check.labels, strict=True) for _ in of]
        options: dict[str, Any] = {"names": flat_names, "split": split.name, "origin": origin, "by_name": by_name}
        flat = iter(number_labels(self.flatten(check.labels), split.classes, classes, **options))
        targets = tuple(tuple(sorted({next(flat) for _ in of})) for of in check.labels)
        reads_threaded = split.in_threads
        return MultiLabelImages(split.reader, names, targets, check.good, in_threads=reads_threaded, count=len(classes))

    def pick_val(self, images: Images, groups: Sequence[str] | None, *, fraction: float, seed: int) -> list[int]:
        """Choose about the same share of every label."""
        return draw_val(images, groups, fraction=fraction, seed=seed)


class ListColumn:
    """Reads a column that holds all labels of an image; see `zoo.data.LabelReader`.

    Labels are separated by bars, else by semicolons, else by commas: by the first of these that any cell has. A cell
    may also be a list as Python and JSON write it, and is empty for an image without labels.
    """

    classes: tuple[str, ...] | None = None

    def __init__(self, table: Table, place: int) -> None:
        self._place = place
        texts = [cell for row in table.rows if isinstance(cell := row.cells[place], str)]
        found = (mark for mark in SEPARATORS if any(mark in text for text in texts if not text.startswith("[")))
        self._separator = next(found, SEPARATORS[0])
        self.column = f"{table.columns[place]!r} (separated by {self._separator!r})"

    def __call__(self, row: Row) -> tuple[str, ...]:
        """Return the labels of a row."""
        cell = row.cells[self._place]
        if isinstance(cell, str) and cell.startswith("["):
            cell = _read_list(cell)
        parts = cell.split(self._separator) if isinstance(cell, str) else cell if isinstance(cell, list) else [cell]
        return tuple(dict.fromkeys(text for part in parts if (text := str(part).strip())))

    def unite(self, labels: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
        """Return the labels of all rows of an image."""
        return tuple(dict.fromkeys(chain.from_iterable(labels)))


class FlagColumns:
    """Reads a table with a column of 0 and 1 for each label; see `zoo.data.LabelReader`.

    Raises:
        DataError: There are not two of them.
    """

    def __init__(self, table: Table) -> None:
        columns = {
            place: name
            for place, name in enumerate(table.columns)
            if sum(_read_flag(row.cells[place]) is not None for row in table.rows) > MOSTLY * len(table.rows)
            and any(str(row.cells[place]) for row in table.rows)
        }
        if len(columns) < 2:
            raise DataError(
                f"{table.path} has no column 'labels', and not two columns of 0 and 1; its columns are "
                f"{', '.join(map(repr, table.columns))}. Expected labels such as 'cat|dog', or a column for each label."
            )
        self._columns = columns
        self.classes: tuple[str, ...] | None = tuple(columns.values())
        self.column = f"{len(columns)} columns of 0 and 1, {self.classes[0]!r} to {self.classes[-1]!r}"

    def __call__(self, row: Row) -> tuple[str, ...]:
        """Return the labels of a row."""
        found = []
        for place, name in self._columns.items():
            if (flag := _read_flag(row.cells[place])) is None:
                raise InputError(f"{name!r} is {row.cells[place]!r}; expected 0 or 1")
            found += [name] * flag
        return tuple(found)

    def unite(self, labels: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
        """Return the labels that all rows of an image have."""
        if len(set(labels)) > 1:
            raise InputError("the rows have different labels")
        return labels[0]


def _read_flag(cell: Any) -> bool | None:
    text = str(cell).casefold()
    return True if text in YES else False if text in NO else None


def _read_list(text: str) -> list[Any]:
    """Read a list as Python and JSON write it."""
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise InputError(f"the labels are {text!r:.60}, which is no list")
    return found


def _to_list(label: Any) -> list[Any] | None:
    """Return the values of a label; None for what holds none."""
    if isinstance(label, (str, int)):
        return [label]
    if hasattr(label, "tolist"):
        label = label.tolist()
    nests = (list, tuple, set, frozenset)
    is_flat = isinstance(label, nests) and not any(isinstance(part, nests) for part in label)
    return list(label) if is_flat else None


def _are_flags(lists: Sequence[Sequence[Any]]) -> bool:
    """Whether labels are 0 and 1 for each class: equally many, and not as lists of different numbers would be."""
    sizes, every = {len(values) for values in lists}, list(chain.from_iterable(lists))
    if len(sizes) != 1 or min(sizes) < 2 or not all(type(value) in (bool, int, float) for value in every):
        return False
    are_numbers = all(type(value) is int for value in every)
    has_repeats = any(len(set(values)) < len(values) for values in lists)
    return all(value in (0, 1) for value in every) and (has_repeats or not are_numbers)


def _find_lists(features: Mapping[str, Any], name: str) -> str:
    """Return the column of a Hugging Face data set that holds lists of labels."""
    lists = [column for column, kind in features.items() if isinstance(kind, list) or hasattr(kind, "feature")]
    usual = [column for column in lists if column.casefold() in (*PLURAL_NAMES, *LABEL_NAMES)]
    found = usual if len(usual) == 1 else lists
    if len(found) != 1:
        columns = ", ".join(f"{column} ({type(kind).__name__})" for column, kind in features.items())
        raise DataError(
            f"{name} has {'several' if found else 'no'} columns of lists of labels; its columns are {columns}. "
            "Expected one, named 'labels'. Use dataset.rename_column(..., 'labels')."
        )
    return found[0]


def _unite_copies(root: Path, files: Mapping[str, Sequence[str]], name: str) -> Split:
    """Return a split of files by label in which the same file, by its bytes, has the labels of all its folders."""
    folders = [label for label, same in files.items() for _ in same]
    names = tuple(chain.from_iterable(files.values()))
    places = tuple(range(len(names)))
    images = Images(FileReader(root, names), printable_names(names), places, places, in_threads=True)
    held: dict[str, list[int]] = {}
    for place, digest in enumerate(digest_contents(images)):
        held.setdefault(digest or f"unreadable {place}", []).append(place)
    firsts = [same[0] for same in held.values()]
    return Split(
        name,
        FileReader(root, tuple(names[place] for place in firsts)),
        tuple(images.names[place] for place in firsts),
        tuple(tuple(dict.fromkeys(folders[place] for place in same)) for same in held.values()),
        tuple(files),
        in_threads=True,
    )


MULTI = MultiLabel()
