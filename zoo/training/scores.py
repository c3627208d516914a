"""The scores of a run, and the best of its weights."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data import mix_seeds
from zoo.engine import MicroBatchSize, load_to_score, recompute_norms, split_batch
from zoo.optim import set_mode
from zoo.training.early_stopping import Monitor
from zoo.training.evaluation import score_batches
from zoo.training.kept_weights import label_metric, name_epochs
from zoo.training.moving_average import EpochMean
from zoo.training.setup import RunParts
from zoo.training.verdict import find_trouble

MOST_CALIBRATED = 10_000  # training images, if their features are not cached


@dataclass
class Best:
    """The best weights of a run so far.

    Attributes:
        weights: On the CPU; None before the first, or if the run does not keep them.
        score: By the monitor; -inf before the first.
        loss: On the validation images; the lower one is the better of two equal scores.
        epochs: Theirs, from 1: one, or several whose mean they are; empty before the first.
        scored: Their evaluation and the examples to draw; None after a resume.
    """

    weights: Mapping[str, Tensor] | None = None
    score: float = -math.inf
    loss: float = math.inf
    epochs: tuple[int, ...] = ()
    scored: tuple[Any, Sequence[Any]] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, by the keys of `state.pt`."""
        return {"best": self.weights, "best_score": self.score, "best_epochs": [*self.epochs]}


class Scores:
    """Scores the weights that a run keeps, and remembers the best.

    Args:
        parts: The network, its moving average, and the validation images.
        log: Told about scores that are not numbers.

    Attributes:
        evaluation: Of the weights scored last; None before.
        examples: What the task draws of them.
        best: The best weights so far.
        monitor: Chooses the best, and says when training stops early.
    """

    def __init__(self, parts: RunParts, log: Callable[[str], None]) -> None:
        self.parts, self.log = parts, log
        self.evaluation: Any = None
        self.examples: Sequence[Any] = ()
        self.best = Best()
        self.monitor = Monitor.of(parts.preset, parts.task, parts.plan)

    def take(self, model: nn.Module) -> None:
        """Score the weights of a model on the validation images.

        Args:
            model: That of the run, or one with an average of its weights.
        """
        parts = self.parts
        network: nn.Module = parts.network if model is parts.model else parts.supply.wrap(model)
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
        parts, epoch = self.parts, before["epoch"]
        set_mode(parts.optimizer, learn=False)
        self.take(parts.final_model)
        record = self.monitor.record(self.evaluation)
        if trouble := find_trouble(self.evaluation):
            self.log(f"epoch {epoch}: {trouble}")
        elif self._is_best(score := self.monitor.score({**before, **record}), loss := find_loss(record)):
            weights = None if parts.preset.keep == "last" else self._copy(self.best.weights)
            self.best = Best(weights, score, loss, (epoch,), (self.evaluation, self.examples))
        set_mode(parts.optimizer, learn=True)
        return record

    def try_mean(self, mean: EpochMean) -> None:
        """Let the mean of the last epochs take the place of the best epoch if it is better, or nothing else is kept.

        Args:
            mean: Of at least one epoch; the statistics of its norms are computed anew.
        """
        parts, best = self.parts, self.best
        count = recompute_norms(mean.model, partial(self._run_through, parts.supply.wrap(mean.model)))
        name, norms = name_epochs(mean.epochs), f", statistics of {count} batch norms recomputed" if count else ""
        weights = {name: value.cpu().clone() for name, value in mean.model.state_dict().items()}
        if parts.supply.val is None:
            self.best = Best(weights, epochs=mean.epochs)
            self.log(f"{name} is kept{norms}")
            return
        self.take(mean.model)
        trouble = find_trouble(self.evaluation)
        record = self.monitor.record(self.evaluation)
        score, loss = self.monitor.score(record), find_loss(record)
        is_kept = not trouble and (parts.preset.keep == "last" or self._is_best(score, loss))
        if is_kept:
            self.best = Best(weights, score, loss, mean.epochs, (self.evaluation, self.examples))
        against = f"{_name(best.score, best.loss)} of {name_epochs(best.epochs)}" if best.epochs else "no scored epoch"
        found = trouble or f"{label_metric(self.monitor.key)} {_name(score, loss)}, against {against}"
        self.log(f"{name}: {found}{norms}; it is {'kept' if is_kept else 'not kept'}")

    def _is_best(self, score: float, loss: float) -> bool:
        """Whether weights are better than the best so far; on few images many epochs have the same score."""
        return score > -math.inf and (score, -loss) > (self.best.score, -self.best.loss)

    @torch.no_grad()
    def _run_through(self, network: nn.Module) -> None:
        """Pass one epoch of training batches through a network in training mode."""
        parts, epoch = self.parts, self.parts.preset.epochs
        torch.manual_seed(mix_seeds(parts.preset.seed, epoch))  # of dropout
        network.train()
        for inputs, targets in parts.supply.train.epoch(epoch):
            for part in split_batch(inputs, targets, parts.micro_batches.size):
                network(part.inputs, part.targets) if parts.shows_targets else network(part.inputs)

    def recall_best(self) -> None:
        """Take the scores of the best weights, which the model holds by now."""
        if self.best.scored is not None:
            self.evaluation, self.examples = self.best.scored
        elif self.parts.supply.val is not None:
            self.take(self.parts.model)

    def calibrate(self) -> None:
        """Calibrate the model, which holds the final weights by now, on its outputs for the training images."""
        parts = self.parts
        if not parts.task.calibrates or parts.data.train is None:
            return
        evaluator = parts.task.make_evaluator(
            parts.model, parts.data.classes, parts.data.train, device=parts.accelerator.device, loss=parts.loss
        )
        score_batches(evaluator, parts.network, self._list_calibration(), parts.accelerator)
        parts.task.calibrate(parts.model, evaluator)
        if parts.supply.val is not None:
            self.take(parts.model)

    def _list_calibration(self) -> Any:
        """Return batches of the training images, from cached features or without random changes."""
        parts, images = self.parts, self.parts.data.train
        if parts.supply.features:
            return parts.supply.train
        if len(images) > MOST_CALIBRATED:
            images = images.subset([place * len(images) // MOST_CALIBRATED for place in range(MOST_CALIBRATED)])
        source = parts.task.make_scoring_source(parts.model, images, parts.preset.seed)
        size = min(parts.task.scoring_batch, parts.micro_batches.size or parts.task.scoring_batch)
        return load_to_score(source, parts.accelerator, batch_size=size, num_workers=parts.preset.num_workers or 0)

    def _copy(self, former: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """Return the weights on the CPU; what is still frozen is taken from an earlier copy."""
        frozen = {name for name, value in self.parts.model.named_parameters() if not value.requires_grad}
        known = {name: value for name, value in (former or {}).items() if name in frozen}
        now = self.parts.final_model.state_dict()
        return {name: known[name] if name in known else value.cpu().clone() for name, value in now.items()}


def _name(score: float, loss: float) -> str:
    return f"{abs(score):.4g} (loss {loss:.4g})"


def find_loss(record: Mapping[str, Any]) -> float:
    """Return the validation loss of a record; infinity if it has none."""
    return float(record.get("val_loss", math.inf))


def _in_micro_batches(batches: Any, sizes: MicroBatchSize) -> Iterator[tuple[Any, Any]]:
    """Yield batches no larger than what memory holds."""
    for inputs, targets in batches:
        yield from ((part.inputs, part.targets) for part in split_batch(inputs, targets, sizes.size))
