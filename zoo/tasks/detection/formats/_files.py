"""What the readers of annotated folders share: files in natural order, texts of bounded length, names of splits."""

import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from zoo.data import NOT_DATA, SPLIT_NAMES
from zoo.errors import DataError, InputError
from zoo.files import open_regular, read_regular
from zoo.tasks.detection.annotations import Finding, Key

SPLITS: tuple[str, ...] = ("train", "val", "test", "all")
_SUFFIXES = "jpg jpeg jpe jfif mpo png bmp webp gif tif tiff ppm pgm pbm pnm jp2 j2k avif heic heif"
IMAGE_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())  # what cannot be decoded here says so later


@dataclass(frozen=True)
class ImageFiles:
    """Reads images that are files.

    Attributes:
        paths: Absolute ones.
    """

    paths: tuple[str, ...]

    def __call__(self, position: int, /) -> str:
        """Return the path of a file."""
        return self.paths[position]


@dataclass(frozen=True)
class Findings:
    """Collects what is found while reading, about one place after the other.

    Attributes:
        found: In the order of the calls, of all places.
        split: Of which split the next ones are; empty if of none.
        file: In which file they are.
    """

    found: list[Finding] = field(default_factory=list)
    split: str = ""
    file: str = ""

    def at(self, *, split: str | None = None, file: str | None = None) -> "Findings":
        """Return one for another place that adds to the same list; what is None stays."""
        return replace(self, split=self.split if split is None else split, file=self.file if file is None else file)

    def error(self, kind: str, text: str, line: int | None = None) -> None:
        """Add something by which data would be lost."""
        self.found.append(Finding(kind, "error", self.split, self.file, line, text))

    def warn(self, kind: str, text: str, line: int | None = None) -> None:
        """Add something that is repaired or left out."""
        self.found.append(Finding(kind, "warning", self.split, self.file, line, text))

    def note(self, kind: str, text: str, line: int | None = None) -> None:
        """Add something that is only worth knowing."""
        self.found.append(Finding(kind, "note", self.split, self.file, line, text))

    def count_errors(self, since: int) -> int:
        """Return how many errors were added since the list had this length: what `Annotated.lost` counts."""
        return sum(finding.level == "error" for finding in self.found[since:])

    def hide(self, since: int) -> None:
        """Take the texts out of what was added since the list had this length: they quote a file of somebody else."""
        text = "its text is not shown because the file is outside the data folder"
        self.found[since:] = [replace(finding, text=text) for finding in self.found[since:]]


def split_from_name(name: str) -> str | None:
    """Return the split that a file or folder is named after, also with a year, as `train2017`; None if after none."""
    return SPLIT_NAMES.get(re.sub(r"[-_ ]?[0-9]{4}$", "", name).casefold())


def list_files(folder: Path, suffixes: Collection[str]) -> list[str]:
    """Return the names of the files in a folder that end so, in natural order; hidden ones are passed over.

    Args:
        folder: If there is none, there are no files.
        suffixes: In lower case, with their dots.

    Raises:
        DataError: If the folder cannot be listed.
    """
    named = [entry for entry in _list(folder) if os.path.splitext(entry.name)[1].lower() in suffixes]
    return sorted((entry.name for entry in named if not _is_folder(entry)), key=natural_key)


def list_folders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, in natural order."""
    return sorted((entry.name for entry in _list(folder) if _is_folder(entry)), key=natural_key)


def walk_files(
    folder: Path, suffixes: Collection[str], *, enters: Callable[[str], bool] = lambda _: True
) -> Iterator[Path]:
    """Yield the files in a folder and its folders that end so, in natural order; links in circles are not followed.

    Args:
        folder: If there is none, there are no files.
        suffixes: In lower case, with their dots.
        enters: Tells by its name whether a folder is looked into.
    """
    waiting: list[tuple[Path, frozenset[tuple[int, int]]]] = [(folder, frozenset())] if folder.is_dir() else []
    while waiting:
        folder, above = waiting.pop()
        place = folder.stat()
        identity = place.st_dev, place.st_ino
        if identity in above:
            continue
        yield from (folder / name for name in list_files(folder, suffixes))
        waiting += [(folder / name, above | {identity}) for name in reversed(list_folders(folder)) if enters(name)]


def natural_key(name: str) -> tuple[list[int | str], str]:
    """Return what sorts `img2` before `img10`; names that are equal but for case in an order of their own."""
    parts = re.split(r"([0-9]{1,18})", name.casefold())  # int() refuses thousands of digits
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def find_folder(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the folder in a folder that has one of these names, written large or small; the first name that is there.

    Args:
        folder: Where to look.
        names: In lower case.
    """
    there = {name.casefold(): name for name in reversed(list_folders(folder))}
    return next((folder / there[name] for name in names if name in there), None)


