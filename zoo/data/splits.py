"""Where samples come from: files, torch data sets, Hugging Face data sets, each as a `Split`.

The library `datasets` is never imported; its objects are known by what they can do.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from zoo.errors import DataError, InputError

IMAGE_COLUMNS = ("image", "img", "image", "pixel_values")
LABEL_COLUMNS = ("label", "labels", "target", "class")


FindColumn: TypeAlias = Callable[[Mapping[str, Any], str], str]


class Reader(Protocol):
    """Gives samples by position."""

    def __call__(self, position: int, /) -> tuple[Any, Any]:
        """Return what `read_image` takes, and the label; the label is not looked at where labels are known already."""
        ...


@dataclass(frozen=True)
class Split:
    """The samples of one split, before anything is checked.

    Attributes:
        name: What to call it in a message.
        reader: Gives the samples.
        names: What to call each in a message.
        labels: Class numbers or class names; None: only reading tells.
        classes: The names of the class numbers, if known.
        in_threads: Whether samples are files or bytes that may be decoded in several threads.
        groups: What each belongs to, if the data says it: images of a group are never in two splits.
    """

    name: str
    reader: Reader
    names: tuple[str, ...]
    labels: tuple[Any, ...] | None
    classes: tuple[str, ...] | None
    in_threads: bool = False
    groups: tuple[str, ...] | None = None


@dataclass(frozen=True)
class FileReader:
    """Reads files below a folder."""

    root: Path
    names: tuple[str, ...]

    def __call__(self, position: int, /) -> tuple[str, None]:
        """Return the path of a file."""
        return os.path.join(self.root, self.names[position]), None


@dataclass(frozen=True)
class PairReader:
    """Reads a torch data set of `(image, label)`."""

    dataset: Any

    def __call__(self, position: int, /) -> tuple[Any, Any]:
        """Return image and label of a sample."""
        try:
            sample = self.dataset[position]
        except Exception as error:
            raise InputError(f"the data set raised {type(error).__name__}: {error}") from error
        if not isinstance(sample, (tuple, list)) or len(sample) != 2:
            raise InputError(f"it is {_describe_sample(sample)}; expected a pair (image, label)")
        return sample[0], sample[1]


@dataclass(frozen=True)
class ColumnReader:
    """Reads the images of a Hugging Face data set, still encoded where they are files."""

    rows: Any
    column: str

    def __call__(self, position: int, /) -> tuple[Any, None]:
        """Return the image of a row: bytes, a path, or what else the column holds."""
        try:
            value = self.rows[position][self.column]
        except Exception as error:
            raise InputError(f"the data set raised {type(error).__name__}: {error}") from error
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        return value, None


def split_of_files(root: Path, files: dict[str, list[str]], name: str) -> Split:
    """Make a split of files by class."""
    names = tuple(name for same in files.values() for name in same)
    labels = tuple(label for label, same in files.items() for _ in same)
    return Split(name, FileReader(root, names), printable_names(names), labels, tuple(files), in_threads=True)


def printable_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return names of files for messages and records."""
    return tuple(name if name.isprintable() else ascii(name)[1:-1] for name in names)


def split_of_dataset(dataset: Any, name: str, find_label: FindColumn | None = None) -> Split:
    """Make a split of a torch or Hugging Face data set.

    Args:
        dataset: Has `len()` and gives samples by index: pairs `(image, label)`, or rows of columns.
        name: What to call it in messages.
        find_label: Returns the column of labels, of the features of a Hugging Face data set and the name; None: that of
            one class for each image.

    Raises:
        DataError: If it is no such thing.
    """
    if isinstance(dataset, (str, os.PathLike)):
        raise DataError(
            f"{name} is the path {os.fspath(dataset)!r}; expected a data set. Pass the folder that holds both "
            "train/<class>/* and val/<class>/* instead of a pair."
        )
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        hint = ". Read a streaming or iterable data set into a list first" if hasattr(dataset, "__iter__") else ""
        raise DataError(
            f"{name} is of type {type(dataset).__name__}; expected a folder, or a data set with len() and integer "
            f"indexing{hint}."
        )
    if not len(dataset):
        raise DataError(f"{name} has no samples; expected one or more.")
    short = name.removeprefix("the ")
    names = tuple(f"{short}[{position}]" for position in range(len(dataset)))
    if hasattr(dataset, "features") and hasattr(dataset, "column_names"):
        return _split_of_columns(dataset, name, names, find_label or _find_label)
    return Split(name, PairReader(dataset), names, None, known_classes(dataset, name))


