"""Frozen means free: what a backbone that does not learn makes of the images is computed once and kept.

Here is decided whether that pays, and where they are kept; batches of what is kept come in the order that the images
themselves would have.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from zoo._model import cut, find_parts, head_prefixes
from zoo.data import SplitSource
from zoo.engine.frozen.backbone import BackboneEngine, find_patch
from zoo.engine.frozen.shards import KeptFeatures, send
from zoo.errors import InputError
from zoo.rates import Plan

Where: TypeAlias = Literal["off", "memory", "disk"]

WORTH = 0.9  # of the images through the backbone: with more left of them it is not worth the trouble
MEMORY_SHARE = 0.25  # of what the machine has free
SMALL_SHARE = 0.1  # of the free disk: less is kept there, so that the next run starts at once
DISK_SHARE = 0.5  # of the free disk: more is never taken by itself
DEVICE_SHARE = 0.5  # of a GPU's free memory: the rest is for training


class HeadOnly(nn.Module):
    """The head of a model as a network of its own, on features that are kept or that an engine computes.

    Args:
        model: Has `head`.
        engine: Turns images into features; None: the network is called with features.
    """

    def __init__(self, model: Any, engine: BackboneEngine | None = None) -> None:
        super().__init__()
        self.model, self.engine, self.method = model, engine, cut(model).head

    def forward(self, inputs: Any, *targets: Any) -> Any:
        """Turn images, or features, into outputs; targets are passed on to heads that take them."""
        features = inputs if self.engine is None else self.engine.join(self.engine(inputs))
        return getattr(self.model, self.method)(features, *targets)


class KeptSamples(Dataset[Any]):
    """Kept features as a data set that gives whole batches.

    Args:
        kept: Sample `view * images + index` is the view of an image.
        feed: Turns rows into targets.
        pin_memory: Whether features are taken into memory from where a GPU copies them without the processor.
    """

    def __init__(self, kept: KeptFeatures, feed: SplitSource, *, pin_memory: bool = False) -> None:
        self.kept, self.feed, self.pin_memory = kept, feed, pin_memory

    def __len__(self) -> int:
        return len(self.feed)

    def __getitems__(self, places: Sequence[tuple[int, int]]) -> tuple[tuple[Tensor, ...], Any]:
        """Return features and targets of `(index, epoch)` places; the views are taken in turn."""
        indices, epochs = torch.tensor(places).unbind(1)
        wanted = epochs % (self.kept.count // len(self)) * len(self) + indices
        parts, rows = self.kept.take(wanted, pin_memory=self.pin_memory)
        return parts, self.feed.unpack_targets(rows.values, rows.counts, send(indices, self.kept.device))


def as_they_are(batch: Any) -> Any:
    """Return a batch that is one already: the collation of `KeptSamples`."""
    return batch


def backbone_trains_reason(model: nn.Module, plan: Plan) -> str | None:
    """Return why a model's backbone cannot run by itself under a plan; None if it is frozen, and as it was made."""
    if find_parts(model) is None:
        return "the model does not separate backbone and head"
    prefixes = head_prefixes(model)
    learning = [name for group in plan.trained for name in group.names if not name.startswith(prefixes)]
    return f"the backbone is trained ({learning[0]})" if learning else find_patch(model)


@dataclass(frozen=True)
class Passes:
    """How often the backbone of a run looks at an image.

    Attributes:
        epochs: Of training.
        views: Changed versions of each training image.
        train: Training images.
        val: Images to score.
        evaluations: How often they are scored.
    """

    epochs: int
    views: int
    train: int
    val: int
    evaluations: int

    @property
    def without(self) -> int:
        """Images through the backbone if nothing is kept."""
        return self.epochs * self.train + self.evaluations * self.val

    @property
    def once(self) -> int:
        """Images through the backbone if features are kept."""
        return min(self.views, self.epochs) * self.train + self.val


class Choice(NamedTuple):
    """Where features are kept, and why there."""

    where: Where
    why: str


