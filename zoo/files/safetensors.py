"""Safetensors files: what is in them, reading, and writing so that equal tensors give equal bytes.

A file is 8 bytes (length of the header, little endian), the header (JSON: name to dtype, shape and place), the data.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zoo.errors import StorageError, WeightsContentError, WeightsStorageError
from zoo.files.atomic import open_whole
from zoo.files.json import parse_object
from zoo.files.regular_file import open_regular

if TYPE_CHECKING:
    from torch import Tensor, dtype

_MAX_HEADER_BYTES = 100_000_000  # the limit of the format's own reader
_LEAST_PART_BYTES = 1 << 24  # smaller parts would cost more time than they save memory
_PARTS = 8  # of a file, of which one at a time is in memory
_TYPES = {  # of the format: what torch calls them, and bytes per value
    "BOOL": ("bool", 1), "U8": ("uint8", 1), "I8": ("int8", 1), "U16": ("uint16", 2), "I16": ("int16", 2),
    "U32": ("uint32", 4), "I32": ("int32", 4), "U64": ("uint64", 8), "I64": ("int64", 8), "F16": ("float16", 2),
    "BF16": ("bfloat16", 2), "F32": ("float32", 4), "F64": ("float64", 8), "C64": ("complex64", 8),
    "F8_E4M3": ("float8_e4m3fn", 1), "F8_E5M2": ("float8_e5m2", 1), "F8_E8M0": ("float8_e8m0fnu", 1),
}  # fmt: skip
_WRONG_FILES = (
    (b"PK\x03\x04", "a zip file, as torch.save writes it (a pickle)"),
    (b"\x80", "a pickle"),
    (b"version https://git-lfs", "a Git LFS pointer: the file itself was not downloaded (git lfs pull)"),
    (b"<", "a web page or XML: the download failed"),
    (b"{", "JSON text"),
)


class Slot(NamedTuple):
    """What a header tells of a tensor: its shape, and its type in torch."""

    shape: tuple[int, ...]
    dtype: "dtype"


class _Entry(NamedTuple):
    """One tensor of a header; `start` and `stop` are bytes from the beginning of the data."""

    name: str
    code: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_tensors(path: str | os.PathLike[str]) -> "dict[str, Tensor]":
    """Read all tensors of a safetensors file to the CPU.

    Args:
        path: The file.

    Raises:
        WeightsContentError: It is cut short, damaged or an unknown format; the text names the usual mistakes.
        WeightsStorageError: It cannot be read.
    """
    return _read_some(Path(path), [entry.name for entry in _read_header(Path(path))])


def read_in_parts(path: str | os.PathLike[str]) -> "Iterator[dict[str, Tensor]]":
    """Read a safetensors file to the CPU, an eighth at a time, so that a model can be filled with little more memory.

    Args:
        path: The file.

    Yields:
        Some of its tensors by name, in the order of the file; a part must be let go before the next one is asked for.

    Raises:
        WeightsError: As `read_tensors`.
    """
    path = Path(path)
    entries = _read_header(path)
    limit = max(sum(entry.stop - entry.start for entry in entries) // _PARTS, _LEAST_PART_BYTES)
    names: list[str] = []
    size = 0
    for entry in entries:
        if names and size + entry.stop - entry.start > limit:
            yield _read_some(path, names)
            names, size = [], 0
        names.append(entry.name)
        size += entry.stop - entry.start
    if names:
        yield _read_some(path, names)


def read_slots(path: str | os.PathLike[str]) -> dict[str, Slot]:
    """Read the names, shapes and types of a safetensors file from its header alone.

    Raises:
        WeightsError: As `read_tensors`.
    """
    import torch

    return {entry.name: Slot(entry.shape, getattr(torch, _TYPES[entry.code][0])) for entry in _read_header(Path(path))}


def read_shapes(path: str | os.PathLike[str]) -> dict[str, tuple[int, ...]]:
    """Read the names and shapes of a safetensors file from its header alone.

    Raises:
        WeightsError: As `read_tensors`.
    """
    return {entry.name: entry.shape for entry in _read_header(Path(path))}


def save_tensors(tensors: "Mapping[str, Tensor]", path: str | os.PathLike[str], metadata: Mapping[str, str]) -> str:
    """Write a safetensors file in one step: another process sees the old file or the whole new one.

    Equal names, values and metadata give equal bytes.

    Args:
        tensors: Name to tensor, of any device and stride. Tensors that share memory are written once for each name.
        path: The file; its folder exists, a file that is there is replaced.
        metadata: CachedWeights in the header, beside `format`, by which other readers know who wrote it.

    Returns:
        SHA-256 of the file, 64 hexadecimal digits.

    Raises:
        WeightsStorageError: The file cannot be written.
    """
    from safetensors.torch import save

    blob = save(_unshare(tensors))
    data = memoryview(blob)[8 + int.from_bytes(blob[:8], "little") :]
    # The format's own writer puts metadata down in random order; a header of our own keeps the bytes reproducible.
    header = json.loads(blob[8 : len(blob) - len(data)])
    header = {"__metadata__": dict(sorted({"format": "pt", **metadata}.items())), **header}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begins at a multiple of 8 bytes
    parts: list[bytes | memoryview] = [len(text).to_bytes(8, "little"), text, data]
    digest = hashlib.sha256()
    try:
        with open_whole(path, needed=sum(map(len, parts))) as file:
            for part in parts:
                file.write(part)
                digest.update(part)
    except StorageError as error:
        raise WeightsStorageError(str(error)) from error
    return digest.hexdigest()


def why_not_saved(value: object) -> str | None:
    """Return why a value of a state_dict cannot be written; None if it can."""
    import torch

    if not isinstance(value, torch.Tensor):
        return f"a {type(value).__name__}"
    if value.is_meta:
        return "a tensor on the meta device, which has no values"
    if value.layout is not torch.strided or value.is_quantized:
        return f"a {'quantized' if value.is_quantized else 'sparse'} tensor"
    name = str(value.dtype).removeprefix("torch.")
    return None if name in {kind for kind, _ in _TYPES.values()} else f"a tensor of type {name}"


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    with open_regular(path) as file:
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


def _read_some(path: Path, names: Sequence[str]) -> "dict[str, Tensor]":
    """Read tensors by name, with a reader of their own: it maps the file, and lets go of it with them."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise WeightsContentError(f"{path} is not a valid safetensors file: {error}. Download it again.") from error


