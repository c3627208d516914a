"""The loop: forward, backward, clip, step; one result per epoch. It knows no files, presets or model names.

It stops only between optimizer steps and goes on from there: every random number of a step depends on the seed, the
epoch and the batch alone, so a resumed run is the same run.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from zoo.errors import TrainingError
from zoo.loader import lay_channels_last, mix_seeds

REPORT_SECONDS = 0.2


class Batches(Protocol):
    """A sequence of `(images, targets)` batches that can be started anew, in an order of its own, at any batch."""

    def __len__(self) -> int:
        """Batches per epoch."""

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over one epoch, from a batch on."""


@dataclass
class Position:
    """Where a run stands: between two optimizer steps.

    Attributes:
        epoch: Epochs finished.
        batch: Batches done of the epoch after them.
        step: Optimizer steps done.
        images: Images seen in the unfinished epoch, by this process.
        loss_sum: Sum of their losses.
        seconds: Time spent on it.
        waiting: Seconds of that spent waiting for data.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    images: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    waiting: float = 0.0


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
    network: nn.Module,
    batches: Batches,
    optimizer: Any,
    accelerator: Accelerator,
    *,
    loss: Callable[[Tensor, Tensor], Tensor],
    epochs: int,
    position: Position,
    before_step: Callable[[Position], None],
    after_step: Callable[[Position, float | None], bool],
    adjust_gradients: Callable[[], None] | None = None,
    accumulate: int = 1,
    clip_grad_norm: float | None = None,
    seed: int = 0,
    shows_targets: bool = False,
) -> Iterator[EpochResult]:
    """Train until the last epoch, or until `after_step` says stop; `position` is kept up to date.

    Args:
        network: Turns the first of a batch into outputs; prepared by the accelerator.
        batches: Training data.
        optimizer: Prepared by the accelerator.
        accelerator: Device, precision and processes.
        loss: Mean loss of outputs and targets, a scalar.
        epochs: Epochs of the whole run.
        position: Where to start; a resumed run hands in where it stopped.
        before_step: Called before each optimizer step, to set the rates.
        after_step: Called after each optimizer step with the loss (None if it was not fetched from the device); True
            stops the loop before the next.
        adjust_gradients: Called before each optimizer step with the gradients of the whole step at hand, clipped.
        accumulate: Batches per optimizer step; their gradients are averaged.
        clip_grad_norm: Largest norm of all gradients together.
        seed: Of dropout and the like.
        shows_targets: Whether the network is called with the targets, too: `network(images, targets)`.

    Raises:
        TrainingError: As soon as the loss is seen not to be a finite number.
    """
    count = len(batches)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    watch_all = accelerator.device.type == "cpu"
    while position.epoch < epochs:
        network.train()
        total = torch.zeros((), device=accelerator.device, dtype=torch.float64 if watch_all else torch.float32)
        marked = reported = time.perf_counter()
        iterator = batches.epoch(position.epoch, position.batch)
        for batch in range(position.batch, count):
            asked = time.perf_counter()
            images, targets = _next(iterator, batch, count)
            position.waiting += time.perf_counter() - asked
            window = min(accumulate, count - batch // accumulate * accumulate)
            is_step = (batch + 1) % accumulate == 0 or batch + 1 == count
            torch.manual_seed(mix_seeds(seed, position.epoch, batch, accelerator.process_index))
            with nullcontext() if is_step else accelerator.no_sync(network):
                outputs = network(images, targets) if shows_targets else network(images)
                value = loss(outputs, targets)
                accelerator.backward(value / window)
            total += value.detach() * len(images)
            position.images += len(images)
            if not is_step:
                continue
            before_step(position)
            if clip_grad_norm is not None:
                accelerator.clip_grad_norm_(parameters, clip_grad_norm)
            if adjust_gradients is not None:
                adjust_gradients()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            position.step, position.batch = position.step + 1, batch + 1
            now = time.perf_counter()
            position.seconds, marked = position.seconds + now - marked, now
            fetched = None
            if watch_all or now - reported > REPORT_SECONDS or batch + 1 == count:
                fetched, reported = float(value.detach()), now
                _check_finite(fetched, position)
            if after_step(position, fetched):
                position.loss_sum += float(total)
                return
        position.loss_sum += float(total)
        position.seconds += time.perf_counter() - marked
        yield _finish_epoch(position, accelerator)


def run_batches(
    network: nn.Module, batches: Iterable[Any], accelerator: Accelerator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield outputs and targets of every batch, gathered from all processes, in eval mode without gradients."""
    network.eval()
    for images, targets in batches:
        with torch.inference_mode():
            outputs = network(lay_channels_last(images))
            if accelerator.num_processes > 1:  # else nothing to gather; and what it cuts is wrong for user's samplers
                outputs, targets = accelerator.gather_for_metrics((outputs, targets))
        yield outputs, targets


def _next(iterator: Iterator[tuple[Tensor, Tensor]], batch: int, count: int) -> tuple[Tensor, Tensor]:
    try:
        pair = next(iterator)
    except StopIteration:
        raise TrainingError(
            f"the training data ended after {batch} of {count} batches. Its length must be the number of batches that "
            "it yields in every epoch."
        ) from None
    try:
        images, targets = pair
    except (TypeError, ValueError) as error:
        raise TrainingError(f"a batch is not a pair of images and targets ({error}).") from error
    return images, targets


def _finish_epoch(position: Position, accelerator: Accelerator) -> EpochResult:
    sums = torch.tensor([position.loss_sum, position.images], dtype=torch.float32, device=accelerator.device)
    loss_sum, images = accelerator.reduce(sums, "sum").tolist()
    if accelerator.num_processes == 1:
        loss_sum, images = position.loss_sum, position.images
    result = EpochResult(
        epoch=position.epoch + 1,
        step=position.step,
        loss=loss_sum / images,
        images_per_second=images / max(position.seconds, 1e-9),
        waiting=min(1.0, position.waiting / max(position.seconds, 1e-9)),
        seconds=position.seconds,
    )
    _check_finite(result.loss, position)
    position.epoch, position.batch, position.images = position.epoch + 1, 0, 0
    position.loss_sum = position.seconds = position.waiting = 0.0
    return result


def _check_finite(loss: float, position: Position) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss is {loss} after optimizer step {position.step} in epoch {position.epoch + 1}. The rate is "
            "probably too high: try a tenth of it, a longer warm-up, or clip_grad_norm=1.0."
        )
