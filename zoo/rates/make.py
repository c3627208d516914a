"""Options + model → plan: which of the many ways to say rates was meant, and nothing said twice."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from zoo._model import check_call, find_method
from zoo.errors import PlanError
from zoo.rates.assign import choose_rates, plan_layers, plan_lrs
from zoo.rates.context import PlanContext
from zoo.rates.given_groups import TrainingParams, plan_hook_groups, plan_optimizer_groups, with_update_hook
from zoo.rates.options import RateOptions
from zoo.rates.plan import Plan
from zoo.rates.schedules.parse import Clock

ASSUMED_STEPS = 100  # per epoch, where no data says how many there are
WARMUP_EPOCHS = 0.5


def make_plan(
    model: nn.Module,
    options: RateOptions,
    *,
    default_decay: float,
    steps_per_epoch: int | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> Plan:
    """Return which parameter of a model learns when and at which rate, without changing the model.

    Args:
        model: Any module.
        options: They say it in one of these ways: a mapping as `lr`; one rate with a `mode`, `layer_decay` or
            `first_lr`; or one rate alone, for the model's own hooks, its head, or all of it.
        default_decay: Weight decay where the options name none: the optimizer's own default.
        steps_per_epoch: Optimizer steps in one epoch; None: not known yet, 100 are assumed.
        optimizer: The user's own, whose groups are then the plan.

    Raises:
        PlanError: The rates contradict each other or the model, or something would never learn.
    """
    context = _context(options, default_decay, steps_per_epoch)
    plan = _plan(model, options, context) if optimizer is None else plan_optimizer_groups(model, optimizer, context)
    check_in_time({group.key: group.unfreeze_at for group in plan.trained}, plan.clock.epochs)
    return replace(plan, steps_are_known=False) if steps_per_epoch is None else plan.at(plan.clock)


def training_params(options: RateOptions) -> TrainingParams:
    """Return what the model's hooks may read: the preset's fields, and over them the user's own."""
    return TrainingParams(options.model_dump() | options.training_params)


def _plan(model: nn.Module, options: RateOptions, context: PlanContext) -> Plan:
    lr, falls = options.lr, options.layer_decay is not None or options.first_lr is not None
    if isinstance(lr, Mapping):
        return plan_lrs(model, lr, context)
    factor = options.backbone_lr_factor
    slower = f"{lr:g} × {factor:g} (backbone)"
    context = replace(context, unfrozen_lr=lr * factor, unfrozen_reason=slower)
    if not falls and options.mode is None and (hook := find_method(model, "initialize_param_groups")):
        params = training_params(options)
        check_call(hook, "initialize_param_groups(lr, training_params)", lr, params)
        return plan_hook_groups(model, hook(lr, params), context, lr=lr, params=params)
    mode = options.mode or ("full" if falls else None)
    rates = choose_rates(model, lr, mode=mode, backbone_lr_factor=factor)
    if mode == "low_lr":
        context = replace(context, reasons={key: slower for key, rate in rates.items() if rate != lr})
    if falls:
        return plan_layers(model, rates, context, layer_decay=options.layer_decay, first_lr=options.first_lr)
    plan = plan_lrs(model, rates, context)
    return plan if mode else with_update_hook(model, plan, context, lr=lr, params=training_params(options))


def check_in_time(starts: Mapping[str, int], epochs: int) -> None:
    """Refuse unfreeze points that a run does not reach.

    Args:
        starts: Epochs that pass before a part learns, by its key.
        epochs: Of the run.

    Raises:
        PlanError: Naming the parts.
    """
    late = {key: epoch for key, epoch in starts.items() if epoch >= epochs}
    if late:
        listed = ", ".join(f"{key!r} (after {epoch})" for key, epoch in late.items())
        raise PlanError(
            f"unfreeze: in a run of {epochs} epochs {listed} would never be trained. Unfreeze earlier, train for "
            "more epochs, or set lr to 0."
        )


def _context(options: RateOptions, default_decay: float, steps_per_epoch: int | None) -> PlanContext:
    return PlanContext(
        options=options,
        clock=Clock(options.epochs, ASSUMED_STEPS if steps_per_epoch is None else steps_per_epoch, options.accumulate),
        usual_warmup=min(WARMUP_EPOCHS, options.epochs / 2),
        weight_decay=default_decay if options.weight_decay is None else options.weight_decay,
    )