def known_classes(dataset: Any, name: str = "the data") -> tuple[str, ...] | None:
    """Return the names of the class numbers of a data set, also where it is a part of others or made of several.

    Looks into `Subset`, `ConcatDataset` and loaders; a column `ClassLabel` of a Hugging Face data set has names, too.

    Raises:
        DataError: The parts that it is made of number their classes differently.
    """
    if classes := _own_classes(dataset):
        return classes
    parts = getattr(dataset, "datasets", None)
    if isinstance(parts, (list, tuple)) and parts:
        found = list(dict.fromkeys(known_classes(part, name) for part in parts))
        if len(found) > 1:
            first, second = (", ".join(classes[:3]) if classes else "none" for classes in found[:2])
            raise DataError(
                f"{name} combines data sets with different class numbers: {first} and {second}. Give them the same "
                "classes, in the same order."
            )
        return found[0]
    inner = getattr(dataset, "dataset", None)
    return None if inner is None or inner is dataset else known_classes(inner, name)


def _own_classes(dataset: Any) -> tuple[str, ...] | None:
    """Return what a data set itself calls its class numbers: as torchvision's do, or Hugging Face's."""
    numbers = getattr(dataset, "class_to_idx", None)
    if (
        isinstance(numbers, dict)
        and numbers
        and sorted(map(str, numbers.values())) == sorted(map(str, range(len(numbers))))
    ):
        return tuple(sorted(numbers, key=lambda name: int(numbers[name])))  # what labels are made with
    classes = getattr(dataset, "classes", None)
    if isinstance(classes, (list, tuple)) and classes and all(isinstance(name, str) for name in classes):
        return tuple(classes)
    features = getattr(dataset, "features", None)
    if isinstance(features, dict) and hasattr(dataset, "column_names"):
        named = [kind.names for kind in features.values() if type(kind).__name__ == "ClassLabel"]
        return tuple(named[0]) if len(named) == 1 else None
    return None


def _split_of_columns(dataset: Any, name: str, names: tuple[str, ...], find_label: FindColumn) -> Split:
    if (getattr(dataset, "format", None) or {}).get("type") == "custom":
        raise DataError(
            f"{name} has its own transform (set_transform or with_transform), which would be ignored. Pass "
            "dataset.with_format(None); zoo applies the model's preprocessing."
        )
    features: dict[str, Any] = dict(dataset.features)
    image = _find_column(features, "Image", IMAGE_COLUMNS, name, "image")
    label = find_label(features, name)
    plain = dataset.with_format(None) if hasattr(dataset, "with_format") else dataset
    labels = tuple(plain[label])
    rows = plain.select_columns([image]) if hasattr(plain, "select_columns") else plain
    kind = features[image]
    encoded = type(kind).__name__ == "Image" and hasattr(rows, "cast_column")
    if encoded:  # decoded here, as files are: with their orientation, in threads, and with a name where it fails
        rows = rows.cast_column(image, type(kind)(decode=False))
    labelled = features[label]
    while isinstance(labelled, list) or hasattr(labelled, "feature"):  # a list of labels
        labelled = labelled[0] if isinstance(labelled, list) else labelled.feature
    classes = getattr(labelled, "names", None)
    reader = ColumnReader(rows, image)
    return Split(name, reader, names, labels, tuple(classes) if classes else None, in_threads=encoded)


def _find_label(features: Mapping[str, Any], name: str) -> str:
    return _find_column(dict(features), "ClassLabel", LABEL_COLUMNS, name, "label")


def _find_column(features: dict[str, Any], kind: str, usual: Sequence[str], name: str, what: str) -> str:
    """Find the one column of a kind, or of a usual name where no column has the kind."""
    found = [column for column, feature in features.items() if type(feature).__name__ == kind]
    found = found or [column for column in features if column.lower() in usual]
    if len(found) > 1:
        found = [column for column in usual if column in found][:1] or found
    if len(found) != 1:
        columns = ", ".join(f"{column} ({type(feature).__name__})" for column, feature in features.items())
        raise DataError(
            f"{name} has {'several' if found else 'no'} {what} columns; its columns are {columns}. Expected one "
            f"column of type {kind}, or named {usual[0]!r}. Use dataset.rename_column(..., {usual[0]!r})."
        )
    return found[0]


def _describe_sample(sample: Any) -> str:
    if isinstance(sample, dict):
        return f"a dict with the keys {', '.join(map(str, sample))}"
    if isinstance(sample, (tuple, list)):
        return f"a {type(sample).__name__} of {len(sample)}"
    return f"of type {type(sample).__name__}"
