"""Before a run: the classes of the data and those of the model become the same, by name."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from zoo._model import ask, get_fact, known_config, set_fact
from zoo.data import are_numbers, say_nameless
from zoo.errors import InputError
from zoo.models.build import from_config
from zoo.models.class_rows import class_prefixes, find_rows, move_rows, say_rows
from zoo.models.config import describe_model


def names_of(model: Any) -> tuple[str, ...]:
    """Return the names of a model's outputs; nothing where they are called by their numbers, or not at all."""
    classes = get_fact(model, "classes")
    if not isinstance(classes, (tuple, list)) or not all(isinstance(name, str) for name in classes):
        return ()
    return () if are_numbers(classes) else tuple(classes)


def match_classes(model: Any, data: Any, log: Callable[[str], None], *, may_replace: bool = True) -> bool:
    """Give a model the classes of the data: outputs of the same names are kept, wherever they stand.

    A model whose outputs have no names takes the names of the data. A new head has nothing to keep.

    Args:
        model: Changed in place.
        data: Opened data.
        log: Called with what became of the outputs, if they are not simply kept.
        may_replace: Whether layers may be replaced; not where an optimizer holds their parameters already.

    Returns:
        Whether layers were replaced.

    Raises:
        InputError: The data and the model do not fit together.
    """
    names, own, outputs = data.classes, names_of(model), _count_outputs(model)
    if not own and set(get_fact(model, "classes") or ()) == set(names):
        own = tuple(get_fact(model, "classes"))  # names that are numbers, which the data has, too
    if own and not data.named and not set(names) <= set(own):
        raise InputError(say_nameless("the data", own, "the model"))
    rows = find_rows(names, own) if own else ()
    if outputs not in (None, len(names)) and all(row is None for row in rows):
        raise InputError(
            f"the data has {len(names)} classes, but the model has {outputs} outputs. Create the model with "
            f"zoo.get({_name(model)!r}, num_classes={len(names)}, ...)."
        )
    moves = bool(own) and rows != tuple(range(len(own)))
    if moves:
        _move(model, names, own, log, may_replace=may_replace)
    elif not own and data.named and _is_loaded(model):
        listed = ", ".join(f"{number} {name!r}" for number, name in enumerate(names[:3]))
        log(f"note: the model's outputs have no names; they are assumed to be {listed}, … in this order")
    set_fact(model, "classes", names)
    return moves and len(names) != len(own)


def _move(
    model: Any, names: tuple[str, ...], own: tuple[str, ...], log: Callable[[str], None], *, may_replace: bool
) -> None:
    if not known_config(model).get("model"):
        raise InputError(
            f"the model's outputs are {_list(own)}, but the classes of the data are {_list(names)}; the outputs of a "
            f"{type(model).__name__} cannot be rearranged. Create it with the classes of the data, or set "
            "model.classes = () to use them in the order of the data."
        )
    if len(names) != len(own) and not may_replace:
        raise InputError(
            f"the data has {len(names)} classes, but the model has {len(own)} outputs, and the optimizer already "
            "holds its parameters. Create the model with the classes of the data, zoo.get(..., classes=[...]), then "
            "the optimizer."
        )
    is_new = _has_new_head(model, own)
    if is_new and len(names) == len(own):
        return
    rows = (None,) * len(names) if is_new else find_rows(names, own)
    move_rows(model, _build_for(model, names), rows)
    if not is_new:
        log(f"outputs by name: {say_rows(names, own)}")


def _build_for(model: Any, names: Sequence[str]) -> Any:
    """Return the same network newly made, for other classes."""
    config = describe_model(model)
    return from_config(config.model_copy(update={"classes": list(names), "num_classes": len(names)}))


def _has_new_head(model: Any, own: Sequence[str]) -> bool:
    """Whether what depends on the classes is still as it was made."""
    own_state = model.state_dict()
    made = _build_for(model, own).state_dict()
    return all(
        name in own_state and torch.equal(own_state[name].cpu(), made[name].to(own_state[name].dtype))
        for name in made
        if name.startswith(class_prefixes(model))
    )


def _is_loaded(model: Any) -> bool:
    """Whether the head of a model was loaded from a file."""
    report = get_fact(model, "load_report")
    return report is not None and not report.reinitialised


def _count_outputs(model: Any) -> int | None:
    outputs = ask(model, "num_classes")
    return outputs if isinstance(outputs, int) else None


def _name(model: Any) -> str:
    return known_config(model).get("model") or type(model).__name__


def _list(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(map(repr, names[:most]))
    return f"{shown}, …" if len(names) > most else shown
