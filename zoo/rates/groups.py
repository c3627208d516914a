"""What every parameter gets, by name → groups: the last step to a plan, whatever made the shares.

Here everything of one kind becomes one group: halves without weight decay, unfreeze points, order, labels.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from torch import nn
from torch.nn.parameter import UninitializedParameter

from zoo._model import ask
from zoo.errors import InputError, PlanError, did_you_mean
from zoo.rates.layers import is_norm
from zoo.rates.plan import CONSTANT, NO_DECAY, ONE_STEP, Group, Plan
from zoo.rates.schedules.parse import Clock, Schedule, parse_schedule
from zoo.rates.spec import DEFAULT, DecayEvery, Prefixes, raise_all

CURVES = frozenset({"constant", "cosine", "exponential", "inverse", "multistep", "plateau", "polynomial", "step"})
Unmatched = Literal["error", "warn", "ignore"]
Starts = Mapping[str, int | None]


@dataclass(frozen=True, kw_only=True)
class Common:
    """What holds for all groups that say nothing else.

    Attributes:
        clock: Epochs and steps of the run.
        schedule: Name or mapping of the schedule, as `parse_schedule` takes it.
        schedule_defaults: What a schedule takes where it says nothing: warm-up, cool-down, final ratio.
        usual_warmup: Warm-up, in epochs, of the curves that have one where nobody says anything of it.
        compat: `super-gradients` for that system's exact sequence of rates.
        weight_decay: Decay of the trained groups.
        decay_norm_and_bias: Whether norms, biases and all parameters of one dimension decay too.
        gradient_centralization: Whether gradients are centralized.
        unfreeze: Epochs that pass before a part learns → its prefixes; `default` is what no key of the rates names.
        unfrozen_lr: Rate of what has rate 0 and is unfrozen nevertheless; None: that is an error.
        order: Names of all parameters that learn, in the order of the optimizer; empty: the model's.
        unmatched: What to do about a key that matches no parameter.
        reasons: Key → where its rate comes from, in words.
        unfrozen_reason: Where `unfrozen_lr` comes from, in words.
    """

    clock: Clock = ONE_STEP
    schedule: Any = CONSTANT
    schedule_defaults: Mapping[str, Any] = field(default_factory=dict)
    usual_warmup: float = 0.0
    compat: str | None = None
    weight_decay: float = 0.0
    decay_norm_and_bias: bool = False
    gradient_centralization: bool = False
    unfreeze: Mapping[int, Sequence[str]] = field(default_factory=dict)
    unfrozen_lr: float | None = None
    order: Sequence[str] = ()
    unmatched: Unmatched = "error"
    reasons: Mapping[str, str] = field(default_factory=dict)
    unfrozen_reason: str = ""

    @cached_property
    def curve(self) -> Schedule:
        """The schedule of all groups that have none of their own."""
        return self.parse(self.schedule)

    def parse(self, schedule: Any) -> Schedule:
        """Return a schedule with the defaults of the run filled in.

        The usual warm-up is for curves alone: lists, functions and schedulers say every rate themselves, and one_cycle,
        which rises itself, never takes a warm-up that was meant for others.
        """
        kind = schedule.get("kind") if isinstance(schedule, Mapping) else schedule
        defaults = dict(self.schedule_defaults)
        if kind == "one_cycle" and schedule != self.schedule:
            defaults = {name: value for name, value in defaults.items() if not name.startswith("warmup")}
        elif isinstance(kind, str) and kind in CURVES and not {"warmup_epochs", "warmup_steps"} & defaults.keys():
            own = isinstance(schedule, Mapping) and "warmup_steps" in schedule
            defaults |= {} if own or self.compat else {"warmup_epochs": self.usual_warmup}
        return parse_schedule(schedule, defaults, self.compat)

    def with_largest(self, rates: Iterable[float]) -> "Common":
        """Return this with the largest rate, so that a warm-up from an absolute rate is one ratio for all groups."""
        return replace(self, schedule_defaults={"largest_rate": max(rates, default=0.0), **self.schedule_defaults})


@dataclass(frozen=True)
class Share:
    """What one parameter gets; parameters with equal shares make one group.

    Attributes:
        label: Name of the group.
        lr: Base rate; at 0 it is frozen.
        key: The key of the mapping that caught it.
        decays_surely: Whether its kind was given a decay by name, which the switch for norms and biases respects.
    """

    label: str
    lr: float
    weight_decay: float = 0.0
    lr_scale: float = 1.0
    schedule: Schedule = CONSTANT
    decay_every: DecayEvery | None = None
    weight_decay_schedule: Schedule | None = None
    gradient_centralization: bool = False
    clip_grad_norm: float | None = None
    unfreeze_at: int = 0
    reason: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    key: str = field(default="", compare=False)
    decays_surely: bool = field(default=False, compare=False)

    @property
    def frozen(self) -> bool:
        """Whether it never learns."""
        return self.lr == 0

    @property
    def decays(self) -> bool:
        """Whether it has any weight decay."""
        return self.weight_decay > 0 or self.weight_decay_schedule is not None


def full_rate(said: Mapping[str, Any]) -> float:
    """Return the rate that settings with `lr` come to, the highest one if it is a list."""
    lr = said["lr"]
    return float(said.get("lr_scale", 1.0) * (max(lr) if isinstance(lr, list) else lr))


def make_share(
    label: str, said: Mapping[str, Any], common: Common, *, key: str = "", decays_surely: bool = False
) -> Share:
    """Return the share that settings come to.

    Args:
        label: Name of the group.
        said: Settings by name, as in `zoo.rates.spec.Settings`; `lr` is among them.
        common: What holds where they say nothing.
        key: The key that caught it.
        decays_surely: As in `Share`.

    Raises:
        PlanError: A schedule is wrong, or stands beside a list of rates.
    """
    lr, scale = said["lr"], said.get("lr_scale", 1.0)
    if full_rate(said) == 0:
        return Share(label, 0.0, key=key)
    decays = said.get("weight_decay_schedule")
    try:
        schedule = _own_schedule(said, common)
        decay_schedule = None if decays is None else parse_schedule(decays, {"warmup_steps": 0})
    except InputError as error:
        raise PlanError(f"{label!r}: {error}") from error
    base = float(max(lr) if isinstance(lr, list) else lr)
    return Share(
        label=label,
        lr=base,
        lr_scale=float(scale),
        weight_decay=float(said.get("weight_decay", common.weight_decay)),
        schedule=schedule,
        decay_every=said.get("decay_every"),
        weight_decay_schedule=decay_schedule,
        gradient_centralization=said.get("gradient_centralization", common.gradient_centralization),
        clip_grad_norm=said.get("clip_grad_norm"),
        unfreeze_at=said.get("unfreeze_at", 0),
        reason=common.reasons.get(key, _reason(base, scale, lr)),
        options=said.get("optimizer_params", {}),
        key=key,
        decays_surely=decays_surely,
    )


def _reason(base: float, scale: float, lr: Any) -> str:
    text = f"{base:g} × {scale:g} (lr_scale)" if scale != 1 else ""
    return f"{text or f'{base:g}'}, highest of {len(lr)} rates" if isinstance(lr, list) else text


def _own_schedule(said: Mapping[str, Any], common: Common) -> Schedule:
    if not isinstance(said["lr"], list):
        return common.parse(said["schedule"]) if "schedule" in said else common.curve
    if "schedule" in said:
        raise PlanError("lr is a list of rates, which leaves no place for a schedule. Leave out one of them.")
    values = [rate * said.get("lr_scale", 1.0) for rate in said["lr"]]
    return parse_schedule({"kind": "rates", "values": values, "warmup_steps": 0})


def build_plan(model: nn.Module, shares: Mapping[str, Share], common: Common, starts: Starts) -> Plan:
    """Make the plan of what every parameter gets.

    Args:
        model: Whose parameters they are.
        shares: For every parameter's name, in the order of the model.
        common: What holds for all groups.
        starts: As in `Plan`.

    Raises:
        PlanError: Nothing would learn, or nothing at the beginning; an order or unfreeze points that do not fit.
    """
    parameters = dict(model.named_parameters())
    shares, starts = _unfreeze(model, shares, common, starts)
    dormant: frozenset[str] = ask(model, "dormant_parameters", frozenset)()
    shares = {name: _freeze_idle(share, parameters[name], name in dormant) for name, share in shares.items()}
    members: dict[str, list[str]] = {}
    made: dict[str, Share] = {}
    distinct = {id(share): share for share in shares.values()}  # by identity: they are slow to compare
    soonest = sorted(distinct.values(), key=lambda share: share.unfreeze_at)  # keeps its label, should two have one
    labels = {(id(share), False): _claim_label(share, False, made) for share in soonest}
    for name in _ordered(shares, common.order):
        share = shares[name]
        exempt = share.decays and not share.decays_surely and _is_exempt(model, name, parameters[name], common)
        if (id(share), exempt) not in labels:
            labels[id(share), exempt] = _claim_label(share, exempt, made)
        members.setdefault(labels[id(share), exempt], []).append(name)
    groups = tuple(_group(label, names, made[label], parameters) for label, names in members.items())
    _check_learning(groups, parameters)
    return Plan(groups, common.clock, starts)


def _freeze_idle(share: Share, parameter: nn.Parameter, dormant: bool) -> Share:
    """Freeze what can have no gradient: fixed indices, and what the model says its forward() does not use."""
    has_gradient = (parameter.is_floating_point() or parameter.is_complex()) and not dormant
    if share.frozen or has_gradient:
        return share
    mark = "dormant" if dormant else str(parameter.dtype).removeprefix("torch.")
    return Share(f"{share.label} ({mark})", 0.0, key=share.key)


def _is_exempt(model: nn.Module, name: str, parameter: nn.Parameter, common: Common) -> bool:
    if common.decay_norm_and_bias:
        return False
    if common.compat == "super-gradients":  # there it goes by the kind of module and the name alone
        module, _, last = name.rpartition(".")
        return last == "bias" or is_norm(model.get_submodule(module))
    return parameter.ndim <= 1


def _claim_label(share: Share, exempt: bool, made: dict[str, Share]) -> str:
    """Return a label that no other share has, and write it down; the half without decay goes by that of its share."""
    label = _free_label(share.label, share, made)
    made[label] = share
    if exempt:
        half = replace(share, weight_decay=0.0, weight_decay_schedule=None)
        label = _free_label(label + NO_DECAY, half, made)
        made[label] = half
    return label


def _free_label(label: str, share: Share, made: Mapping[str, Share]) -> str:
    while (other := made.get(label, share)) != share:
        if share.unfreeze_at != other.unfreeze_at:
            label += f" from epoch {share.unfreeze_at}"
        elif share.lr * share.lr_scale != other.lr * other.lr_scale:
            label += f" at {share.lr * share.lr_scale:.4g}"
        else:
            label += "+"
    return label


def _group(label: str, names: Sequence[str], share: Share, parameters: Mapping[str, nn.Parameter]) -> Group:
    values = {name: value for name, value in vars(share).items() if name not in ("label", "key", "decays_surely")}
    count = sum(parameters[name].numel() for name in names)
    return Group(name=label, names=tuple(names), frozen=share.frozen, parameters=count, **values)


def _check_learning(groups: Sequence[Group], parameters: Iterable[str]) -> None:
    points = [group.unfreeze_at for group in groups if not group.frozen]
    if not points:
        raise PlanError(
            "lr plan: nothing would learn, every rate is 0. Give at least one part a rate above 0. Top-level names: "
            f"{top_level(parameters)}."
        )
    if min(points) > 0:
        raise PlanError(f"unfreeze: nothing learns before epoch {min(points)}. Leave at least one part out of it.")


def _unfreeze(
    model: nn.Module, shares: Mapping[str, Share], common: Common, starts: Starts
) -> tuple[Mapping[str, Share], Starts]:
    """Set the unfreeze point of every parameter that one of the prefixes of `unfreeze` catches."""
    points = {prefix: epoch for epoch, prefixes in common.unfreeze.items() for prefix in prefixes}
    if not points:
        return shares, starts
    prefixes = Prefixes(points.keys() - {DEFAULT})
    names = name_parameters(model)
    caught: dict[str, str] = {}
    for name, share in shares.items():
        prefix = prefixes.longest(*names[name]) or (DEFAULT if share.key == DEFAULT else None)
        if prefix is not None and prefix in points:
            caught[name] = prefix
    problems = _named_twice(common.unfreeze)
    problems += [_no_point(model, prefix, names, points) for prefix in points.keys() - set(caught.values())]
    changed = dict(shares)
    made: dict[tuple[int, str], Share] = {}
    for name, prefix in caught.items():
        share = shares[name]
        if (id(share), prefix) not in made:
            made[id(share), prefix], problem = _delay(share, prefix, points[prefix], common)
            problems += [problem] * bool(problem)
        changed[name] = made[id(share), prefix]
    raise_all("unfreeze", sorted(problems))
    return changed, _delay_starts(starts, prefixes, points, common)


def _delay(share: Share, prefix: str, epoch: int, common: Common) -> tuple[Share, str]:
    """Return the share that learns from an epoch on, and what is wrong with that."""
    is_closer = prefix != DEFAULT and (share.label == DEFAULT or prefix.startswith(share.label))
    label = prefix if is_closer else share.label
    if share.frozen:
        if common.unfrozen_lr is None:
            return share, f"{prefix!r} is named, but {share.label!r} has rate 0 there. Give it the rate to learn at."
        share = make_share(label, {"lr": common.unfrozen_lr}, common, key=share.key)
        share = replace(share, reason=common.unfrozen_reason)
    if share.unfreeze_at not in (0, epoch):
        return share, (
            f"epoch {epoch} is said for {prefix!r}, and {share.label!r} has unfreeze_at {share.unfreeze_at}. Say it "
            "once."
        )
    return replace(share, label=label, unfreeze_at=epoch), ""


def _delay_starts(starts: Starts, prefixes: Prefixes, points: Mapping[str, int], common: Common) -> Starts:
    """Return when modules without parameters begin, now that some parts begin later."""
    if not starts:
        return starts
    delayed = dict(starts)
    for key, start in starts.items():
        prefix = prefixes.longest(key) if key != DEFAULT else None
        if prefix is not None and (start is not None or common.unfrozen_lr is not None):
            delayed[key] = points[prefix]
    return {**delayed, **points}


def _named_twice(unfreeze: Mapping[int, Sequence[str]]) -> list[str]:
    epochs: dict[str, list[int]] = {}
    for epoch, prefixes in unfreeze.items():
        for prefix in prefixes:
            epochs.setdefault(prefix, []).append(epoch)
    return [
        f"{prefix!r} is named twice, for the epochs {' and '.join(map(str, found))}. Name it once."
        for prefix, found in epochs.items()
        if len(found) > 1
    ]


def _no_point(model: nn.Module, prefix: str, names: Mapping[str, tuple[str, ...]], points: Mapping[str, int]) -> str:
    if "@" in prefix:
        return f"{prefix!r} is a kind of layer. Expected prefixes of parameter names, or 'default'."
    if prefix == DEFAULT:
        return "'default' stands for what no key of lr names, and nothing is left of that. Leave it out."
    if any(alias.startswith(prefix) for aliases in names.values() for alias in aliases):
        longer = sorted(other for other in points if other.startswith(prefix) and other != prefix)
        return f"longer prefixes take all that {prefix!r} matches: {', '.join(map(repr, longer))}. Remove it."
    return no_match(model, prefix, names)


def _ordered(shares: Mapping[str, Share], order: Sequence[str]) -> list[str]:
    """Return all names: those of `order` first, which then has to hold every parameter that learns."""
    if not order:
        return list(shares)
    listed = set(order)
    learning = [name for name, share in shares.items() if not share.frozen]
    missing = [name for name in learning if name not in listed]
    unknown = [name for name in dict.fromkeys(order) if name not in shares]
    twice = [name for name, count in Counter(order).items() if count > 1]
    problems = [f"names {_few(unknown)}, which the model does not have{_near(unknown, shares)}"] * bool(unknown)
    problems += [f"leaves out {_few(missing)}"] * bool(missing) + [f"names {_few(twice)} twice"] * bool(twice)
    if problems:
        raise PlanError(
            f"order {' and '.join(problems)}. Expected each of the {len(learning)} parameters that learn, once."
        )
    return [*order, *(name for name in shares if name not in listed)]


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _near(unknown: Sequence[str], names: Iterable[str]) -> str:
    return f" ({near.strip()})" if unknown and (near := did_you_mean(unknown[0], names)) else ""


def name_parameters(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Map every parameter's name to all names it is known by: tied parameters have more than one.

    Raises:
        PlanError: There are none, or some have no shape yet.
    """
    primary: dict[int, str] = {}
    aliases: dict[str, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if isinstance(parameter, UninitializedParameter):
            raise PlanError(
                f"lr plan: {name!r} belongs to a lazy layer and has no shape yet. Run one batch through the model "
                "first."
            )
        aliases.setdefault(primary.setdefault(id(parameter), name), []).append(name)
    if not aliases:
        raise PlanError(f"lr plan: {type(model).__name__} has no parameters, so there is nothing to train.")
    return {name: tuple(found) for name, found in aliases.items()}


def no_match(model: nn.Module, key: str, names: Mapping[str, tuple[str, ...]]) -> str:
    """Say that the prefix of a key matches no parameter, and which names are near."""
    prefix = key.partition("@")[0]
    places = {
        ".".join(alias.split(".")[:depth]) for aliases in names.values() for alias in aliases for depth in (1, 2, 3)
    }
    is_module = any(name == prefix.rstrip(".") for name, _ in model.named_modules())
    why = " (that module has no parameters)" if is_module else ""
    return (
        f"key {key!r} matches no parameter of {type(model).__name__}{why}.{did_you_mean(prefix, sorted(places))} "
        f"Top-level names: {top_level(names)}."
    )


def top_level(names: Iterable[str]) -> str:
    """Return the first parts of parameter names, cut if they are many."""
    found = list(dict.fromkeys(name.split(".")[0] for name in names))
    return ", ".join(found[:12]) + (", …" if len(found) > 12 else "")
