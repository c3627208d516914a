"""Groups that a model or an optimizer brings of its own → the plan, and the hook that changes their rates.

Source of the hooks' meaning: super-gradients 3.3.1, `initialize_param_groups` and `update_param_groups`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from zoo._fields import shown
from zoo._model import check_call, find_method
from zoo.errors import PlanError, did_you_mean
from zoo.rates.collect import build_plan
from zoo.rates.context import PlanContext
from zoo.rates.groups import NO_DECAY, Assignment, Group, Starts
from zoo.rates.names import name_parameters
from zoo.rates.plan import Plan, RateHook
from zoo.rates.schedules.parse import Clock, Schedule
from zoo.rates.spec import DEFAULT, MOST_LISTED, GroupSettings, Prefixes, is_rate, peak_lr, raise_all, read_settings

REST = "the rest"  # name of the frozen group where one of the given groups is called `default`
UPDATE = "update_param_groups(param_groups, lr, epoch, iter, training_params, total_batch)"
NOT_OPTIONS = ("params", "named_params", "name", "initial_lr")


class MissingParameter(PlanError, KeyError, AttributeError):
    """A model's hook reads a training parameter that nobody gave."""

    __str__ = Exception.__str__  # KeyError's own would quote the text


class TrainingParams(dict[str, Any]):
    """What a model's param-group hooks may read: the preset's fields and the user's own, as `p["x"]` and as `p.x`."""

    def __missing__(self, name: str) -> Any:
        raise MissingParameter(
            f"no training parameter {name!r}.{did_you_mean(str(name), self)} Pass it as training_params={{{name!r}: "
            f"...}}. Known: {', '.join(self)}."
        )

    def __getattr__(self, name: str) -> Any:
        return self[name]


@dataclass(frozen=True)
class _Given:
    """One group as it was given: its name, its parameters' names, its settings and the optimizer's options."""

    name: str
    members: Sequence[str]
    values: Mapping[str, Any]


def plan_hook_groups(
    model: nn.Module, groups: Any, context: PlanContext, *, lr: float, params: Mapping[str, Any]
) -> Plan:
    """Make a plan of what a model's `initialize_param_groups` returned.

    Args:
        model: The module whose hook it was.
        groups: Dictionaries with `named_params` (pairs of name and parameter, as `named_parameters()` of the model or
            a part of it yields them) or `params` and, if wanted, `name`, `lr`, any other of `zoo.rates.spec.Settings`
            and any option of the optimizer. Parameters in none of them are frozen.
        context: What holds for all groups.
        lr: Rate of groups that name none, and base rate of `update_param_groups`.
        params: What that hook may read.

    Raises:
        PlanError: Listing everything that is wrong with the groups.
    """
    origin = "initialize_param_groups"
    if not isinstance(groups, Iterable) or isinstance(groups, Mapping):
        raise PlanError(f"{origin} returned {shown(groups)}. Expected a list of dictionaries with 'named_params'.")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    given, problems = [], []
    for index, group in enumerate(groups):
        name = str(group.get("name", f"group {index}")) if isinstance(group, Mapping) else f"group {index}"
        members = _member_names(group, names)
        if members is None:
            problems.append(f"{name!r} has no 'named_params' (pairs of name and parameter). Add them.")
        else:
            given.append(_Given(name, members, {"lr": lr, **_without(group, NOT_OPTIONS)}))
    raise_all(origin, problems)
    plan = _plan_given(model, given, context, origin)
    return _with_update_hook(model, plan, {group.name: group.members for group in given}, context, lr, params)


def plan_optimizer_groups(model: nn.Module, optimizer: torch.optim.Optimizer, context: PlanContext) -> Plan:
    """Make a plan of the groups of an optimizer that the user brought; what is in none of them is frozen.

    Raises:
        PlanError: One of its parameters is not the model's, or two groups have one name.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    given = []
    for index, group in enumerate(optimizer.param_groups):
        label = str(group.get("name", f"group {index}"))
        strange = [tuple(parameter.shape) for parameter in group["params"] if id(parameter) not in names]
        if strange:
            raise PlanError(
                f"optimizer: {label!r} holds a parameter of shape {strange[0]} that is not one of "
                f"{type(model).__name__}'s. Create the optimizer from the parameters of the model to train."
            )
        values = _without(group, NOT_OPTIONS) | {"weight_decay": float(group.get("weight_decay") or 0.0)}
        values |= {"lr": float(group["lr"])}
        given.append(_Given(label, [names[id(parameter)] for parameter in group["params"]], values))
    as_they_are = context.options.model_copy(update={"decay_norm_and_bias": True})
    context = replace(context, options=as_they_are)
    return _plan_given(model, given, context, "optimizer")


def with_update_hook(
    model: nn.Module, plan: Plan, context: PlanContext, *, lr: float, params: Mapping[str, Any]
) -> Plan:
    """Let a model's own `update_param_groups`, if it has one, change the rates of a plan before every step."""
    members: dict[str, list[str]] = {}
    for group in plan.trained:
        members.setdefault(group.key, []).extend(group.names)
    return _with_update_hook(model, plan, members, context, lr, params)


