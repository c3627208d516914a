"""Names and rates → ordered groups: which parameter learns at which rate, and which does not learn at all.

Keys are plain string prefixes of parameter names (`conv` catches `conv1` and `conv2`); a key that ends in a dot stops
there (`head.` is not `head2`); the longest matching key wins; `default` takes the rest. Rate 0 freezes: no gradient,
not in the optimizer, and norm and dropout layers stay in eval mode through `.train()`.

Source of the mapping's meaning: super-gradients, commit e0ccacf8868ffa1296fa4f8407c03d2bc227312c; where that is silent
or contradicts itself (overlapping prefixes, prefixes without a match, drifting norm statistics) the rules above hold.
"""

import functools
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal

from torch import Tensor, nn

from zoo.errors import PlanError, did_you_mean

Mode = Literal["head", "low_lr", "full"]


@dataclass(frozen=True)
class Group:
    """Parameters that share a rate.

    Attributes:
        name: The key that caught them; ` (no decay)` is added for its biases and norms.
        names: Parameter names, in the order of `model.named_parameters()`.
        lr: Rate at full strength; a schedule multiplies it.
        weight_decay: Decay that the optimizer applies.
        frozen: True for rate 0.
        parameters: How many numbers they hold.
        options: What else a model's own hook asked for, handed to the optimizer's group as it is.
    """

    name: str
    names: tuple[str, ...]
    lr: float
    weight_decay: float
    frozen: bool
    parameters: int
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Every parameter of a model in exactly one group, in the order of `model.named_parameters()`.

    Attributes:
        groups: The groups, ordered by their first parameter.
        rates: The mapping that made them; empty if a model's own hook did.
    """

    groups: tuple[Group, ...]
    rates: Mapping[str, float]

    @property
    def trained(self) -> tuple[Group, ...]:
        """The groups that learn, in the order of the optimizer's."""
        return tuple(group for group in self.groups if not group.frozen)

    @property
    def frozen_names(self) -> frozenset[str]:
        """Names of all parameters that do not learn."""
        return frozenset(name for group in self.groups if group.frozen for name in group.names)

    @property
    def digest(self) -> str:
        """SHA-256 of the plan as data: equal plans have equal digests, in every process."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True, default=str).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        groups = [{**vars(group), "names": list(group.names), "options": dict(group.options)} for group in self.groups]
        return {"rates": dict(self.rates), "groups": groups}

    def rows(self) -> list[dict[str, str]]:
        """Return the table of groups as text: prefix, state, tensors, parameters, lr, weight decay."""
        return [
            {
                "prefix": group.name,
                "state": "frozen" if group.frozen else "trained",
                "tensors": f"{len(group.names)}",
                "parameters": f"{group.parameters:,}",
                "lr": "0" if group.frozen else f"{group.lr:g}",
                "weight decay": "-" if group.frozen else f"{group.weight_decay:g}",
            }
            for group in self.groups
        ]

    def totals(self) -> dict[str, str]:
        """Return the last line of the table: how much of the model learns."""
        total = sum(group.parameters for group in self.groups)
        trained = sum(group.parameters for group in self.trained)
        return {
            "prefix": "total",
            "state": f"{trained / total:.2%} trained",
            "tensors": f"{sum(len(group.names) for group in self.groups)}",
            "parameters": f"{total:,}",
        }

    def __str__(self) -> str:
        rows = [*self.rows(), self.totals()]
        columns = list(rows[0])
        widths = [max(len(column), *(len(row.get(column, "")) for row in rows)) for column in columns]
        lines = [columns, *([row.get(column, "") for column in columns] for row in rows)]
        left = (True, True, False, False, False, False)
        return "\n".join(
            "  ".join(text.ljust(width) if is_left else text.rjust(width) for text, width, is_left in cells).rstrip()
            for cells in (zip(line, widths, left, strict=True) for line in lines)
        )


class TrainingParams(dict[str, Any]):
    """What a model's param-group hooks may read: the preset's fields and the user's own, as `p["x"]` and as `p.x`."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"no training parameter {name!r}.{did_you_mean(name, self)} Known: {', '.join(self)}.")


