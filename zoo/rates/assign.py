"""A model and what the user says of its rates → the plan: every parameter in exactly one group.

Keys are plain string prefixes of parameter names (`conv` catches `conv1` and `conv2`); a key that ends in a dot stops
there (`head.` is not `head2`); the longest matching prefix wins; `default` takes the rest. `@norm` catches a kind of
layer anywhere, `backbone@norm` within a prefix. Rate 0 freezes.

Source of the mapping's meaning: super-gradients, commit e0ccacf8868ffa1296fa4f8407c03d2bc227312c; where that is silent
or contradicts itself (overlapping prefixes, prefixes without a match, drifting norm statistics) the rules above hold.
"""

import warnings
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from torch import nn

from zoo._model import check_call, find_method
from zoo.errors import PlanError
from zoo.rates.collect import build_plan
from zoo.rates.context import PlanContext
from zoo.rates.groups import Assignment, Starts
from zoo.rates.layers import is_norm, order_layers
from zoo.rates.names import name_parameters, no_match, top_level
from zoo.rates.plan import Plan
from zoo.rates.spec import (
    DEFAULT,
    MOST_LISTED,
    GroupSettings,
    Key,
    Prefixes,
    is_rate,
    parse_key,
    peak_lr,
    raise_all,
    read_rates,
)

Mode = Literal["head", "low_lr", "full"]


def choose_rates(
    model: nn.Module,
    lr: float | Mapping[str, Any],
    *,
    mode: Mode | None = None,
    backbone_lr_factor: float = 0.1,
) -> dict[str, Any]:
    """Turn what the user says into a mapping of keys to rates.

    Args:
        model: Any module; `head` and `low_lr` ask its `get_finetune_lr_dict(lr)`.
        lr: A rate > 0, or a mapping of keys to rates or settings with a `"default"`, used as it is.
        mode: `head`: the model's own mapping; `low_lr`: what that freezes learns at `lr * backbone_lr_factor`;
            `full`: one rate for all; None: `head` if the model has a mapping of its own, else `full`.
        backbone_lr_factor: Share of `lr` for the backbone in the mode `low_lr`.

    Raises:
        PlanError: For a mapping together with a mode, or a mode that needs a mapping of a model that has none.
    """
    if isinstance(lr, Mapping):
        if mode is not None:
            raise PlanError(
                f"lr is a mapping and mode is {mode!r}: both set what is trained. Remove mode, or pass a single "
                "number as lr."
            )
        return dict(lr)
    if not is_rate(lr):
        raise PlanError(f"lr plan: 'lr' is {lr!r} ({type(lr).__name__}). Expected a finite number, 0 or more.")
    if mode not in (None, "head", "low_lr", "full"):
        raise PlanError(f"unknown mode {mode!r}; expected 'head', 'low_lr' or 'full'.")
    if mode == "full" or (mode is None and not find_method(model, "get_finetune_lr_dict")):
        return {DEFAULT: lr}
    rates = _model_rates(model, lr)
    return {key: rate or lr * backbone_lr_factor for key, rate in rates.items()} if mode == "low_lr" else rates


def plan_lrs(model: nn.Module, rates: Mapping[str, Any], context: PlanContext) -> Plan:
    """Assign every parameter of a model to one group.

    Args:
        model: Any module; it is not changed.
        rates: Key → rate or settings, with a `"default"` for the rest; 0 freezes.
        context: What holds for all groups.

    Raises:
        PlanError: Listing every wrong rate and setting; for a missing `default`, for keys that catch nothing, for
            settings that contradict each other, and if nothing would learn.
    """
    assignments, starts, context = _assign(model, rates, context)
    return build_plan(model, assignments, context, starts)


def plan_layers(
    model: nn.Module,
    rates: Mapping[str, float],
    context: PlanContext,
    *,
    layer_decay: float | None = None,
    first_lr: float | None = None,
) -> Plan:
    """Assign rates that fall with depth, from the last layer to the first.

    Args:
        model: Any module; `order_layers` finds its layers.
        rates: Prefix → rate at the last layer.
        context: What holds for all groups.
        layer_decay: Factor from each layer to the one before it, 0 to 1.
        first_lr: Or the rate of the first layer; those in between are geometric.

    Raises:
        PlanError: As `plan_lrs`, and if fewer than two layers learn.
    """
    assignments, starts, context = _assign(model, rates, context)
    layers = order_layers(model)
    if sum(any(not assignments[name].frozen for name in layer.parameters) for layer in layers) < 2:
        raise PlanError(
            "layer_decay and first_lr need more than one trained layer. Remove them, or use mode 'full' or 'low_lr'."
        )
    last = len(layers) - 1
    for depth, layer in enumerate(layers):
        place = f"layer {depth + 1} of {len(layers)}"
        made: dict[int, Assignment] = {}
        for name in layer.parameters:
            given = assignments[name]
            if given.frozen:
                continue
            if id(given) not in made:
                scale, why = _fall(given.lr, last - depth, last, layer_decay, first_lr)
                reason = f"{given.lr:g} × {why}, {place}" if depth < last else given.reason
                made[id(given)] = replace(given, label=layer.name, lr_scale=scale, reason=reason)
            assignments[name] = made[id(given)]
    return build_plan(model, assignments, context, starts)