class UpdateHook(RateHook):
    """A model's `update_param_groups`, called with its groups in the order in which it made them.

    The groups that it sees carry `name`, `lr` (scheduled), `initial_lr`, `weight_decay`, `params` and the options of
    the optimizer. What it returns is matched by name: the halves without weight decay take the rate of their group, so
    that indices mean what the model's author meant. It is asked for plots and tables too, at any step.
    """

    def __init__(
        self,
        hook: Any,
        sets: Mapping[str, Sequence[str]],
        plan: Plan,
        model: nn.Module,
        schedule: Schedule,
        lr: float,
        params: Mapping[str, Any],
    ) -> None:
        self.hook, self.schedule, self.lr, self.params = hook, schedule, lr, params
        owner = {name: group for group in plan.groups for name in group.names}
        tensors = dict(model.named_parameters(remove_duplicate=False))
        first = {id(tensor): name for name, tensor in model.named_parameters()}
        self.members: dict[str, list[Group]] = {}
        self.groups: list[dict[str, Any]] = []
        for name, names in sets.items():
            members = {owner[first[id(tensors[inner])]].name: owner[first[id(tensors[inner])]] for inner in names}
            self.members[name] = list(members.values())
            self.groups.append(
                {
                    **self.members[name][0].options,
                    "name": name,
                    "initial_lr": self.members[name][0].full_lr,
                    "weight_decay": max(group.weight_decay for group in members.values()),
                    "params": [tensors[inner] for inner in names],
                }
            )

    def rates(self, rates: Mapping[str, float], step: int, clock: Clock) -> dict[str, float]:
        """Return the rates of all groups, by name.

        Raises:
            PlanError: The hook returned other groups than it was given, changed more than rates, or to what is none.
        """
        given = [{**group, "lr": rates[self.members[group["name"]][0].name]} for group in self.groups]
        epoch, inside = divmod(step, clock.steps_per_epoch)
        base = self.schedule.rate(step, clock, self.lr)
        wanted = self.hook(given, base, epoch, inside * clock.accumulate, self.params, clock.batches)
        changed = dict(rates)
        for name, rate in self._read(wanted).items():
            for member in self.members[name]:
                if member.frozen and rate:
                    raise PlanError(
                        f"update_param_groups sets the learning rate of {name!r} to {rate:g}, but it started at 0 "
                        "and is frozen. Start with a learning rate above 0."
                    )
                changed[member.name] = 0.0 if member.waits(step, clock) else float(rate)
        return changed

    def _read(self, wanted: Any) -> dict[str, float]:
        """Return the rates in what the hook returned, by name."""
        if not isinstance(wanted, Sequence) or len(wanted) != len(self.groups):
            found = f"{len(wanted)} groups" if isinstance(wanted, Sequence) else type(wanted).__name__
            raise PlanError(
                f"update_param_groups returned {found} of {len(self.groups)}. Expected all groups that were passed "
                "in, with new learning rates."
            )
        rates: dict[str, float] = {}
        for ours, answer in zip(self.groups, wanted, strict=True):
            name = answer.get("name", ours["name"]) if isinstance(answer, Mapping) else None
            if name not in self.members or name in rates:
                raise PlanError(
                    f"update_param_groups returned {shown(name)} as one of its groups. Expected each of "
                    f"{', '.join(self.members)}, once."
                )
            self._check_answer(name, answer)
            rates[name] = answer["lr"]
        return rates

    def _check_answer(self, name: str, answer: Mapping[str, Any]) -> None:
        before = next(group for group in self.groups if group["name"] == name)
        others = [key for key, value in before.items() if key != "params" and answer.get(key) != value]
        if others:
            raise PlanError(f"update_param_groups changed {', '.join(others)} of {name!r}; it can change 'lr' only.")
        if not is_rate(answer.get("lr")):
            raise PlanError(
                f"update_param_groups: the learning rate of {name!r} is {shown(answer.get('lr'))}. Expected a finite "
                "number, 0 or more."
            )


