"""Describes one data split so that the engine can batch it or cache its features."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor
from torch.utils.data import Dataset

Prepare: TypeAlias = Callable[[Any, Any, int, int], tuple[Any, Any]]


@dataclass(frozen=True, kw_only=True)
class SplitSource:
    """One split, as a task describes it.

    Attributes:
        images: By index; their files are what kept features are told apart by.
        samples: Gives the sample of an `(index, epoch)`, or of an `(index, view)`.
        collate: Makes a batch, images and targets, of samples.
        prepare: Called with images and targets on the device that trains, epoch and batch; returns them as the network
            takes them.
        cache_key: Plain values that decide what the network sees, besides the images themselves.
        uncacheable_reason: Why an image does not look the same whenever its view is shown; None if it does.
        pack_targets: Turns the targets of a batch into one tensor `(n, c)` per image.
        unpack_targets: Turns such tensors, one after the other, the number of rows of each image, and the places of the
            images in their data set into targets again.
        draw: Draws a batch, images and targets as they are before `prepare`, into a file; None: it is not drawn.
        draw_weights: How likely each image is drawn for an epoch, with replacement, relative to the others; None: each
            is used once per epoch.
        code: What else decides what the network sees, beside the plain values of `cache_key`: an object, by its code.
        repeats: How often each image comes in an epoch on average, 1 or more; None: once.
    """

    images: Any
    samples: Dataset[Any]
    collate: Callable[[Sequence[Any]], Any]
    prepare: Prepare
    cache_key: Mapping[str, Any]
    uncacheable_reason: str | None
    pack_targets: Callable[[Any], list[Tensor]]
    unpack_targets: Callable[[Tensor, Tensor, Tensor], Any]
    draw: Callable[[Any, Any, Path], None] | None = None
    draw_weights: Sequence[float] | None = None
    repeats: Sequence[float] | None = None
    code: Any = None

    def __len__(self) -> int:
        return len(self.images)
