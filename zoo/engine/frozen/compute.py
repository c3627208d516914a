"""The pass of a frozen backbone over all images: what it makes of them, put into memory or into files."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device
from torch import Tensor

from zoo.data import SplitSource, load_places
from zoo.engine.frozen.backbone import BackboneEngine
from zoo.engine.frozen.shards import FeatureShards, KeptFeatures, fit_dtype
from zoo.engine.memory import measure_free_memory
from zoo.errors import InputError, StorageError

Parts: TypeAlias = tuple[Tensor, ...]
Place: TypeAlias = tuple[int, int]
Advance: TypeAlias = Callable[[int], None]

READ_SHARE = 0.25  # of the free memory: larger features stay in their files, mapped


class Split(NamedTuple):
    """One split of the data, and how many views of each image are kept."""

    feed: SplitSource
    views: int

    @property
    def samples(self) -> int:
        """Number of samples: sample `view * images + index` is the view of an image."""
        return self.views * len(self.feed)

    def places(self, samples: range) -> list[Place]:
        """Return `(index, view)` of samples."""
        return [(sample % len(self.feed), sample // len(self.feed)) for sample in samples]


class FeaturePass:
    """Runs a frozen backbone over images.

    Args:
        engine: The backbone.
        accelerator: Device and processes.
        batch_size: Images at a time.
        num_workers: Processes that load images.

    Attributes:
        advance: Called with the number of samples that are there.
        computed: Samples that this process has computed.
        seconds: What that took.
    """

    def __init__(self, engine: BackboneEngine, accelerator: Accelerator, *, batch_size: int, num_workers: int) -> None:
        self.engine, self.accelerator = engine, accelerator
        self.batch_size, self.num_workers = batch_size, num_workers
        self.advance: Advance = lambda done: None
        self.start()

    def start(self) -> None:
        """Count from nothing."""
        self.computed, self.seconds, self._done = 0, 0.0, 0

    def into_memory(self, split: Split, dtype: torch.dtype) -> KeptFeatures:
        """Compute all features of a split."""
        batches = self._cut(split, range(split.samples))
        return KeptFeatures.in_memory(*self._collect(self._run(split.feed, batches, dtype), len(batches)))

    def onto_disk(self, split: Split, dtype: torch.dtype, shards: FeatureShards) -> KeptFeatures:
        """Compute this process's share of the shards that are missing, and open all of them.

        They are read into memory if they fit there easily, else mapped.

        A shard has batches of its own, so that its bits do not depend on which others are computed with it.

        Raises:
            InputError: What another process has written cannot be seen here.
            StorageError: A process could not write a shard; raised in all of them.
        """
        process = self.accelerator
        missing = shards.missing()
        self._count(split.samples - sum(len(shards.samples_of(shard)) for shard in missing))
        process.wait_for_everyone()  # all have seen the same ones missing
        mine = missing[process.process_index :: process.num_processes]
        batches = {shard: self._cut(split, shards.samples_of(shard)) for shard in mine}
        results = self._run(split.feed, [batch for part in batches.values() for batch in part], dtype)
        failure: StorageError | None = None
        try:
            for shard in mine:
                shards.write(shard, *self._collect(results, len(batches[shard])))
        except StorageError as error:
            failure = error
        failures = [text for text in gather_object([failure and str(failure)]) if text]  # all processes go on alike
        if failures:
            raise StorageError(failures[0]) from failure
        if shards.missing():
            raise InputError(
                f"features written by another process are missing from {shards.folder}. With several machines, set "
                "XDG_CACHE_HOME to a folder that all of them share, or use cache=off."
            )
        kept = shards.open()
        # a file that is cut short while it is mapped ends the process without a word
        fits = kept.nbytes <= READ_SHARE * measure_free_memory(torch.device("cpu"))
        return kept.load() if fits else kept

    def first(self, feed: SplitSource) -> Parts:
        """Return the features of the first image."""
        images, targets = send_to_device(feed.collate([feed.samples[0, 0]]), self.accelerator.device)
        inputs, _ = feed.prepare(images, targets, 0, 0)
        return tuple(part.float().cpu() for part in self.engine(inputs))

    def _cut(self, split: Split, samples: range) -> list[list[Place]]:
        places = split.places(samples)
        return [places[start : start + self.batch_size] for start in range(0, len(places), self.batch_size)]

    def _run(
        self, feed: SplitSource, batches: Sequence[Sequence[Place]], dtype: torch.dtype
    ) -> Iterator[tuple[Parts, list[Tensor]]]:
        """Yield features, on the CPU, and rows of batches of places."""
        device = self.accelerator.device
        options = {"num_workers": self.num_workers, "pin_memory": device.type == "cuda"}
        for number, batch in enumerate(load_places(feed.samples, batches, feed.collate, **options)):
            images, targets = send_to_device(batch, device, non_blocking=True)
            inputs, targets = feed.prepare(images, targets, 0, number)
            yield tuple(fit_dtype(part, dtype).cpu() for part in self.engine(inputs)), feed.pack_targets(targets)

    def _collect(self, results: Iterator[tuple[Parts, list[Tensor]]], batches: int) -> tuple[Parts, list[Tensor]]:
        """Put so many batches together."""
        began = time.perf_counter()
        columns, rows = [], []
        for _ in range(batches):
            parts, targets = next(results)
            columns.append(parts)
            rows += targets
            self._count(len(targets))
        self.computed += len(rows)
        whole = tuple(torch.cat(column) for column in zip(*columns, strict=True))
        self.seconds += time.perf_counter() - began
        return whole, rows

    def _count(self, samples: int) -> None:
        self._done += samples
        self.advance(self._done)