def read_limited(path: Path, max_bytes: int) -> bytes:
    """Read a file.

    Raises:
        InputError: If it cannot be read, is no file or is longer than `max_bytes`; the text goes after its name.
    """
    with _told():
        return read_regular(path, max_bytes=max_bytes)


def read_ends(path: Path, size: int) -> tuple[bytes, bytes]:
    """Read so many bytes at the beginning and at the end of a file; together they are all of a short one, or more.

    Raises:
        InputError: If it cannot be read, or is no file; the text goes after its name.
    """
    with _told(), open_regular(path) as file:
        head = file.read(size)
        file.seek(max(0, os.fstat(file.fileno()).st_size - size))
        return head, file.read(size)


def read_text(path: Path, max_bytes: int) -> str:
    """Read a UTF-8 file, with or without a mark at its beginning.

    Raises:
        InputError: As `read_limited`, or if it is not UTF-8.
    """
    data = read_limited(path, max_bytes)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"it is not UTF-8 text (line {line:,}). Save it as UTF-8") from error


def parse_number(text: str) -> float | None:
    """Return a finite number in usual digits; None for anything else."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and text.isascii() and "_" not in text else None


def escapes_folder(name: str) -> bool:
    """Tell whether a relative path would leave its folder, or is none."""
    return PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or name[1:3] in (":/", ":\\")


def show_path(path: str | Path, root: Path) -> str:
    """Return a path as people see it: below the root if it is there, in printable characters."""
    whole = Path(path)
    text = whole.relative_to(root).as_posix() if whole.is_relative_to(root) else str(whole)
    return text if text.isprintable() else ascii(text)[1:-1]


def clip(text: object, longest: int = 60) -> str:
    """Return what somebody has written, quoted, in one line and cut if it is long."""
    shown = repr(text)
    return shown if len(shown) <= longest else f"{shown[: longest - 3]}..."


def count(number: int, one: str, many: str = "") -> str:
    """Return `1 box`, `1,234 boxes`."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def deduplicate_class_names(names: Mapping[Key, str], findings: Findings) -> dict[Key, str]:
    """Return names of classes that all differ: of those that are alike, all but the first have their keys added.

    Half characters, which no file could be written with, are escaped. Names that are almost alike are told.
    """
    settled: dict[Key, str] = {}
    taken: dict[str, Key] = {}
    plain: dict[str, str] = {}
    for key, given in names.items():
        name = given.encode("utf-8", "backslashreplace").decode()
        if name in taken:
            longer = f"{name} ({key})"
            while longer in taken:
                longer += "'"
            text = f"{taken[name]} and {key} are both called {clip(name)}; {key} becomes the class {clip(longer)}"
            findings.warn("classes with the same name", text)
            name = longer
        other = plain.setdefault(re.sub(r"[-_ ]", "", name.casefold()), name)
        if other != name:
            text = f"{clip(other)} and {clip(name)} differ only by case or spaces; they are treated as two classes"
            findings.warn("classes with almost the same name", text)
        taken[name] = key
        settled[key] = name
    return settled


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except InputError:  # also where it is an OSError
        raise
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise InputError(f"it cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle: reading it will say so
        return False


def _list(folder: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.name[0] != "." and entry.name.casefold() not in NOT_DATA]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DataError(
            f"the folder {str(folder)!r} cannot be listed ({error.strerror}). Grant read permission, or move it "
            "elsewhere."
        ) from error
