"""The loop: forward, backward, clip, step; one result per epoch. It knows no files, presets or model names.

It stops only between optimizer steps and goes on from there: every random number of a step depends on the seed, the
epoch and the batch alone, so a resumed run is the same run.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from zoo.data import mix_seeds
from zoo.engine import Chunk, Chunks, RunningStatistics, count_images, is_out_of_memory, release_memory, split_batch
from zoo.errors import TrainingError
from zoo.optim import CLOSURE, asks_for_closure, set_mode
from zoo.training.bad_loss import explain_loss
from zoo.training.single_image import OF_A_BATCH, OF_A_CHUNK, is_of_norms

REPORT_SECONDS = 0.2


class Batches(Protocol):
    """A sequence of `(images, targets)` batches that can be started anew, in an order of its own, at any batch.

    Images are a tensor, or a tuple of tensors with one entry per image each, such as feature maps.
    """

    def __len__(self) -> int:
        """Batches per epoch."""

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[tuple[Any, Any]]:
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
        first_loss: Loss of the first step of the run; None before it.
        highest_loss: The highest loss of a step that was fetched from the device, or None.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    images: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    waiting: float = 0.0
    first_loss: float | None = field(default=None, compare=False)
    highest_loss: float | None = field(default=None, compare=False)

    def note(self, loss: float) -> None:
        """Remember the loss of a step."""
        self.first_loss = loss if self.first_loss is None else self.first_loss
        self.highest_loss = loss if self.highest_loss is None else max(self.highest_loss, loss)


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
    loss: Callable[[Any, Any], Tensor],
    epochs: int,
    position: Position,
    before_step: Callable[[Position], None],
    after_step: Callable[[Position, float | None], bool],
    adjust_gradients: Callable[[], None] | None = None,
    accumulate: int = 1,
    chunks: Chunks | None = None,
    clip_grad_norm: float | None = None,
    seed: int = 0,
    shows_targets: bool = False,
) -> Iterator[EpochResult]:
    """Train until the last epoch, or until `after_step` says stop; `position` is kept up to date.

    Where memory runs out in a forward or backward pass, the chunks are halved and the optimizer step at hand is begun
    again from its first batch: each image counts once, and norms see none of what failed.

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
        accumulate: Batches per optimizer step; their gradients are averaged. They are held until the step is done.
        chunks: How many images of a batch are in the network at a time; None: all.
        clip_grad_norm: Largest norm of all gradients together.
        seed: Of dropout and the like.
        shows_targets: Whether the network is called with the targets, too: `network(images, targets)`.

    Raises:
        TrainingError: As soon as the loss is seen not to be a finite number; or memory does not hold a single image,
            or runs out where smaller chunks do not help.
    """
    count = len(batches)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    watch_all = accelerator.device.type == "cpu"
    gradients = _Gradients(network, loss, optimizer, accelerator, chunks or Chunks(), seed, shows_targets)
    while position.epoch < epochs:
        network.train()
        set_mode(optimizer, learn=True)
        gradients.watch_statistics()
        total = torch.zeros((), device=accelerator.device, dtype=torch.float64 if watch_all else torch.float32)
        marked = reported = time.perf_counter()
        iterator = batches.epoch(position.epoch, position.batch)
        while position.batch < count:
            window = range(position.batch, min(count, (position.batch // accumulate + 1) * accumulate))
            value, inputs = gradients.add_up(_fetch(iterator, window, count, position), window, position, total)
            fetched, now = None, time.perf_counter()
            if watch_all or position.step == 0 or now - reported > REPORT_SECONDS or window.stop == count:
                fetched, reported = float(value), now
                _check_finite(fetched, position, network, inputs)
                position.note(fetched)
            del inputs
            before_step(position)
            with _telling_memory("in the optimizer's step"):
                if clip_grad_norm is not None:
                    accelerator.clip_grad_norm_(parameters, clip_grad_norm)
                if adjust_gradients is not None:
                    adjust_gradients()
                _step(optimizer, position)
            optimizer.zero_grad(set_to_none=True)
            position.step, position.batch = position.step + 1, window.stop
            now = time.perf_counter()
            position.seconds, marked = position.seconds + now - marked, now
            if after_step(position, fetched):
                position.loss_sum += float(total)
                return
        position.loss_sum += float(total)
        position.seconds += time.perf_counter() - marked
        yield _finish_epoch(position, accelerator, network)


class _Gradients:
    """Adds up the gradients of one optimizer step after the other, in chunks that memory holds."""

    def __init__(
        self,
        network: nn.Module,
        loss: Callable[[Any, Any], Tensor],
        optimizer: Any,
        accelerator: Accelerator,
        chunks: Chunks,
        seed: int,
        shows_targets: bool,
    ) -> None:
        self.network, self.loss, self.optimizer, self.accelerator = network, loss, optimizer, accelerator
        self.chunks, self.seed, self.shows_targets = chunks, seed, shows_targets
        self.statistics: RunningStatistics | None = None

    def watch_statistics(self) -> None:
        """Find what has to be put back after a failure; called when the modes of the modules are set."""
        self.statistics = RunningStatistics(self.network) if self.accelerator.num_processes == 1 else None

    def add_up(
        self, pairs: Iterator[tuple[Any, Any]], window: range, position: Position, total: Tensor
    ) -> tuple[Tensor, Any]:
        """Run all batches of an optimizer step, and return the mean loss and the inputs of the last.

        Args:
            pairs: The batches.
            window: Their numbers in the epoch.
            position: Where the run stands; their images are added.
            total: Sum of the losses of the epoch's images; theirs are added.
        """
        if self.statistics is not None:
            self.statistics.keep()
        kept: list[tuple[Any, Any]] = []
        losses: list[Tensor] = []
        for pair in pairs:
            kept.append(pair)
            while len(losses) < len(kept):  # all of them again after a failure
                images, targets = kept[len(losses)]
                value, failure = self._try_batch(images, targets, window, window[len(losses)], position.epoch)
                if value is None:
                    self._begin_again(count_images(images), failure)
                    losses.clear()
                else:
                    losses.append(value)
        for (images, _), value in zip(kept, losses, strict=True):
            total += value * count_images(images)
            position.images += count_images(images)
        return losses[-1], kept[-1][0]

    def _try_batch(self, images: Any, targets: Any, window: range, batch: int, epoch: int) -> tuple[Tensor | None, str]:
        """Return the mean loss of a batch, or None and what an error said that memory had run out."""
        _seed(mix_seeds(self.seed, epoch, batch, self.accelerator.process_index), self.accelerator.device)
        try:
            return self._run_batch(images, targets, len(window), batch == window[-1]), ""
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None, str(error)  # without the error: its frames hold what has to be freed
        except ValueError as error:
            if not is_of_norms(error):
                raise
            is_cut = self.chunks.size is not None and self.chunks.size < count_images(images)
            raise TrainingError(OF_A_CHUNK if is_cut else OF_A_BATCH) from error

    def _run_batch(self, images: Any, targets: Any, batches: int, is_last: bool) -> Tensor:
        parts = split_batch(images, targets, self.chunks.size)
        losses = []
        for number, part in enumerate(parts, 1):
            syncs = is_last and number == len(parts)
            losses.append(self._run_chunk(part, batches / part.share, syncs=syncs))
        if len(parts) == 1:
            return losses[0]
        return torch.stack([value * part.share for value, part in zip(losses, parts, strict=True)]).sum()

    def _run_chunk(self, part: Chunk, divisor: float, *, syncs: bool) -> Tensor:
        with nullcontext() if syncs else self.accelerator.no_sync(self.network):
            outputs = self.network(part.inputs, part.targets) if self.shows_targets else self.network(part.inputs)
            value = self.loss(outputs, part.targets)
            self.accelerator.backward(value / divisor)
        return value.detach()

    def _begin_again(self, images: int, failure: str) -> None:
        """Drop the gradients of the step, free memory and take smaller chunks."""
        used = images if self.chunks.size is None else min(images, self.chunks.size)
        if self.statistics is None:
            raise TrainingError(
                f"memory ran out in process {self.accelerator.process_index} of {self.accelerator.num_processes} with "
                f"{used} images in the network. One process alone would take fewer and go on; here the others would "
                f"wait for it. Start again with chunk_size={max(1, used // 2)} or chunk_size='auto'."
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.statistics.restore()
        release_memory(self.accelerator.device)
        self.chunks.halve(used, failure)


def _seed(number: int, device: torch.device) -> None:
    """Seed the generators of the CPU and of one device; `torch.manual_seed` takes a millisecond without a GPU."""
    torch.default_generator.manual_seed(number)
    if device.type != "cpu":
        getattr(torch, device.type).manual_seed(number)


@contextmanager
def _telling_memory(where: str) -> Iterator[None]:
    """Say in words that memory ran out where it cannot be helped."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"memory ran out {where} ({error}). Start again with a smaller chunk_size, or chunk_size='auto', or let "
            "less of the model learn."
        ) from error


