"""Features of a frozen backbone, kept: on disk in shards that are mapped into memory, or in memory.

A sample has one or more parts of fixed shape, such as one vector or three maps, and any number of rows, such as its
class or its boxes. A shard is a safetensors file of consecutive samples. It has its final name only when all of it is
on the disk, so a process that was killed, or a second one that writes the same shard, leaves nothing half-written.
"""

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.engine.frozen.shard_file import CODES, read_shard, write_shard
from zoo.errors import DataError, InputError

SHARD_BYTES = 64_000_000
SHARD_SAMPLES = 1024  # at most: what a run that is killed has to compute again
ABANDONED_SECONDS = 600  # a file that is being written changes more often
_THREADS = min(8, os.cpu_count() or 1)  # that check shards
_LARGE_BYTES = 1 << 16  # parts of this size are copied one by one; smaller ones are gathered shard by shard


class Rows(NamedTuple):
    """What belongs to samples and differs in number from one to the next, such as boxes.

    Attributes:
        values: `(R, c)`, of all samples one after the other. float32 holds class numbers up to 2**24 exactly.
        counts: `(N,)`, int64: how many of them each sample has, 0 or more.
    """

    values: Tensor
    counts: Tensor

    def split(self) -> list[Tensor]:
        """Return the rows of each sample, `(n, c)`."""
        return list(torch.split(self.values, self.counts.tolist()))


def join_rows(rows: Sequence[Tensor]) -> Rows:
    """Put the rows of samples, one or more tensors `(n, c)`, one after the other."""
    if not rows:
        raise InputError("there are no samples to cache; expected at least one.")
    counts = torch.tensor([len(one) for one in rows], dtype=torch.int64, device=rows[0].device)
    return Rows(torch.cat(list(rows)), counts)


