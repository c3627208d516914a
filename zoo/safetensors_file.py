"""Safetensors files: what is in them, reading, and writing so that equal tensors give equal bytes.

A file is 8 bytes (length of the header, little endian), the header (JSON: name to dtype, shape and place), the data.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import WeightsError
from zoo.json_object import parse_object

if TYPE_CHECKING:
    from torch import Tensor

_MAX_HEADER_BYTES = 100_000_000  # the limit of the format's own reader
_WRONG_FILES = (
    (b"PK\x03\x04", "a zip file, as torch.save writes it (a pickle)"),
    (b"\x80", "a pickle"),
    (b"version https://git-lfs", "a Git LFS pointer: the file itself was not downloaded (git lfs pull)"),
    (b"<", "a web page or XML answer: the download went wrong"),
    (b"{", "JSON text"),
)


def read_tensors(path: str | os.PathLike[str]) -> "dict[str, Tensor]":
    """Read all tensors of a safetensors file to the CPU.

    Args:
        path: The file.

    Raises:
        WeightsError: It is cut short, damaged or something else; the text names the usual mistakes.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _read_header(Path(path))
    try:
        return load_file(path)
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{path} is not a sound safetensors file: {error}. Get it anew.") from error


def read_shapes(path: str | os.PathLike[str]) -> dict[str, tuple[int, ...]]:
    """Read the names and shapes of a safetensors file from its header alone.

    Raises:
        WeightsError: As `read_tensors`.
    """
    return _read_header(Path(path))


def save_tensors(tensors: "Mapping[str, Tensor]", path: str | os.PathLike[str], metadata: Mapping[str, str]) -> str:
    """Write a safetensors file in one step: another process sees the old file or the whole new one.

    Equal names, values and metadata give equal bytes.

    Args:
        tensors: Name to tensor, of any device and stride. Tensors that share memory are written once for each name.
        path: The file; its folder exists, a file that is there is replaced.
        metadata: Stored in the header, beside `format`, by which other readers know who wrote it.

    Returns:
        SHA-256 of the file, 64 hexadecimal digits.

    Raises:
        WeightsError: The file cannot be written.
    """
    from safetensors.torch import save

    blob = save(_unshare(tensors))
    data = memoryview(blob)[8 + int.from_bytes(blob[:8], "little") :]
    # The format's own writer puts metadata down in random order; a header of our own keeps the bytes reproducible.
    header = json.loads(blob[8 : len(blob) - len(data)])
    header = {"__metadata__": dict(sorted({"format": "pt", **metadata}.items())), **header}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begins at a multiple of 8 bytes
    path = Path(path)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with draft.open("xb") as file:
            file.writelines([len(text).to_bytes(8, "little"), text, data])
            file.flush()
            os.fsync(file.fileno())
        digest = sha256_file(draft)
        draft.replace(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        draft.unlink(missing_ok=True)
    return digest


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unshare(tensors: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Return the tensors contiguous, on the CPU, and each with memory of its own."""
    seen: set[int] = set()
    alone = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        memory = tensor.untyped_storage().data_ptr()
        alone[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return alone


def _read_header(path: Path) -> dict[str, tuple[int, ...]]:
    """Return name to shape, having compared the header with the size of the file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            starts_well = length <= _MAX_HEADER_BYTES and file.read(1) == b"{"
            file.seek(8)
            header = file.read(length) if starts_well else b""
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not starts_well:
        raise WeightsError(f"{path} is {_name_wrong_file(path, size)}; expected a safetensors file.")
    if len(header) < length:
        raise WeightsError(f"{path} is cut short: {size:,} bytes end within its header. Get it anew.")
    try:
        entries = parse_object(header)
        entries.pop("__metadata__", None)
        expected = 8 + length + max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
        shapes = {name: tuple(map(int, entry["shape"])) for name, entry in entries.items()}
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise WeightsError(f"{path} has a damaged safetensors header ({error}). Get it anew.") from error
    if size < expected:
        raise WeightsError(f"{path} is cut short: {size:,} of {expected:,} bytes are there. Get it anew.")
    return shapes


def _name_wrong_file(path: Path, size: int) -> str:
    """Say what a file that is not safetensors seems to be."""
    if not size:
        return "empty"
    with path.open("rb") as file:
        start = file.read(64).lstrip()
    return next((what for magic, what in _WRONG_FILES if start.startswith(magic)), "something else")