def _fetch(
    iterator: Iterator[tuple[Any, Any]], window: range, count: int, position: Position
) -> Iterator[tuple[Any, Any]]:
    """Yield the batches of an optimizer step, and measure how long they are waited for."""
    for batch in window:
        asked = time.perf_counter()
        with _telling_memory("while a batch was loaded"):
            pair = _next(iterator, batch, count)
        position.waiting += time.perf_counter() - asked
        yield pair


def _next(iterator: Iterator[tuple[Any, Any]], batch: int, count: int) -> tuple[Any, Any]:
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


def _finish_epoch(position: Position, accelerator: Accelerator, network: nn.Module) -> EpochResult:
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
    _check_finite(result.loss, position, network)
    position.epoch, position.batch, position.images = position.epoch + 1, 0, 0
    position.loss_sum = position.seconds = position.waiting = 0.0
    return result


def _check_finite(loss: float, position: Position, network: nn.Module, inputs: Any = None) -> None:
    if not math.isfinite(loss):
        epoch, step = position.epoch + 1, position.step
        raise TrainingError(explain_loss(loss, epoch=epoch, step=step, network=network, inputs=inputs))


def _step(optimizer: Any, position: Position) -> None:
    """Take an optimizer's step; in the first one it shows whether it runs the model itself."""
    try:
        optimizer.step()
    except (TypeError, AssertionError, RuntimeError) as error:
        if position.step == 0 and asks_for_closure(error):
            raise TrainingError(CLOSURE.format(type(getattr(optimizer, "optimizer", optimizer)).__name__)) from error
        raise