def _fall(lr: float, below: int, last: int, layer_decay: float | None, first_lr: float | None) -> tuple[float, str]:
    """Return the scale of a layer that lies so far below the last one, and how it comes about."""
    if layer_decay is not None:
        return layer_decay**below, f"{layer_decay:g}^{below}"
    ratio = (first_lr or 0.0) / lr
    return ratio ** (below / last), f"({first_lr:g} / {lr:g})^({below}/{last})"


class _Claim(NamedTuple):
    """What a prefix and a kind of layer together say of the same parameters."""

    label: str
    said: Mapping[str, Any]
    key: str
    decays_surely: bool


def _assign(
    model: nn.Module, rates: Mapping[str, Any], context: PlanContext
) -> tuple[dict[str, Assignment], Starts, PlanContext]:
    """Return what every parameter gets, by name, and what modules without parameters go by."""
    spec = read_rates(rates)
    names, kinds = name_parameters(model), _find_kinds(model)
    caught = _catch(spec, names, kinds)
    _check_keys(model, spec, names, kinds, caught, context)
    claims: dict[tuple[str, str | None], _Claim] = {}
    problems = []
    pairs = dict.fromkeys(caught.values())
    flat = pairs.keys() - {caught[name] for name, parameter in model.named_parameters() if parameter.ndim > 1}
    for pair in pairs:
        try:
            claims[pair] = _merge(*pair, spec, is_flat=pair in flat and pair[0] != DEFAULT)
        except PlanError as error:
            problems.append(str(error))
    raise_all("lr plan", problems)
    context = context.with_largest(peak_lr(claim.said) for claim in claims.values())
    made: dict[tuple[str, str | None], Assignment] = {}
    for pair, claim in claims.items():
        try:
            made[pair] = context.assign(claim.label, claim.said, key=claim.key, decays_surely=claim.decays_surely)
        except PlanError as error:
            problems.append(str(error))
    raise_all("lr plan", problems)
    return {name: made[pair] for name, pair in caught.items()}, _find_starts(spec), context


def _catch(
    spec: Mapping[str, GroupSettings], names: Mapping[str, tuple[str, ...]], kinds: Mapping[str, str | None]
) -> dict[str, tuple[str, str | None]]:
    """Return the closest key without a kind and the closest of its kind, for every parameter."""
    keys: dict[str | None, dict[str, str]] = {kind: {} for kind in {None, *kinds.values()}}
    for text in spec.keys() - {DEFAULT}:
        key = parse_key(text)
        keys.setdefault(key.kind, {})[key.prefix] = text
    prefixes = {kind: Prefixes(texts) for kind, texts in keys.items()}

    def closest(kind: str | None, aliases: tuple[str, ...]) -> str | None:
        prefix = prefixes[kind].longest(*aliases)
        return None if prefix is None else keys[kind][prefix]

    return {
        name: (closest(None, aliases) or DEFAULT, closest(kinds[name], aliases) if kinds[name] else None)
        for name, aliases in names.items()
    }


def _merge(plain: str, typed: str | None, spec: Mapping[str, GroupSettings], *, is_flat: bool) -> _Claim:
    """Put the settings of a prefix and of a kind together; what they both say must agree, or one is the closer.

    A decay that is said of a kind, or of a prefix that catches norms and biases only (`is_flat`), is meant for them.
    """
    said, label, key = spec[plain].said, plain, parse_key(plain)
    more: dict[str, Any] = {}
    if typed is not None:
        kind = parse_key(typed)
        more = spec[typed].said
        is_closer = kind.prefix.startswith(key.prefix)
        label = typed if is_closer else f"{key.prefix}@{kind.kind}"
        clash = [name for name, value in more.items() if said.get(name, value) != value and not is_closer]
        if clash:
            raise PlanError(
                f"keys {plain!r} and {typed!r} both set {' and '.join(sorted(clash))} for the same parameters, and "
                f"neither is more specific. Add a key {label!r} to decide."
            )
    together = {**said, **more}
    if "lr" not in together:
        together["lr"] = _default_lr(label, spec[DEFAULT])
    if peak_lr(together) == 0 and not {"lr", "lr_scale"} & more.keys():
        label = plain  # frozen by its place: what its kind has besides does not matter
    return _Claim(label, together, plain, "weight_decay" in (together if is_flat else more))


def _default_lr(label: str, default: GroupSettings) -> float | list[float]:
    if default.lr is None:
        besides = "" if label == DEFAULT else " and neither does 'default'"
        raise PlanError(f"{label!r} sets no lr{besides}. Add lr; 0 freezes.")
    if peak_lr({"lr": default.lr}) == 0:
        raise PlanError(f"{label!r} sets no lr, and 'default' is frozen. Add lr; 0 freezes.")
    return default.lr


