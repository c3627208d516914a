"""Images that stay out of a run: named in a table, found in the data, and never touched on the disk."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from zoo.data import Images, is_table, printable_names, read_table
from zoo.errors import DataError, InputError
from zoo.files import to_path

COLUMNS = ("path", "image", "img", "filename", "file", "imagepath", "filepath")
MOST_TOLD = 3  # names in a message

Exclude: TypeAlias = str | os.PathLike[str] | Sequence[str]


def read_excluded(exclude: Exclude | None) -> tuple[str, ...]:
    """Return the names of images to leave out, each once, in order.

    Args:
        exclude: A table with a column `path` (or `image`), as `zoo data check --out` writes it; or the names.

    Raises:
        DataError: There is no such table, or it cannot be read, or it has no such column.
    """
    if exclude is None:
        return ()
    if not isinstance(exclude, (str, os.PathLike)):
        return tuple(dict.fromkeys(exclude))
    path = to_path(exclude)
    if not is_table(path):
        raise InputError(f"exclude is {str(path)!r}; expected a table (.csv, .tsv, .parquet) with a column path.")
    if not path.is_file():
        raise DataError(f"exclude is {str(path)!r}, and there is no such file. zoo data check --out FOLDER writes one.")
    table = read_table(path, may_be_empty=True)
    if table.faults:
        line, fault = next(iter(table.faults.items()))
        raise DataError(f"{table.place(line)} of exclude cannot be read: {fault}.")
    column = table.get_column(COLUMNS, "path")
    names = (str(row.cells[column]).replace("\\", "/").removeprefix("./") for row in table.rows)
    return printable_names(tuple(dict.fromkeys(name for name in names if name)))


def leave_out(
    images: Mapping[str, Images], exclude: Exclude | None, root: str, classes: Sequence[str]
) -> tuple[dict[str, Images], tuple[str, ...], tuple[str, ...]]:
    """Return the splits without some images, the names of these, and what to say of it.

    Args:
        images: By split.
        exclude: As in `read_excluded`.
        root: What absolute paths in it are taken from.
        classes: Names, in the order of the class numbers.

    Raises:
        DataError: None of the images of a table is there, or a class has no other image to train on.
    """
    is_file = isinstance(exclude, (str, os.PathLike))
    if exclude is None or not (is_file or exclude):
        return dict(images), (), ()
    wanted = {_relate(name, root) for name in read_excluded(exclude)}
    kept, left, counts = {}, [], {}
    for split, part in images.items():
        places = [place for place, name in enumerate(part.names) if name not in wanted]
        left += [name for name in part.names if name in wanted]
        counts[split] = len(part) - len(places)
        kept[split] = part.subset(places) if counts[split] else part
    said = str(exclude) if is_file else "exclude"
    missing = sorted(wanted.difference(left))
    if missing and not left and is_file:
        raise DataError(
            f"none of the {len(wanted):,} images that {said} names is in {root} ({_show(missing)}). Paths are those "
            f"that zoo data check shows, such as {next(iter(images.values())).names[0]!r}."
        )
    _check_left(images, kept, classes)
    many = ", ".join(f"{count:,} of {len(images[split]):,} in {split}" for split, count in counts.items() if count)
    notes = [f"excluded{f' by {said}' * is_file}: {many or 'no image'}"]
    if missing:
        notes.append(f"note: {len(missing):,} images that {said} names are not in the data ({_show(missing)})")
    return kept, tuple(left), tuple(notes)


def _relate(name: str, root: str) -> str:
    """Return an absolute path below the root as the data names it."""
    path = Path(name)
    return path.relative_to(root).as_posix() if path.is_absolute() and path.is_relative_to(root) else name


def _check_left(before: Mapping[str, Images], kept: Mapping[str, Images], classes: Sequence[str]) -> None:
    for split, part in kept.items():
        if not len(part):
            raise DataError(f"exclude leaves no image in {split}. Remove some of its lines.")
        if split not in ("train", "all"):
            continue
        had, has = ({number for numbers in side[split].list_numbers() for number in numbers} for side in (before, kept))
        if lost := sorted(had - has):
            names = ", ".join(repr(classes[number]) for number in lost[:MOST_TOLD])
            raise DataError(f"exclude leaves no image in {split} of {names}. Remove some of its lines.")


def _show(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:MOST_TOLD])) + (", ..." if len(names) > MOST_TOLD else "")
