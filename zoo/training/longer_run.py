"""A run that is trained for other epochs than it was planned for, as a new run that names its parent.

The parent's folder is only read. An interrupted run goes on from its state, to the bit where it stood; of a finished
one only the weights are left, so its optimizer starts afresh.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from torch import nn

from zoo.errors import InputError
from zoo.files import check_checksum, digest_file, read_tensors
from zoo.progress import Progress, format_rate
from zoo.rates import Plan
from zoo.settings import Preset, plan_rates
from zoo.tasks import task_of
from zoo.training.callbacks import Callback
from zoo.training.early_stopping import Monitor
from zoo.training.position import Position
from zoo.training.result import Run
from zoo.training.run_claim import claimed, leaving_nothing, new_folder, open_folder
from zoo.training.run_data import reopen_data
from zoo.training.run_folder import LAST, WEIGHTS, RunFolder
from zoo.training.run_lock import refuse_if_held
from zoo.training.run_model import build_network, load_model
from zoo.training.run_stage import PARENT, STATE, find_stage, read_record
from zoo.training.run_start import begin_run
from zoo.training.run_transform import bring_transform


def train_longer(
    parent: str | os.PathLike[str],
    data: Any,
    epochs: int,
    show: Progress,
    *,
    out: str | os.PathLike[str] | None = None,
    model: nn.Module | None = None,
    optimizer: Any = None,
    transform: Any = None,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Train a run up to other epochs than its own, in a new folder.

    Args:
        parent: The folder of an interrupted or finished run.
        data: The same data as before; None: from the path that the run began with.
        epochs: Epochs of the whole, those of the parent among them.
        show: Where it says how it goes.
        out: The new folder; None: one in `runs`.
        model: A network of the run's class, if it is not one of the registry's.
        optimizer: The class or instance that the run began with, if it was one.
        transform: The object that the run began with, if it was one.
        callbacks: As in `zoo.finetune`.

    Raises:
        InputError: The run has no epoch to go on from, or has as many already; or its data or plan has changed.
    """
    folder = open_folder(parent)
    refuse_if_held(folder.path)
    before = folder.load_preset()
    if before.solver:
        raise InputError(
            f"the head of the run in {folder.path} was solved, not trained in epochs, so there is nothing to continue. "
            "To train from its weights, start a new run with them (--weights, pretrained=)."
        )
    network, state = _load(folder, model)
    done = Position(**state["position"])
    if epochs <= done.epoch or epochs < done.epoch + bool(done.batch):
        raise InputError(
            f"the run in {folder.path} was trained for {done.epoch} epochs, but epochs is {epochs}. Expected the "
            f"total number of epochs, more than {done.epoch}."
        )
    preset = bring_transform(before.replace(epochs=epochs), transform, folder.path)
    source = data if data is not None else folder.read_json("data.json")["source"]
    with claimed(new_folder(out, network, source), show.log, is_new=True) as place, leaving_nothing(place):
        opened = reopen_data(folder, data, task_of(network), preset, show)
        plan = plan_rates(network, preset, optimizer=optimizer)
        options: dict[str, Any] = {"optimizer": optimizer, "callbacks": callbacks}
        run = begin_run(network, opened, preset, plan, place, show, saved=state, **options)
        former = _former_plan(folder, state, network, before, run.parts.plan, optimizer)
        for line in _tell(folder, before, preset, state):
            show.log(line)
        show.log(_tell_rates(former, run.parts.plan, done))
        if run.parts.is_main:
            place.write_json(PARENT, _describe_parent(folder, before, done))
        return run.run()


def _load(folder: RunFolder, model: nn.Module | None) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network of a run, and the state that training goes on from; its length may be another."""
    stage = find_stage(folder.path)
    if stage == "training":
        state = folder.load_state()
        return build_network(folder, model)[0], state | {
            "clock": {**state["clock"], "epochs": None},
            "plan": None,
            "swa": None,  # the last epochs are others now
        }
    if stage not in ("finished", "undrawn"):
        raise InputError(
            f"the run in {folder.path} has not finished an epoch. Run its finetune command again, with the number of "
            "epochs that you want."
        )
    network, preset = load_model(folder.path, model), folder.load_preset()
    records, known = folder.read_metrics(), read_record(folder.path)
    position = {field.name: known[field.name] for field in fields(Position) if field.name in known}
    monitor = Monitor(preset.monitor or task_of(network).monitors[0])
    best = max(map(monitor.score, records), default=-math.inf)
    keeps_best = preset.keep != "last" and best > -math.inf
    chosen = network.state_dict()
    tensors = chosen
    if folder.file(LAST).is_file():
        check_checksum(folder.file(LAST))
        tensors = read_tensors(folder.file(LAST))
    return network, {
        "model": tensors,
        "ema": tensors if preset.ema_decay is not None else None,
        "optimizer": None,
        "position": position,
        "rates": folder.read_rates(),
        "records": records,
        "best": {name: value.clone() for name, value in chosen.items()} if keeps_best else None,
        "best_score": best if keeps_best else -math.inf,
    }


def _former_plan(
    folder: RunFolder, state: Mapping[str, Any], network: nn.Module, before: Preset, plan: Plan, optimizer: Any
) -> Plan:
    """Return the plan of the parent, which has to be the one that it was trained by."""
    former = plan_rates(network, before, optimizer=optimizer).at(replace(plan.clock, epochs=before.epochs))
    known = folder.read_json("plan.json").get("digest")
    if state["optimizer"] is not None and known != former.digest:
        raise InputError(
            f"the lr plan of the run in {folder.path} cannot be restored: the parameter groups of the model or the "
            "optimizer have changed. Use the same code, or start a new run."
        )
    return former


def _tell(folder: RunFolder, before: Preset, preset: Preset, state: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the new run starts from."""
    done = state["position"]["epoch"]
    yield f"continuing {folder.path} after {done} of {before.epochs} epochs as a new run, up to {preset.epochs} epochs"
    if state["optimizer"] is None:
        which = "its weights"
        if folder.file(LAST).is_file():
            which = "the weights of its last epoch"
        elif state["best"]:
            which = "its best weights"
        elif state["ema"]:
            which = "its averaged weights"
        yield f"note: that run is finished and has no optimizer state: {which} are trained with a new optimizer"


def _tell_rates(former: Plan, plan: Plan, done: Position) -> str:
    """Say what the other length does to the learning rates."""
    now, was = plan.rates(done.step), former.rates(min(done.step, former.clock.steps - 1))
    name = max(now, key=lambda name: now[name])
    kinds = list(dict.fromkeys(str(group.schedule.to_dict()["kind"]) for group in plan.trained))
    what = f"schedule {', '.join(kinds)} over {plan.clock.epochs} epochs instead of {former.clock.epochs}"
    if now == was:
        return f"{what}: the learning rates stay the same"
    return f"{what}: learning rate of {name} after epoch {done.epoch} is {format_rate(now[name])} instead of " + (
        format_rate(was[name])
    )


def _describe_parent(folder: RunFolder, before: Preset, done: Position) -> dict[str, Any]:
    """Return which run a new one goes on from, and the digest of what it took from it."""
    file = next(name for name in (STATE, LAST, WEIGHTS) if folder.file(name).is_file())
    facts = {"run": str(folder.path.absolute()), "epochs": before.epochs, "file": file}
    return facts | {"sha256": digest_file(folder.file(file)), "position": asdict(done)}