def _read_header(path: Path) -> list[_Entry]:
    """Return the tensors in the order of their data, having held the header against itself and the size of the file."""
    try:
        size = path.stat().st_size
        with open_regular(path) as file:
            length = int.from_bytes(file.read(8), "little")
            starts_well = length <= _MAX_HEADER_BYTES and file.read(1) == b"{"
            file.seek(8)
            header = file.read(length) if starts_well else b""
    except OSError as error:
        raise WeightsStorageError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not starts_well:
        raise WeightsContentError(f"{path} is {_name_wrong_file(path, size)}; expected a safetensors file.")
    if len(header) < length:
        raise WeightsContentError(f"{path} is truncated: {size:,} bytes end within its header. Download it again.")
    try:
        raw = parse_object(header)
        raw.pop("__metadata__", None)
        entries = sorted((_parse_entry(name, facts) for name, facts in raw.items()), key=lambda entry: entry[3:])
        _check_places(entries)
    except ValueError as error:
        raise WeightsContentError(f"{path} has a damaged safetensors header ({error}). Download it again.") from error
    expected = 8 + length + (entries[-1].stop if entries else 0)
    if size < expected:
        raise WeightsContentError(f"{path} is truncated: {size:,} of {expected:,} bytes. Download it again.")
    if size > expected:
        raise WeightsContentError(
            f"{path} has {size - expected:,} extra bytes that belong to no tensor. Download it again."
        )
    return entries


def _parse_entry(name: str, facts: Any) -> _Entry:
    """Read what the header says of a tensor; a `ValueError` tells what is wrong with it."""
    if not isinstance(facts, dict):
        raise ValueError(f"tensor {name[:80]!r} is {facts!r:.40}; expected dtype, shape and data_offsets")
    code = facts.get("dtype")
    if not isinstance(code, str) or code not in _TYPES:
        raise ValueError(f"tensor {name[:80]!r} has type {code!r:.80}; expected one of {', '.join(_TYPES)}")
    shape, places = _parse_numbers(name, facts, "shape"), _parse_numbers(name, facts, "data_offsets")
    if len(places) != 2 or places[0] > places[1]:
        raise ValueError(f"data_offsets of {name[:80]!r} is {list(places)!r:.80}; expected [start, end]")
    return _Entry(name, code, shape, *places)


def _parse_numbers(name: str, facts: dict[str, Any], key: str) -> tuple[int, ...]:
    value = facts.get(key)
    if not isinstance(value, list) or not all(type(number) is int and number >= 0 for number in value):
        raise ValueError(f"{key} of {name[:80]!r} is {value!r:.80}; expected whole numbers, 0 or more")
    return tuple(value)


def _check_places(entries: Sequence[_Entry]) -> None:
    """Raise if tensors are not exactly one after the other, or have other lengths than their shapes ask for."""
    for entry in entries:
        length = prod(entry.shape) * _TYPES[entry.code][1]
        if entry.stop - entry.start != length:
            raise ValueError(
                f"tensor {entry.name[:80]!r} has {entry.stop - entry.start:,} bytes; type {entry.code} and shape "
                f"{list(entry.shape)!r:.80} need {length:,}"
            )
    if entries and entries[0].start:
        raise ValueError(f"bytes 0 to {entries[0].start:,} belong to no tensor")
    for before, after in pairwise(entries):
        if after.start < before.stop:
            raise ValueError(f"tensors {before.name[:80]!r} and {after.name[:80]!r} overlap")
        if after.start > before.stop:
            raise ValueError(f"bytes {before.stop:,} to {after.start:,} belong to no tensor")


def _name_wrong_file(path: Path, size: int) -> str:
    """Say what a file that is not safetensors seems to be."""
    if not size:
        return "empty"
    with open_regular(path) as file:
        head = file.read(64)
    start = head.lstrip()
    found = next((what for magic, what in _WRONG_FILES if start.startswith(magic)), None)
    length = int.from_bytes(head[:8], "little")
    if found is None and len(head) > 8 and head[8:9] == b"{":
        return (
            f"an unknown format: its header would be {length:,} bytes long, more than the {_MAX_HEADER_BYTES:,} allowed"
        )
    return found or "an unknown format"
