"""The SHA-256 of files, in a file `SHA256SUMS` beside them: written with a model, checked wherever it is read.

The file has the form of the program `sha256sum`, so that `sha256sum -c SHA256SUMS` checks a folder, too. What is read
is not trusted: a line in another form, or for a file that is not there, tells nothing.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from zoo.errors import StorageError, WeightsContentError
from zoo.files.atomic import write_file
from zoo.files.cache import digest_file

SUMS = "SHA256SUMS"
_LINE = re.compile(r"(?P<sha256>[0-9a-f]{64}) [ *](?P<name>[^/\\]+)")
_MOST_BYTES = 1_000_000


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """Write down the SHA-256 of files of a folder.

    Raises:
        StorageError: A file cannot be read, or this one cannot be written.
    """
    write_file(folder / SUMS, "".join(f"{_digest(folder / name)}  {name}\n" for name in sorted(names)))


def drop_checksums(folder: Path) -> None:
    """Forget them, before files of the folder are written anew."""
    (folder / SUMS).unlink(missing_ok=True)


def check_checksum(path: str | os.PathLike[str]) -> None:
    """Compare a file with what is written down beside it, if anything is.

    Raises:
        WeightsContentError: The file is another one.
        StorageError: It cannot be read.
    """
    path = Path(path)
    expected = _read(path.with_name(SUMS)).get(path.name)
    if expected is None or not path.is_file():
        return
    found = _digest(path)
    if found != expected:
        raise WeightsContentError(
            f"{path} does not match its checksum: its SHA-256 starts with {found[:12]}, but {SUMS} lists "
            f"{expected[:12]}. It is damaged or was modified. Restore the original; if the change is intended, "
            f"delete the line of {path.name} in {SUMS}."
        )


def _digest(path: Path) -> str:
    try:
        return digest_file(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}.") from error


def _read(path: Path) -> dict[str, str]:
    """Return the digests by name of file."""
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES).decode("utf8", "replace")
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}.") from error
    found = (_LINE.fullmatch(line) for line in text.splitlines())
    return {match["name"]: match["sha256"] for match in found if match}
