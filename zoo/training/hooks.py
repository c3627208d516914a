"""Parts of a run that act around its steps and own their state: frozen parts, rates, scores."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from zoo.engine import MicroBatchSize, split_batch
from zoo.errors import InputError
from zoo.optim import (
    LiveRates,
    Proof,
    apply_plan,
    check_reached,
    frozen_tensors,
    keep_norm_statistics,
    set_mode,
    set_rates,
)
from zoo.rates import Plan
from zoo.training.early_stopping import Monitor
from zoo.training.evaluation import score_batches
from zoo.training.moving_average import MovingAverage
from zoo.training.position import Position
from zoo.training.setup import RunParts
from zoo.training.verdict import find_trouble


def freeze(model: nn.Module, plan: Plan, epoch: int, *, norm_statistics: bool) -> None:
    """Freeze what does not learn in an epoch, and the statistics of all norms if asked to."""
    apply_plan(model, plan, epoch)
    if norm_statistics:
        keep_norm_statistics(model)


class FrozenParts:
    """Freezes, unfreezes, and proves that nothing frozen has changed.

    Args:
        parts: The model, frozen as its plan says for the epoch.
        epoch: The first to train, from 0.
    """

    def __init__(self, parts: RunParts, epoch: int) -> None:
        self.model, self.plan = parts.model, parts.plan
        self.norm_statistics = parts.preset.freeze_norm_stats
        self.proof = Proof(frozen_tensors(self.model, self.plan, epoch))

    def unfreeze(self, epoch: int) -> list[str]:
        """Let the groups learn whose epoch has come, and return their keys; the proof holds for them until now."""
        before = set(self.proof.digests)
        freeze(self.model, self.plan, epoch, norm_statistics=self.norm_statistics)
        names = sorted(before - set(frozen_tensors(self.model, self.plan, epoch)))
        self.proof.release(names, f"before epoch {epoch + 1}, which unfreezes {len(names)} tensors")
        return list(dict.fromkeys(group.key for group in self.plan.trained if group.unfreeze_at == epoch))

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"digests": self.proof.digests, "moments": self.proof.moments}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was."""
        self.proof.continue_from(state)


class RateSetter:
    """Sets rate and decay of every group before each update.

    Args:
        parts: The optimizer and the plan, on the clock of the run.
        log: Told about parameters that get no gradient.

    Attributes:
        live: The rates so far, and those to come.
        current: Rates of the last step, by group.
    """

    def __init__(self, parts: RunParts, log: Callable[[str], None]) -> None:
        self.model, self.plan, self.optimizer, self.log = parts.model, parts.plan, parts.optimizer, log
        self.live = LiveRates(self.plan)
        self.current: Mapping[str, float] = {}
        self._checks_gradients = True
        if parts.supply.val is None and (awaited := self.live.awaited - {"loss"}):
            raise InputError(
                f"schedule 'plateau' follows {', '.join(sorted(awaited))}, but there are no validation images. Set "
                "its metric to 'loss', or add validation images."
            )

    def watch_gradients(self) -> None:
        """Check in the next step that all that learns gets a gradient."""
        self._checks_gradients = True

    def set(self, position: Position) -> None:
        """Set the rates of the step that a position is before."""
        if self._checks_gradients:
            check_reached(self.model, self.plan, self.log, position.epoch)
            self._checks_gradients = False
        self.current = self.live.take(position.step)
        set_rates(self.optimizer, self.current, self.plan.weight_decays(position.step))

    def list_last(self) -> dict[str, float]:
        """Return the rate of every group in the last step, those of frozen groups last."""
        frozen = {group.name: 0.0 for group in self.plan.groups if group.frozen}
        return {name: rates[-1] for name, rates in self.live.history.items()} | frozen


class Scores:
    """Scores the weights that a run keeps, and remembers the best.

    Args:
        parts: The network, its moving average, and the validation images.
        log: Told about scores that are not numbers.

    Attributes:
        evaluation: Of the weights scored last; None before.
        examples: What the task draws of them.
        best: The best weights so far, on the CPU, if the run keeps those.
        best_score: Their score by the monitor; -inf before the first.
        monitor: Chooses the best, and says when training stops early.
    """

    def __init__(self, parts: RunParts, log: Callable[[str], None]) -> None:
        self.parts, self.log = parts, log
        self.evaluation: Any = None
        self.examples: Any = ()
        self.best: dict[str, Tensor] | None = None
        self.best_score = -math.inf
        self.monitor = Monitor.of(parts.preset, parts.task, parts.plan)

    def take(self, average: MovingAverage | None) -> None:
        """Score the network, or the moving average of its weights, on the validation images."""
        parts = self.parts
        network: nn.Module = parts.network if average is None else parts.supply.wrap(average.model)
        batches: Any = parts.supply.val
        if parts.accelerator.num_processes == 1:  # else what is gathered would be cut in the wrong places
            batches = _in_micro_batches(batches, parts.micro_batches)
        options = {"device": parts.accelerator.device, "loss": parts.loss}
        evaluator = parts.task.make_evaluator(parts.model, parts.data.classes, parts.data.val, **options)
        self.evaluation, self.examples = score_batches(evaluator, network, batches, parts.accelerator)

    def record(self, before: Mapping[str, Any]) -> dict[str, Any]:
        """Score the weights after an epoch, remember them if they are the best, and return what to record.

        Args:
            before: What the record of the epoch holds of its training.
        """
        parts = self.parts
        set_mode(parts.optimizer, learn=False)
        self.take(parts.average)
        record: dict[str, Any] = self.evaluation.record()
        if trouble := find_trouble(self.evaluation):
            self.log(f"epoch {before['epoch']}: {trouble}")
        elif (score := self.monitor.score({**before, **record})) > self.best_score:
            self.best_score = score
            if parts.preset.keep != "last":
                self.best = {name: value.cpu().clone() for name, value in parts.final_model.state_dict().items()}
        set_mode(parts.optimizer, learn=True)
        return record


def _in_micro_batches(batches: Any, sizes: MicroBatchSize) -> Iterator[tuple[Any, Any]]:
    """Yield batches no larger than what memory holds."""
    for inputs, targets in batches:
        yield from ((part.inputs, part.targets) for part in split_batch(inputs, targets, sizes.size))
