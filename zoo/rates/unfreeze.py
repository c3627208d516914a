"""Unfreeze points: the epoch from which each parameter learns."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn

from zoo.rates.context import PlanContext
from zoo.rates.groups import Assignment, Starts
from zoo.rates.names import name_parameters, no_match
from zoo.rates.spec import DEFAULT, Prefixes, raise_all


def set_unfreeze_points(
    model: nn.Module, assignments: Mapping[str, Assignment], context: PlanContext, starts: Starts
) -> tuple[Mapping[str, Assignment], Starts]:
    """Set the unfreeze point of every parameter that one of the prefixes of `unfreeze` catches."""
    points = {prefix: epoch for epoch, prefixes in context.unfreeze.items() for prefix in prefixes}
    if not points:
        return assignments, starts
    prefixes = Prefixes(points.keys() - {DEFAULT})
    names = name_parameters(model)
    caught: dict[str, str] = {}
    for name, given in assignments.items():
        prefix = prefixes.longest(*names[name]) or (DEFAULT if given.key == DEFAULT else None)
        if prefix is not None and prefix in points:
            caught[name] = prefix
    problems = _named_twice(context.unfreeze)
    problems += [_no_point(model, prefix, names, points) for prefix in points.keys() - set(caught.values())]
    changed = dict(assignments)
    made: dict[tuple[int, str], Assignment] = {}
    for name, prefix in caught.items():
        given = assignments[name]
        if (id(given), prefix) not in made:
            made[id(given), prefix], problem = _delay(given, prefix, points[prefix], context)
            problems += [problem] * bool(problem)
        changed[name] = made[id(given), prefix]
    raise_all("unfreeze", sorted(problems))
    return changed, _delay_starts(starts, prefixes, points, context)


def _delay(given: Assignment, prefix: str, epoch: int, context: PlanContext) -> tuple[Assignment, str]:
    """Return the assignment that learns from an epoch on, and what is wrong with that."""
    is_closer = prefix != DEFAULT and (given.label == DEFAULT or prefix.startswith(given.label))
    label = prefix if is_closer else given.label
    if given.frozen:
        if context.unfrozen_lr is None:
            return (
                given,
                f"{prefix!r} is unfrozen, but {given.label!r} has learning rate 0 there. Set its learning rate.",
            )
        given = context.assign(label, {"lr": context.unfrozen_lr}, key=given.key)
        given = replace(given, reason=context.unfrozen_reason)
    if given.unfreeze_at not in (0, epoch):
        return given, (
            f"{prefix!r} is unfrozen at epoch {epoch}, but {given.label!r} has unfreeze_at {given.unfreeze_at}. "
            "Remove one of them."
        )
    return replace(given, label=label, unfreeze_at=epoch), ""


def _delay_starts(starts: Starts, prefixes: Prefixes, points: Mapping[str, int], context: PlanContext) -> Starts:
    """Return when modules without parameters begin, now that some parts begin later."""
    if not starts:
        return starts
    delayed = dict(starts)
    for key, start in starts.items():
        prefix = prefixes.longest(key) if key != DEFAULT else None
        if prefix is not None and (start is not None or context.unfrozen_lr is not None):
            delayed[key] = points[prefix]
    return {**delayed, **points}


def _named_twice(unfreeze: Mapping[int, Sequence[str]]) -> list[str]:
    epochs: dict[str, list[int]] = {}
    for epoch, prefixes in unfreeze.items():
        for prefix in prefixes:
            epochs.setdefault(prefix, []).append(epoch)
    return [
        f"{prefix!r} is listed twice, for epochs {' and '.join(map(str, found))}. List it once."
        for prefix, found in epochs.items()
        if len(found) > 1
    ]


def _no_point(model: nn.Module, prefix: str, names: Mapping[str, tuple[str, ...]], points: Mapping[str, int]) -> str:
    if "@" in prefix:
        return f"{prefix!r} is a layer kind. Expected parameter-name prefixes, or 'default'."
    if prefix == DEFAULT:
        return "'default' has no effect: the keys of lr match every parameter. Remove it."
    if any(alias.startswith(prefix) for aliases in names.values() for alias in aliases):
        longer = sorted(other for other in points if other.startswith(prefix) and other != prefix)
        return (
            f"{prefix!r} has no effect: longer prefixes match all of its parameters: {', '.join(map(repr, longer))}. "
            "Remove it."
        )
    return no_match(model, prefix, names)
