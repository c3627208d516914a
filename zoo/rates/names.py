"""Names of a model's parameters, and what to say of a key that matches none."""

from collections.abc import Iterable, Mapping

from torch import nn
from torch.nn.parameter import UninitializedParameter

from zoo.errors import PlanError, did_you_mean


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
