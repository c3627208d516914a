"""Which format a folder with boxes has; two in one folder are an error, for nobody can know which one is meant.

The formats are the modules and folders beside this file, see `BoxFormat`.
"""

import functools
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

from zoo.errors import DataError
from zoo.files import import_modules, to_path
from zoo.tasks.detection import formats
from zoo.tasks.detection.annotations import BoxSource, Finding
from zoo.tasks.detection.formats._files import clip
from zoo.tasks.detection.formats._format import BoxFormat, LookAlike

MOST_EXPLAINED = 5  # files that look like annotations and are not read
ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"}


class NoBoxesError(DataError):
    """A folder has no boxes in any format that is read."""


@functools.cache
def list_formats() -> tuple[BoxFormat, ...]:
    """Return the formats in the order in which messages name them."""
    found: list[BoxFormat] = [module.FORMAT for module in import_modules(formats)]
    return tuple(sorted(found, key=lambda known: known.order))


def read_box_folder(path: str | os.PathLike[str]) -> BoxSource:
    """Tell the format of a folder, and read all that is written of its boxes.

    Args:
        path: The folder, or its json or yaml file.

    Raises:
        DataError: If it has none of the known formats, or two, or what is there cannot be read; the text says what was
            looked for and what is there.
    """
    if not os.fspath(path):
        raise DataError("the path of the data is empty; expected a folder of images with boxes.")
    root = to_path(path).absolute()
    if not root.exists():
        hint = " It is a broken symbolic link." if root.is_symlink() else ""
        if not to_path(path).is_absolute():
            hint += f" Current folder: {Path.cwd()}."
        raise DataError(f"there is no folder {str(root)!r}.{hint} Expected {_list_expected()}")
    found: dict[str, BoxSource] = {}
    failed: dict[str, DataError] = {}
    for known in list_formats():
        try:
            source = known.read(root)
        except DataError as error:
            failed[known.name] = error
            continue
        if source:
            found[known.name] = source
    marked = {name: source for name, source in found.items() if not source.is_bare} or found
    if len(marked) + len(failed) > 1:
        raise DataError(_tell_rivals(root, marked, failed))
    for problem in failed.values():
        raise problem
    for source in marked.values():
        return _tell_look_alikes(source, root)
    raise NoBoxesError(
        f"found no box annotations in {str(root)!r}. Expected {_list_expected()}\n{_say_what_is_there(root)}"
        + "".join(f"\n{clip(passed.file)}: {passed.why}." for passed in _find_look_alikes(root)[:MOST_EXPLAINED])
    )


def _tell_rivals(root: Path, found: dict[str, BoxSource], failed: dict[str, DataError]) -> str:
    places = [f"{name} ({source.find_file() or 'without a usable image'})" for name, source in found.items()]
    places += [f"{name}, which cannot be read ({str(error).splitlines()[0]})" for name, error in failed.items()]
    paths = "".join(f", {known.path}" for known in list_formats() if known.path)
    return (
        f"{str(root)!r} has boxes in {len(places)} formats: {' and '.join(places)}. Pass the path of the one to "
        f"use{paths}; or move the others elsewhere."
    )


def _tell_look_alikes(source: BoxSource, root: Path) -> BoxSource:
    """Add a note for each file that could be meant as one of another format and is not read."""
    notes = [
        Finding(passed.kind, "note", "", passed.file, None, passed.why)
        for passed in _find_look_alikes(root, but=source.form)
        if passed.is_unsure
    ]
    return replace(source, findings=(*source.findings, *notes))


def _find_look_alikes(root: Path, but: str = "") -> list[LookAlike]:
    return [passed for known in list_formats() if known.name != but for passed in known.find_look_alikes(root)]


def _list_expected() -> str:
    return "one of:" + "".join(f"\n  {known.name}: {known.expected}" for known in list_formats())


def _say_what_is_there(root: Path) -> str:
    """Name what lies in a folder: its folders, and its files by ending."""
    if root.is_file():
        if root.suffix.lower() in ARCHIVES:
            return "It is an archive: extract it and pass the folder."
        return f"It is a {root.suffix} file."
    try:
        entries = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        return f"The folder cannot be listed ({error.strerror})."
    folders = [clip(entry.name) for entry in entries if entry.is_dir()]
    endings = Counter(entry.suffix.lower() or "without a suffix" for entry in entries if not entry.is_dir())
    parts = [
        f"{count:,} files {ending}" if count > 1 else f"1 file {ending}" for ending, count in endings.most_common(8)
    ]
    if folders:
        shown = ", ".join(folders[:8]) + (", ..." if len(folders) > 8 else "")
        parts.insert(0, f"the folder{'s' * (len(folders) > 1)} {shown}")
    return f"It contains {', '.join(parts)}." if parts else "It is empty."
