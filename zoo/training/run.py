"""One run from its first step to its last: stages between unfreezings, epochs, and a stop at any time."""

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, cast

from torch import nn

from zoo.data import StopRequest
from zoo.engine import restore_norms, synchronize_norms
from zoo.models import Model
from zoo.optim import release_modes
from zoo.progress import Progress
from zoo.rates import Plan
from zoo.settings import Preset
from zoo.training.callbacks import Callback, Moment, RunHandle, call
from zoo.training.ending import Ending
from zoo.training.failures import going_on
from zoo.training.hooks import FrozenParts, RateSetter, freeze
from zoo.training.loggers import Loggers, RunFacts, RunResult, find_loggers
from zoo.training.loop import EpochResult, fit
from zoo.training.position import Position
from zoo.training.result import Run
from zoo.training.run_folder import RunFolder
from zoo.training.run_model import adopt_weights
from zoo.training.run_stage import STATE, find_stage
from zoo.training.scores import Scores
from zoo.training.setup import build_parts
from zoo.training.solved_head import HeadSolver
from zoo.training.state import RunState, StateSaver
from zoo.training.state_checks import check_tensors, is_of_optimizer, telling_misfits
from zoo.training.stop import StopVote


class TrainingRun:
    """A run, ready to train.

    Args:
        model: Changed in place.
        data: Opened data.
        preset: The effective preset.
        plan: Made of the model and the preset.
        folder: Where the run is kept.
        show: Where it says how it goes.
        saved: What `RunFolder.load_state` gave, for a run that goes on; without an optimizer, the results of a finished
            one.
        optimizer: A class or an instance of the user's, instead of the one that the preset names.
        callbacks: Called at the five moments of a run.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Any,
        preset: Preset,
        plan: Plan,
        folder: RunFolder,
        show: Progress,
        saved: Mapping[str, Any] | None = None,
        optimizer: Any = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.folder, self.show, self.callbacks = folder, show, callbacks
        if saved:
            check_tensors(saved, model)
            model.load_state_dict(saved["model"])
        position = Position(**saved["position"]) if saved else Position()
        epoch = max(0, position.epoch - (position.batch == 0))  # what is next to learn is unfrozen later
        freeze(model, plan, epoch, norm_statistics=preset.freeze_norm_stats)
        self.parts = parts = build_parts(model, data, preset, plan, folder, show, optimizer=optimizer, saved=saved)
        rates, scores = RateSetter(parts, show.log), Scores(parts, show.log)
        self.state = RunState(parts, position, FrozenParts(parts, epoch), rates, scores)
        if saved:
            load = self.state.take_over if saved["optimizer"] is None else self.state.load_state_dict
            load(saved, str(folder.path))
        on_disk = replace(position) if saved and folder.file(STATE).is_file() else None
        self.saver = StateSaver(folder, self.state, on_disk, needs_optimizer=optimizer is not None)
        self.resumed_at = position.step if saved else None
        self.solver: HeadSolver | None = None
        self.loggers = Loggers(find_loggers() if parts.is_main else (), show.log)
        self.handle = RunHandle(model, parts.plan, folder.path, preset.epochs, live_rates=self.state.rates.live)

    def run(self) -> Run:
        """Train to the end and write everything; raises `Interrupted` if it is asked to stop before."""
        parts, state = self.parts, self.state
        try:
            with parts.supply.store or nullcontext(), going_on(self.saver.describe):
                result = self._run()
        finally:
            self.loggers.close()
            restore_norms(parts.model)
            release_modes(parts.model)
            if parts.is_main and state.position.step:
                adopt_weights(parts.model, self.folder)
        results = (state.records, result.evaluation, dict(result.proof))
        return Run(self.folder.path, cast(Model, parts.model), parts.plan, parts.preset, *results)

    def _run(self) -> RunResult:
        parts, position, epochs = self.parts, self.state.position, self.parts.preset.epochs
        ending = Ending(self.folder, self.state, self.loggers, self.show)
        with StopRequest() as request:
            if parts.preset.solver or parts.preset.head_init:
                self.solver = HeadSolver(parts, self.folder, self.show, lambda: request.asked)
            self._start(request)
            began = time.perf_counter() - sum(record["seconds"] for record in self.state.records)
            vote = StopVote(request, parts.accelerator)
            for last in (*parts.plan.unfreeze_epochs, epochs):
                if self.handle.stopped or (position.epoch < last and not self._train_until(last, began, vote)):
                    break
            if position.epoch < epochs and not self.handle.stopped:
                self.saver.save()
                ending.interrupt()
                raise self.saver.tell_stopped()
            ending.score()
            self._call("on_end")
            result = ending.finish()
            if parts.is_main and request.asked and find_stage(self.folder.path) == "undrawn":
                raise self.saver.tell_undrawn()
            parts.accelerator.wait_for_everyone()
        if parts.supply.store is not None:
            images, size = parts.supply.store.total()
            self.show.log(f"image cache: {images:,} decoded images ({size / 1e9:.1f} GB)")
        return result

    def _start(self, request: StopRequest) -> None:
        """Start the loggers, and save the state before the first step."""
        parts = self.parts
        if parts.preset.head_init and self.solver is not None and not self.state.position.step:
            self.solver.solve("exact")
        self.loggers.start(_collect_facts(self.folder, self.show, self.state, request))
        self.saver.save()
        if parts.is_main and self.state.position.step == 0:
            self.folder.drop_start()
        self._call("on_start")
        self._stop_early()  # a run that was killed before it could end

    def _train_until(self, last: int, began: float, vote: StopVote) -> bool:
        """Train until an epoch is over; return False if the run was asked to stop before."""
        parts, position = self.parts, self.state.position
        if position.batch == 0 and position.epoch in parts.plan.unfreeze_epochs:
            self._unfreeze(position.epoch)
        synchronize_norms(parts.model, parts.accelerator.device, parts.accelerator.num_processes, self.show.log)
        if self.solver is not None and parts.preset.solver:
            results = self.solver.epochs(position, self.state.rates.live)
        else:
            step, after_step = parts.make_step(self.state.rates.set), partial(self._after_step, vote)
            how = {"epochs": last, "accumulate": parts.preset.accumulate}
            results = fit(step, parts.supply.train, position, after_step=after_step, **how)
        if position.batch == 0:
            self._call("on_epoch_start")
        with telling_misfits(lambda error: position.step == self.resumed_at and is_of_optimizer(error)):
            for result in results:
                self._finish_epoch(result, began)
                if self.handle.stopped or (result.epoch < parts.preset.epochs and vote.agree()):
                    return False
                if result.epoch < last:
                    self._call("on_epoch_start")
        return position.epoch == last

    def _unfreeze(self, epoch: int) -> None:
        """Let the groups learn whose epoch has come."""
        groups = self.state.frozen.unfreeze(epoch)
        self.show.log(f"epoch {epoch + 1}: unfreezing {', '.join(groups)}")
        self.state.rates.watch_gradients()
        self.parts.renew_network()

    def _after_step(self, vote: StopVote, position: Position, loss: float | None) -> bool:
        """Check the proof once, call back, log; return whether to stop in the middle of the epoch."""
        self.folder.has_steps = True
        if position.step == 1:
            self.state.frozen.proof.check("after the first step")
        self.handle.loss = loss
        self._call("on_step_end")
        self.loggers.step(position, loss)
        is_last = position.batch == len(self.parts.supply.train)
        return not is_last and (self.handle.stopped or vote.agree_after(position.step))

    def _finish_epoch(self, result: EpochResult, began: float) -> None:
        """Check the proof, score and record the epoch, log it, call back, and save the state."""
        self.state.frozen.proof.check(f"after epoch {result.epoch}")
        self.loggers.epoch(self.state.record(result, began))
        self._call("on_epoch_end")
        self._stop_early()
        if result.epoch < self.parts.preset.epochs:
            self.saver.save_if_due()

    def _stop_early(self) -> None:
        """Stop the run, with a line that says why, if it has not improved for long enough."""
        if reason := self.state.scores.monitor.find_stop(self.state.records):
            self.show.log(reason)
            self.handle.stop()

    def _call(self, moment: Moment) -> None:
        if self.callbacks:
            handle, state = self.handle, self.state
            handle.epoch, handle.step = state.position.epoch, state.position.step
            handle.metrics, handle.rates = state.records, state.rates.current
            call(self.callbacks, moment, handle)


def _collect_facts(folder: RunFolder, show: Progress, state: RunState, request: StopRequest) -> RunFacts:
    parts = state.parts
    return RunFacts(
        folder=folder,
        show=show,
        preset=parts.preset,
        plan=parts.plan,
        task=parts.task,
        steps_per_epoch=parts.plan.clock.steps_per_epoch,
        images=parts.data.val,
        records=state.records,
        is_stopping=lambda: request.asked,
    )
