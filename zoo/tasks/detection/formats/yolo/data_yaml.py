"""The yaml of a YOLO data set: which folders or lists are which split, and what the classes are called.

Paths begin at `path`, or at the yaml's own folder. What is not there is looked for by the end of its path, as data sets
are moved but `../train/images` or `/content/data/train/images` stays written in them.
"""

import glob
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from zoo.data import plain_name
from zoo.errors import DataError, InputError
from zoo.files import AnyCase, Document, lies_inside, read_yaml, to_path
from zoo.tasks.detection.annotations import Key
from zoo.tasks.detection.formats._files import (
    Findings,
    clip,
    count,
    list_files,
    natural_key,
    read_text,
    show_path,
    split_from_name,
)

FILE_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
OWN_NAMES = FILE_NAMES[:2]  # those that other tools do not use
MEANT = re.compile(r"""(?m)^[ \t]*["']?(names|nc|train|val|valid|validation|test)["']?[ \t]*:""")
NAME_SUFFIXES = frozenset({".names", ".txt"})  # of a file with a name on each line
ESCAPES = "In double quotes a backslash is an escape character: use /, or single quotes."
MAX_BYTES = 10_000_000
SUFFIXES = frozenset({".yaml", ".yml"})


@dataclass(frozen=True)
class YoloYaml:
    """What a yaml says.

    Attributes:
        file: What to call it.
        entries: By split the folders, lists and images that are there; none of a split if nothing of it is there.
        names: Of the classes, by number; None if it has none.
        pose: Whether labels have key points.
        base: The folder that paths begin at.
    """

    file: str
    entries: Mapping[str, tuple[Path, ...]]
    names: Mapping[Key, str] | None
    pose: bool
    base: Path


def find_yaml(root: Path, findings: Findings) -> YoloYaml | None:
    """Read the yaml of a folder, or the one given; None if there is none.

    Raises:
        DataError: If it cannot be read, or nothing of what it names is there, or several could be it.
    """
    if root.is_file():
        return _read(root, root.parent, findings)
    names = [name for name in list_files(root, SUFFIXES) if name not in FILE_NAMES or _is_meant(root / name)]
    if usual := [name for name in FILE_NAMES if name in names]:
        return _read(root / usual[0], root, findings)
    others = [name for name in names if _looks_right(root / name)]
    if len(others) > 1:
        raise DataError(
            f"{str(root)!r} holds {' and '.join(map(repr, others[:4]))}, and either could describe the data. Pass the "
            "path of one."
        )
    return _read(root / others[0], root, findings) if others else None


def _is_meant(path: Path) -> bool:
    """Tell whether a yaml of a usual name speaks of splits or classes; other tools have a `dataset.yaml`, too."""
    try:
        return path.name in OWN_NAMES or bool(MEANT.search(read_text(path, MAX_BYTES)))
    except InputError:
        return True


def _looks_right(path: Path) -> bool:
    try:
        value = read_yaml(read_text(path, MAX_BYTES)).value
    except InputError:
        return False
    return isinstance(value, dict) and "names" in value and bool(value.keys() & {"train", "val"})


def _read(path: Path, top: Path, findings: Findings) -> YoloYaml:
    here = findings.at(file=show_path(path, top))
    try:
        document = read_yaml(read_text(path, MAX_BYTES))
    except InputError as error:
        raise DataError(f"{str(path)!r} cannot be used: {error}.") from error
    if document.problems or not isinstance(document.value, dict):
        told = [f"\n  line {problem.line}: {problem.text}" for problem in document.problems[:10]]
        told += [f"\n{ESCAPES}"] * any("escape" in problem.text for problem in document.problems)
        raise DataError(
            f"{str(path)!r} cannot be used; expected lines such as 'train: images/train' and 'names: [cat, "
            f"dog]'.{''.join(told) or ' It has no such lines.'}"
        )
    values: dict[str, Any] = document.value
    names = _read_names(values, document, path, here)
    base = _find_base(values, document, path, here)
    return YoloYaml(here.file, _find_entries(values, document, base, path, here), names, "kpt_shape" in values, base)


def _read_names(values: Mapping[str, Any], document: Document, path: Path, findings: Findings) -> dict[Key, str] | None:
    given, line = values.get("names"), document.lines.get(("names",))
    total = values.get("nc")
    if isinstance(total, str) and re.fullmatch("[0-9]{1,6}", total):
        total = int(total)
    if isinstance(given, str):
        given = _read_name_file(given, path, findings, line) or given
    if given is None:
        if isinstance(total, int) and 0 < total <= 100_000:
            findings.note("class map", "there are no class names; classes are named by their numbers", line)
            return {key: str(key) for key in range(total)}
        return None
    items = dict(enumerate(given)) if isinstance(given, list) else given
    if not isinstance(items, dict) or not items or not all(str(key).isdecimal() for key in items):
        raise DataError(
            f"{str(path)!r}, line {line}: names is {clip(given)}; expected a list of names, or a mapping of numbers "
            "to names."
        )
    names: dict[Key, str] = {}
    for key in sorted(items, key=int):
        text = _as_text(items[key])
        if not text:
            here = document.lines.get(("names", key), line)
            findings.error("classes without a name", f"class {key} is {clip(items[key])}; it is named {key}", here)
        names[int(key)] = text or str(key)
    if list(names) != list(range(len(names))):
        findings.note(
            "class map", f"class numbers have gaps: {count(len(names), 'name')} up to {max(map(int, names))}", line
        )
    if total is not None and total != len(names):
        text = f"nc is {clip(total)}, but there are {count(len(names), 'name')}; the names are used"
        findings.error("nc does not match the names", text, document.lines.get(("nc",)))
    return names


