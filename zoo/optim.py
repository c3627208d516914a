"""Groups → optimizer and schedule. The schedule is a factor per step that multiplies each group's own rate."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from zoo.errors import InputError, did_you_mean
from zoo.lr_plan import Plan

Schedule = Callable[[int], float]
_NEED_MORE = {"LBFGS", "Optimizer", "SparseAdam", "Muon"}  # a closure, nothing, sparse gradients, matrices only
_OURS = {"params", "lr", "weight_decay"}


def build_optimizer(model: nn.Module, plan: Plan, *, name: str, params: Mapping[str, Any]) -> torch.optim.Optimizer:
    """Make the optimizer of a plan's trained groups, in their order.

    Args:
        model: The module of the plan.
        plan: Which parameter learns at which rate and decay.
        name: An optimizer of `torch.optim`, in any case: `AdamW`, `sgd`, …; `SGD` has momentum 0.9 unless told.
        params: Its other arguments, for example `{"momentum": 0.95}`.

    Returns:
        Its groups carry `name`, and `initial_lr`: the rate that the schedule multiplies.

    Raises:
        InputError: For an unknown optimizer or argument.
    """
    usable = {
        key.lower(): kind
        for key, kind in vars(torch.optim).items()
        if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer) and key not in _NEED_MORE
    }
    if name.lower() not in usable:
        known = sorted(kind.__name__ for kind in usable.values())
        raise InputError(f"unknown optimizer {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}.")
    kind = usable[name.lower()]
    accepted = set(inspect.signature(kind).parameters) - _OURS
    for key in params:
        if key in _OURS:
            raise InputError(f"optimizer_params: {key!r} is set by the preset's own field {key!r}. Remove it here.")
        if key not in accepted:
            near = did_you_mean(key, accepted)
            raise InputError(f"optimizer_params: {kind.__name__} has no argument {key!r}.{near}")
    settings = ({"momentum": 0.9} if kind is torch.optim.SGD else {}) | dict(params)
    parameters = dict(model.named_parameters())
    groups = [
        {
            **group.options,
            "params": [parameters[member] for member in group.names],
            "name": group.name,
            "lr": group.lr,
            "initial_lr": group.lr,
            "weight_decay": group.weight_decay,
        }
        for group in plan.trained
    ]
    try:
        optimizer: torch.optim.Optimizer = kind(groups, **settings)
    except (TypeError, ValueError) as error:
        raise InputError(f"optimizer {kind.__name__} refuses {settings}: {error}.") from error
    return optimizer


def build_schedule(
    kind: str, *, steps: int, warmup_steps: int = 0, warmup_start: float = 0.1, final_lr_ratio: float = 0.01
) -> Schedule:
    """Return the factor of the rate at each optimizer step, from 0.

    Args:
        kind: `cosine` or `constant`.
        steps: Optimizer steps of the whole run.
        warmup_steps: Steps in which the factor rises linearly from `warmup_start` to 1.
        warmup_start: Factor of the first step of a warm-up.
        final_lr_ratio: Factor that the cosine ends at: the last step has it.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return warmup_start + (1 - warmup_start) * step / warmup_steps
        if kind == "constant":
            return 1.0
        done = min(1.0, (step - warmup_steps) / max(1, steps - 1 - warmup_steps))
        return final_lr_ratio + (1 - final_lr_ratio) * 0.5 * (1 + math.cos(math.pi * done))

    return factor


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to its own rate times the factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
