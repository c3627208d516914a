"""Which format a folder with boxes has; two in one folder are an error, for nobody can know which one is meant."""

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

from zoo.errors import DataError
from zoo.files import to_path
from zoo.tasks.detection.annotations import BoxSource, Finding
from zoo.tasks.detection.formats._files import clip
from zoo.tasks.detection.formats.coco import EXPECTED as COCO
from zoo.tasks.detection.formats.coco import read_coco
from zoo.tasks.detection.formats.coco.files import explain_files
from zoo.tasks.detection.formats.voc import EXPECTED as VOC
from zoo.tasks.detection.formats.voc import read_voc
from zoo.tasks.detection.formats.yolo import EXPECTED as YOLO
from zoo.tasks.detection.formats.yolo import read_yolo

READERS = {"COCO": read_coco, "YOLO": read_yolo, "Pascal VOC": read_voc}
EXPECTED = (COCO, YOLO, VOC)
MOST_EXPLAINED = 5  # json files that are none of COCO
ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"}


class NoBoxesError(DataError):
    """A folder has no boxes in any format that is read."""


def read_box_folder(path: str | os.PathLike[str]) -> BoxSource:
    """Tell the format of a folder, and read all that is written of its boxes.

    Args:
        path: The folder, or its json or yaml file.

    Raises:
        DataError: If it has none of the known formats, or two, or what is there cannot be read; the text says what was
            looked for and what is there.
    """
    if not os.fspath(path):
        raise DataError("the path of the data is empty; expected a folder of pictures with boxes.")
    root = to_path(path).absolute()
    if not root.exists():
        hint = " It is a link to nothing." if root.is_symlink() else ""
        if not to_path(path).is_absolute():
            hint += f" Looked in {Path.cwd()}."
        raise DataError(f"there is no folder {str(root)!r}.{hint} Expected {_list_expected()}")
    found: dict[str, BoxSource] = {}
    failed: dict[str, DataError] = {}
    for form, read in READERS.items():
        try:
            source = read(root)
        except DataError as error:
            failed[form] = error
            continue
        if source:
            found[form] = source
    marked = {form: source for form, source in found.items() if not _is_bare(source)} or found
    if len(marked) + len(failed) > 1:
        raise DataError(_tell_rivals(root, marked, failed))
    for problem in failed.values():
        raise problem
    for form, source in marked.items():
        return source if form == "COCO" else _tell_jsons(source, root)
    raise NoBoxesError(
        f"no boxes were found in {str(root)!r}. Expected {_list_expected()}\n{_say_what_is_there(root)}"
        + "".join(f"\n{clip(passed.file)}: {passed.why}." for passed in explain_files(root)[:MOST_EXPLAINED])
    )


def _is_bare(source: BoxSource) -> bool:
    """Tell whether there are no labels but only a yaml, as some keep one beside COCO: that is no second format."""
    errors = {finding.kind for finding in source.findings if finding.level == "error"}
    return source.form == "YOLO" and not _find_file(source) and errors <= {"splits without labels"}


def _find_file(source: BoxSource) -> str:
    """Return the first file with annotations; nothing if no image has one."""
    return next((image.file for split in source.splits.values() for image in split.images if image.file), "")


def _tell_rivals(root: Path, found: dict[str, BoxSource], failed: dict[str, DataError]) -> str:
    places = [f"{form} ({_find_file(source) or 'of which no image can be used'})" for form, source in found.items()]
    places += [f"{form}, which cannot be read ({str(error).splitlines()[0]})" for form, error in failed.items()]
    return (
        f"{str(root)!r} has boxes in {len(places)} formats: {' and '.join(places)}. Pass the path of the one that you "
        "mean, the json or the folder annotations/ of COCO, the data.yaml of YOLO; or move the others away."
    )


def _tell_jsons(source: BoxSource, root: Path) -> BoxSource:
    """Add a note for each json that could be meant as COCO and is not read."""
    notes = [
        Finding("json files that are not read", "note", "", passed.file, None, passed.why)
        for passed in explain_files(root)
        if passed.is_unsure
    ]
    return replace(source, findings=(*source.findings, *notes))


def _list_expected() -> str:
    return "one of:" + "".join(f"\n  {line}" for line in EXPECTED)


def _say_what_is_there(root: Path) -> str:
    """Name what lies in a folder: its folders, and its files by ending."""
    if root.is_file():
        if root.suffix.lower() in ARCHIVES:
            return "It is an archive: unpack it and pass the folder."
        return f"It is a file {root.suffix!r}."
    try:
        entries = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        return f"The folder cannot be listed ({error.strerror})."
    folders = [clip(entry.name) for entry in entries if entry.is_dir()]
    endings = Counter(entry.suffix.lower() or "without ending" for entry in entries if not entry.is_dir())
    parts = [
        f"{count:,} files {ending}" if count > 1 else f"1 file {ending}" for ending, count in endings.most_common(8)
    ]
    if folders:
        shown = ", ".join(folders[:8]) + (", ..." if len(folders) > 8 else "")
        parts.insert(0, f"the folder{'s' * (len(folders) > 1)} {shown}")
    return f"It holds {', '.join(parts)}." if parts else "It is empty."
