"""The file of one shard of kept features: safetensors whose header tells what it belongs to, and a digest of its data.

A file that was cut short, changed in any bit, or written for something else is as if it were not there.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from zoo.errors import StorageError
from zoo.files import digest_file, open_whole, parse_object

FORMAT = "2"  # of a shard; files of another one are not used
CODES = {
    torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_TYPES = {code: dtype for dtype, code in CODES.items()}


def write_shard(path: Path, tensors: Mapping[str, Tensor], mark: Mapping[str, str]) -> None:
    """Write a shard; when this returns, all of it is on the disk.

    Args:
        path: The file; its folder is made.
        tensors: Contiguous and on the CPU, of types in `CODES`.
        mark: What it belongs to.

    Raises:
        StorageError: It cannot be written, as when the disk is full.
    """
    header = _make_header(tensors, mark)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_whole(path, needed=len(header) + sum(tensor.nbytes for tensor in tensors.values())) as file:
            file.write(header)
            for tensor in tensors.values():
                file.write(_bytes_of(tensor))
    except OSError as error:
        reason = str(error) if isinstance(error, StorageError) else f"cannot create {path.parent}: {error.strerror}."
        raise StorageError(
            f"cannot cache features: {reason} Free some space (zoo cache clear), set XDG_CACHE_HOME to another disk, "
            "or use cache=memory or cache=off."
        ) from error


def read_shard(path: Path, mark: Mapping[str, str]) -> dict[str, Tensor] | None:
    """Return the tensors of a shard as memory that is read when it is used; None if it is not what was written.

    The data is read once to check it; a file that has not changed since is not checked again.

    Args:
        path: The file.
        mark: What it has to belong to.
    """
    try:
        header, start = _read_header(path)
        facts = header.pop("__metadata__")
        if facts.pop("digest") != _digest(facts, header):
            return None
        if facts.pop("data") != digest_file(path, start=start) or facts != _full(mark):
            return None
        return _map_tensors(path, {name: _Slot.parse(slot, start) for name, slot in header.items()})
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError):
        return None


class _Slot(NamedTuple):
    """Where a tensor is in a file: `start` and `stop` are bytes from its beginning."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int

    @classmethod
    def parse(cls, facts: Mapping[str, Any], base: int) -> "_Slot":
        start, stop = facts["data_offsets"]
        return cls(_TYPES[facts["dtype"]], tuple(facts["shape"]), base + start, base + stop)


def _full(mark: Mapping[str, str]) -> dict[str, str]:
    return {"format": "pt", "kind": "zoo features", "version": FORMAT, **mark}


def _make_header(tensors: Mapping[str, Tensor], mark: Mapping[str, str]) -> bytes:
    """Return the beginning of a safetensors file: 8 bytes of length, little endian, and JSON."""
    slots, start, data = {}, 0, hashlib.sha256()
    for name, tensor in tensors.items():
        places = [start, start + tensor.nbytes]
        slots[name] = {"dtype": CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": places}
        start = places[1]
        data.update(_bytes_of(tensor))
    facts = {**_full(mark), "data": data.hexdigest()}
    header = {"__metadata__": {**facts, "digest": _digest(facts, slots)}, **slots}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the data begins at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text


def _bytes_of(tensor: Tensor) -> memoryview:
    content: memoryview = tensor.flatten().view(torch.uint8).numpy().data
    return content


def _digest(mark: Mapping[str, str], slots: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([mark, slots], sort_keys=True).encode()).hexdigest()


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header of a safetensors file, and where its data begins."""
    with safe_open(path, framework="numpy"):  # holds the header against itself and the size of the file
        pass
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return parse_object(file.read(length)), 8 + length


def _map_tensors(path: Path, slots: Mapping[str, _Slot]) -> dict[str, Tensor]:
    """Map a file into memory that is shared with other processes.

    No file stays open; the memory outlives the removal of the file.
    """
    size = max(slot.stop for slot in slots.values())
    memory = torch.from_file(os.fspath(path), shared=False, size=size, dtype=torch.uint8)
    return {name: memory[slot.start : slot.stop].view(slot.dtype).view(slot.shape) for name, slot in slots.items()}
