"""What can be known of a run before weights and images are read, in one place: all that is wrong is told at once.

What a preset says wrongly by itself, its own validation tells. Here it meets its model, its task and this machine.
"""

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from torch import nn
from torch.optim import Optimizer

from zoo._fields import Path, shown
from zoo.data import load_transform
from zoo.engine import check_device
from zoo.errors import PresetError, ZooError
from zoo.files import Problem, to_path
from zoo.models import build_outline, check_pretrained, look_up, names_saved
from zoo.optim import check_optimizer, check_params, default_params, find_optimizer
from zoo.rates import DEFAULT, GroupSettings, Plan, check_in_time
from zoo.settings.fields import OTHER_WORD, refusal
from zoo.settings.files import load_preset
from zoo.settings.preset import Preset
from zoo.settings.resolve import plan_rates
from zoo.settings.solver_checks import check_solved, check_solver
from zoo.settings.trackers import check_trackers
from zoo.tasks import check_monitor, task_of

ONE_RATE: Mapping[str, Any] = {"lr": {DEFAULT: 0.01}, "mode": None, "layer_decay": None, "first_lr": None, "order": []}

_Result = TypeVar("_Result")


class Findings:
    """What is wrong with a run, each error with the field of the preset that it is about.

    Args:
        preset: The effective one.
        model: The network; None: an outline of the model that the preset names.
        asks_hub: Whether the configuration of a model on the Hub is fetched; else that model is not looked at.

    Attributes:
        errors: Keys that lead to a value of the preset, and what is wrong with it.
        known: What was wrong with the values of the preset's file by themselves.
        network: The model or its outline; None if there is none, or it can only be looked up on the Hub.
        task: Its task.
    """

    def __init__(self, preset: Preset, model: nn.Module | None = None, *, asks_hub: bool = False) -> None:
        self.preset, self.network = preset, model
        self.errors: list[tuple[Path, ZooError]] = []
        self.known: tuple[Problem, ...] = ()
        self.task = None if model is None else task_of(model)
        is_named = model is None and preset.model is not None and (asks_hub or _is_known_here(preset.model))
        if is_named and (entry := self.get(("model",), look_up, preset.model)):
            self.task, self.network = task_of(entry.task), self.get(("model",), build_outline, preset.model)
            self.get(("pretrained",), check_pretrained, preset.model, preset.pretrained)
        if self.task is not None:
            known = self.task if self.network is None else task_of(self.network)
            self.task = self.get(("labels",), known.choose, preset)

    def get(self, path: Path, call: Callable[..., _Result], *args: Any) -> _Result | None:
        """Return what a call returns; None if it raises, and the error is kept.

        Args:
            path: Field and keys that lead to the value that is checked.
            call: What checks it.
            args: Its arguments.
        """
        try:
            return call(*args)
        except ZooError as error:
            self.errors.append((path, error))
            return None

    def passes(self, path: Path, check: Callable[..., object], *args: Any) -> bool:
        """Whether a check raises nothing; the arguments are those of `get`."""
        known = len(self.errors)
        self.get(path, check, *args)
        return len(self.errors) == known

    def refuse(self) -> None:
        """Raise all that was found: a single error that no line of a file is about as it is, else one that lists them.

        Raises:
            ZooError: If anything was found.
        """
        origin, errors = self.preset.origin, [error for _, error in self.errors]
        found = [Problem(origin.find_line(path), str(error)) for path, error in self.errors]
        problems = [*self.known, *found]
        if len(problems) == 1 and not problems[0].line:
            raise errors[0]
        if problems:
            raise refusal(origin.where or "options", problems) from next(iter(errors), None)


def check_file(name_or_path: str | os.PathLike[str]) -> Findings:
    """Return all that is wrong with the preset of a name or file: values by themselves, and with its model.

    Raises:
        PresetError: It cannot be read, or its values contradict each other.
    """
    known: tuple[Problem, ...] = ()
    try:
        preset = load_preset(name_or_path)
    except PresetError as error:
        if error.sound is None:
            raise
        preset, known = error.sound, error.problems
    findings = Findings(preset)
    findings.known = known
    find_faults(findings)
    return findings