def _find_starts(spec: Mapping[str, GroupSettings]) -> dict[str, int | None]:
    """Return for every prefix the epochs before it learns, None for never; what `Plan.starts` is."""
    starts: dict[str, int | None] = {}
    for text, settings in spec.items():
        if "@" not in text:
            said = {"lr": spec[DEFAULT].lr or 0.0, **settings.said}
            starts[text] = None if peak_lr(said) == 0 else said.get("unfreeze_at", 0)
    return starts


def _find_kinds(model: nn.Module) -> dict[str, str | None]:
    """Return the kind of layer that each parameter belongs to: conv, norm, linear, bias, or none of them."""
    kinds: dict[str, str | None] = {}
    for prefix, module in model.named_modules():
        place = f"{prefix}." if prefix else ""
        for name, _ in module.named_parameters(recurse=False):
            kinds[place + name] = _kind(name, module)
    return kinds


def _kind(name: str, module: nn.Module) -> str | None:
    if is_norm(module):
        return "norm"
    if name.endswith("bias"):
        return "bias"
    if isinstance(module, nn.modules.conv._ConvNd):
        return "conv"
    return "linear" if isinstance(module, nn.Linear | nn.Bilinear | nn.MultiheadAttention) else None


def _check_keys(
    model: nn.Module,
    spec: Mapping[str, GroupSettings],
    names: Mapping[str, tuple[str, ...]],
    kinds: Mapping[str, str | None],
    caught: Mapping[str, tuple[str, str | None]],
    context: PlanContext,
) -> None:
    """Refuse keys that catch nothing, all at once."""
    used = {DEFAULT, *(key for pair in caught.values() for key in pair)}
    idle = [parse_key(text) for text in spec if text not in used]
    if not idle:
        return
    ordered = {
        kind: sorted(alias for name, found in names.items() for alias in found if kind in (None, kinds[name]))
        for kind in {None, *(key.kind for key in idle)}
    }
    covered: list[Key] = []
    strange: list[Key] = []
    for key in idle:
        (covered if _any_begins(ordered[key.kind], key.prefix) else strange).append(key)
    problems = [_covered_text(key, names, kinds, caught) for key in covered[:MOST_LISTED]]
    problems += ["more keys match nothing."] * len(covered[MOST_LISTED:])
    if context.options.unmatched == "error":
        problems += [
            _unmatched_text(model, key, names, _any_begins(ordered[None], key.prefix)) for key in strange[:MOST_LISTED]
        ]
        problems += ["more keys match no parameter."] * len(strange[MOST_LISTED:])
    raise_all("lr plan", problems)
    if context.options.unmatched == "warn":
        listed = ", ".join(repr(key.text) for key in strange[:MOST_LISTED])
        warnings.warn(f"lr plan: no parameter matches {listed}; ignored.", stacklevel=4)


def _any_begins(ordered: list[str], prefix: str) -> bool:
    """Whether any of some names, in alphabetical order, begins with a prefix."""
    place = bisect_left(ordered, prefix)
    return place < len(ordered) and ordered[place].startswith(prefix)


def _covered_text(
    key: Key,
    names: Mapping[str, tuple[str, ...]],
    kinds: Mapping[str, str | None],
    caught: Mapping[str, tuple[str, str | None]],
) -> str:
    longer = {
        str(caught[name][key.kind is not None])
        for name, aliases in names.items()
        if key.kind in (None, kinds[name]) and any(alias.startswith(key.prefix) for alias in aliases)
    }
    return (
        f"key {key.text!r} has no effect: longer keys match all of its parameters: "
        f"{', '.join(map(repr, sorted(longer)))}. Remove it."
    )


def _unmatched_text(model: nn.Module, key: Key, names: Mapping[str, tuple[str, ...]], is_place: bool) -> str:
    if not is_place:
        return no_match(model, key.text, names)
    where = f"under {key.prefix!r}" if key.prefix else f"in {type(model).__name__}"
    return f"key {key.text!r} matches no parameter: there is no {key.kind} {where}. Remove it."


def _model_rates(model: nn.Module, lr: float) -> dict[str, float]:
    method = find_method(model, "get_finetune_lr_dict")
    kind = type(model).__name__
    parameters = dict(model.named_parameters())
    if method is None:
        last = next(reversed(parameters), "head").split(".")[0]
        raise PlanError(
            f"{kind} has no get_finetune_lr_dict(lr), so its head is unknown. Pass a mapping, for example "
            f"lr={{{last!r}: {lr:g}, 'default': 0}}, or use mode 'full'. Top-level names: {top_level(parameters)}."
        )
    check_call(method, "get_finetune_lr_dict(lr)", lr)
    rates = method(lr)
    if not isinstance(rates, Mapping) or DEFAULT not in rates:
        raise PlanError(
            f"get_finetune_lr_dict of {kind} returned {rates!r}; expected a mapping of prefixes to rates with "
            "'default'."
        )
    return dict(rates)