def choose_rates(
    model: nn.Module, lr: float | Mapping[str, float], *, mode: Mode | None = None, backbone_lr_factor: float = 0.1
) -> dict[str, float]:
    """Turn what the user says into a mapping of prefixes to rates.

    Args:
        model: Any module; `head` and `low_lr` ask its `get_finetune_lr_dict(lr)`.
        lr: A rate > 0, or a mapping of prefixes to rates with a `"default"`, used as it is.
        mode: `head` (also None): the model's own mapping; `low_lr`: what that freezes learns at
            `lr * backbone_lr_factor`; `full`: one rate for all.
        backbone_lr_factor: Share of `lr` for the backbone in the mode `low_lr`.

    Raises:
        PlanError: For a mapping together with a mode, or a model that has no mapping of its own.
    """
    if isinstance(lr, Mapping):
        if mode is not None:
            raise PlanError(
                f"lr is a mapping and mode is {mode!r}: both say which parts train. Leave out the mode, or pass one "
                "number as lr."
            )
        return dict(lr)
    _check_rates({"lr": lr})
    if mode not in (None, "head", "low_lr", "full"):
        raise PlanError(f"unknown mode {mode!r}; expected 'head', 'low_lr' or 'full'.")
    if mode == "full":
        return {"default": lr}
    rates = _model_rates(model, lr)
    return {key: rate or lr * backbone_lr_factor for key, rate in rates.items()} if mode == "low_lr" else rates


def plan_lrs(
    model: nn.Module, rates: Mapping[str, float], *, weight_decay: float = 0.0, decay_norm_and_bias: bool = False
) -> Plan:
    """Assign every parameter of a model to one group.

    Args:
        model: Any module; it is not changed.
        rates: Prefix → rate, with a `"default"` for the rest; 0 freezes.
        weight_decay: Decay of the trained groups.
        decay_norm_and_bias: Whether parameters of one dimension (norms, biases) decay too.

    Raises:
        PlanError: Listing every rate that is no finite number ≥ 0; for a missing `default`, for keys that catch
            nothing, and if nothing would learn.
    """
    _check_rates(rates)
    if "default" not in rates:
        raise PlanError(
            f"lr plan: the mapping {_short(rates)} has no 'default'. Add one: the rate of every other parameter, 0 to "
            "freeze them."
        )
    names = _names(model)
    caught = _catch(names, rates)
    _check_keys(model, rates, names, caught)
    assigned = {name: _Share(key, float(rates[key]), weight_decay) for name, key in caught.items()}
    return _build(model, assigned, dict(rates), decay_norm_and_bias)


def plan_hook_groups(
    model: nn.Module, groups: Sequence[Mapping[str, Any]], *, lr: float, weight_decay: float, decay_norm_and_bias: bool
) -> Plan:
    """Make a plan of what a model's `initialize_param_groups` returned.

    Args:
        model: The module whose hook it was.
        groups: Dictionaries with `named_params` (pairs of name and parameter) and, if wanted, `name`, `lr`,
            `weight_decay` and any option of the optimizer. Parameters in none of them are frozen.
        lr: Rate of groups that name none.
        weight_decay: Decay of groups that name none.
        decay_norm_and_bias: As in `plan_lrs`.
    """
    assigned: dict[str, _Share] = {}
    known = _names(model)
    primary = {alias: name for name, aliases in known.items() for alias in aliases}
    for index, group in enumerate(groups):
        options = {key: value for key, value in group.items() if key not in ("named_params", "params")}
        label = str(options.pop("name", f"group {index}"))
        if "named_params" not in group:
            raise PlanError(f"initialize_param_groups: {label!r} has no 'named_params' (pairs of name and parameter).")
        share = _Share(label, options.pop("lr", lr), options.pop("weight_decay", weight_decay), options)
        _check_rates({label: share.lr})
        members = [name for name, _ in group["named_params"]]
        if not members:
            raise PlanError(f"initialize_param_groups: {label!r} holds no parameters. Remove it or fill it.")
        for name in members:
            if name not in primary:
                raise PlanError(f"initialize_param_groups: {label!r} names {name!r}, which the model does not have.")
            if primary[name] in assigned:
                raise PlanError(
                    f"initialize_param_groups: {name!r} is in {assigned[primary[name]].key!r} and in {label!r}."
                )
            assigned[primary[name]] = share
    rest = _Share("default", 0.0, 0.0)
    shares = {name: assigned.get(name, rest) for name in known}
    rates = {share.key: share.lr for share in assigned.values()} | {"default": 0.0}
    by_prefix = _catch(known, rates) == {name: share.key for name, share in shares.items()}
    return _build(model, shares, rates if by_prefix else {}, decay_norm_and_bias)


