"""What the labels of an image are, one class or any number of them: what opening data asks of each kind."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from zoo.data import (
    Check,
    Images,
    LabelReader,
    Row,
    Split,
    Table,
    draw_parts,
    number_images,
    pick_val,
    plain_labels,
    scan_folder,
    split_of_dataset,
    split_of_files,
)
from zoo.errors import DataError, InputError

LABEL_NAMES = ("label", "class", "category", "target", "classname", "labelname", "categoryname")
PLURAL_NAMES = ("labels", "tags", "classes", "categories", "targets")
SEPARATORS = ("|", ";", ",")


class LabelKind(Protocol):
    """How labels of one kind are read and numbered.

    Attributes:
        name: As the option `labels` calls it.
    """

    name: ClassVar[str]

    def open_folder(self, root: Path) -> dict[str, Split]:
        """Return the splits of a folder with a folder for each class; `all` where it has none."""
        ...

    def open_dataset(self, dataset: Any, name: str) -> Split:
        """Return a split of a torch or Hugging Face data set."""
        ...

    def read_labels(self, table: Table) -> LabelReader:
        """Return what reads the labels of a table."""
        ...

    def plain(self, labels: Sequence[Any], names: Sequence[str], split: str) -> list[Any]:
        """Turn labels into plain values, of which `flatten` makes integers or texts."""
        ...

    def flatten(self, labels: Iterable[Any]) -> list[int | str]:
        """Return all class numbers or names among plain labels."""
        ...

    def number(self, split: Split, check: Check, classes: tuple[str, ...], origin: str, *, by_name: bool) -> Images:
        """Turn the usable samples of a split into images with class numbers."""
        ...

    def pick_val(self, images: Images, groups: Sequence[str] | None, *, fraction: float, seed: int) -> list[int]:
        """Choose images for validation; groups stay whole."""
        ...


class SingleLabel:
    """One class for each image; see `LabelKind`."""

    name: ClassVar[str] = "single"

    def open_folder(self, root: Path) -> dict[str, Split]:
        """Return the splits of a folder, files by class."""
        return {name: split_of_files(root, files, call_split(name)) for name, files in scan_folder(root).items()}

    def open_dataset(self, dataset: Any, name: str) -> Split:
        """Return a split of pairs `(image, label)`, or of a column of labels."""
        return split_of_dataset(dataset, name)

    def read_labels(self, table: Table) -> LabelReader:
        """Return what reads one column."""
        return LabelColumn(table)

    def plain(self, labels: Sequence[Any], names: Sequence[str], split: str) -> list[Any]:
        """Turn labels into integers or texts."""
        return plain_labels(labels, names, split)

    def flatten(self, labels: Iterable[Any]) -> list[int | str]:
        """Return the labels."""
        return list(labels)

    def number(self, split: Split, check: Check, classes: tuple[str, ...], origin: str, *, by_name: bool) -> Images:
        """Turn the usable samples of a split into images with class numbers."""
        return number_images(split, check, classes, origin, by_name=by_name)

    def pick_val(self, images: Images, groups: Sequence[str] | None, *, fraction: float, seed: int) -> list[int]:
        """Choose the same share of every class, and never the last image of one."""
        if groups is None:
            return pick_val(images.names, images.targets, fraction=fraction, seed=seed)
        return draw_val(images, groups, fraction=fraction, seed=seed)


class LabelColumn:
    """Reads the one column of labels of a table; see `zoo.data.LabelReader`.

    Raises:
        DataError: There is none, or it seems to hold several labels for an image.
    """

    classes: tuple[str, ...] | None = None

    def __init__(self, table: Table) -> None:
        self._place = table.get_column((*LABEL_NAMES, *PLURAL_NAMES), "labels")
        self.column = repr(name := table.columns[self._place])
        is_plural = name.casefold() in PLURAL_NAMES
        texts = (str(row.cells[self._place]) for row in table.rows)
        marks = SEPARATORS if is_plural else SEPARATORS[:1]
        if found := next((text for text in texts if any(mark in text for mark in marks)), None):
            raise DataError(
                f"the column {name!r} of {table.path} seems to hold several labels for an image: {found!r:.80}. "
                "Set labels=multi (--multi-label), or rename the classes."
            )

    def __call__(self, row: Row) -> str:
        """Return the label of a row."""
        if not (text := str(row.cells[self._place])):
            raise InputError("the label is missing")
        return text

    def unite(self, labels: Sequence[str]) -> str:
        """Return the label that all rows of an image have."""
        if len(different := dict.fromkeys(labels)) > 1:
            raise InputError(f"it has the labels {' and '.join(map(repr, different))}")
        return labels[0]


def draw_val(images: Images, groups: Sequence[str] | None, *, fraction: float, seed: int) -> list[int]:
    """Choose images for validation by iterative stratification, groups whole."""
    parts = draw_parts(images.list_numbers(), images.names, {"val": fraction}, groups=groups, seed=seed)
    return [index for index, part in enumerate(parts) if part == "val"]


def call_split(name: str) -> str:
    """Return what to call a split in messages."""
    return "the data" if name == "all" else name


SINGLE = SingleLabel()
