"""One run from its first step to its last: freezing with proof, steps, scores, checkpoints, and a stop at any time."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from zoo._model import ask, known_config
from zoo.data import StopRequest
from zoo.engine import (
    Chunks,
    StepCompiler,
    find_chunk_size,
    make_accelerator,
    restore_norms,
    split_batch,
    synchronize_norms,
    undisturbed,
)
from zoo.errors import InputError, Interrupted, TrainingError
from zoo.files import read_tensors
from zoo.optim import (
    LiveRates,
    Proof,
    apply_plan,
    build_optimizer,
    centralize_gradients,
    check_reached,
    clip_groups,
    digest_tensor,
    frozen_tensors,
    keep_norm_statistics,
    load_optimizer_state,
    release_modes,
    set_mode,
    set_rates,
)
from zoo.progress import Progress
from zoo.rates import Plan
from zoo.rates.schedules import Clock
from zoo.settings import Preset, notes_on
from zoo.tasks import task_of
from zoo.training.callbacks import Callback, LiveRun, Moment, call
from zoo.training.evaluation import score_batches
from zoo.training.failures import going_on, say_how_to_resume
from zoo.training.inputs import make_inputs
from zoo.training.loop import EpochResult, Position, fit
from zoo.training.report import draw_course, draw_plots, tell_undrawn
from zoo.training.run_folder import RunFolder
from zoo.training.run_stage import RECORD, STATE, find_stage
from zoo.training.run_state import check_clock, check_optimizer, check_tensors, is_of_optimizer, telling_misfits
from zoo.training.single_image import check_single, holds_single, take_image
from zoo.training.verdict import find_trouble, list_warnings

STEPS_PER_VOTE = 8  # how often several processes ask each other whether to stop, which makes a GPU wait
MOST_STATES = 2  # numbers that an optimizer such as AdamW keeps for each that learns
STATE_SECONDS = 10.0  # epochs may be short: a run that is killed loses no more than this, or one epoch


class Training:
    """Everything that one run needs while it runs.

    Args:
        model: Changed in place.
        data: Opened data.
        preset: The effective preset.
        plan: Made of the model and the preset.
        folder: Where the run is kept.
        show: Where it says how it goes.
        state: What `RunFolder.load_state` gave, for a run that goes on.
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
        state: Mapping[str, Any] | None = None,
        optimizer: Any = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.model, self.data, self.preset, self.folder, self.show = model, data, preset, folder, show
        self.own_optimizer = optimizer is not None
        self.task = task_of(model)
        self.accelerator = make_accelerator(preset.device, preset.precision)
        self.is_main = self.accelerator.is_main_process
        self.steps_per_vote = 1 if self.accelerator.num_processes == 1 else STEPS_PER_VOTE
        if state:
            check_tensors(state, model)
            model.load_state_dict(state["model"])
        self.position = Position(**state["position"]) if state else Position()
        self.resumed_at = self.position.step if state else None
        between = self.position.batch == 0 and self.position.epoch > 0  # what is next to learn is let go later
        epoch = self.position.epoch - between
        self._freeze(plan, epoch)
        model.to(self.accelerator.device)
        if all(parameter.ndim < 5 for parameter in model.parameters()):
            model.to(memory_format=torch.channels_last)
        own = optimizer or preset.optimizer
        made = build_optimizer(model, plan, optimizer=own, params=preset.optimizer_params, tensor_rates=preset.compile)
        self.compiler = StepCompiler(show.say, stages=len(plan.unfreeze_epochs) + 1) if preset.compile else None
        if self.compiler is not None:
            self.compiler.compile_optimizer(made, plan)
        compile_loss = None if self.compiler is None else self.compiler.compile_loss
        self.task_loss = self.task.make_loss(model, data.classes, preset, compile_loss)
        supply = make_inputs(self.task, model, data, preset, plan, self.accelerator, show, folder)
        self.network, self.batches, self.val_batches = supply.network, supply.train, supply.val
        self.supply = supply
        self.optimizer, self.optimizer_class = self.accelerator.prepare(made), type(made).__name__
        self.ema = self._make_ema()
        self.chunks = Chunks(self._choose_chunk_size(state, supply.to_inputs), on_halved=self._tell_halved)
        self._check_single()
        self.steps_per_epoch = -(-len(self.batches) // preset.accumulate)
        clock = Clock(preset.epochs, self.steps_per_epoch, preset.accumulate, len(self.batches))
        self.clock = {"epochs": preset.epochs, "batches": len(self.batches), "accumulate": preset.accumulate}
        self.clock |= {"processes": self.accelerator.num_processes}
        self.plan = plan.at(clock)
        if state is None:
            names = (name for name, _ in model.named_parameters())
            for line in notes_on(preset, clock.steps, names, optimizer):
                show.say(f"note: {line}")
        self.proof = Proof(frozen_tensors(model, plan, epoch))
        self.live_rates = LiveRates(self.plan)
        if self.val_batches is None and self.live_rates.awaited - {"loss"}:
            raise InputError(
                f"schedule 'plateau' follows {', '.join(sorted(self.live_rates.awaited))}, but there are no validation "
                "images. Let it follow 'loss', or give some."
            )
        self.saved, self.unreached = 0.0, True  # it is not known yet whether all that learns gets a gradient
        self.records: list[dict[str, Any]] = []
        self.callbacks = callbacks
        self.live = LiveRun(model, self.plan, folder.path, preset.epochs, live_rates=self.live_rates)
        self.best: dict[str, Tensor] | None = None
        self.best_score = -1.0
        self.evaluation: Any = None
        self.examples: Any = ()
        self.kept: Position | None = None  # where the state that is on disk stands
        if state:
            self._restore(state)
            self.kept = replace(self.position)

    def run(self) -> None:
        """Train to the end and write everything; raises `Interrupted` if it is asked to stop before."""
        store = self.supply.store
        with store or nullcontext():
            try:
                with going_on(self._describe_standing):
                    self._run()
            finally:
                restore_norms(self.model)
                release_modes(self.model)
            if store is not None:
                images, size = store.total()
                self.show.say(f"{images:,} decoded images were kept ({size / 1e9:.1f} GB)")

    def _run(self) -> None:
        self.show.start(self.preset.epochs, self.position.epoch, self.steps_per_epoch, self.task.columns)
        with StopRequest() as stop:
            self._save_state()
            if self.is_main and self.position.step == 0:
                self.folder.drop_start()
            self._tell("on_start")
            began = time.perf_counter() - sum(record["seconds"] for record in self.records)
            for last in (*self.plan.unfreeze_epochs, self.preset.epochs):
                if self.position.epoch < last and not self._train_until(last, began, stop):
                    break
            if self.position.epoch < self.preset.epochs and not self.live.stopped:
                self._stop()
            self._finish()
            if self.is_main:
                self._draw(stop)
            self.accelerator.wait_for_everyone()

    def _train_until(self, last: int, began: float, stop: "StopRequest") -> bool:
        """Train until an epoch is over; return False if the run was asked to stop before."""
        preset, position = self.preset, self.position
        if position.batch == 0 and position.epoch in self.plan.unfreeze_epochs:
            self._unfreeze(position.epoch)
        synchronize_norms(self.model, self.accelerator.device, self.accelerator.num_processes, self.show.say)
        results = fit(
            self.network if self.compiler is None else self.compiler.compile_network(self.network),
            self.batches,
            self.optimizer,
            self.accelerator,
            loss=self._loss,
            epochs=last,
            position=position,
            before_step=self._before_step,
            after_step=lambda where, value: self._after_step(where, value, stop),
            adjust_gradients=self._adjust_gradients if self.plan.adjusts_gradients else None,
            accumulate=preset.accumulate,
            chunks=self.chunks,
            clip_grad_norm=preset.clip_grad_norm,
            seed=preset.seed,
            shows_targets=ask(self.model, "takes_targets", False),
        )
        if position.batch == 0:
            self._tell("on_epoch_start")
        with telling_misfits(lambda error: position.step == self.resumed_at and is_of_optimizer(error)):
            for result in results:
                self._finish_epoch(result, began)
                if self.live.stopped or (result.epoch < preset.epochs and self._agree(stop.asked)):
                    return False
                if result.epoch < last:
                    self._tell("on_epoch_start")
        return position.epoch == last

    def _freeze(self, plan: Plan, epoch: int) -> None:
        apply_plan(self.model, plan, epoch)
        if self.preset.freeze_norm_stats:
            keep_norm_statistics(self.model)

    def _unfreeze(self, epoch: int) -> None:
        """Let the groups learn whose epoch has come; the proof holds for them until now."""
        before = set(self.proof.digests)
        self._freeze(self.plan, epoch)
        names = sorted(before - set(frozen_tensors(self.model, self.plan, epoch)))
        self.proof.release(names, f"before epoch {epoch + 1}, in which {len(names)} tensors begin to learn")
        self.unreached = True
        groups = [group.key for group in self.plan.trained if group.unfreeze_at == epoch]
        self.show.say(f"epoch {epoch + 1}: {', '.join(dict.fromkeys(groups))} learn from now on")
        if self.compiler is not None:
            self.compiler.renew_network()
        if self.accelerator.num_processes > 1:  # its gradients are gathered only for what learnt when it was wrapped
            self.network = self.accelerator.prepare(self.accelerator.unwrap_model(self.network))

    def _tell(self, moment: Moment) -> None:
        if not self.callbacks:
            return
        live, position = self.live, self.position
        live.epoch, live.step, live.metrics = position.epoch, position.step, self.records
        call(self.callbacks, moment, live)

    def _make_ema(self) -> Any:
        if self.preset.ema_decay is None:
            return None
        from timm.utils import ModelEmaV3

        return ModelEmaV3(
            self.model, decay=self.preset.ema_decay, use_warmup=self.preset.ema_warmup, warmup_power=2 / 3
        )

    def _check_single(self) -> None:
        """Find out whether a batch of a single image can be learnt from, if there will be one."""
        loaders, device = getattr(self.data, "loaders", None), self.accelerator.device
        loader = loaders["train"].loader if loaders else self.batches
        if self.accelerator.num_processes > 1 or not holds_single(loader):
            return

        def take_inputs() -> Any:
            if loaders:
                return take_image(loader, device)
            inputs, _ = self.task.make_worst_batch(self.model, self.data, self.preset, 1)
            return self.supply.to_inputs(inputs.to(device))

        check_single(self.model, self.network, take_inputs)

    def _choose_chunk_size(self, state: Mapping[str, Any] | None, to_inputs: Callable[[Tensor], Any]) -> int | None:
        """Return how many images of a batch are in the network at a time; None: all of them."""
        wish, device = self.preset.chunk_size, self.accelerator.device
        if state and "chunk_size" in state:  # halved on the way, perhaps
            return cast("int | None", state["chunk_size"])
        if wish != "auto":
            return wish
        network = self.accelerator.unwrap_model(self.network)  # one process must not wait for another here

        def try_step(images: int) -> None:
            batch = self.task.make_worst_batch(self.model, self.data, self.preset, images)
            inputs, targets = send_to_device(batch, device)
            inputs = to_inputs(inputs)
            with undisturbed(self.model):
                network.train()
                shown = (targets,) if ask(self.model, "takes_targets", False) else ()
                self.accelerator.backward(self._loss(network(inputs, *shown), targets))
                network.eval()
                with torch.inference_mode():
                    network(inputs)

        learning = sum(p.numel() * p.element_size() for p in self.model.parameters() if p.requires_grad)
        found = find_chunk_size(try_step, self.preset.batch_size, device=device, reserve=MOST_STATES * learning)
        self.show.say(found.text)
        return int(self.accelerator.gather(torch.tensor([found.size], device=device)).min())

    def _tell_halved(self, size: int) -> None:
        self.show.say(f"memory ran out: from now on {size} images of a batch are in the network at a time")

    def _loss(self, outputs: Any, targets: Any) -> Tensor:
        value = self.task_loss(outputs, targets)
        if not value.requires_grad:
            names = [name for group in self.plan.trained for name in group.names]
            raise TrainingError(
                f"the loss does not depend on anything that learns: {', '.join(names[:3])}. Is that part used in "
                "forward()? A new layer has to be assigned to the attribute that forward() calls."
            )
        return value

    def _before_step(self, position: Position) -> None:
        """Set every group's rate and decay for the next step."""
        if self.unreached:
            check_reached(self.model, self.plan, self.show.say, position.epoch)
            self.unreached = False
        self.live.rates = self.live_rates.take(position.step)
        set_rates(self.optimizer, self.live.rates, self.plan.weight_decays(position.step))

    def _adjust_gradients(self) -> None:
        if self.preset.clip_grad_norm is None:
            self.accelerator.unscale_gradients()
        clip_groups(self.optimizer)
        centralize_gradients(self.optimizer)

    def _after_step(self, position: Position, loss: float | None, stop: "StopRequest") -> bool:
        if self.ema is not None:
            set_mode(self.optimizer, learn=False)
            self.ema.update(self.model, step=position.step if self.preset.ema_warmup else None)
            set_mode(self.optimizer, learn=True)
        if position.step == 1:
            self.proof.check("after the first step")
        self.live.loss = loss
        self._tell("on_step_end")
        step = position.step - position.epoch * self.steps_per_epoch
        seconds = max(position.seconds, 1e-9)
        self.show.step(step, loss, position.images / seconds, min(1.0, position.waiting / seconds))
        at_end = position.batch == len(self.batches)
        if at_end:
            return False
        return self.live.stopped or (position.step % self.steps_per_vote == 0 and self._agree(stop.asked))

    def _agree(self, asked: bool) -> bool:
        """Whether any process was asked to stop: all must leave the loop after the same step, or they wait forever."""
        if self.accelerator.num_processes == 1:
            return asked
        votes = torch.tensor(float(asked), device=self.accelerator.device)
        return float(self.accelerator.reduce(votes, "sum")) > 0

    def _finish_epoch(self, result: EpochResult, began: float) -> None:
        preset = self.preset
        self.proof.check(f"after epoch {result.epoch}")
        last = {name: rates[-1] for name, rates in self.live_rates.history.items()}
        frozen = {group.name: 0.0 for group in self.plan.groups if group.frozen}
        record: dict[str, Any] = {"epoch": result.epoch, "epochs": preset.epochs, "step": result.step}
        record |= {"loss": result.loss, "lr": last | frozen, "images_per_second": result.images_per_second}
        record |= {"waiting": result.waiting}
        if self.chunks.size is not None:
            record["chunk_size"] = self.chunks.size
        is_last = result.epoch == preset.epochs
        if self.val_batches is not None and (is_last or result.epoch % preset.evaluate_every == 0):
            set_mode(self.optimizer, learn=False)
            self.evaluation, self.examples = self._evaluate()
            record |= self.evaluation.record()
            trouble = find_trouble(self.evaluation)
            if trouble:
                self.show.say(f"epoch {result.epoch}: {trouble}")
            elif self.evaluation.score > self.best_score:
                self.best_score = self.evaluation.score
                if preset.keep == "best":
                    self.best = {name: value.cpu().clone() for name, value in self._final().state_dict().items()}
            set_mode(self.optimizer, learn=True)
        elapsed = time.perf_counter() - began
        record["seconds"] = elapsed - sum(earlier["seconds"] for earlier in self.records)
        record["seconds_left"] = elapsed / result.epoch * (preset.epochs - result.epoch)
        self.records.append(record)
        self.live_rates.update({key: value for key, value in record.items() if isinstance(value, float)})
        self.show.epoch(record | {"lr": _shown_rates(record["lr"])})
        if self.is_main:
            self.folder.write_metrics(self.records)
        self._tell("on_epoch_end")
        if not is_last and time.perf_counter() - self.saved > STATE_SECONDS:
            self._save_state()

    def _final(self) -> nn.Module:
        """The weights that are scored and kept: their moving average if there is one."""
        final: nn.Module = self.model if self.ema is None else self.ema.module
        return final

    def _evaluate(self) -> tuple[Any, Any]:
        network: nn.Module = self.network if self.ema is None else self.supply.wrap(self.ema.module)
        batches: Any = self.val_batches
        if self.accelerator.num_processes == 1:  # else what is gathered would be cut in the wrong places
            batches = _in_chunks(batches, self.chunks)
        evaluator = self.task.make_evaluator(
            self.model, self.data.classes, self.data.val, device=self.accelerator.device, loss=self.task_loss
        )
        return score_batches(evaluator, network, batches, self.accelerator)

    def _save_state(self) -> None:
        self.saved = time.perf_counter()
        if not self.is_main:
            return
        scaler, stands = self.accelerator.scaler, replace(self.position)
        self.folder.save_state(
            {
                "model": self.model.state_dict(),
                "ema": None if self.ema is None else self.ema.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": None if scaler is None else scaler.state_dict(),
                "position": asdict(self.position),
                "chunk_size": self.chunks.size,
                "rates": self.live_rates.state_dict(),
                "records": self.records,
                "best": self.best,
                "best_score": self.best_score,
                "clock": self.clock,
                "optimizer_class": self.optimizer_class,
                "plan": self.plan.digest,
                "proof": {"digests": self.proof.digests, "moments": self.proof.moments},
            }
        )
        self.kept = stands

    def _restore(self, state: Mapping[str, Any]) -> None:
        check_clock(state, self.clock, [group.name for group in self.plan.trained])
        if state["plan"] != self.plan.digest:
            raise InputError(
                f"the plan of the run in {self.folder.path} cannot be made again: the groups of the model, or of its "
                "optimizer, have changed since. Resume with the same code, or begin a new run."
            )
        if state["optimizer_class"] != self.optimizer_class:
            raise InputError(
                f"the run in {self.folder.path} began with the optimizer {state['optimizer_class']}, and this is "
                f"{self.optimizer_class}. Pass the one that it began with as optimizer=."
            )
        with telling_misfits():
            load_optimizer_state(self.optimizer, state["optimizer"])
            check_optimizer(self.optimizer)
            if self.ema is not None:
                self.ema.module.load_state_dict(dict(state["ema"]))
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(state["scaler"])
            self.live_rates.load_state_dict(state["rates"])
            self.proof.continue_from(state["proof"])
        self.records = state["records"]
        self.best, self.best_score = state["best"], state["best_score"]

    def _stop(self) -> None:
        """Save where the run stands, between two steps, and say how to go on."""
        self._save_state()
        set_mode(self.optimizer, learn=False)  # what the state holds is to be learnt on
        if self.is_main:
            self.folder.save_model(self.model, self._final().state_dict())
            self.folder.seal()
            self._write_results("interrupted")
        self.accelerator.wait_for_everyone()  # a launcher ends the others as soon as one process has ended
        raise Interrupted(f"stopped {self._where(self.position)}; everything is saved. {self._say_how_to_resume()}")

    def _where(self, position: Position) -> str:
        batch = f" and {position.batch} of {len(self.batches)} batches" if position.batch else ""
        return f"after {position.epoch} of {self.preset.epochs} epochs{batch}"

    def _say_how_to_resume(self) -> str:
        source = self.data.source
        needed = {
            "data": self.data.loaders is not None or not Path(source).exists(),
            "model": not known_config(self.model),
            "optimizer": self.own_optimizer,
        }
        return say_how_to_resume(self.folder.path, [name for name, is_needed in needed.items() if is_needed])

    def _describe_standing(self) -> str:
        """Say what is safe and how to go on, for a run that something has ended; nothing if it took no step."""
        if self.kept is None or not self.position.step:
            return ""
        folder = self.folder
        if not folder.path.is_dir():
            return f"The run's folder {folder.path} is gone, and the run with it."
        if folder.file(STATE).is_file():
            return f"The run is safe as it was {self._where(self.kept)}, in state.pt. {self._say_how_to_resume()}"
        if find_stage(folder.path) == "undrawn":
            return f"The run is finished, and its results are saved; pictures are missing. {self._say_how_to_resume()}"
        return f"The run's state.pt is gone from {folder.path}, and it cannot go on."

    def _finish(self) -> None:
        set_mode(self.optimizer, learn=False)
        scored = not self.position.batch and "val_loss" in self.records[-1]
        if not scored and self.val_batches is not None:  # a callback has ended the run before its last evaluation
            self.evaluation, self.examples = self._evaluate()
        self._tell("on_end")
        final = self.best or self._final().state_dict()
        self.model.load_state_dict(final)
        if self.best is not None and self.val_batches is not None:
            self.ema = None
            self.evaluation, self.examples = self._evaluate()
        self.accelerator.wait_for_everyone()
        self.accelerator.unwrap_model(self.network, keep_fp32_wrapper=False)
        self.model.eval().to(memory_format=torch.contiguous_format)
        if not self.is_main:
            return
        self.folder.save_model(self.model, self.model.state_dict())
        written = {
            name: digest_tensor(value) for name, value in read_tensors(self.folder.file("model.safetensors")).items()
        }
        self.proof.compare(self.proof.digests | _only(written, self.proof.digests), "in model.safetensors")
        self.folder.seal()
        self._write_results("finished")
        self.folder.drop_state()  # what is to be looked at does not decide whether a run is finished
        for warning in self._warnings():
            self.show.say(f"warning: {warning}")

    def _draw(self, stop: StopRequest) -> None:
        """Draw the pictures, unless the run is asked to stop; it is finished without them."""
        folder, rates = self.folder, self.live_rates.history
        if not stop.asked:
            scores, steps = self.task.curves, self.steps_per_epoch
            draw_course(folder, self.records, rates, scores=scores, steps_per_epoch=steps)
        if not stop.asked and self.evaluation is not None:
            draw_plots(folder, self.task.make_plots(self.evaluation, self.examples, self.data.val))
        if stop.asked:
            raise Interrupted(
                "the run is finished and saved; it was stopped while its pictures were drawn. To draw them: "
                + self._say_how_to_resume().removeprefix("Go on with: ")
            )
        tell_undrawn(folder, self.show.say)
        if not folder.undrawn:
            self._write_record("finished", pictures=True)

    def _warnings(self) -> list[str]:
        return list_warnings(self.position, self.records, self.evaluation)

    def _write_results(self, status: str) -> None:
        folder = self.folder
        folder.write_metrics(self.records)
        folder.write_rates(self.live_rates.history)
        if self.live_rates.changes:
            folder.write_json("rate_changes.json", self.live_rates.changes)
        folder.write_json("proof.json", self.proof.to_dict())
        if self.evaluation is not None:
            folder.write_json("evaluation.json", self.evaluation.to_dict())
        self._write_record(status, **({"pictures": False} if status == "finished" else {}))

    def _write_record(self, status: str, **facts: Any) -> None:
        self.folder.write_json(
            RECORD, {"status": status, **asdict(self.position), "warnings": self._warnings(), **facts}
        )


def _in_chunks(batches: Any, chunks: Chunks) -> Iterator[tuple[Any, Any]]:
    """Yield batches no larger than what memory holds."""
    for inputs, targets in batches:
        yield from ((part.inputs, part.targets) for part in split_batch(inputs, targets, chunks.size))


def _shown_rates(rates: Mapping[str, float]) -> dict[str, float]:
    """Leave out the half of a group that has no decay, where its rate is that of the other half."""
    return {
        name: rate
        for name, rate in rates.items()
        if rates.get(name.removesuffix(" (no decay)")) != rate or not name.endswith(" (no decay)")
    }


def _only(values: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in values.items() if name in names}
