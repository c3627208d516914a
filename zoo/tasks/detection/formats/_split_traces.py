"""Traces of a split that no reader follows: lists in another place or form, folders with names of their own.

Data whose val is not found is split at random. Where its owner has split it, that would be another split than theirs,
so such a trace is an error that says what to do.
"""

import csv
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.errors import InputError
from zoo.tasks.detection.formats._files import (
    Findings,
    clip,
    count,
    list_files,
    list_folders,
    read_limited,
    show_path,
    split_from_name,
)
from zoo.tasks.detection.formats._path_ends import Items

UNREAD_SPLITS = "splits that are not read"
FORMS = frozenset({".txt", ".lst", ".list", ".csv", ".tsv", ".json"})
OTHER_TASKS = frozenset({"layout", "segmentation", "action"})  # folders of lists of VOC
HINT = "Write train.txt and val.txt with one image per line in the data folder, or move the file elsewhere"
MAX_BYTES = 20_000_000
DEPTH = 2  # of folders below the data's
MOST_TOLD = 5  # files


def tell_unread_lists(
    base: Path,
    root: Path,
    items: Items,
    splits: Mapping[str, Collection[str]],
    findings: Findings,
    *,
    hint: str = HINT,
    forms: Collection[str] = FORMS,
) -> None:
    """Tell the files that name some of the images, or the split of each, where there is no val.

    Args:
        base: The folder around images and annotations.
        root: The folder of the data, for messages.
        items: What lists may name.
        splits: The items of each split that was found.
        findings: Takes an error for each file.
        hint: What to do.
        forms: Suffixes of the files that may tell a split.
    """
    if "val" in splits:
        return
    used = [frozenset(part) for part in splits.values()]
    everything = frozenset().union(*used) if set(splits) == {"all"} else None
    told, known = 0, {finding.file for finding in findings.found}
    for path in _walk(base, forms, DEPTH):
        if told == MOST_TOLD:
            return
        if show_path(path, root) in known or items.find(path.stem, path.parent).item:  # the second belongs to an image
            continue
        named, has_splits = _read(path, items)
        is_part = bool(named) and named != everything and named not in used
        if is_part or (named and has_splits):
            told += 1
            text = (
                f"it names {count(len(named), 'image')} and may define a split, but is not read in this format or place"
            )
            findings.at(file=show_path(path, root)).error(UNREAD_SPLITS, f"{text}. {hint}")


def tell_unread_folders(folders: Sequence[Path], root: Path, splits: Collection[str], findings: Findings) -> None:
    """Tell folders with annotations whose names tell no split: one of them may be a train or val that is missing.

    Args:
        folders: Those that are not used.
        root: The folder of the data, for messages.
        splits: Names of the splits that were found.
        findings: Takes one finding for each folder.
    """
    missing = [split for split in ("train", "val") if split not in splits]
    report = findings.error if missing else findings.warn
    for folder in folders:
        text = f"the images in {clip(show_path(folder, root))} are not used: its name does not name a split"
        hint = f". Rename it to {' or '.join(missing)}, or move it elsewhere" if missing else ""
        report(UNREAD_SPLITS, f"{text}{hint}")


def _walk(folder: Path, forms: Collection[str], depth: int) -> Iterator[Path]:
    for name in list_files(folder, forms):
        yield folder / name
    for name in list_folders(folder) if depth else ():
        if name.casefold() not in OTHER_TASKS:
            yield from _walk(folder / name, forms, depth - 1)


def _read(path: Path, items: Items) -> tuple[frozenset[str], bool]:
    """Return the items that a file names, and whether it names splits, too; none if it is no list."""
    try:
        text = read_limited(path, MAX_BYTES).decode("utf-8-sig")
        rows = _READERS.get(path.suffix.lower(), _read_lines)(text)
    except (InputError, ValueError, RecursionError, csv.Error):
        return frozenset(), False
    found = [next((item for cell in row if (item := items.find(cell, path.parent).item)), "") for row in rows]
    if sum(map(bool, found)) * 2 < len(found):
        return frozenset(), False
    return frozenset(filter(None, found)), any(split_from_name(cell) for row in rows for cell in row)


def _read_lines(text: str) -> list[list[str]]:
    return [[line.strip()] for line in text.splitlines() if line.strip()]


def _read_table(text: str) -> list[list[str]]:
    """Return the cells of each row; the first row may be the names of the columns."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(re.sub("[;\t]", ",", text).splitlines())]
    return [row for row in rows if any(row)][1:] or rows


def _read_json(text: str) -> list[list[str]]:
    """Return the texts and numbers in lists, and the keys of the objects around them with each."""
    return list(_list_texts(json.loads(text), ()))


def _list_texts(value: Any, keys: tuple[str, ...]) -> Iterator[list[str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _list_texts(inner, (key, *keys))
    elif isinstance(value, list):
        for inner in value:
            yield from _list_texts(inner, keys)
    elif isinstance(value, (str, int)):
        yield [str(value), *keys]


_READERS = {".csv": _read_table, ".tsv": _read_table, ".json": _read_json}
