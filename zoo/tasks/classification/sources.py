"""What data may be given as: folders, tables, torch and Hugging Face data sets, each as splits."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.data import Problem, Split, find_tables, is_loader, is_table, read_splits, rename_splits
from zoo.errors import DataError, InputError
from zoo.files import to_path
from zoo.tasks.classification.label_kind import LabelKind, call_split


@dataclass(frozen=True)
class Found:
    """The splits of a source: `train`, `val`, `test`, or `all`.

    Attributes:
        where: What the source is, in words.
        splits: By name.
        skipped: Rows of tables that cannot be used.
        notes: How tables were read.
        options: What they were read with.
    """

    where: str
    splits: dict[str, Split]
    skipped: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


def find_splits(
    source: Any, only: str | None, kind: LabelKind, image_root: str | os.PathLike[str] | None, skip_bad: bool
) -> Found:
    """Tell what the source is, in words, and make its splits.

    Args:
        source: As in `zoo.tasks.classification.data.open_data`, and so are the others.
        only: As there.
        kind: As there.
        image_root: As there.
        skip_bad: As there.

    Raises:
        DataError: It is nothing that images can be had of.
        InputError: `image_root` has no meaning for it.
    """
    if isinstance(source, (str, os.PathLike)):
        return _find_in_files(source, kind, image_root, skip_bad)
    if image_root is not None:
        raise InputError("image_root needs a table of images, a CSV or Parquet file. Remove it.")
    if isinstance(source, Mapping):
        datasets = rename_splits(source)
    elif isinstance(source, (tuple, list)) and len(source) == 2:
        datasets = {name: part for name, part in zip(("train", "val"), source, strict=True) if part is not None}
        datasets = {"all": datasets["train"]} if datasets.keys() == {"train"} else datasets
    else:
        datasets = {"all": source}
    if not datasets:
        raise DataError("the data is (None, None); expected a data set for train, for val, or both.")
    for name, part in datasets.items():
        if is_loader(part):
            other = next((call_split(one) for one, rest in datasets.items() if not is_loader(rest)), "another split")
            raise DataError(
                f"{call_split(name)} is a loader and {other} is not; expected all splits as loaders, or all as data "
                "sets."
            )
        if isinstance(part, Iterator):
            raise DataError(
                f"{call_split(name)} is a {type(part).__name__}, which can be read only once; expected a loader that "
                "restarts every epoch and has a length, or a data set."
            )
    splits = {name: kind.open_dataset(part, call_split(name)) for name, part in datasets.items()}
    is_extra = len(splits) > 1 and only != "test"
    if is_extra and "test" in splits and set(splits["test"].labels or (0,)) <= {-1, None}:
        del splits["test"]  # published without labels
    return Found(f"data set {type(next(iter(datasets.values()))).__name__}", splits)


def _find_in_files(
    source: str | os.PathLike[str], kind: LabelKind, image_root: str | os.PathLike[str] | None, skip_bad: bool
) -> Found:
    """Find the splits of a folder of classes, of a table, or of a folder of tables."""
    if not os.fspath(source):
        raise DataError("the path of the data is empty; expected a folder of images.")
    root = to_path(source).absolute()
    if is_table(root) and not root.exists():
        raise DataError(f"there is no table {os.fspath(source)!r}. Current folder: {Path.cwd()}.")
    tables = {"all": root} if is_table(root) and root.is_file() else find_tables(root)
    if "all" not in tables and (folders := _try_folder(root, kind, required=not tables)):
        if image_root is not None:
            raise InputError(f"image_root needs a table, but {str(root)!r} is a folder of classes. Remove it.")
        unused = [f"note: {path.name} is not used: the folders are the classes" for path in tables.values()]
        return Found(str(root), folders, notes=tuple(unused))
    top = None if image_root is None else to_path(image_root).absolute()
    found = read_splits(tables, kind.read_labels, image_root=top, skip_bad=skip_bad, call=call_split)
    options = {} if top is None else {"image_root": str(top)}
    return Found(str(root), found.splits, found.skipped, found.notes, options)


def _try_folder(root: Path, kind: LabelKind, *, required: bool) -> dict[str, Split] | None:
    """Return the splits of a folder of classes; None if it is none, as its folders hold the images of tables.

    Args:
        root: The folder.
        kind: What the labels of an image are.
        required: Whether there are no tables, so that it has to be one.

    Raises:
        DataError: It is none, and required.
    """
    try:
        splits = kind.open_folder(root)
    except DataError:
        if required:
            raise
        return None
    classes = {name for split in splits.values() for name in split.classes or ()}
    return splits if required or len(classes) > 1 else None