def apply_plan(model: nn.Module, plan: Plan) -> None:
    """Freeze what the plan freezes and free the rest; what an earlier plan did to the model is undone.

    This is the only place that sets `requires_grad`. Frozen modules stay in eval mode: `.train()` passes them by.
    """
    frozen = plan.frozen_names
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
        if name in frozen:
            parameter.grad = None
    still = frozen_modules(model, plan)
    for name, module in model.named_modules():
        module.__dict__.pop("train", None)
        if name in still:
            _keep_in_eval(module)


def keep_norm_statistics(model: nn.Module) -> None:
    """Keep every norm layer with running statistics in eval mode through `.train()`; its weights may still learn."""
    for module in model.modules():
        if getattr(module, "running_mean", None) is not None:
            _keep_in_eval(module)


def frozen_modules(model: nn.Module, plan: Plan) -> frozenset[str]:
    """Return the names of the modules that do not learn.

    A module with parameters is frozen if all of them are. One without (dropout, a norm without weights) goes by the
    plan's keys as a parameter of its name would, or follows its parent if a hook made the plan.
    """
    learning = {""}
    for group in plan.trained:
        for name in group.names:
            parts = name.split(".")
            learning.update(".".join(parts[:depth]) for depth in range(1, len(parts)))
    with_parameters = {name for name, module in model.named_modules() if next(module.parameters(), None) is not None}
    frozen: set[str] = set()
    for name, _ in model.named_modules():  # parents come before their children
        if name in learning:
            continue
        if name in with_parameters:
            frozen.add(name)
        elif plan.rates:
            key = _catch({name: (f"{name}.",)}, plan.rates)[name]
            frozen.update([name] if plan.rates[key] == 0 else [])
        elif name.rpartition(".")[0] in frozen:
            frozen.add(name)
    return frozenset(frozen)


def frozen_tensors(model: nn.Module, plan: Plan) -> dict[str, Tensor]:
    """Return every parameter that the plan freezes and every buffer of the modules that do not learn, by name."""
    names, modules = plan.frozen_names, frozen_modules(model, plan)
    tensors: dict[str, Tensor] = {name: value for name, value in model.named_parameters() if name in names}
    buffers = dict(model.named_buffers())
    return tensors | {name: value for name, value in buffers.items() if name.rpartition(".")[0] in modules}


@dataclass(frozen=True)
class _Share:
    """What one parameter gets."""

    key: str
    lr: float
    weight_decay: float
    options: Mapping[str, Any] = field(default_factory=dict)


def _build(model: nn.Module, assigned: Mapping[str, _Share], rates: dict[str, float], decay_all: bool) -> Plan:
    members: dict[str, list[str]] = {}
    shares: dict[str, _Share] = {}
    parameters = dict(model.named_parameters())
    for name, share in assigned.items():
        exempt = share.lr > 0 and share.weight_decay > 0 and not decay_all and parameters[name].ndim <= 1
        label = f"{share.key} (no decay)" if exempt else share.key
        members.setdefault(label, []).append(name)
        shares[label] = _Share(share.key, share.lr, 0.0 if exempt else share.weight_decay, share.options)
    groups = tuple(
        Group(
            name=label,
            names=tuple(names),
            lr=shares[label].lr,
            weight_decay=0.0 if shares[label].lr == 0 else shares[label].weight_decay,
            frozen=shares[label].lr == 0,
            parameters=sum(parameters[name].numel() for name in names),
            options=shares[label].options,
        )
        for label, names in members.items()
    )
    if all(group.frozen for group in groups):
        raise PlanError(
            f"lr plan: nothing would learn, every rate in {_short(rates)} is 0. Give at least one part a rate above 0. "
            f"Top-level names: {_top_level(parameters)}."
        )
    return Plan(groups, rates)