def _read_name_file(text: str, path: Path, findings: Findings, line: int | None) -> list[str] | None:
    """Return the names in a file of the yaml's folder that stands in place of names; None if there is no such file."""
    for part in (text, PurePosixPath(text.replace("\\", "/")).name):
        file = path.parent / part
        if file.suffix.lower() in NAME_SUFFIXES and os.path.isfile(file) and lies_inside(file, path.parent):
            try:
                names = read_text(file, MAX_BYTES).rstrip().splitlines()
            except InputError as error:
                raise DataError(f"{str(path)!r}, line {line}: names is {clip(text)}: {error}.") from error
            findings.note("class map", f"{clip(part)} lists {count(len(names), 'class', 'classes')}", line)
            return names
    return None


def _as_text(value: Any) -> str:
    """Return a name as it is written; nothing for what is no name."""
    if isinstance(value, bool):
        return str(value).lower()
    return plain_name(str(value)).strip() if isinstance(value, (str, int, float)) else ""


def _find_base(values: Mapping[str, Any], document: Document, path: Path, findings: Findings) -> Path:
    given = values.get("path")
    if not isinstance(given, str) or not given.strip():
        return path.parent
    base = path.parent / to_path(given.strip().replace("\\", "/"))
    if os.path.isdir(base):
        return base
    text = f"path is {clip(given)}, which is not a folder; paths are read relative to the yaml"
    findings.warn("paths that do not exist", text, document.lines.get(("path",)))
    return path.parent


def _find_entries(
    values: Mapping[str, Any], document: Document, base: Path, path: Path, findings: Findings
) -> dict[str, tuple[Path, ...]]:
    """Return what is there of each split that the yaml names."""
    entries: dict[str, tuple[Path, ...]] = {}
    named = {key: split for key in values if (split := split_from_name(key)) and values[key] not in (None, "", [])}
    for key, split in named.items():
        given = values[key] if isinstance(values[key], list) else [values[key]]
        here, line = findings.at(split=split), document.lines.get((key,))
        found: list[Path] = []
        for item in given:
            places = _locate(item, split, [base, path.parent], here, line) if isinstance(item, str) else []
            found += places
            if places:
                continue
            text = f"{key} is {clip(item)}, but {str(base)!r} has no such folder or list"
            text += f". {ESCAPES}" * (isinstance(item, str) and not item.isprintable())
            if split == "test":
                here.warn("missing splits", f"{text}; the test split is skipped", line)
            else:
                here.error("missing splits", text, line)
        if found or split != "test":
            entries[split] = (*entries.get(split, ()), *found)
    if entries and not any(entries.values()):
        told = "".join(f"\n  {key}: {clip(values[key])}" for key in named)
        hint = f" {ESCAPES}" * any(isinstance(values[key], str) and not values[key].isprintable() for key in named)
        raise DataError(
            f"{str(path)!r} lists folders or files that do not exist:{told}\nPaths are relative to {str(base)!r}. "
            f"Correct the paths in the yaml, or its 'path'.{hint}"
        )
    return entries


def _locate(text: str, split: str, bases: list[Path], findings: Findings, line: int | None) -> list[Path]:
    """Return what a path or a pattern of the yaml leads to, or the end of the path."""
    written = PurePosixPath(text.strip().replace("\\", "/"))
    folders = list(dict.fromkeys(bases))
    for base in folders:
        if found := _find(base / written) or _expand(str(written), base):
            return found
    parts = [part for part in written.parts if part not in ("..", "/")]
    for start in range(len(parts)):
        end = PurePosixPath(*parts[start:])
        if len(end.parts) == 1 and split_from_name(end.stem) != split:
            return []  # 'images' alone would be all of them
        for base in folders:
            if found := _find(base / end):
                if start or written.is_absolute():
                    text = f"{clip(str(written))} does not exist; {clip(end.as_posix())} is used"
                    findings.warn("paths that do not exist", text, line)
                return found
    return []


def _find(path: Path) -> list[Path]:
    """Return a path if it is there, with its letters as they are; else nothing."""
    if os.path.exists(path):
        return [path]
    any_case = AnyCase()
    found = any_case.find_folder(path) or any_case.find_file(path)
    return [found] if found else []


def _expand(pattern: str, base: Path) -> list[Path]:
    """Return the folders and files that fit a pattern such as `images/*/train`."""
    if not glob.has_magic(pattern) or not pattern.isprintable():
        return []
    return [base / name for name in sorted(glob.glob(pattern, root_dir=base, recursive=True), key=natural_key)]