def choose_per_shard(sample_bytes: int) -> int:
    """Return how many samples of a size make a shard: of about 64 MB, and 1,024 at most; at least one."""
    return max(1, min(SHARD_SAMPLES, SHARD_BYTES // max(1, sample_bytes)))


def fit_dtype(part: Tensor, dtype: torch.dtype) -> Tensor:
    """Return features in the type in which they are kept.

    Args:
        part: `(N, ...)`, on any device.
        dtype: A floating-point type.

    Raises:
        DataError: It cannot hold a value, or a value is not a finite number.
    """
    if dtype not in CODES or not dtype.is_floating_point:
        raise InputError(f"features cannot be cached as {_name(dtype)}; expected float16, bfloat16 or float32.")
    kept = part.detach().to(dtype)
    _check_finite(kept, "the features")
    return kept


class FeatureShards:
    """The shards of a set of samples in one folder.

    Several processes may write into it at the same time, also the same shard.

    Args:
        folder: Made when the first shard is written.
        count: Number of samples.
        per_shard: Samples in each shard but the last; see `choose_per_shard`.
        key: Stands in each shard; one that has another key is not used.
    """

    def __init__(self, folder: Path, count: int, per_shard: int, *, key: str = "") -> None:
        if count < 1 or per_shard < 1:
            raise InputError(f"count is {count}, per_shard {per_shard}; expected 1 or more of each.")
        self.folder, self.count, self.per_shard, self.key = Path(folder), count, per_shard, key

    def __len__(self) -> int:
        """Return the number of shards."""
        return -(-self.count // self.per_shard)

    def samples_of(self, shard: int) -> range:
        """Return the numbers of the samples of a shard."""
        if not 0 <= shard < len(self):
            raise InputError(f"there is no shard {shard}; expected 0 to {len(self) - 1}.")
        start = shard * self.per_shard
        return range(start, min(start + self.per_shard, self.count))

    def path_of(self, shard: int) -> Path:
        """Return the file of a shard."""
        return self.folder / f"{shard:05d}.safetensors"

    def missing(self) -> list[int]:
        """Return the shards that are not there, damaged, or of something else; `write` puts new ones in their place.

        Unfinished files of processes that have ended are removed.
        """
        _sweep(self.folder)
        return [shard for shard, tensors in enumerate(self._read_all()) if tensors is None]

    def damaged(self) -> list[int]:
        """Return the shards among them that have a file: damaged, or of another version."""
        return [shard for shard in self.missing() if self.path_of(shard).exists()]

    def write(self, shard: int, parts: Sequence[Tensor], rows: Rows | Sequence[Tensor]) -> None:
        """Write a shard. When this returns, all of it is on the disk.

        Args:
            shard: Its number.
            parts: Each `(n, ...)`, of any device, for the n samples of the shard, in the type to keep: see `fit_dtype`.
            rows: Of these samples.

        Raises:
            DataError: A feature is not a finite number.
            InputError: The numbers of samples do not agree.
            StorageError: The file cannot be written, as when the disk is full.
        """
        samples = self.samples_of(shard)
        tensors = _name_tensors(parts, rows if isinstance(rows, Rows) else join_rows(rows))
        _check_samples(tensors, samples)
        for name, tensor in tensors.items():
            if name.startswith("part") and tensor.is_floating_point():
                _check_finite(tensor, f"{name} of samples {samples.start:,} to {samples[-1]:,}")
        write_shard(self.path_of(shard), tensors, self._mark(samples))

    def open(self) -> "KeptFeatures":
        """Map all shards into memory. Rows are read; of features only what is taken later.

        Raises:
            DataError: A shard is missing or damaged.
        """
        found = self._read_all()
        mapped = [tensors for tensors in found if tensors is not None]
        if len(mapped) < len(found):
            first = self.path_of(found.index(None)).name
            raise DataError(
                f"{len(found) - len(mapped):,} of {len(found):,} cached feature files in {self.folder} are missing "
                f"or damaged, the first is {first}. Start again to recompute them."
            )
        rows = Rows(*(torch.cat([tensors[name] for tensors in mapped]) for name in ("rows", "counts")))
        parts = [f"part{index}" for index in range(len(mapped[0]) - 2)]
        return KeptFeatures([tuple(tensors[part] for part in parts) for tensors in mapped], rows, self.per_shard)

    def _mark(self, samples: range) -> dict[str, str]:
        """Return what tells a shard from those of other sets."""
        return {"key": self.key, "samples": f"{samples.start} to {samples[-1]} of {self.count}"}

    def _read_all(self) -> list[dict[str, Tensor] | None]:
        """Return the tensors of each shard, None for one that cannot be used; shards that do not match cannot be."""
        with ThreadPoolExecutor(_THREADS) as pool:
            found = list(pool.map(self._read, range(len(self))))
        kinds = {_kind(tensors) for tensors in found if tensors is not None}
        return found if len(kinds) < 2 else [None] * len(found)

    def _read(self, shard: int) -> dict[str, Tensor] | None:
        samples = self.samples_of(shard)
        tensors = read_shard(self.path_of(shard), self._mark(samples))
        return tensors if tensors is not None and _is_whole(tensors, len(samples)) else None


class KeptFeatures:
    """Features that were computed before.

    Args:
        shards: The parts of each shard, each `(n, ...)`; n is `per_shard`, or less in the last one. All of one device.
        rows: Of all samples, on the same device.
        per_shard: Samples per shard.

    Attributes:
        count: Number of samples.
        device: Where they are, and where samples are given.
    """

    def __init__(self, shards: Sequence[tuple[Tensor, ...]], rows: Rows, per_shard: int) -> None:
        self._shards, self._rows, self._per_shard = shards, rows, per_shard
        self.count, self.device = len(rows.counts), rows.counts.device
        self._counts = rows.counts.cpu()  # how many rows a batch has is known here without waiting for a GPU
        self._starts = self._counts.cumsum(0) - self._counts
        first = int(self._counts[0])
        self._same = first if bool((self._counts == first).all()) else None  # rows of each sample, if all have as many

    @classmethod
    def in_memory(cls, parts: Sequence[Tensor], rows: Rows | Sequence[Tensor]) -> "KeptFeatures":
        """Keep features where they are.

        Args:
            parts: Each `(N, ...)`, all of one device.
            rows: Of the N samples, on the same device.
        """
        joined = rows if isinstance(rows, Rows) else join_rows(rows)
        samples = range(len(joined.counts))
        _check_samples({"counts": joined.counts, "rows": joined.values, **_number_parts(parts)}, samples)
        return cls([tuple(parts)], joined, len(samples))

    @property
    def rows(self) -> Rows:
        """Return the rows of all samples."""
        return self._rows

    @property
    def nbytes(self) -> int:
        """Return the size of parts and rows in bytes."""
        parts = sum(part.nbytes for shard in self._shards for part in shard)
        return parts + self._rows.values.nbytes + self._rows.counts.nbytes

    def load(self, device: torch.device | str = "cpu") -> "KeptFeatures":
        """Return all of them in the memory of a device, from where batches are taken faster."""
        parts = [_join(column, torch.device(device)) for column in zip(*self._shards, strict=True)]
        return KeptFeatures.in_memory(parts, Rows(*(tensor.to(device) for tensor in self._rows)))

    def take(self, numbers: Sequence[int] | Tensor, *, pin_memory: bool = False) -> tuple[tuple[Tensor, ...], Rows]:
        """Return some samples, in the order of the numbers.

        Args:
            numbers: `(B,)`, from 0; the same one may come twice. Those on a GPU are not checked: it would have to be
                waited for.
            pin_memory: Whether parts are put where a GPU fetches them faster; for features that are not on one.

        Returns:
            Parts, each `(B, ...)`, that share no memory with what is kept; and the rows of these samples.

        Raises:
            InputError: There is no such sample.
        """
        wanted = torch.as_tensor(numbers, dtype=torch.int64)
        if wanted.device.type == "cpu" and len(wanted) and (wanted.min() < 0 or wanted.max() >= self.count):
            raise InputError(
                f"samples {int(wanted.min())} to {int(wanted.max())} were requested; expected 0 to {self.count - 1}."
            )
        places = send(wanted, self.device)
        gather = _Gather(places, self._per_shard) if len(self._shards) > 1 else None
        parts = tuple(
            _take_part(column, places, gather, pin_memory=pin_memory) for column in zip(*self._shards, strict=True)
        )
        return parts, self._take_rows(wanted, places)

    def _take_rows(self, wanted: Tensor, places: Tensor) -> Rows:
        """Return the rows of samples, whose numbers are given as they came and on the device of what is kept."""
        values, counts = self._rows.values, self._rows.counts.index_select(0, places)
        if self._same is not None:
            each = values.view(self.count, self._same, values.shape[1])
            return Rows(each.index_select(0, places).flatten(0, 1), counts)
        wanted = wanted.cpu()
        own = self._counts.index_select(0, wanted)
        total = int(own.sum())
        first = self._starts.index_select(0, wanted) - (own.cumsum(0) - own)
        chosen = first.repeat_interleave(own, output_size=total) + torch.arange(total)
        return Rows(values.index_select(0, send(chosen, self.device)), counts)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; the processor does not wait for a GPU to have it."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class _Gather:
    """Numbers of samples, by shard."""

    def __init__(self, wanted: Tensor, per_shard: int) -> None:
        ordered, self.order = wanted.sort()
        shards, counts = torch.unique_consecutive(ordered // per_shard, return_counts=True)
        self.groups = list(zip(shards.tolist(), torch.split(ordered % per_shard, counts.tolist()), strict=True))
        self.single = list(zip((wanted // per_shard).tolist(), (wanted % per_shard).tolist(), strict=True))


def _join(shards: Sequence[Tensor], device: torch.device) -> Tensor:
    """Return a copy of a part of all samples on a device, which never holds more than that."""
    whole = torch.empty((sum(map(len, shards)), *shards[0].shape[1:]), dtype=shards[0].dtype, device=device)
    start = 0
    for shard in shards:
        whole[start : start + len(shard)].copy_(shard)
        start += len(shard)
    return whole


def _take_part(shards: Sequence[Tensor], wanted: Tensor, gather: _Gather | None, *, pin_memory: bool) -> Tensor:
    """Return a part of some samples, in the order in which they are wanted."""
    part = shards[0]
    taken = torch.empty((len(wanted), *part.shape[1:]), dtype=part.dtype, device=part.device, pin_memory=pin_memory)
    if gather is None:
        torch.index_select(part, 0, wanted, out=taken)
    elif part[0].nbytes >= _LARGE_BYTES:
        for place, (shard, row) in enumerate(gather.single):
            taken[place].copy_(shards[shard][row])
    else:
        pieces = [shards[shard].index_select(0, rows) for shard, rows in gather.groups]
        taken.index_copy_(0, gather.order, torch.cat(pieces))
    return taken


def _name_tensors(parts: Sequence[Tensor], rows: Rows) -> dict[str, Tensor]:
    """Return what goes into a file, the longest values first, so that each begins at a multiple of its length."""
    named = {"counts": rows.counts, "rows": rows.values, **_number_parts(parts)}
    ordered = sorted(named.items(), key=lambda item: -item[1].itemsize)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in ordered}


def _number_parts(parts: Sequence[Tensor]) -> dict[str, Tensor]:
    return {f"part{index}": part for index, part in enumerate(parts)}


def _check_samples(tensors: Mapping[str, Tensor], samples: range) -> None:
    """Raise if tensors are not of as many samples."""
    if "part0" not in tensors or not samples:
        raise InputError("there are no features to cache; expected at least one part with at least one sample.")
    for name, tensor in tensors.items():
        if tensor.dtype not in CODES:
            raise InputError(f"{name} is {_name(tensor.dtype)}; expected one of {', '.join(map(_name, CODES))}.")
        if name != "rows" and len(tensor) != len(samples):
            raise InputError(f"{name} has {len(tensor):,} samples; expected {len(samples):,}.")
    rows, counts = tensors["rows"], tensors["counts"]
    if rows.ndim != 2 or int(counts.min()) < 0 or int(counts.sum()) != len(rows):
        raise InputError(f"rows has shape {tuple(rows.shape)}; expected ({int(counts.sum())}, c), from its counts.")


def _check_finite(part: Tensor, what: str) -> None:
    """Raise if a value is no finite number; the extremes tell faster than a look at each."""
    low, high = part.aminmax() if part.numel() else (torch.zeros(()), torch.zeros(()))
    if not bool(low.isfinite() & high.isfinite()):
        hint = (
            "float16 ends at 65,504: use cache_dtype=bfloat16 or float32"
            if part.dtype == torch.float16
            else "Check for damaged weights or images with NaN values"
        )
        raise DataError(
            f"{what} range from {low.item():g} to {high.item():g} as {_name(part.dtype)}; expected finite values. "
            f"{hint}."
        )


def _sweep(folder: Path) -> None:
    """Remove files that nobody has written to for long."""
    for draft in folder.glob(".*.tmp"):
        with suppress(OSError):
            if time.time() - draft.stat().st_mtime > ABANDONED_SECONDS:
                draft.unlink()


def _is_whole(tensors: Mapping[str, Tensor], samples: int) -> bool:
    """Whether these are the parts of so many samples, and their rows."""
    names = {"counts", "rows", *(f"part{index}" for index in range(max(1, len(tensors) - 2)))}
    if tensors.keys() != names or tensors["counts"].dtype != torch.int64 or tensors["rows"].ndim != 2:
        return False
    counts, rows = tensors["counts"], tensors["rows"]
    sized = all(tensor.shape[:1] == (samples,) for name, tensor in tensors.items() if name != "rows")
    return sized and counts.ndim == 1 and bool(counts.min() >= 0) and int(counts.sum()) == len(rows)


def _kind(tensors: Mapping[str, Tensor]) -> tuple[Any, ...]:
    """Return what the shards of one set have in common."""
    return tuple(sorted((name, str(each.dtype), tuple(each.shape[1:])) for name, each in tensors.items()))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