def check_preset(
    preset: Preset,
    model: nn.Module | None = None,
    *,
    optimizer: Any = None,
    steps_per_epoch: int | None = None,
    asks_hub: bool = False,
) -> Plan | None:
    """Check a preset against its model, and return the plan.

    Args:
        preset: The effective one.
        model: The network; None: an outline of the model that the preset names.
        optimizer: The caller's own, a class or an instance.
        steps_per_epoch: Optimizer steps in one epoch; None: not known yet.
        asks_hub: As in `Findings`.

    Returns:
        The plan; None if no model is known.

    Raises:
        ZooError: With all that is wrong, and the lines of the preset's file.
    """
    findings = Findings(preset, model, asks_hub=asks_hub)
    plan = find_faults(findings, optimizer, steps_per_epoch)
    findings.refuse()
    return plan


def find_faults(findings: Findings, optimizer: Any = None, steps_per_epoch: int | None = None) -> Plan | None:
    """Find what is wrong with a preset on any machine, and return the plan if nothing is; see `check_preset`."""
    preset, task = findings.preset, findings.task
    if task is not None:
        for field, value in preset.find_other_tasks(task.name).items():
            advice = f"Use {OTHER_WORD[field]} instead" if field in OTHER_WORD else "Remove it"
            text = f"{field} is {shown(value)}, which does not apply to a {task.card.noun}. {advice}."
            findings.errors.append(((field,), PresetError(text)))
        findings.get(("model",), task.check_options, preset, findings.network)
        findings.get(("monitor",), check_monitor, task, preset.monitor)
    findings.get(("solver",), check_solver, preset, task)
    plan = _find_wrong_rates(findings, optimizer, steps_per_epoch)
    if plan is not None and findings.network is not None and not findings.errors:
        findings.get(("solver",), check_solved, preset, findings.network, plan)
    return plan


def find_missing(findings: Findings) -> None:
    """Find what this machine lacks for a run: the device, a transform of the user's, or a library."""
    preset, task = findings.preset, findings.task
    findings.get(("transform",), load_transform, preset.transform)
    findings.get(("device",), check_device, preset.device, preset.precision)
    findings.get(("log",), check_trackers, preset.log)
    if task is not None:
        findings.get(("model",), task.check_installed)


def _is_known_here(name: str) -> bool:
    """Whether a model can be looked up without a network: it is no repository on the Hub."""
    return not names_saved(name) or os.path.exists(to_path(name))


def _find_wrong_rates(findings: Findings, own: Any, steps: int | None) -> Plan | None:
    """Find what is wrong with the optimizer, the rates and the unfreeze points, one independent of the other."""
    preset = sound = findings.preset
    late = {epoch: prefixes for epoch, prefixes in preset.unfreeze.items() if int(epoch) >= preset.epochs}
    for epoch, prefixes in late.items():
        points = dict.fromkeys([prefixes] if isinstance(prefixes, str) else prefixes, int(epoch))
        findings.get(("unfreeze", epoch), check_in_time, points, preset.epochs)
    if late:
        sound = sound.replace(unfreeze={epoch: said for epoch, said in preset.unfreeze.items() if epoch not in late})
    if isinstance(own, Optimizer):  # its groups are the plan, so there are no rates to look at
        make = partial(plan_rates, optimizer=own, steps_per_epoch=steps)
        return None if findings.network is None else findings.get(("optimizer",), make, findings.network, sound)
    kind = own or findings.get(("optimizer",), find_optimizer, preset.optimizer)
    params = preset.optimizer_params
    is_usable = kind is not None and findings.passes(("optimizer_params",), check_params, kind, params)
    if not is_usable:
        own, sound = None, sound.replace(optimizer="SGD", optimizer_params={})
    for key, said in preset.lr.items() if is_usable and isinstance(preset.lr, dict) else ():
        if isinstance(said, GroupSettings) and said.optimizer_params:
            findings.get(("lr", key), check_params, kind, params | said.optimizer_params)
    plan = _find_wrong_groups(findings, sound, own, steps)
    if plan is not None and kind is not None and not findings.errors:
        findings.get(("lr",), check_optimizer, kind, plan, default_params(kind) | params)
    return plan


def _find_wrong_groups(findings: Findings, preset: Preset, own: Any, steps: int | None) -> Plan | None:
    """Return the plan, or find what is wrong with rates and unfreeze points; None if there is no network."""
    network = findings.network
    if network is None:
        return None
    make, unfreezing = partial(plan_rates, network, optimizer=own, steps_per_epoch=steps), Findings(preset, network)
    plan = unfreezing.get(("unfreeze",), make, preset)
    if plan is None and not findings.passes(("lr",), make, preset.replace(unfreeze={})):
        unfreezing = Findings(preset, network)
        unfreezing.get(("unfreeze",), make, preset.replace(**ONE_RATE))
    findings.errors += unfreezing.errors
    return plan
