"""What every parameter gets, by name → the plan: the last step, whoever made the assignments.

Here everything of one kind becomes one group: halves without weight decay, unfreeze points, order, labels.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from torch import nn

from zoo._model import ask
from zoo.errors import PlanError, did_you_mean
from zoo.rates.context import PlanContext
from zoo.rates.groups import NO_DECAY, UNUSED, Assignment, Group, Starts
from zoo.rates.layers import is_norm
from zoo.rates.names import top_level
from zoo.rates.plan import Plan
from zoo.rates.unfreeze import set_unfreeze_points


def build_plan(model: nn.Module, assignments: Mapping[str, Assignment], context: PlanContext, starts: Starts) -> Plan:
    """Make the plan of what every parameter gets.

    Args:
        model: Whose parameters they are.
        assignments: For every parameter's name, in the order of the model.
        context: What holds for all groups.
        starts: As in `Plan`.

    Raises:
        PlanError: Nothing would learn, or nothing at the beginning; an order or unfreeze points that do not fit.
    """
    parameters = dict(model.named_parameters())
    assignments, starts = set_unfreeze_points(model, assignments, context, starts)
    dormant: frozenset[str] = ask(model, "dormant_parameters", frozenset)()
    assignments = {name: _freeze_idle(given, parameters[name], name in dormant) for name, given in assignments.items()}
    members: dict[str, list[str]] = {}
    made: dict[str, Assignment] = {}
    distinct = {id(given): given for given in assignments.values()}  # by identity: they are slow to compare
    soonest = sorted(distinct.values(), key=lambda given: given.unfreeze_at)  # keeps its label, should two have one
    labels = {(id(given), False): _claim_label(given, False, made) for given in soonest}
    for name in _ordered(assignments, context.options.order):
        given = assignments[name]
        exempt = given.decays and not given.decays_surely and _is_exempt(model, name, parameters[name], context)
        if (id(given), exempt) not in labels:
            labels[id(given), exempt] = _claim_label(given, exempt, made)
        members.setdefault(labels[id(given), exempt], []).append(name)
    sizes = {label: sum(parameters[name].numel() for name in names) for label, names in members.items()}
    groups = tuple(
        Group.of(made[label], name=label, names=tuple(names), parameters=sizes[label])
        for label, names in members.items()
    )
    _check_learning(groups, parameters)
    return Plan(groups, context.clock, starts)


def _freeze_idle(given: Assignment, parameter: nn.Parameter, dormant: bool) -> Assignment:
    """Freeze what can have no gradient: fixed indices, and what the model says its forward() does not use."""
    has_gradient = (parameter.is_floating_point() or parameter.is_complex()) and not dormant
    if given.frozen or has_gradient:
        return given
    mark = UNUSED if dormant else f" ({str(parameter.dtype).removeprefix('torch.')})"
    return Assignment(label=f"{given.label}{mark}", lr=0.0, key=given.key)


def _is_exempt(model: nn.Module, name: str, parameter: nn.Parameter, context: PlanContext) -> bool:
    if context.options.decay_norm_and_bias:
        return False
    if context.options.compat == "super-gradients":  # there it goes by the kind of module and the name alone
        module, _, last = name.rpartition(".")
        return last == "bias" or is_norm(model.get_submodule(module))
    return parameter.ndim <= 1


def _claim_label(given: Assignment, exempt: bool, made: dict[str, Assignment]) -> str:
    """Return a label that no other assignment has, and keep it; the half without decay goes by the whole's."""
    label = _free_label(given.label, given, made)
    made[label] = given
    if exempt:
        half = replace(given, weight_decay=0.0, weight_decay_schedule=None)
        label = _free_label(label + NO_DECAY, half, made)
        made[label] = half
    return label


def _free_label(label: str, given: Assignment, made: Mapping[str, Assignment]) -> str:
    while (other := made.get(label, given)) != given:
        if given.unfreeze_at != other.unfreeze_at:
            label += f" from epoch {given.unfreeze_at}"
        elif given.lr * given.lr_scale != other.lr * other.lr_scale:
            label += f" at {given.lr * given.lr_scale:.4g}"
        else:
            label += "+"
    return label


def _check_learning(groups: Sequence[Group], parameters: Iterable[str]) -> None:
    points = [group.unfreeze_at for group in groups if not group.frozen]
    if not points:
        raise PlanError(
            "lr plan: nothing would be trained, every learning rate is 0. Set at least one above 0. Top-level "
            f"names: {top_level(parameters)}."
        )
    if min(points) > 0:
        raise PlanError(
            f"unfreeze: nothing is trained before epoch {min(points)}. Leave at least one part out of unfreeze."
        )


def _ordered(assignments: Mapping[str, Assignment], order: Sequence[str]) -> list[str]:
    """Return all names: those of `order` first, which then has to hold every parameter that learns."""
    if not order:
        return list(assignments)
    listed = set(order)
    learning = [name for name, given in assignments.items() if not given.frozen]
    missing = [name for name in learning if name not in listed]
    unknown = [name for name in dict.fromkeys(order) if name not in assignments]
    twice = [name for name, count in Counter(order).items() if count > 1]
    problems = [f"names {_few(unknown)}, which the model does not have{_near(unknown, assignments)}"] * bool(unknown)
    problems += [f"leaves out {_few(missing)}"] * bool(missing) + [f"names {_few(twice)} twice"] * bool(twice)
    if problems:
        raise PlanError(
            f"order {' and '.join(problems)}. Expected each of the {len(learning)} trained parameters, once."
        )
    return [*order, *(name for name in assignments if name not in listed)]


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _near(unknown: Sequence[str], names: Iterable[str]) -> str:
    return f" ({near.strip()})" if unknown and (near := did_you_mean(unknown[0], names)) else ""
