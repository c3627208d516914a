"""What a caller says of a run → the effective preset, and the plan that it comes to."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import nn

from zoo.errors import InputError, PlanError
from zoo.optim import check_params, default_weight_decay
from zoo.rates import GivenRates, GroupSettings, Mode, Plan, make_plan, mark_solved, schedule_defaults
from zoo.rates.schedules import to_plain
from zoo.settings.files import load_preset
from zoo.settings.preset import Preset
from zoo.settings.solver_checks import list_solver_defaults

# What an optimizer that brings groups of its own says already: a preset leaves it at its default, and a caller, who may
# say that gradients are not centralized, leaves it out.
_OF_GROUPS = ("mode", "layer_decay", "first_lr", "unfreeze", "weight_decay", "gradient_centralization", "order")
_NEVER_GIVEN = frozenset({"lr", "optimizer_params", *_OF_GROUPS} - {"gradient_centralization"})


class Resolved(NamedTuple):
    """What a caller's options come to.

    Attributes:
        preset: The effective one.
        optimizer: The caller's own, a class or an instance; None if it is named.
        notes: What was changed beyond what the caller says.
    """

    preset: Preset
    optimizer: Any
    notes: tuple[str, ...] = ()


def resolve_preset(
    preset: str | os.PathLike[str] | Preset | Mapping[str, Any] | None,
    lr: GivenRates | None,
    mode: Mode | None,
    overrides: Mapping[str, Any],
    *,
    optimizer: Any = None,
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> Resolved:
    """Return the preset with everything changed that the caller says otherwise.

    Where the caller's `epochs` leave no room for the preset's warm-up, it becomes half of the run.

    Args:
        preset: A name, a YAML file, a mapping of fields, or a preset; None: the defaults.
        lr: One rate, or a mapping of keys to rates or settings; None: the preset's.
        mode: None: the preset's.
        overrides: Other fields.
        optimizer: A name, a class or an instance.
        defaults: Of the task, where no preset is named.

    Raises:
        PlanError: Fields are given that the groups of the optimizer say already.
    """
    base = _choose_preset(preset, defaults)
    given: dict[str, Any] = dict(overrides)
    if given.get("batch_size") == "auto":  # the batch stays what the preset says; what fits of it is found out
        given |= {"micro_batch_size": "auto"}
        del given["batch_size"]
    if lr is not None:
        given["lr"] = dict(lr) if isinstance(lr, Mapping) else lr
    if mode is not None:
        given["mode"] = mode
    own = None if optimizer is None or isinstance(optimizer, str) else optimizer
    if isinstance(own, torch.optim.Optimizer):
        clash = sorted(_NEVER_GIVEN & given.keys())
        if clash:
            raise PlanError(
                f"the optimizer has its own groups and learning rates, so {', '.join(clash)} cannot be set as well. "
                "Remove that, or pass the optimizer class instead."
            )
    if optimizer is not None:
        kind = type(own) if isinstance(own, torch.optim.Optimizer) else own
        given["optimizer"] = optimizer if kind is None else getattr(kind, "__name__", kind)
    if "pretrained" in given:  # the preset's digest is of other weights
        given = {"pretrained_sha256": None} | given
    if (lr is not None and not isinstance(lr, Mapping)) and given.get("solver", base.solver):
        raise PlanError(
            "lr has no effect with solver, which solves the head instead of training it in steps. Remove lr."
        )
    given |= list_solver_defaults(given, base)
    if given.get("compat", base.compat) and given.get("decode", base.decode) is None:
        given["decode"] = "full"  # a run that repeats another system's sees the pixels that it saw
    shorter, notes = _shorten_warmup(base, given)
    given |= shorter
    return Resolved(base.replace(**given) if given else base, own, notes)


def plan_rates(model: nn.Module, preset: Preset, *, steps_per_epoch: int | None = None, optimizer: Any = None) -> Plan:
    """Return the plan that a preset comes to for a model; see `zoo.rates.make_plan`.

    Args:
        model: Any module; it is not changed.
        preset: The effective one.
        steps_per_epoch: Optimizer steps in one epoch; None: not known yet.
        optimizer: The caller's own, a class or an instance; the groups of an instance are the plan.

    Raises:
        PlanError: The rates contradict each other, the model or the optimizer.
        InputError: The optimizer does not take what the preset hands it.
    """
    if isinstance(optimizer, torch.optim.Optimizer):
        _refuse_beside_groups(preset, optimizer)
        return make_plan(model, preset, default_decay=0.0, steps_per_epoch=steps_per_epoch, optimizer=optimizer)
    kind = optimizer or preset.optimizer
    check_params(kind, preset.optimizer_params)
    plan = make_plan(model, preset, default_decay=default_weight_decay(kind), steps_per_epoch=steps_per_epoch)
    return mark_solved(plan, preset.solver) if preset.solver else plan


def without_code(preset: Preset, plan: Plan) -> dict[str, Any]:
    """Return `schedule` and `lr` of a preset as a file holds them: what needs the caller's code becomes numbers."""
    own = set() if isinstance(preset.lr, Mapping) else {float(preset.lr)}
    options: dict[str, Any] = {"compat": preset.compat, "defaults": schedule_defaults(preset)}
    options["bases"] = sorted(own | {group.full_lr for group in plan.trained})

    def plain(rate: Any) -> Any:
        if not isinstance(rate, GroupSettings) or rate.schedule is None:
            return rate
        return rate.model_copy(update={"schedule": to_plain(rate.schedule, plan.clock, **options)})

    lr = {key: plain(rate) for key, rate in preset.lr.items()} if isinstance(preset.lr, Mapping) else preset.lr
    return {"schedule": to_plain(preset.schedule, plan.clock, **options), "lr": lr}


def _refuse_beside_groups(preset: Preset, optimizer: torch.optim.Optimizer) -> None:
    clash = [name for name in _OF_GROUPS if getattr(preset, name) != Preset.model_fields[name].default]
    clash += ["lr"] * isinstance(preset.lr, Mapping)
    if clash:
        raise PlanError(
            f"the {type(optimizer).__name__} has its own groups and learning rates, so the preset cannot set "
            f"{', '.join(clash)} as well. Remove that, or pass the optimizer class instead."
        )


def _shorten_warmup(base: Preset, given: Mapping[str, Any]) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return a warm-up that fits into the caller's epochs, where the preset's does not, and a note about it."""
    epochs, warmup = given.get("epochs"), base.warmup_epochs
    is_free = not (base.compat or given.get("compat") or "warmup_epochs" in given)
    if warmup is None or not is_free or not isinstance(epochs, int) or not 0 < epochs <= warmup:
        return {}, ()
    note = f"warmup_epochs is {epochs / 2:g} instead of the preset's {warmup:g}: the run is too short"
    return {"warmup_epochs": epochs / 2}, (note,)


def _choose_preset(preset: Any, defaults: Mapping[str, Any]) -> Preset:
    """Return the preset that is named, or one of some fields beside the defaults of the task."""
    if isinstance(preset, Preset):
        return preset
    if preset is None or isinstance(preset, Mapping):
        return Preset(**{**defaults, **(preset or {})})
    if not isinstance(preset, (str, os.PathLike)):
        raise InputError(
            f"preset is a {type(preset).__name__}; expected a preset name (zoo.list_presets()), the path of a YAML "
            "file, a mapping of fields, or a zoo.Preset."
        )
    return load_preset(Path(preset))
