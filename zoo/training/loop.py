"""The loop over epochs; one result per epoch. It knows no files, presets or model names.

It stops only between optimizer steps and goes on from there.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from zoo.errors import TrainingError
from zoo.training.position import Position
from zoo.training.step import TrainingStep, check_finite, telling_memory


class Batches(Protocol):
    """A sequence of `(images, targets)` batches that can be started anew, in an order of its own, at any batch.

    Images are a tensor, or a tuple of tensors with one entry per image each, such as feature maps.
    """

    def __len__(self) -> int:
        """Batches per epoch."""

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[tuple[Any, Any]]:
        """Iterate over one epoch, from a batch on."""


@dataclass(frozen=True)
class EpochResult:
    """What one epoch of training gave.

    Attributes:
        epoch: From 1.
        step: Optimizer steps done since the beginning.
        loss: Mean training loss.
        images_per_second: Of all processes together.
        waiting: Share of the time spent waiting for data, 0 to 1.
        seconds: Time for training, without evaluation.
    """

    epoch: int
    step: int
    loss: float
    images_per_second: float
    waiting: float
    seconds: float


def fit(
    step: TrainingStep,
    batches: Batches,
    position: Position,
    *,
    epochs: int,
    accumulate: int = 1,
    after_step: Callable[[Position, float | None], bool] = lambda position, loss: False,
) -> Iterator[EpochResult]:
    """Train until an epoch is over, or until `after_step` says stop; `position` is kept up to date.

    Args:
        step: Takes each optimizer step.
        batches: Training data.
        position: Where to start; a resumed run hands in where it stopped.
        epochs: The epoch after which to end, counted from the start of the run.
        accumulate: Batches per optimizer step.
        after_step: Called after each optimizer step with the loss (None if it was not fetched from the device); True
            stops the loop before the next.

    Raises:
        TrainingError: As `TrainingStep.take`; or the data ended early.
    """
    count, device = len(batches), step.accelerator.device
    while position.epoch < epochs:
        step.start_epoch()
        total = torch.zeros((), device=device, dtype=torch.float64 if device.type == "cpu" else torch.float32)
        marked = time.perf_counter()
        iterator = batches.epoch(position.epoch, position.batch)
        while position.batch < count:
            window = range(position.batch, min(count, (position.batch // accumulate + 1) * accumulate))
            pairs = _fetch(iterator, window, count, position)
            loss = step.take(pairs, window, position, total, is_last=window.stop == count)
            now = time.perf_counter()
            position.seconds, marked = position.seconds + now - marked, now
            if after_step(position, loss):
                position.loss_sum += float(total)
                return
        position.loss_sum += float(total)
        position.seconds += time.perf_counter() - marked
        yield _finish_epoch(position, step)


def _fetch(
    iterator: Iterator[tuple[Any, Any]], window: range, count: int, position: Position
) -> Iterator[tuple[Any, Any]]:
    """Yield the batches of an optimizer step, and measure how long they are waited for."""
    for batch in window:
        asked = time.perf_counter()
        with telling_memory("while loading a batch"):
            pair = _next(iterator, batch, count)
        position.waiting += time.perf_counter() - asked
        yield pair


def _next(iterator: Iterator[tuple[Any, Any]], batch: int, count: int) -> tuple[Any, Any]:
    try:
        pair = next(iterator)
    except StopIteration:
        raise TrainingError(
            f"the training data ended after {batch} of {count} batches. len() of the loader must equal the number of "
            "batches it yields per epoch."
        ) from None
    try:
        images, targets = pair
    except (TypeError, ValueError) as error:
        raise TrainingError(f"a batch is not an (images, targets) pair ({error}).") from error
    return images, targets


def _finish_epoch(position: Position, step: TrainingStep) -> EpochResult:
    accelerator = step.accelerator
    sums = torch.tensor([position.loss_sum, position.images], dtype=torch.float32, device=accelerator.device)
    loss_sum, images = accelerator.reduce(sums, "sum").tolist()
    if accelerator.num_processes == 1:
        loss_sum, images = position.loss_sum, position.images
    result = EpochResult(
        epoch=position.epoch + 1,
        step=position.step,
        loss=loss_sum / images,
        images_per_second=images / max(position.seconds, 1e-9),
        waiting=position.waiting_share,
        seconds=position.seconds,
    )
    check_finite(result.loss, position, step.network)
    position.epoch, position.batch, position.images = position.epoch + 1, 0, 0
    position.loss_sum = position.seconds = position.waiting = 0.0
    return result
