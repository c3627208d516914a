"""One optimizer step, from its batches to the moving average: read `TrainingStep.take` from top to bottom.

Every random number of a step depends on the seed, the epoch and the batch alone, so a resumed run is the same run.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from zoo.data import is_out_of_memory, mix_seeds, release_memory
from zoo.engine import (
    MicroBatch,
    MicroBatchSize,
    RunningStatistics,
    count_images,
    split_batch,
)
from zoo.errors import TrainingError
from zoo.optim import CLOSURE, asks_for_closure, centralize_gradients, clip_groups, set_mode
from zoo.training.bad_loss import explain_loss
from zoo.training.moving_average import MovingAverage
from zoo.training.position import Position
from zoo.training.single_image import OF_A_BATCH, OF_A_MICRO_BATCH, is_of_norms

REPORT_SECONDS = 0.2


class TrainingStep:
    """Takes the optimizer steps of a run until other parameters learn.

    Args:
        network: Turns inputs into outputs; prepared by the accelerator.
        loss: Mean loss of outputs and targets, a scalar.
        optimizer: Prepared by the accelerator.
        accelerator: Device, precision and processes.
        set_rates: Called before each update with the position, to set every group's rate and decay.
        micro_batches: How many images of a batch are in the network at a time; None: all.
        clip_grad_norm: Largest norm of all gradients together.
        adjusts_groups: Whether some group has gradients of its own to clip or to centralize.
        average: Moving average of the weights.
        seed: Of dropout and the like.
        shows_targets: Whether the network is called with the targets, too: `network(images, targets)`.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Callable[[Any, Any], Tensor],
        optimizer: Any,
        accelerator: Accelerator,
        *,
        set_rates: Callable[[Position], None],
        micro_batches: MicroBatchSize | None = None,
        clip_grad_norm: float | None = None,
        adjusts_groups: bool = False,
        average: MovingAverage | None = None,
        seed: int = 0,
        shows_targets: bool = False,
    ) -> None:
        sizes = micro_batches or MicroBatchSize()
        self.gradients = Gradients(network, loss, optimizer, accelerator, sizes, seed, shows_targets)
        self.network, self.optimizer, self.accelerator = network, optimizer, accelerator
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.set_rates, self.average = set_rates, average
        self.clip_grad_norm, self.adjusts_groups = clip_grad_norm, adjusts_groups
        self.fetched = 0.0  # when a loss was fetched from the device last

    def start_epoch(self) -> None:
        """Set the network and the optimizer to training."""
        self.network.train()
        set_mode(self.optimizer, learn=True)
        self.gradients.watch_statistics()
        self.fetched = time.perf_counter()

    def take(
        self,
        batches: Iterator[tuple[Any, Any]],
        window: range,
        position: Position,
        epoch_loss: Tensor,
        *,
        is_last: bool,
    ) -> float | None:
        """Take one optimizer step.

        Args:
            batches: Its batches.
            window: Their numbers in the epoch; their gradients are averaged.
            position: Where the run stands; moved on.
            epoch_loss: Sum of the losses of the epoch's images; theirs are added.
            is_last: Whether this is the last step of the epoch.

        Returns:
            The loss; None if it was not fetched from the device.

        Raises:
            TrainingError: The loss is not a finite number; or memory does not hold a single image, or runs out where
                smaller micro-batches do not help.
        """
        loss, inputs = self.gradients.accumulate(batches, window, position, epoch_loss)  # forward, loss, backward
        value = self._fetch_loss(loss, inputs, position, is_last=is_last)
        del inputs
        self.set_rates(position)
        with telling_memory("in the optimizer's step"):
            self._adjust_gradients()
            self._update_weights(position)
        self.optimizer.zero_grad(set_to_none=True)
        position.step, position.batch = position.step + 1, window.stop
        if self.average is not None:
            self.average.update(self.optimizer, position.step)
        return value

    def _fetch_loss(self, loss: Tensor, inputs: Any, position: Position, *, is_last: bool) -> float | None:
        """Return the loss if it costs little to wait for it or it is time to show one, and check that it is finite."""
        is_cheap, now = self.accelerator.device.type == "cpu", time.perf_counter()
        if not (is_cheap or is_last or position.step == 0 or now - self.fetched > REPORT_SECONDS):
            return None
        value, self.fetched = float(loss), now
        check_finite(value, position, self.network, inputs)
        position.note(value)
        return value

    def _adjust_gradients(self) -> None:
        """Clip all gradients together, then clip and centralize those of each group."""
        if self.clip_grad_norm is not None:
            self.accelerator.clip_grad_norm_(self.parameters, self.clip_grad_norm)
        if self.adjusts_groups:
            if self.clip_grad_norm is None:
                self.accelerator.unscale_gradients()
            clip_groups(self.optimizer)
            centralize_gradients(self.optimizer)

    def _update_weights(self, position: Position) -> None:
        """Let the optimizer step; the first time it shows whether it wants to run the network itself."""
        try:
            self.optimizer.step()
        except (TypeError, AssertionError, RuntimeError) as error:
            if position.step == 0 and asks_for_closure(error):
                kind = type(getattr(self.optimizer, "optimizer", self.optimizer)).__name__
                raise TrainingError(CLOSURE.format(kind)) from error
            raise


