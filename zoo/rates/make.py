"""Preset + model → plan: which of the many ways to say rates was meant, and nothing said twice."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from zoo._model import check_call, find_method
from zoo.errors import PlanError
from zoo.optim import check_params, default_weight_decay
from zoo.rates.assign import choose_rates, plan_layers, plan_lrs
from zoo.rates.given_groups import TrainingParams, plan_hook_groups, plan_optimizer_groups, with_update_hook
from zoo.rates.groups import Common
from zoo.rates.plan import Plan
from zoo.rates.schedules.parse import Clock
from zoo.settings import Preset

ASSUMED_STEPS = 100  # per epoch, where no data says how many there are
WARMUP_EPOCHS = 0.5
OF_GROUPS = (  # fields that say what an optimizer with groups of its own says already
    "mode",
    "layer_decay",
    "first_lr",
    "unfreeze",
    "weight_decay",
    "gradient_centralization",
    "order",
)


def make_plan(model: nn.Module, preset: Preset, *, steps_per_epoch: int | None = None, optimizer: Any = None) -> Plan:
    """Return which parameter of a model learns when and at which rate, without changing the model.

    Args:
        model: Any module.
        preset: Says it in one of these ways: a mapping as `lr`; one rate with a `mode`, `layer_decay` or `first_lr`;
            or one rate alone, for the model's own hooks, its head, or all of it.
        steps_per_epoch: Optimizer steps in one epoch; None: not known yet, 100 are assumed.
        optimizer: A class or an instance of the user's; the groups of an instance are the plan.

    Raises:
        PlanError: The rates contradict each other or the model, or something would never learn.
    """
    common = _common(preset, steps_per_epoch, optimizer)
    if isinstance(optimizer, torch.optim.Optimizer):
        _check_groups_say_all(preset, optimizer)
        plan = plan_optimizer_groups(model, optimizer, common)
    else:
        plan = _plan(model, preset, common)
    _check_in_time(plan)
    return replace(plan, steps_are_known=False) if steps_per_epoch is None else plan.at(plan.clock)


def training_params(preset: Preset) -> TrainingParams:
    """Return what the model's hooks may read: the preset's fields, and over them the user's own."""
    return TrainingParams(preset.model_dump() | preset.training_params)


def _plan(model: nn.Module, preset: Preset, common: Common) -> Plan:
    lr, falls = preset.lr, preset.layer_decay is not None or preset.first_lr is not None
    if isinstance(lr, Mapping):
        return plan_lrs(model, lr, common)
    factor = preset.backbone_lr_factor
    slower = f"{lr:g} × {factor:g} (backbone)"
    common = replace(common, unfrozen_lr=lr * factor, unfrozen_reason=slower)
    if not falls and preset.mode is None and (hook := find_method(model, "initialize_param_groups")):
        params = training_params(preset)
        check_call(hook, "initialize_param_groups(lr, training_params)", lr, params)
        return plan_hook_groups(model, hook(lr, params), common, lr=lr, params=params)
    mode = preset.mode or ("full" if falls else None)
    rates = choose_rates(model, lr, mode=mode, backbone_lr_factor=factor)
    if mode == "low_lr":
        common = replace(common, reasons={key: slower for key, rate in rates.items() if rate != lr})
    if falls:
        return plan_layers(model, rates, common, layer_decay=preset.layer_decay, first_lr=preset.first_lr)
    plan = plan_lrs(model, rates, common)
    return plan if mode else with_update_hook(model, plan, common, lr=lr, params=training_params(preset))


def _check_groups_say_all(preset: Preset, optimizer: torch.optim.Optimizer) -> None:
    clash = [name for name in OF_GROUPS if getattr(preset, name) != Preset.model_fields[name].default]
    clash += ["lr"] * isinstance(preset.lr, Mapping)
    if clash:
        raise PlanError(
            f"the {type(optimizer).__name__} brings groups and rates of its own, and the preset says "
            f"{', '.join(clash)} as well. Leave that out, or pass the optimizer's class."
        )


def _check_in_time(plan: Plan) -> None:
    late = {group.key: group.unfreeze_at for group in plan.trained if group.unfreeze_at >= plan.clock.epochs}
    if late:
        listed = ", ".join(f"{key!r} (after {epoch})" for key, epoch in late.items())
        raise PlanError(
            f"unfreeze: in a run of {plan.clock.epochs} epochs {listed} would never learn. Unfreeze earlier, train "
            "longer, or give rate 0."
        )


def _common(preset: Preset, steps_per_epoch: int | None, optimizer: Any) -> Common:
    decay = preset.weight_decay
    kind = type(optimizer) if isinstance(optimizer, torch.optim.Optimizer) else optimizer or preset.optimizer
    if not isinstance(optimizer, torch.optim.Optimizer):
        check_params(kind, preset.optimizer_params)
    steps = ASSUMED_STEPS if steps_per_epoch is None else steps_per_epoch
    return Common(
        clock=Clock(preset.epochs, steps, preset.accumulate),
        schedule=preset.schedule,
        schedule_defaults=schedule_defaults(preset),
        usual_warmup=min(WARMUP_EPOCHS, preset.epochs / 2),
        compat=preset.compat,
        weight_decay=default_weight_decay(kind) if decay is None else decay,
        decay_norm_and_bias=preset.decay_norm_and_bias,
        gradient_centralization=preset.gradient_centralization,
        unfreeze=_unfreeze(preset),
        order=preset.order,
        unmatched=preset.unmatched,
    )


def schedule_defaults(preset: Preset) -> dict[str, Any]:
    """Return what a schedule takes from the preset where it says nothing itself."""
    names = ("warmup_epochs", "warmup_steps", "warmup_start_lr", "cooldown_epochs", "final_lr_ratio")
    given = {name: getattr(preset, name) for name in names if getattr(preset, name) is not None}
    given["warmup_start"] = preset.warmup_start
    return given


def _unfreeze(preset: Preset) -> dict[int, list[str]]:
    return {
        int(epoch): [prefixes] if isinstance(prefixes, str) else prefixes for epoch, prefixes in preset.unfreeze.items()
    }
