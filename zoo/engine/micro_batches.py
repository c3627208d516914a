"""Batches that go through a network in micro-batches: fewer images in memory, the same optimizer step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from zoo.errors import InputError, TrainingError


@dataclass
class MicroBatchSize:
    """How many images of a batch are in the network at a time; a loop that runs out of memory makes it less.

    What the optimizer sees stays the gradient of the whole batch. Two things depend on the micro-batches: norms that
    learn
    their statistics see one micro-batch at a time, and a loss that is not a mean over images (a detector's is one over
    boxes) becomes the mean of its micro-batches by their numbers of images. Dropout draws other numbers.

    Attributes:
        size: Images at most; None: the whole batch.
        on_halved: Told the new size.
    """

    size: int | None = None
    on_halved: Callable[[int], None] | None = None

    def __post_init__(self) -> None:
        if self.size is not None and (type(self.size) is not int or self.size < 1):
            raise InputError(f"micro_batch_size is {self.size!r}; expected an integer, 1 or more, or None.")

    def halve(self, used: int, reason: str = "") -> None:
        """Take half of the size that was used, rounded up.

        Args:
            used: Images in the largest micro-batch of the batch that memory did not hold.
            reason: What the error said.

        Raises:
            TrainingError: If that was a single image.
        """
        if used <= 1:
            raise TrainingError(
                f"out of memory with a single image{_in_brackets(reason)}. Use a smaller image_size, train fewer "
                "layers, use precision=bf16, or choose a smaller model."
            )
        self.size = -(-used // 2)
        if self.on_halved is not None:
            self.on_halved(self.size)


class MicroBatch(NamedTuple):
    """A part of a batch.

    Attributes:
        inputs: As the batch's, for fewer images.
        targets: Likewise.
        share: Of the batch's images, 0 to 1.
    """

    inputs: Any
    targets: Any
    share: float


def count_images(inputs: Any) -> int:
    """Return the number of images in a batch: the length of a tensor, or of the first of a tuple of tensors."""
    first = inputs[0] if isinstance(inputs, tuple) and inputs else inputs
    return len(first)


def split_batch(inputs: Any, targets: Any, size: int | None) -> list[MicroBatch]:
    """Cut a batch into as few micro-batches as possible, whose sizes differ by one image at most; nothing is copied.

    Args:
        inputs: A tensor `(B, ...)`, or a tuple of such.
        targets: A tensor `(B, ...)`, a list of length B, or an object whose `narrow(start, stop)` returns the targets
            of those images.
        size: Images per micro-batch at most; None or B: the batch itself is returned, whatever it is made of.

    Raises:
        TrainingError: If there is no telling which targets belong to an image.
    """
    if size is None:
        return [MicroBatch(inputs, targets, 1.0)]
    count = count_images(inputs)
    if count <= size:
        return [MicroBatch(inputs, targets, 1.0)]
    parts, start = [], 0
    for length in _even_sizes(count, size):
        stop = start + length
        parts.append(MicroBatch(_cut(inputs, start, stop, count), _cut(targets, start, stop, count), length / count))
        start = stop
    return parts


def take_first(inputs: Any, targets: Any, images: int) -> MicroBatch:
    """Return the first images of a batch; the batch itself if it has no more.

    Raises:
        TrainingError: As `split_batch`.
    """
    count = count_images(inputs)
    if images >= count:
        return MicroBatch(inputs, targets, 1.0)
    return MicroBatch(_cut(inputs, 0, images, count), _cut(targets, 0, images, count), images / count)


def _even_sizes(count: int, most: int) -> list[int]:
    parts = -(-count // most)
    length, longer = divmod(count, parts)
    return [length + 1] * longer + [length] * (parts - longer)


def _cut(values: Any, start: int, stop: int, count: int) -> Any:
    """Return the part of a batch's inputs or targets that belongs to some of its images."""
    if isinstance(values, Tensor):
        if values.ndim and len(values) == count:
            return values[start:stop]
    elif callable(narrow := getattr(values, "narrow", None)):
        return narrow(start, stop)
    elif isinstance(values, tuple) and values and all(isinstance(value, Tensor) for value in values):
        return tuple(_cut(value, start, stop, count) for value in values)
    elif isinstance(values, Sequence) and not isinstance(values, str) and len(values) == count:
        return values[start:stop]
    found = f"a tensor {tuple(values.shape)}" if isinstance(values, Tensor) else f"a {type(values).__name__}"
    raise TrainingError(
        f"a batch of {count} images cannot be split into micro-batches: it contains {found}. Expected tensors or "
        "lists with one entry per image, or an object with narrow(start, stop). Or leave micro_batch_size at null "
        "and use a smaller batch_size."
    )


def _in_brackets(reason: str) -> str:
    lines = reason.strip().splitlines()
    return f" ({lines[0][:120].rstrip(' .')})" if lines else ""
