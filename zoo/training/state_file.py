"""The file of an unfinished run, `state.pt`: what `torch.save` writes, with its own SHA-256 as the comment of the zip.

So the digest comes and goes with what it is of, also when the writer is killed. It is checked before anything is
unpacked, and nothing is unpacked that is compressed: what is read takes no more memory than the file has bytes.
"""

import hashlib
import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zoo.errors import InputError
from zoo.files import open_regular, write_file

VERSION = 2  # of what is in it; to be raised when a key changes its meaning
_MARK = b"sha256:"
_DIGITS = 64
_BLOCK_BYTES = 1 << 20


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values in one step.

    Raises:
        StorageError: The file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save({"version": VERSION, **state}, buffer)
    buffer.seek(-2, os.SEEK_END)  # the length of the comment, which ends a zip file without one
    buffer.write((len(_MARK) + _DIGITS).to_bytes(2, "little") + _MARK)
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
    buffer.write(digest.encode())
    write_file(path, buffer.getbuffer())


def read_state(path: Path) -> dict[str, Any]:
    """Read what `write_state` wrote, to the CPU and as data only.

    Args:
        path: The file.

    Raises:
        InputError: It is damaged, of another version of this package, or something else.
    """
    try:
        _check_bytes(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except InputError as error:
        raise InputError(f"{path} cannot be used: {error}. {_WAY_OUT}") from error
    except Exception as error:  # a damaged zip or pickle ends in any of a dozen
        what = f"it is damaged, or contains more than tensors and plain values ({type(error).__name__})"
        raise InputError(f"{path} cannot be used: {what}. {_WAY_OUT}") from error
    if not isinstance(state, dict) or type(state.get("version")) is not int:
        raise InputError(f"{path} cannot be used: it is not the saved state of a run. {_WAY_OUT}")
    if state["version"] != VERSION:
        raise InputError(
            f"{path} has format version {state['version']}; this zoo reads version {VERSION}. Resume the run with "
            "the zoo version that started it (see environment.json), or start a new run."
        )
    return state


_WAY_OUT = "The run cannot be resumed from it: restore a copy of the file, or start a new run."


def _check_bytes(path: Path) -> None:
    """Raise if a file is not as it was written."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - len(_MARK) - _DIGITS))
        mark, digits = file.read(len(_MARK)), file.read(_DIGITS)
        if mark != _MARK:
            raise InputError("it has no checksum: it is damaged, was modified, or comes from an earlier zoo version")
        file.seek(0)
        digest, left = hashlib.sha256(), size - _DIGITS
        while left and (block := file.read(min(left, _BLOCK_BYTES))):
            digest.update(block)
            left -= len(block)
    if digest.hexdigest().encode() != digits:
        raise InputError("it is damaged: its checksum does not match")
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise InputError("it is compressed; a saved run state never is")
