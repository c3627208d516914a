"""The outputs of a model follow the names of its classes: rows of a head are moved, new ones are made, others go."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zoo._model import ask, get_fact, head_prefixes
from zoo.data import plain_name
from zoo.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn


def find_rows(names: Sequence[str], own: Sequence[str]) -> tuple[int | None, ...]:
    """Return the place of each name among others; None for one that is not there."""
    places = {plain_name(name): place for place, name in enumerate(own)}
    return tuple(places.get(plain_name(name)) for name in names)


def say_rows(names: Sequence[str], own: Sequence[str]) -> str:
    """Say which classes keep their outputs, which get new ones, and which have none any more."""
    rows = find_rows(names, own)
    kept = [name for name, row in zip(names, rows, strict=True) if row is not None]
    new = [name for name, row in zip(names, rows, strict=True) if row is None]
    gone = [name for place, name in enumerate(own) if place not in rows]
    parts = ((kept, "keep their weights"), (new, "are new"), (gone, "are dropped"))
    return "; ".join(f"{_list(part)} {what}" for part, what in parts if part)


def class_prefixes(model: Any) -> tuple[str, ...]:
    """Return the prefixes of the names of what depends on the classes.

    Raises:
        InputError: That is not known.
    """
    prefixes = ask(model, "class_prefixes") or head_prefixes(model)
    if not prefixes:
        raise InputError(
            f"{type(model).__name__} does not define its head, so its outputs cannot be matched to classes by name. "
            "Set head_prefixes = (...) in the class, the prefixes of the head's parameters."
        )
    return tuple(prefixes)


def move_rows(model: Any, fresh: Any, rows: Sequence[int | None]) -> None:
    """Give a model the outputs of other classes, in place.

    With as many outputs as before, parameters stay the same objects; else the layers of the outputs are replaced.

    Args:
        model: Tells what depends on the classes by `class_prefixes`, or else by `head_prefixes`: tensors with a row
            for each class. Rows after those of the classes stay the last.
        fresh: The same network, newly made for the new number of classes; parts of it go over into the model.
        rows: For each output the one that it was before; None: a new one.

    Raises:
        InputError: What depends on the classes does not have a row for each.
    """
    import torch

    before, count, prefixes = (
        ask(model, "num_classes") or len(get_fact(model, "classes")),
        len(rows),
        class_prefixes(model),
    )
    if all(row == place for place, row in enumerate(rows)) and count == before:
        return
    own = model.state_dict()
    made = {name: tensor for name, tensor in fresh.state_dict().items() if name.startswith(prefixes)}
    for name, tensor in made.items():
        old = own.get(name)
        fits = old is not None and old.ndim == tensor.ndim and old.shape[1:] == tensor.shape[1:]
        if not fits or old is None or len(old) - before != len(tensor) - count:
            raise InputError(
                f"the outputs of {type(model).__name__} cannot be matched to classes by name: {name} does not have "
                f"one row per class ({before}). Create the model again, with classes= in zoo.get."
            )
    if count == before:
        with torch.no_grad():
            for name, tensor in made.items():
                own[name].copy_(_compose(own[name], tensor, rows))
        return
    with torch.no_grad():
        for name, tensor in made.items():
            tensor.copy_(_compose(own[name], tensor, rows))
    for name, module in list(fresh.named_modules()):
        if any(f"{name}.{tensor}".startswith(prefixes) for tensor, _ in module.named_parameters(recurse=False)):
            _replace(model, name, module)
    if set_num_classes := ask(model, "set_num_classes"):
        set_num_classes(count)


def _compose(old: "Tensor", new: "Tensor", rows: Sequence[int | None]) -> "Tensor":
    """Return the rows of new classes beside the moved ones of old classes."""
    whole = new.to(old).clone()
    kept = [(place, row) for place, row in enumerate(rows) if row is not None]
    if kept:
        places, sources = map(list, zip(*kept, strict=True))
        whole[places] = old[sources]
    spare = len(new) - len(rows)
    if spare:  # such as the row of no class in an embedding
        whole[-spare:] = old[-spare:]
    return whole


def _replace(model: "nn.Module", name: str, module: "nn.Module") -> None:
    """Put a module into the place of another one; modules may be hidden by methods of the same name."""
    *path, last = name.split(".")
    parent: Any = model
    for part in path:
        parent = parent._modules[part]
    old = parent._modules[last]
    kept, first = dict(old.named_parameters()), next(old.parameters())
    module.to(first.device, first.dtype).train(old.training)
    for key, parameter in module.named_parameters():
        parameter.requires_grad_(kept[key].requires_grad)
    parent._modules[last] = module


def _list(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(map(repr, names[:most]))
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown
