"""A plan's groups → an optimizer; then a rate per group, step by step, and its state back into an optimizer.

Groups that differ in name and members only are one group of the optimizer, for speed: `members` says what it holds. Its
rates are written by the names of the plan's groups; where they part, the optimizer's group is split.

Source of the merging: detectron2, `reduce_param_groups` in detectron2/solver/build.py.
"""

import copy
import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.errors import InputError
from zoo.optim.catalog import (
    arguments,
    check_params,
    couples_decay,
    default_params,
    find_optimizer,
    make_optimizer,
    takes_weight_decay,
)
from zoo.optim.gradients import split_members
from zoo.optim.modes import CLOSURE, asks_for_closure, set_mode
from zoo.rates import Group, Plan


def build_optimizer(
    model: nn.Module,
    plan: Plan,
    *,
    optimizer: str | type[Optimizer] | Optimizer,
    params: Mapping[str, Any] | None = None,
    tensor_rates: bool = False,
) -> Optimizer:
    """Make the optimizer of all groups of a plan that learn at some time, in their order.

    Args:
        model: The module of the plan.
        plan: Which parameter learns at which rate and decay.
        optimizer: A name, a class, or an optimizer of this model's parameters, which is returned as it is: only `name`
            and `initial_lr` are added to groups that lack them.
        params: Further arguments of the constructor, for example `{"momentum": 0.95}`.
        tensor_rates: Whether rates are 0-dim tensors, so that a compiled step is not compiled anew for each rate. An
            optimizer for which `tensor_rate_problem` has an answer gets numbers nevertheless.

    Returns:
        Its groups carry `name` (of their first member), `members` (name and number of tensors of each), `lr` and
        `initial_lr` (the full rate), `weight_decay`, the plan's options, and if set `gradient_centralization` with
        `coupled_decay`, and `clip_grad_norm`.

    Raises:
        InputError: For an unknown optimizer or argument, decay for an optimizer that has none, an optimizer of other
            parameters, and tensor rates together with `fused`.
    """
    parameters = dict(model.named_parameters())
    if isinstance(optimizer, Optimizer):
        if params:
            raise InputError(
                f"optimizer_params {dict(params)} have no effect: the {type(optimizer).__name__} already exists. "
                "Pass them to its constructor, or pass its class."
            )
        check_step(type(optimizer))
        return _adopt(optimizer, parameters, plan)
    kind = find_optimizer(optimizer) if isinstance(optimizer, str) else optimizer
    settings = default_params(kind) | dict(params or {})
    check_optimizer(kind, plan, settings)
    groups = [_join(equal, parameters, kind, settings) for equal in merge_groups(plan.trained)]
    if tensor_rates:
        groups, settings = _with_tensor_rates(groups, kind, settings)
    elif takes_fused(kind, settings, {value.device.type for group in groups for value in group["params"]}):
        settings = {**settings, "fused": True}
    made = make_optimizer(kind, groups, lr=max(group["initial_lr"] for group in groups), **settings)
    for group in made.param_groups:
        if "max_lr_snapshot" in group:  # timm's corrected decay, lr**2 / max_lr: of the group's rate, not the highest
            group["max_lr_snapshot"] = group["initial_lr"]
    return made


def check_optimizer(kind: type[Optimizer], plan: Plan, params: Mapping[str, Any]) -> None:
    """Refuse an optimizer that cannot train the groups of a plan.

    Args:
        kind: Its class.
        plan: Whose groups may have a decay and arguments of their own.
        params: Further arguments of the constructor for all groups.

    Raises:
        InputError: An argument that it does not have or refuses, decay for an optimizer that has none, or a step that
            needs a closure.
    """
    check_params(kind, params)
    check_step(kind, params)
    accepted = arguments(kind)
    for equal in merge_groups(plan.trained):
        _check_decay(kind, equal[0])
        options = {key: value for key, value in equal[0].options.items() if accepted is None or key in accepted}
        if options:
            check_params(kind, {**params, **options})


def check_step(kind: type[Optimizer], params: Mapping[str, Any] | None = None) -> None:
    """Refuse an optimizer whose step runs the model itself.

    Args:
        kind: Its class.
        params: Its arguments, with which a step of a small tensor is tried; None: only the signature is looked at.

    Raises:
        InputError: Its step needs a closure.
    """
    closure = inspect.signature(kind.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise InputError(CLOSURE.format(kind.__name__))
    if params is None:
        return
    weight = torch.ones(2, 2, requires_grad=True)
    optimizer = make_optimizer(kind, [{"params": [weight]}], lr=0.1, **params)
    weight.grad = torch.ones(2, 2)
    try:
        set_mode(optimizer, learn=True)
        optimizer.step()
    except Exception as error:  # whatever else it may need, a small tensor does not tell
        if asks_for_closure(error):
            raise InputError(CLOSURE.format(kind.__name__)) from error


def merge_groups(groups: Sequence[Group]) -> list[list[Group]]:
    """Put together the groups that differ in name and members only; those with one full rate have the same rate."""
    merged: dict[tuple[float, float], list[tuple[Group, list[Group]]]] = {}
    found: list[list[Group]] = []
    for group in groups:
        bare = replace(group, name="", names=(), parameters=0, reason="", lr=group.full_lr, lr_scale=1.0)
        alike = merged.setdefault((group.full_lr, group.weight_decay), [])
        equal = next((members for other, members in alike if other == bare), None)  # schedules need not be hashable
        if equal is None:
            equal = []
            alike.append((bare, equal))
            found.append(equal)
        equal.append(group)
    return found


def takes_fused(kind: type[Optimizer], settings: Mapping[str, Any], devices: Collection[str]) -> bool:
    """Whether one of torch's optimizers updates all tensors in one kernel here, if nothing else was asked for.

    Args:
        kind: Its class.
        settings: Its arguments.
        devices: Types of the devices that its parameters are on.
    """
    says = any(settings.get(name) for name in ("foreach", "differentiable", "capturable")) or "fused" in settings
    is_torchs = kind.__module__.startswith("torch.optim.")
    return is_torchs and not says and set(devices) == {"cuda"} and "fused" in (arguments(kind) or ())


def tensor_rate_problem(
    optimizer: str | type[Optimizer], params: Mapping[str, Any] | None = None, device: torch.device | None = None
) -> str | None:
    """Return why an optimizer's rate cannot be a tensor, or None if it can: it is tried, for three steps.

    Args:
        optimizer: A name or a class.
        params: Further arguments of the constructor.
        device: Where its parameters are.
    """
    kind = find_optimizer(optimizer) if isinstance(optimizer, str) else optimizer
    expected = _try_three_steps(kind, 0.0, params or {}, device)
    try:
        found = _try_three_steps(kind, torch.tensor(0.0, device=device), params or {}, device)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        return f"{kind.__name__} does not accept a tensor as learning rate: {error}"
    same = torch.allclose(found, expected, rtol=1e-5, atol=1e-7)
    return None if same else f"{kind.__name__} gives different weights if its learning rate is a tensor"


def set_rates(
    optimizer: Optimizer, rates: Mapping[str, float], weight_decays: Mapping[str, float] | None = None
) -> None:
    """Write the rates of the next step.

    A tensor is filled, never replaced. A group whose members get different values is split into groups of equal ones;
    what the optimizer knows of each parameter stays.

    Args:
        optimizer: What `build_optimizer` made, or a wrapper of it.
        rates: Rate by name of the plan's group; names that the optimizer does not have are passed over.
        weight_decays: Decay by name; None leaves decays as they are.

    Raises:
        InputError: If a rate or decay is missing.
    """
    place = 0
    while place < len(optimizer.param_groups):
        group = optimizer.param_groups[place]
        values = [(_look_up(rates, name), _look_up(weight_decays, name)) for name in _member_names(group)]
        parts = list(_split(group, values)) if any(value != values[0] for value in values) else [group]
        if len(parts) > 1:
            optimizer.param_groups[place : place + 1] = parts
        for part, (rate, decay) in zip(parts, dict.fromkeys(values), strict=True):
            _write(part, "lr", rate)
            _write(part, "weight_decay", decay)
        place += len(parts)


def load_optimizer_state(optimizer: Optimizer, state_dict: Mapping[str, Any]) -> None:
    """Load what `optimizer.state_dict()` gave, matching groups by name and parameters by their place in them.

    The optimizer's groups are merged or split as they were when the state was saved. Rates that are tensors stay the
    same tensors.

    Raises:
        InputError: If the groups have other names or sizes than those of the state.
    """
    ours = [(name, tensors, group) for group in optimizer.param_groups for name, tensors in split_members(group)]
    saved = [(name, tensors) for group in state_dict["param_groups"] for name, tensors in split_members(group)]
    _check_same({name: len(tensors) for name, tensors, _ in ours}, {name: len(tensors) for name, tensors in saved})
    if [_member_names(group) for group in optimizer.param_groups] != [
        _member_names(group) for group in state_dict["param_groups"]
    ]:
        members = {name: (tensors, group) for name, tensors, group in ours}
        optimizer.param_groups[:] = [_rearrange(group, members) for group in state_dict["param_groups"]]
    rates = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(dict(state_dict))
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate.fill_(float(group["lr"])) if isinstance(rate, Tensor) else float(group["lr"])


def _adopt(optimizer: Optimizer, parameters: Mapping[str, Tensor], plan: Plan) -> Optimizer:
    """Name the groups of a ready optimizer: as the plan's group of the same parameters, else by their number."""
    known = {id(parameter) for parameter in parameters.values()}
    planned = {frozenset(id(parameters[name]) for name in group.names): group.name for group in plan.trained}
    for index, group in enumerate(optimizer.param_groups):
        held = frozenset(map(id, group["params"]))
        if not held <= known:
            raise InputError(
                f"the {type(optimizer).__name__} holds {len(held - known)} parameters in its group {index} that are "
                "not the model's. Create it from model.parameters() of the model to train."
            )
        if "name" not in group:
            group["name"] = planned.get(held, f"group {index}")
        group.setdefault("initial_lr", float(group["lr"]))
    return optimizer


def _check_decay(kind: type[Optimizer], group: Group) -> None:
    if (group.weight_decay > 0 or group.weight_decay_schedule is not None) and not takes_weight_decay(kind):
        raise InputError(
            f"{kind.__name__} has no weight decay, but group {group.name!r} has {group.weight_decay:g}. Set "
            "weight_decay to 0, or use another optimizer."
        )


def _join(
    equal: Sequence[Group], parameters: Mapping[str, Tensor], kind: type[Optimizer], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the optimizer's group of equal groups of the plan."""
    first = equal[0]
    joined: dict[str, Any] = {
        **first.options,
        "params": [parameters[name] for group in equal for name in group.names],
        "name": first.name,
        "members": [[group.name, len(group.names)] for group in equal],
        "lr": first.full_lr,
        "initial_lr": first.full_lr,
        "weight_decay": first.weight_decay,
    }
    if first.gradient_centralization:
        accepted = arguments(kind)
        options = {key: value for key, value in first.options.items() if accepted is None or key in accepted}
        joined |= {"gradient_centralization": True, "coupled_decay": couples_decay(kind, {**settings, **options})}
    if first.clip_grad_norm is not None:
        joined["clip_grad_norm"] = first.clip_grad_norm
    return joined


def _with_tensor_rates(
    groups: list[dict[str, Any]], kind: type[Optimizer], settings: dict[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Make every rate a tensor on the device of its parameters, if the optimizer can work with that."""
    if settings.get("fused"):
        raise InputError(
            f"optimizer_params: fused=True cannot be combined with a compiled step: the fused {kind.__name__} is not "
            "compiled. Remove one of them."
        )
    device = groups[0]["params"][0].device
    accepted = arguments(kind) or ()
    if device.type == "cuda" and "capturable" in accepted:  # else torch takes parameters one by one, and waits for each
        settings = {"capturable": True} | settings
    if tensor_rate_problem(kind, settings, device) is not None:
        return groups, settings
    return [group | {"lr": torch.tensor(group["lr"], device=group["params"][0].device)} for group in groups], settings


def _try_three_steps(
    kind: type[Optimizer], rate: float | Tensor, params: Mapping[str, Any], device: torch.device | None
) -> Tensor:
    """Return what becomes of a small weight."""
    direction = torch.linspace(-1.0, 1.0, 16, device=device).reshape(4, 4)
    weight = direction.clone().requires_grad_()
    optimizer = kind([{"params": [weight], "lr": rate}], lr=0.1, **dict(params))  # type: ignore[call-arg]
    set_mode(optimizer, learn=True)
    for step in range(1, 4):
        _write(optimizer.param_groups[0], "lr", 0.01 * step)
        weight.grad = direction * step
        optimizer.step()
    return weight.detach()


def _member_names(group: Mapping[str, Any]) -> list[str]:
    return [name for name, _ in group["members"]] if "members" in group else [group["name"]]


def _look_up(values: Mapping[str, float] | None, name: str) -> float | None:
    if values is None:
        return None
    if name not in values:
        raise InputError(
            f"group {name!r} of the optimizer has no learning rate or weight decay. Set for: {', '.join(values)}."
        )
    return values[name]


def _split(group: dict[str, Any], values: Sequence[object]) -> Iterator[dict[str, Any]]:
    """Yield a group for each different value of the members, in the order of their first."""
    parts: dict[object, tuple[list[list[Any]], list[Tensor]]] = {}
    for value, (name, tensors) in zip(values, split_members(group), strict=True):
        members, held = parts.setdefault(value, ([], []))
        members.append([name, len(tensors)])
        held += tensors
    for members, held in parts.values():
        yield _copy_of(group, members, held)


def _rearrange(saved: Mapping[str, Any], members: Mapping[str, tuple[list[Tensor], dict[str, Any]]]) -> dict[str, Any]:
    """Return a group that holds what a group of a state held."""
    names = _member_names(saved)
    held = [tensor for name in names for tensor in members[name][0]]
    return _copy_of(members[names[0]][1], [[name, len(members[name][0])] for name in names], held)


def _copy_of(group: Mapping[str, Any], members: list[list[Any]], held: list[Tensor]) -> dict[str, Any]:
    """Return a group of the same settings with other members; nothing that can be changed in place is shared."""
    own = {key: copy.deepcopy(value) for key, value in group.items() if key not in ("params", "members")}
    return {**own, "params": held, "name": members[0][0], "members": members}


def _check_same(ours: Mapping[str, int], saved: Mapping[str, int]) -> None:
    if set(ours) != set(saved):
        lacking, foreign = sorted(set(saved) - set(ours)), sorted(set(ours) - set(saved))
        raise InputError(
            f"the optimizer state has different groups: only in the state: {lacking or 'none'}; only in this run: "
            f"{foreign or 'none'}. Resume with the original settings."
        )
    for name, count in saved.items():
        if ours[name] != count:
            raise InputError(
                f"group {name!r} has {count} tensors in the optimizer state but {ours[name]} in this run. Resume "
                "with the original settings."
            )


def _write(group: dict[str, Any], key: str, value: float | None) -> None:
    """Put a number into a group; a tensor stays the tensor that it is."""
    if value is None:
        return
    if isinstance(group.get(key), Tensor):
        group[key].fill_(value)
    elif group.get(key) != value:
        group[key] = value
