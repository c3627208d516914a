"""Files that anybody may have put there: only regular ones are opened, and none asks for more memory than it has."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from zoo.errors import InputError


@contextmanager
def open_regular(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file to read its bytes.

    Raises:
        InputError: It is a folder, a pipe or a device; the text goes after its name.
        OSError: It cannot be opened.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
        raise InputError("it is not a regular file")
    with open(path, "rb") as file:
        yield file


def read_regular(path: str | os.PathLike[str], *, max_bytes: int) -> bytes:
    """Read a file.

    Asking for its size first keeps the memory at what the file has; `read(max_bytes + 1)` would ask for all of that.

    Raises:
        InputError: As `open_regular`, or it is too long for `max_bytes` or the memory; the text goes after its name.
        OSError: It cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            data = b"" if size > max_bytes else file.read()
        except MemoryError as error:
            raise InputError(f"it has {size:,} bytes, which do not fit into the memory") from error
    if max(size, len(data)) > max_bytes:
        raise InputError(f"it is longer than {max_bytes:,} bytes")
    return data