def _plan_given(model: nn.Module, given: Sequence[_Given], context: PlanContext, origin: str) -> Plan:
    """Make a plan of explicit lists of parameter names."""
    known = name_parameters(model)
    primary = {alias: name for name, aliases in known.items() for alias in aliases}
    said = {group.name: _read_values(group) for group in given}
    problems = [problem for _, found in said.values() for problem in found]
    problems += _find_problems(given, primary, type(model).__name__)
    if not context.options.decay_norm_and_bias:
        marked = [group.name for group in given if group.name.endswith(NO_DECAY)]
        problems += [f"{name!r} ends like the name of a group without weight decay. Rename it." for name in marked]
    raise_all(origin, problems)
    context = context.with_largest(peak_lr(values) for values, _ in said.values())
    assignments: dict[str, Assignment] = {}
    for group in given:
        assignment = context.assign(group.name, said[group.name][0])
        assignments.update((primary[name], assignment) for name in group.members)
    rest = Assignment(label=REST if DEFAULT in said else DEFAULT, lr=0.0, key=DEFAULT)
    ordered = {name: assignments.get(name, rest) for name in known}
    return build_plan(model, ordered, context, _find_starts(ordered, {group.name for group in given}))


def _find_starts(assignments: Mapping[str, Assignment], labels: set[str]) -> Starts:
    """Return the groups' names as prefixes, if that is what they are, for modules without parameters."""
    starts: dict[str, int | None] = {
        assignment.label: None if assignment.frozen else assignment.unfreeze_at for assignment in assignments.values()
    }
    prefixes = Prefixes(labels - {DEFAULT})
    is_mapping = all(
        (prefixes.longest(name) or DEFAULT) == assignment.label for name, assignment in assignments.items()
    )
    return starts | ({} if DEFAULT in starts else {DEFAULT: None}) if is_mapping else {}


def _read_values(group: _Given) -> tuple[dict[str, Any], list[str]]:
    """Return the settings of a group, with what else is in it as options of the optimizer, and what is wrong."""
    known = {name: value for name, value in group.values.items() if name in GroupSettings.model_fields}
    options = {name: value for name, value in group.values.items() if name not in known}
    settings, problems = read_settings(known | {"optimizer_params": {**options, **known.get("optimizer_params", {})}})
    return {"lr": 0.0, **settings.said}, [f"{group.name!r}: {problem}" for problem in problems]


def _find_problems(given: Sequence[_Given], primary: Mapping[str, str], kind: str) -> list[str]:
    """Say which groups are empty or share a name, and which parameters are in two of them or none of the model's."""
    problems: list[str] = []
    owner: dict[str, str] = {}
    seen: set[str] = set()
    for group in given:
        if group.name in seen:
            problems.append(f"two groups are called {group.name!r}. Use unique names.")
        seen.add(group.name)
        if not group.members:
            problems.append(f"{group.name!r} holds no parameters. Remove it or fill it.")
        for name in group.members:
            if name not in primary:
                near = did_you_mean(name, primary) if len(problems) < MOST_LISTED else ""
                problems.append(f"{group.name!r} names {name!r}, which {kind} does not have.{near}")
            elif primary[name] in owner:
                other = owner[primary[name]]
                where = f"in {other!r} and in {group.name!r}" if other != group.name else f"twice in {other!r}"
                problems.append(f"{name!r} is {where}. Name it once.")
            else:
                owner[primary[name]] = group.name
    return problems


def _with_update_hook(
    model: nn.Module,
    plan: Plan,
    sets: Mapping[str, Sequence[str]],
    context: PlanContext,
    lr: float,
    params: Mapping[str, Any],
) -> Plan:
    hook = find_method(model, "update_param_groups")
    if hook is None:
        return plan
    check_call(hook, UPDATE, [], lr, 0, 0, params, 1)
    largest = context.with_largest(group.full_lr for group in plan.trained)
    return replace(plan, hook=UpdateHook(hook, sets, plan, model, largest.curve, lr, params))


def _member_names(group: Any, names: Mapping[int, str]) -> list[str] | None:
    """Return the names of what `named_params` (pairs or a mapping) or `params` hold; a parameter counts, not its name.

    The name is looked at where the parameter is none of the model's, so that errors can tell it.
    """
    if not isinstance(group, Mapping):
        return None
    found = group.get("named_params", group.get("params"))
    if not isinstance(found, Iterable) or isinstance(found, str):
        return None
    members = []
    for item in found.items() if isinstance(found, Mapping) else found:
        name, parameter = item if isinstance(item, tuple | list) and len(item) == 2 else (shown(item), item)
        members.append(names.get(id(parameter), str(name)))
    return members


def _without(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in names}
