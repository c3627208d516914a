"""Files that anybody may have put there: only regular ones are opened, and none asks for more memory than it has."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from zoo.errors import InputError, StorageError

_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # opening a pipe would wait for ever
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


class NotRegularError(InputError, StorageError):
    """There is a folder, a pipe or a device, or a link where none may be; the text goes after its name."""


@contextmanager
def open_regular(path: str | os.PathLike[str]) -> Iterator[BufferedReader]:
    """Open a file to read its bytes.

    Raises:
        NotRegularError: It is a folder, a pipe or a device.
        OSError: It cannot be opened.
    """
    with _open(path, _READ | _NO_WAIT) as file:
        yield file


@contextmanager
def open_inside(folder: str | os.PathLike[str], name: str) -> Iterator[BufferedReader]:
    """Open a file of a folder that somebody else may have made, to read its bytes; no link in it is followed.

    Args:
        folder: The folder itself may be a link.
        name: Path of the file in it, with forward slashes.

    Raises:
        NotRegularError: It is a link, a folder, a pipe or a device, or a folder on the way to it is a link.
        OSError: It cannot be opened.
    """
    path = Path(folder, name)
    if path.resolve() != Path(folder).resolve() / name:
        raise NotRegularError("it is a symbolic link or inside a linked folder; expected a regular file")
    with _open(path, _READ | _NO_WAIT | _NO_LINK) as file:
        yield file


@contextmanager
def _open(path: str | os.PathLike[str], flags: int) -> Iterator[BufferedReader]:
    """Ask what was opened, not what stood under the name before."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # a device is not even opened: that may do something
        raise NotRegularError("it is not a regular file")
    with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise NotRegularError("it is not a regular file")
        yield file


def read_regular(path: str | os.PathLike[str], *, max_bytes: int) -> bytes:
    """Read a file.

    Asking for its size first keeps the memory at what the file has; `read(max_bytes + 1)` would ask for all of that.

    Raises:
        InputError: As `open_regular`, or it is too long for `max_bytes` or the memory; the text goes after its name.
        OSError: It cannot be read.
    """
    with open_regular(path) as file:
        return read_bounded(file, max_bytes)


def read_bounded(file: BufferedReader, max_bytes: int) -> bytes:
    """Read what is left of an open file.

    Raises:
        InputError: It is too long for `max_bytes` or the memory; the text goes after its name.
    """
    size = os.fstat(file.fileno()).st_size
    try:
        data = b"" if size > max_bytes else file.read()
    except MemoryError as error:
        raise InputError(f"it has {size:,} bytes, too large for the available memory") from error
    if max(size, len(data)) > max_bytes:
        raise InputError(f"it is longer than {max_bytes:,} bytes")
    return data
