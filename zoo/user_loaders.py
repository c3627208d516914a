"""Loaders that a user brings: are they loaders, are their batches what training expects, which classes have they?"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from zoo.errors import DataError

EXPECTED = "expected batches (images, targets): (B, C, H, W) floating point, and (B,) int64"


def is_loader(source: object) -> bool:
    """Whether something gives batches one after the other, and none by index, as a `DataLoader` does."""
    return hasattr(source, "__iter__") and hasattr(source, "__len__") and not hasattr(source, "__getitem__")


def check_first_batch(loader: Any, name: str, classes: int) -> None:
    """Take one batch and look at it; torch's default generator stays as it is.

    Args:
        loader: Any iterable of batches.
        name: What to call it.
        classes: Number of classes.

    Raises:
        DataError: If the batch is not what training expects.
    """
    with torch.random.fork_rng(devices=[]):
        first = next(_batches(loader, name), None)
    if first is None:
        raise DataError(f"the loader {name} gives no batch; {EXPECTED}.")
    _check_range(first, name, classes)


def count_classes(loader: Any, name: str, on_batch: Callable[[int], None]) -> int:
    """Run through a loader once and return the greatest class number plus one.

    Args:
        loader: Any iterable of batches.
        name: What to call it.
        on_batch: Called with the number of images of each batch.
    """
    greatest = -1
    with torch.random.fork_rng(devices=[]):
        for targets in _batches(loader, name):
            _check_range(targets, name, None)
            greatest = max(greatest, int(targets.max()))
            on_batch(len(targets))
    if greatest < 0:
        raise DataError(f"the loader {name} gives no batch; {EXPECTED}.")
    return greatest + 1


def _batches(loader: Any, name: str) -> Iterator[Tensor]:
    """Yield the targets of each batch, checked."""
    for batch in loader:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            keys = f" with the keys {', '.join(map(str, batch))}" if isinstance(batch, dict) else ""
            raise DataError(f"a batch of the loader {name} is a {type(batch).__name__}{keys}; {EXPECTED}.")
        images, targets = batch
        if not isinstance(images, Tensor) or not _are_images(images):
            raise DataError(f"the images of the loader {name} are {_describe(images)}; {EXPECTED}.")
        if not isinstance(targets, Tensor) or targets.dtype != torch.int64 or targets.shape != images.shape[:1]:
            raise DataError(f"the targets of the loader {name} are {_describe(targets)}; {EXPECTED}.")
        yield targets


def _are_images(images: Tensor) -> bool:
    """Whether a tensor can be a batch of images: any number of channels, but not with the channels last."""
    last = images.ndim == 4 and images.shape[-1] == 3 and images.shape[1] > 4
    return images.ndim == 4 and images.is_floating_point() and not last


def _check_range(targets: Tensor, name: str, classes: int | None) -> None:
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or (classes is not None and high >= classes):
        limit = f"0 to {classes - 1}" if classes else "0 or more"
        raise DataError(f"the loader {name} has targets from {low} to {high}; expected {limit}. Correct the labels.")


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"
