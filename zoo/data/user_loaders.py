"""Loaders that a user brings: are they loaders, are their batches what training expects, which classes have they?"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.data.labels import are_numbers, check_numbers, match_numbers, quote, say_nameless
from zoo.errors import DataError

EXPECTED = "expected batches (images, targets): (B, C, H, W) floating point, and (B,) int64"


def is_loader(source: object) -> bool:
    """Whether something gives batches one after the other, and none by index, as a `DataLoader` does."""
    return hasattr(source, "__iter__") and hasattr(source, "__len__") and not hasattr(source, "__getitem__")


@dataclass(frozen=True)
class UserLoader:
    """A loader that a user brought, and what its targets mean.

    Attributes:
        loader: Any iterable of batches with a length.
        name: What to call it.
        classes: Names of the class numbers.
        known: The loader's own names of its numbers, if it has any.
        table: The class number of each of its own numbers; None: they are the same.
    """

    loader: Any
    name: str
    classes: tuple[str, ...]
    known: tuple[str, ...] | None = None
    table: Mapping[int, int] | None = None

    def prepare(self, images: Any, targets: Any, epoch: int, batch: int) -> tuple[Any, Any]:
        """Return a batch with its targets as class numbers.

        Raises:
            DataError: If a target is none of the classes.
        """
        if not isinstance(targets, Tensor) or targets.is_floating_point() or not targets.numel():
            return images, targets
        if self.table is None:
            _check_range(targets, self.name, len(self.classes), f" in batch {batch + 1}")
            return images, targets
        numbers = targets.flatten().tolist()
        if lost := sorted({number for number in numbers if number not in self.table}):
            names = [repr(self.known[n]) if self.known and 0 <= n < len(self.known) else str(n) for n in lost[:10]]
            raise DataError(
                f"the loader {self.name} has targets in batch {batch + 1} that are not classes: {', '.join(names)}. "
                f"Expected {', '.join(map(repr, self.classes[:10]))}. Correct the labels."
            )
        return images, targets.new_tensor([self.table[number] for number in numbers]).reshape(targets.shape)


def check_length(loader: Any, name: str) -> None:
    """Refuse a loader that cannot say how many batches it has, which a run has to know.

    Raises:
        DataError: It has no length.
    """
    try:
        len(loader)
    except TypeError as error:
        kind = type(getattr(loader, "dataset", loader)).__name__
        raise DataError(
            f"the loader {name} has no length, because {kind} has no len(). Define __len__ on {kind}, returning the "
            "number of images."
        ) from error


def match_targets(
    known: Sequence[str] | None, classes: Sequence[str], *, name: str, origin: str, by_name: bool
) -> Mapping[int, int] | None:
    """Return which class number each number of a loader stands for; None: the same.

    Args:
        known: The loader's own names of its numbers.
        classes: The names of the class numbers.
        name: What to call the loader.
        origin: Where the classes come from, for messages.
        by_name: Whether a number without a name stands for the class of these digits; if not, for its place.

    Raises:
        DataError: Numbers without names cannot be matched with names.
    """
    if known is None and (not by_name or are_numbers(classes)):
        return None
    table = match_numbers(known, classes)
    if known is None and not table:
        raise DataError(say_nameless(f"the loader {name}", classes, origin))
    if known is not None and not table:
        raise DataError(
            f"the classes of the loader {name} are {quote(known)}, and none of them is a class of {origin}: "
            f"{quote(classes)}. Set the same names on the data set of each loader, dataset.classes = [...]."
        )
    return None if table == {number: number for number in range(len(classes))} else table


def check_first_batch(user: UserLoader) -> None:
    """Take one batch and look at it; torch's default generator stays as it is.

    Raises:
        DataError: If the batch is not what training expects.
    """
    with torch.random.fork_rng(devices=[]):
        first = next(_batches(user.loader, user.name), None)
    if first is None:
        raise DataError(f"the loader {user.name} yields no batch; {EXPECTED}.")
    user.prepare(None, first, 0, 0)


def count_classes(loader: Any, name: str, on_batch: Callable[[int], None]) -> int:
    """Run through a loader once and return the greatest class number plus one.

    Args:
        loader: Any iterable of batches.
        name: What to call it.
        on_batch: Called with the number of images of each batch.
    """
    found: set[int] = set()
    with torch.random.fork_rng(devices=[]):
        for targets in _batches(loader, name):
            _check_range(targets, name, None)
            found.update(targets.tolist())
            on_batch(len(targets))
    if not found:
        raise DataError(f"the loader {name} yields no batch; {EXPECTED}.")
    check_numbers(min(found), max(found), len(found), f"the loader {name}")
    return max(found) + 1


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


def _check_range(targets: Tensor, name: str, classes: int | None, where: str = "") -> None:
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or (classes is not None and high >= classes):
        limit = f"0 to {classes - 1}" if classes else "0 or more"
        raise DataError(
            f"the loader {name} has targets from {low} to {high}{where}; expected {limit}. Correct the labels."
        )


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"
