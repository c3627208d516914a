"""A network as layers in order of depth, for rates that fall from the head to the stem.

Source of the order, where a model has `group_matcher`: timm's, `timm/models/_manipulate.py`.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import nn

from zoo._model import find_method
from zoo.errors import PlanError

CONTAINERS = (nn.Sequential, nn.ModuleList)
NEVER_NORMS = (nn.modules.conv._ConvNd, nn.Linear)  # whatever their subclasses are called


class Layer(NamedTuple):
    """Parameters of one depth; the first layer is next to the image."""

    name: str
    parameters: tuple[str, ...]


def order_layers(model: nn.Module) -> tuple[Layer, ...]:
    """Return a model's parameters as layers, from the image to the output; every parameter is in one of them.

    A module with `group_matcher(coarse)` (every model of timm) says itself what belongs together. In any other, each
    child is a layer, in the order in which the model holds them; sequences, lists and lone wrappers are taken apart,
    and a norm belongs to the layer before it.

    Raises:
        PlanError: A `group_matcher` gives no order, or the model has one layer only.
    """
    members: list[list[str]] = []
    seen: set[int] = set()
    for piece, joins in _pieces("", model):
        own = [(name, parameter) for name, parameter in piece if id(parameter) not in seen]
        seen.update(id(parameter) for _, parameter in own)
        if own and members and joins:
            members[-1] += [name for name, _ in own]
        elif own:
            members.append([name for name, _ in own])
    if len(members) < 2:
        raise PlanError(
            f"layer_decay and first_lr need several layers: {type(model).__name__} has {len(members)} "
            f"layer{'s' * (not members)}. Pass a mapping of prefixes to rates instead."
        )
    sizes = Counter(parent for names in members for name in names for parent in _parents(name))
    return tuple(Layer(_name(names, sizes), tuple(names)) for names in members)


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a normalisation layer: torch's, or any with `norm` in the name of its class."""
    if "norm" not in type(module).__name__.lower() or isinstance(module, NEVER_NORMS):
        return False
    return all(next(child.parameters(), None) is None for child in module.children())


_Piece = tuple[list[tuple[str, nn.Parameter]], bool]


def _pieces(prefix: str, module: nn.Module) -> Iterator[_Piece]:
    """Yield the parameters of each layer, with their names, and whether they join the layer before."""
    if find_method(module, "group_matcher"):
        yield from _matched_pieces(prefix, module)
        return
    direct = [(prefix + name, parameter) for name, parameter in module.named_parameters(recurse=False)]
    if direct:
        yield direct, is_norm(module)
    children = [(name, child) for name, child in module.named_children() if next(child.parameters(), None) is not None]
    for name, child in children:
        inside = f"{prefix}{name}."
        is_wrapped = len(children) == 1 and not direct
        if isinstance(child, CONTAINERS) or is_wrapped or find_method(child, "group_matcher"):
            yield from _pieces(inside, child)
        else:
            yield list(child.named_parameters(inside.removesuffix("."))), is_norm(child)


def _matched_pieces(prefix: str, module: nn.Module) -> Iterator[_Piece]:
    from timm.models import group_parameters

    matcher: Any = module
    try:
        depths: dict[str, int] = group_parameters(module, matcher.group_matcher(coarse=False), reverse=True)
    except (TypeError, ValueError) as error:
        raise PlanError(
            f"group_matcher of {type(module).__name__} does not order its parameters: {error}. Expected patterns as "
            "in timm's models, or a function from a name to a number."
        ) from error
    layers: dict[int, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in module.named_parameters():
        layers.setdefault(depths[name], []).append((prefix + name, parameter))
    for depth in sorted(layers):
        yield layers[depth], False


def _name(names: list[str], sizes: Counter[str]) -> str:
    """Return the module that a layer is, or its first and last module."""
    own = Counter(parent for name in names for parent in _parents(name))
    first, last = (next((p for p in _parents(name) if own[p] == sizes[p]), name) for name in (names[0], names[-1]))
    return first if first == last else f"{first} to {last}"


def _parents(name: str) -> list[str]:
    """Return the modules that a parameter is in, the outermost first."""
    parts = name.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]
