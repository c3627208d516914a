"""The `*.data` file of darknet, which CVAT writes as `obj.data`: where the lists and the names of the classes are."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from zoo.errors import DataError, InputError
from zoo.files import AnyCase
from zoo.tasks.detection.formats._files import Findings, clip, list_files, read_text, show_path, split_from_name
from zoo.tasks.detection.formats._split_lists import SplitList

DATA = frozenset({".data"})
MAX_BYTES = 1_000_000


class DarknetData(NamedTuple):
    """What a data file says.

    Attributes:
        lists: Of the splits; also those that are not there, so that reading them says so.
        names: The file with the names of the classes; None if there is none.
    """

    lists: list[SplitList]
    names: Path | None


def find_darknet_data(top: Path, any_case: AnyCase, findings: Findings) -> DarknetData | None:
    """Read the data file of a folder; None if there is none that names a list.

    Raises:
        DataError: If several name lists.
    """
    files = [folder / name for folder in (top, top / "data") for name in list_files(folder, DATA)]
    read = {path: values for path in files if "train" in (values := _read_values(path)) or "val" in values}
    if len(read) > 1:
        names = " and ".join(repr(show_path(path, top)) for path in list(read)[:4])
        raise DataError(f"{str(top)!r} holds {names}, and either could describe the data. Move all but one elsewhere.")
    return next((_locate(path, values, top, any_case, findings) for path, values in read.items()), None)


def _read_values(path: Path) -> dict[str, str]:
    """Return the values by key, the splits by their usual names; nothing if the file cannot be read."""
    try:
        lines = read_text(path, MAX_BYTES).splitlines()
    except InputError:
        return {}
    pairs = (line.partition("=") for line in lines if not line.lstrip().startswith("#"))
    values: dict[str, str] = {}
    for key, _, value in pairs:
        name = key.strip().casefold()
        if value.strip():
            values.setdefault(split_from_name(name) or name, value.strip())
    return values


def _locate(path: Path, values: Mapping[str, str], top: Path, any_case: AnyCase, findings: Findings) -> DarknetData:
    lists: list[SplitList] = []
    for split in ("train", "val", "test"):
        if split in values:
            lists.append(SplitList(_find(values[split], path, top, any_case) or path.parent / values[split], split))
    names = _find(values["names"], path, top, any_case) if "names" in values else None
    if "names" in values and names is None:
        text = f"names is {clip(values['names'])}, which does not exist"
        findings.at(file=show_path(path, top)).warn("paths that do not exist", text)
    return DarknetData(lists, names)


def _find(text: str, path: Path, top: Path, any_case: AnyCase) -> Path | None:
    """Return the file that a path leads to, or the longest end of it, from the data file's folder or the data's."""
    written = PurePosixPath(text.replace("\\", "/"))
    for end in _list_ends(written):
        for folder in dict.fromkeys((path.parent, top)):
            if found := any_case.find_file(folder / end):
                return found
    return None


def _list_ends(written: PurePosixPath) -> Iterator[PurePosixPath]:
    yield written
    parts = [part for part in written.parts if part not in ("/", "..")]
    yield from (PurePosixPath(*parts[start:]) for start in range(len(parts)))