def choose_cache(
    wish: str,
    passes: Passes,
    sample_bytes: int,
    *,
    processes: int,
    free_memory: float,
    free_disk: float,
    found: bool,
    no_disk: str | None = None,
) -> Choice:
    """Choose where features are kept, by what it saves and what there is room for.

    Args:
        wish: `auto`, `memory` or `disk`.
        passes: How often the backbone runs.
        sample_bytes: Bytes of the features of one image.
        processes: That train together; only files are shared by them.
        free_memory: Bytes.
        free_disk: Bytes, where files would be.
        found: Whether all of them are there already, from an earlier run.
        no_disk: Why none can be kept on disk, without a full stop; None if they can.

    Raises:
        InputError: What is wished for is not possible.
    """
    needed = passes.once * sample_bytes
    size, saving = format_bytes(needed), f"{passes.once:,} backbone passes instead of {passes.without:,}"
    if wish == "memory" and processes > 1:
        raise InputError("cache=memory works with one process only. Use cache=disk, which all processes share.")
    if wish == "memory":
        if needed > free_memory:
            raise InputError(
                f"cache=memory needs {size}, but only {format_bytes(free_memory)} are free. Use cache=disk or "
                "cache=off."
            )
        return Choice("memory", f"{saving}; {size} in memory")
    if found:
        return Choice("disk", f"reused from an earlier run; {size}")
    if wish == "disk":
        if no_disk:
            raise InputError(f"cache=disk is not possible: {no_disk}. Use cache=memory or cache=off.")
        if needed > free_disk:
            raise InputError(
                f"cache=disk needs {size}, but only {format_bytes(free_disk)} are free. Free some space, set "
                "XDG_CACHE_HOME to a larger disk, or use cache=off."
            )
        return Choice("disk", f"{saving}; {size} on disk")
    if passes.once > WORTH * passes.without:
        return Choice("off", "it would save less than a tenth of the backbone passes")
    on_disk = 0.0 if no_disk else free_disk
    if needed <= SMALL_SHARE * on_disk:
        return Choice("disk", f"{saving}; {size} on disk ({format_bytes(free_disk)} free)")
    if processes == 1 and needed <= MEMORY_SHARE * free_memory:
        return Choice("memory", f"{saving}; {size} in memory ({format_bytes(free_memory)} free){_in_brackets(no_disk)}")
    if needed <= DISK_SHARE * on_disk:
        return Choice("disk", f"{saving}; {size} on disk ({format_bytes(free_disk)} free)")
    if no_disk and processes > 1:
        return Choice("off", f"several processes can share features on disk only, and {no_disk}")
    disk = f"none on disk ({no_disk})" if no_disk else f"{format_bytes(free_disk)} on disk"
    return Choice("off", f"features need {size}; free: {format_bytes(free_memory)} of memory, {disk}")


class Residence(NamedTuple):
    """Where kept features are while a run trains on them.

    Attributes:
        on_device: Whether all of them are in the GPU's memory; else each batch is copied to it.
        why: One phrase.
    """

    on_device: bool
    why: str


def choose_residence(device_type: str, needed: int, free: int) -> Residence:
    """Choose whether kept features go to the device as a whole, before the first epoch.

    Args:
        device_type: Of the device that trains.
        needed: Bytes of all of them.
        free: Bytes of the device's memory that this process may take.
    """
    if device_type != "cuda":
        return Residence(False, f"{device_type} shares the machine's memory")
    if needed > DEVICE_SHARE * free:
        return Residence(False, f"they need {format_bytes(needed)}; the GPU has {format_bytes(free)} free")
    return Residence(True, f"{format_bytes(needed)} ({format_bytes(free)} free)")


def _in_brackets(no_disk: str | None) -> str:
    return f" (not on disk: {no_disk})" if no_disk else ""


def format_bytes(count: float) -> str:
    """Return a number of bytes as people read it, in units of 1,000."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count / 1e3:,.1f} kB"
