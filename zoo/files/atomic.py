"""Writes files whole or not at all: another process, or a power cut, leaves the old file or the new one.

The bytes go to a draft beside the file and are synced; then the draft is renamed and the folder synced. The mode
follows the umask, as for any file. A killed writer leaves its draft behind; `sweep_drafts` removes it.
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from zoo.errors import StorageError, ZooError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DRAFT = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


def write_file(path: str | os.PathLike[str], content: str | bytes | memoryview) -> None:
    """Write a file in one step.

    Args:
        path: The file; its folder exists, a file that is there is replaced.
        content: Its bytes, or its text, which becomes UTF-8.

    Raises:
        StorageError: It cannot be written; what was there before is still there.
    """
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    with open_whole(path, needed=memoryview(data).nbytes) as file:
        file.write(data)


@contextmanager
def open_whole(path: str | os.PathLike[str], *, needed: int | None = None) -> Iterator[BinaryIO]:
    """Yield a binary file that takes the place of `path` when the block ends without an error.

    Args:
        path: The file; its folder exists, a file that is there is replaced.
        needed: Bytes that will be written, for the text of an error; None: not known.

    Raises:
        StorageError: An `OSError` came up, here or in the block; what was there before is still there.
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with draft.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
        _sync_folder(path.parent)
    except ZooError:
        raise
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {describe_os_error(error, path, needed)}.") from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Make a folder and those above it; one that is there is left as it is.

    Raises:
        StorageError: It cannot be made, or is a file.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        is_file = path.exists() and not path.is_dir()
        reason = "it is a file" if is_file else describe_os_error(error, path)
        raise StorageError(f"cannot create the folder {path}: {reason}. Choose another.") from error
    return path


def sweep_drafts(folder: str | os.PathLike[str], *, older_than: float | None = None) -> None:
    """Remove the drafts that killed writers left in a folder.

    Args:
        folder: Need not exist.
        older_than: Seconds for which a draft was not written to; None: the caller knows that nobody writes there now.
    """
    with contextlib.suppress(OSError):
        for path in Path(folder).iterdir():
            if is_draft(path.name):
                with contextlib.suppress(OSError):
                    if older_than is None or time.time() - path.stat().st_mtime > older_than:
                        path.unlink()


def is_draft(name: str) -> bool:
    """Whether a file of this name is what a writer had not finished."""
    return _DRAFT.fullmatch(name) is not None


def describe_os_error(error: OSError, path: Path, needed: int | None = None) -> str:
    """Return the reason of the system, with the bytes that are free, and needed, where a disk or quota is full."""
    reason = error.strerror or str(error)
    if error.errno not in _FULL:
        return reason
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(path.parent).free
        sizes = [f"{free / 1e6:,.1f} MB are free"] + ([f"{needed / 1e6:,.1f} MB are needed"] if needed else [])
        return f"{reason} ({', '.join(reversed(sizes))})"
    return reason


def _sync_folder(folder: Path) -> None:
    """Make a rename last; file systems that cannot sync a folder are left alone."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