def _check_rates(rates: Mapping[str, Any]) -> None:
    problems = []
    for key, rate in rates.items():
        if not isinstance(key, str) or not key:
            problems.append(f"key {key!r} is not the beginning of a parameter name")
        elif isinstance(rate, bool) or not isinstance(rate, Real):
            problems.append(f"{key!r} is {rate!r} ({type(rate).__name__})")
        elif not math.isfinite(rate) or rate < 0:
            problems.append(f"{key!r} is {rate}")
    if problems:
        raise PlanError(f"lr plan: {'; '.join(problems)}. Expected a finite number, 0 or more; 0 freezes.")


def _catch(names: Mapping[str, tuple[str, ...]], rates: Mapping[str, float]) -> dict[str, str]:
    """Return the longest key that each name begins with, by any of its aliases, else `default`."""
    keys = tuple(sorted((key for key in rates if key != "default"), key=len, reverse=True))
    return {
        name: next((key for key in keys if any(alias.startswith(key) for alias in aliases)), "default")
        for name, aliases in names.items()
    }


def _check_keys(
    model: nn.Module, keys: Iterable[str], names: Mapping[str, tuple[str, ...]], caught: Mapping[str, str]
) -> None:
    used = set(caught.values())
    for key in keys:
        if key in used or key == "default":
            continue
        every = [alias for aliases in names.values() for alias in aliases]
        if any(name.startswith(key) for name in every):
            longer = sorted({other for name, other in caught.items() if name.startswith(key)})
            raise PlanError(
                f"lr plan: key {key!r} catches nothing, because longer keys take all that it matches: "
                f"{', '.join(map(repr, longer))}. Remove it."
            )
        places = {".".join(name.split(".")[:depth]) for name in every for depth in (1, 2, 3)}
        raise PlanError(
            f"lr plan: key {key!r} matches no parameter of {type(model).__name__}.{did_you_mean(key, sorted(places))} "
            f"Top-level names: {_top_level(names)}."
        )


def _model_rates(model: nn.Module, lr: float) -> dict[str, float]:
    method = getattr(model, "get_finetune_lr_dict", None)
    kind = type(model).__name__
    parameters = dict(model.named_parameters())
    if not callable(method):
        last = next(reversed(parameters), "head").split(".")[0]
        raise PlanError(
            f"{kind} has no get_finetune_lr_dict(lr), so which part is its head is not known. Pass a mapping, for "
            f"example lr={{{last!r}: {lr:g}, 'default': 0}}, or mode='full'. Top-level names: {_top_level(parameters)}."
        )
    rates = method(lr)
    if not isinstance(rates, Mapping) or "default" not in rates:
        raise PlanError(
            f"get_finetune_lr_dict of {kind} returned {rates!r}; expected a mapping of prefixes to rates with "
            "'default'."
        )
    return dict(rates)


def _names(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Map every parameter's name to all names it is known by: tied parameters have more than one."""
    primary = {id(parameter): name for name, parameter in model.named_parameters()}
    aliases: dict[str, list[str]] = {name: [] for name in primary.values()}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        aliases[primary[id(parameter)]].append(name)
    if not aliases:
        raise PlanError(f"lr plan: {type(model).__name__} has no parameters, so there is nothing to train.")
    return {name: tuple(found) for name, found in aliases.items()}


def _top_level(names: Iterable[str]) -> str:
    found = list(dict.fromkeys(name.split(".")[0] for name in names))
    return ", ".join(found[:12]) + (", …" if len(found) > 12 else "")


def _short(rates: Mapping[str, Any]) -> str:
    text = str(dict(rates))
    return text if len(text) <= 120 else f"{text[:117]}…"


def _keep_in_eval(module: nn.Module) -> None:
    module.training = False
    module.__dict__["train"] = functools.partial(_stay_in_eval, module)  # a partial, so that copies bind to the copy


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    """Stand in for `module.train`: a frozen module has one mode only, and so have the modules inside it."""
    return module