class Gradients:
    """Adds up the gradients of one optimizer step, in micro-batches that memory holds.

    Where memory runs out in a forward or backward pass, the micro-batches are halved and the step is started again from
    its first batch: each image counts once, and norms see none of what failed.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Callable[[Any, Any], Tensor],
        optimizer: Any,
        accelerator: Accelerator,
        micro_batches: MicroBatchSize,
        seed: int,
        shows_targets: bool,
    ) -> None:
        self.network, self.loss, self.optimizer, self.accelerator = network, loss, optimizer, accelerator
        self.micro_batches, self.seed, self.shows_targets = micro_batches, seed, shows_targets
        self.statistics: RunningStatistics | None = None

    def watch_statistics(self) -> None:
        """Find what has to be put back after a failure; called when the modes of the modules are set."""
        self.statistics = RunningStatistics(self.network) if self.accelerator.num_processes == 1 else None

    def accumulate(
        self, batches: Iterator[tuple[Any, Any]], window: range, position: Position, epoch_loss: Tensor
    ) -> tuple[Tensor, Any]:
        """Run all batches of an optimizer step, and return the mean loss and the inputs of the last.

        Args:
            batches: The batches. They are held until the step is done.
            window: Their numbers in the epoch.
            position: Where the run stands; their images are added.
            epoch_loss: Sum of the losses of the epoch's images; theirs are added.
        """
        if self.statistics is not None:
            self.statistics.keep()
        held: list[tuple[Any, Any]] = []
        losses: list[Tensor] = []
        for batch in batches:
            held.append(batch)
            while len(losses) < len(held):  # all of them again after a failure
                images, targets = held[len(losses)]
                value, failure = self._try_batch(images, targets, window, window[len(losses)], position.epoch)
                if value is None:
                    self._start_again(count_images(images), failure)
                    losses.clear()
                else:
                    losses.append(value)
        for (images, _), value in zip(held, losses, strict=True):
            epoch_loss += value * count_images(images)
            position.images += count_images(images)
        return losses[-1], held[-1][0]

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
            is_cut = self.micro_batches.size is not None and self.micro_batches.size < count_images(images)
            raise TrainingError(OF_A_MICRO_BATCH if is_cut else OF_A_BATCH) from error

    def _run_batch(self, images: Any, targets: Any, batches: int, is_last: bool) -> Tensor:
        parts = split_batch(images, targets, self.micro_batches.size)
        losses = []
        for number, part in enumerate(parts, 1):
            syncs = is_last and number == len(parts)
            losses.append(self._run_micro_batch(part, batches / part.share, syncs=syncs))
        if len(parts) == 1:
            return losses[0]
        return torch.stack([value * part.share for value, part in zip(losses, parts, strict=True)]).sum()

    def _run_micro_batch(self, part: MicroBatch, divisor: float, *, syncs: bool) -> Tensor:
        """Run the network forward and backward, and return the loss."""
        with nullcontext() if syncs else self.accelerator.no_sync(self.network):
            outputs = self.network(part.inputs, part.targets) if self.shows_targets else self.network(part.inputs)
            value = self.loss(outputs, part.targets)
            self.accelerator.backward(value / divisor)
        return value.detach()

    def _start_again(self, images: int, failure: str) -> None:
        """Drop the gradients of the step, free memory and take smaller micro-batches."""
        sizes = self.micro_batches
        used = images if sizes.size is None else min(images, sizes.size)
        if self.statistics is None:
            raise TrainingError(
                f"out of memory in process {self.accelerator.process_index} of {self.accelerator.num_processes} with "
                f"micro-batches of {used} images. With several processes the size cannot be reduced during a run. "
                f"Start again with micro_batch_size={max(1, used // 2)} or micro_batch_size=auto."
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.statistics.restore()
        release_memory(self.accelerator.device)
        sizes.halve(used, failure)


def check_finite(loss: float, position: Position, network: nn.Module, inputs: Any = None) -> None:
    """Raise `TrainingError` with what is known of a loss that is not a finite number."""
    if not math.isfinite(loss):
        epoch, step = position.epoch + 1, position.step
        raise TrainingError(explain_loss(loss, epoch=epoch, step=step, network=network, inputs=inputs))


@contextmanager
def telling_memory(where: str) -> Iterator[None]:
    """Report that memory ran out where smaller micro-batches do not help."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"out of memory {where} ({error}). Start again with a smaller micro_batch_size, micro_batch_size=auto, "
            "or fewer trained layers."
        ) from error


def _seed(number: int, device: torch.device) -> None:
    """Seed the generators of the CPU and of one device; `torch.manual_seed` takes a millisecond without a GPU."""
    torch.default_generator.manual_seed(number)
    if device.type != "cpu":
        getattr(torch, device.type).manual_seed(number)
