"""The state of an unfinished run: collected from its parts, saved, and given back to them."""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from zoo._model import known_config
from zoo.errors import InputError, Interrupted
from zoo.optim import load_optimizer_state, set_mode
from zoo.training.failures import say_how_to_resume
from zoo.training.hooks import FrozenParts, RateSetter
from zoo.training.loop import EpochResult
from zoo.training.position import Position
from zoo.training.run_folder import RunFolder
from zoo.training.run_stage import STATE, find_stage
from zoo.training.scores import Best, Scores, find_loss
from zoo.training.setup import RunParts
from zoo.training.state_checks import check_clock, check_optimizer, telling_misfits

STATE_SECONDS = 10.0  # epochs may be short: a run that is killed loses no more than this, or one epoch


@dataclass
class RunState:
    """Where a run stands, what it has recorded, and its parts that have a state of their own.

    Attributes:
        parts: Model, moving average, optimizer, and how many images the network takes at a time.
        position: Between two optimizer steps.
        frozen: The proof that frozen parts did not change.
        rates: The rates so far, and what changes those to come.
        scores: The best so far.
        records: One per finished epoch.
    """

    parts: RunParts
    position: Position
    frozen: FrozenParts
    rates: RateSetter
    scores: Scores
    records: list[dict[str, Any]] = field(default_factory=list)

    def record(self, result: EpochResult, began: float) -> dict[str, Any]:
        """Score an epoch if its turn has come, and add its record to those of the run.

        Args:
            result: Of its training.
            began: When the run would have begun if it had never been interrupted, by `time.perf_counter`.
        """
        parts, preset = self.parts, self.parts.preset
        record: dict[str, Any] = {
            "epoch": result.epoch,
            "epochs": preset.epochs,
            "step": result.step,
            "loss": result.loss,
            "lr": self.rates.list_last(),
            "images_per_second": result.images_per_second,
            "waiting": result.waiting,
        }
        if parts.micro_batches.size is not None:
            record["micro_batch_size"] = parts.micro_batches.size
        if parts.mean is not None:
            set_mode(parts.optimizer, learn=False)
            parts.mean.update(result.epoch)
            set_mode(parts.optimizer, learn=True)
        is_due = result.epoch == preset.epochs or result.epoch % preset.evaluate_every == 0
        if parts.supply.val is not None and is_due:
            record |= self.scores.record(record)
        elapsed = time.perf_counter() - began
        record["seconds"] = elapsed - sum(earlier["seconds"] for earlier in self.records)
        record["seconds_left"] = elapsed / result.epoch * (preset.epochs - result.epoch)
        self.records.append(record)
        self.rates.live.update({key: value for key, value in record.items() if isinstance(value, float)})
        return record

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values from which the run goes on; the keys are those of `state.pt`."""
        parts = self.parts
        scaler, average = parts.accelerator.scaler, parts.average
        return {
            "model": parts.model.state_dict(),
            "ema": None if average is None else average.model.state_dict(),
            "swa": None if parts.mean is None else parts.mean.state_dict(),
            "optimizer": parts.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "position": asdict(self.position),
            "micro_batch_size": parts.micro_batches.size,
            "rates": self.rates.live.state_dict(),
            "records": self.records,
            **self.scores.best.state_dict(),
            "clock": self._clock,
            "optimizer_class": self._optimizer_class,
            "plan": parts.plan.digest,
            "proof": self.frozen.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any], run: str) -> None:
        """Go on where `state_dict` was; the model and the position do already.

        Args:
            state: Of the form that `check_form` checks.
            run: Named in errors.

        Raises:
            InputError: The state is of other data, another plan or another optimizer.
        """
        parts = self.parts
        check_clock(state, self._clock, [group.name for group in parts.plan.trained])
        if state["plan"] not in (None, parts.plan.digest):
            raise InputError(
                f"the lr plan of the run in {run} cannot be restored: the parameter groups of the model or the "
                "optimizer have changed. Resume with the same code, or start a new run."
            )
        if state["optimizer_class"] != self._optimizer_class:
            raise InputError(
                f"the run in {run} started with the optimizer {state['optimizer_class']}; this one is "
                f"{self._optimizer_class}. Pass the original one as optimizer=."
            )
        with telling_misfits():
            load_optimizer_state(parts.optimizer, state["optimizer"])
            check_optimizer(parts.optimizer)
            if parts.average is not None:
                parts.average.model.load_state_dict(dict(state["ema"]))
            if parts.mean is not None:
                parts.mean.load_state_dict(state.get("swa"))
            if parts.accelerator.scaler is not None:
                parts.accelerator.scaler.load_state_dict(state["scaler"])
            self.rates.live.load_state_dict(state["rates"])
            self.frozen.load_state_dict(state["proof"])
        self.records = state["records"]
        self.scores.best = self._load_best(state)

    def take_over(self, state: Mapping[str, Any], run: str) -> None:
        """Go on from the results of a finished run, whose optimizer is gone.

        Args:
            state: Its position, rates and records.
            run: Named in errors.

        Raises:
            InputError: The rates of that run are of other groups, or of epochs of another length.
        """
        lengths = {name: len(rates) for name, rates in state["rates"].items()}
        steps = self.parts.plan.clock.steps_per_epoch
        done = self.position.epoch * steps + self.position.batch // self.parts.preset.accumulate
        if lengths != dict.fromkeys(self.rates.live.history, done):
            raise InputError(
                f"{run} cannot continue a finished run of {self.position.epoch} epochs with {lengths} steps per "
                f"group: an epoch now has {steps} steps. Use the same data and the same number of processes."
            )
        self.rates.live.history = {name: list(rates) for name, rates in state["rates"].items()}
        self.records = state["records"]
        self.scores.best = self._load_best(state)

    def _load_best(self, state: Mapping[str, Any]) -> Best:
        """Return the best weights of a state; earlier versions did not save which epoch they are of."""
        score, monitor = state["best_score"], self.scores.monitor
        of_score = [record["epoch"] for record in state["records"] if monitor.score(record) == score > -math.inf]
        epochs = tuple(state.get("best_epochs") or of_score[:1])
        loss = next((find_loss(record) for record in state["records"] if (record["epoch"],) == epochs), math.inf)
        return Best(state["best"], score, loss, epochs)

    @property
    def _optimizer_class(self) -> str:
        prepared = self.parts.optimizer
        return type(getattr(prepared, "optimizer", prepared)).__name__

    @property
    def _clock(self) -> dict[str, int]:
        """What must not differ when the run goes on."""
        preset, accelerator = self.parts.preset, self.parts.accelerator
        lengths = {"epochs": preset.epochs, "batches": len(self.parts.supply.train), "accumulate": preset.accumulate}
        return lengths | {"processes": accelerator.num_processes}


class StateSaver:
    """Saves the state of a run into its folder, from the main process, and says how to resume from it.

    Args:
        folder: The run's.
        state: Of the run.
        saved: Where the state on disk stands; None: there is none.
        needs_optimizer: Whether the user brought the optimizer or its class.
    """

    def __init__(self, folder: RunFolder, state: RunState, saved: Position | None, *, needs_optimizer: bool) -> None:
        self.folder, self.state, self.saved, self.needs_optimizer = folder, state, saved, needs_optimizer
        self._seconds = 0.0  # when that was

    def save(self) -> None:
        """Save the state."""
        self._seconds = time.perf_counter()
        if self.state.parts.is_main:
            position = replace(self.state.position)
            self.folder.save_state(self.state.state_dict())
            self.saved = position

    def save_if_due(self) -> None:
        """Save the state unless that was done a moment ago."""
        if time.perf_counter() - self._seconds > STATE_SECONDS:
            self.save()

    def where(self, position: Position) -> str:
        """Return a position in words."""
        parts = self.state.parts
        batch = f" and {position.batch} of {len(parts.supply.train)} batches" if position.batch else ""
        return f"after {position.epoch} of {parts.preset.epochs} epochs{batch}"

    def advise(self) -> str:
        """Return how to go on with the run."""
        data = self.state.parts.data
        needed = {
            "data": data.loaders is not None or not Path(data.source).exists(),
            "model": not known_config(self.state.parts.model),
            "optimizer": self.needs_optimizer,
        }
        return say_how_to_resume(self.folder.path, [name for name, is_needed in needed.items() if is_needed])

    def tell_stopped(self) -> Interrupted:
        """Return how a run ends that is stopped between two steps."""
        return Interrupted(f"stopped {self.where(self.state.position)}; everything is saved. {self.advise()}")

    def tell_undrawn(self) -> Interrupted:
        """Return how a run ends that is stopped while its plots are drawn."""
        how = self.advise().removeprefix("Resume with: ")
        return Interrupted(
            f"the run is finished and saved; it was stopped while drawing its plots. To draw them: {how}"
        )

    def describe(self) -> str:
        """Say what is safe and how to go on, for a run that something has ended; nothing if it took no step."""
        if self.saved is None or not self.state.position.step:
            return ""
        path = self.folder.path
        if not path.is_dir():
            return f"The run folder {path} no longer exists; the run is lost."
        if self.folder.file(STATE).is_file():
            return f"The run is saved as it was {self.where(self.saved)}. {self.advise()}"
        if find_stage(path) == "undrawn":
            return f"The run is finished and its results are saved; only plots are missing. {self.advise()}"
        return f"state.pt is missing from {path}, so the run cannot be resumed."
