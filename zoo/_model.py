"""What a model says of itself, and which models are asked.

A name alone says nothing: many networks have a `loss`, a `head` or `classes` of their own that mean something else.
So a module is asked only if it declares itself: the models of this package, what was registered, and classes derived
from `ModelInterface`. Any other module is a function from images to logits, whatever its attributes are called.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from zoo.errors import InputError, PlanError

if TYPE_CHECKING:
    from torch import dtype

_Method = TypeVar("_Method", bound=Callable[..., Any])

LOSS_INPUTS = 2  # outputs and targets
FACTS = "_zoo_facts"  # where a foreign module keeps what it cannot take as an attribute


class ModelInterface:
    """Put it before `nn.Module` among the bases of a network, and the names below are used where they are there.

    Attributes:
        task: What it does, the name of a folder in `zoo/tasks`; a classifier need not say so.
        num_classes: Number of outputs; compared with the data before anything runs.
        classes: Class names, in the order of the outputs.
        preprocess: A `zoo.data.transforms.Preprocess`, what the weights expect of an image.
        head_prefixes: Prefixes of the head's parameters. With the methods `trunk(images)` and `head(features)`, whose
            composition is `forward`, features of a frozen backbone are computed once and kept.

    A method `loss(outputs, targets, *, label_smoothing)` replaces the cross-entropy, also in a class that does not
    derive from this one; `fuse()` returns a faster copy for use; `dormant_parameters()` returns the names of parameters
    that no output depends on.
    """


@dataclass
class _Facts:
    """What this package keeps with a foreign module: `beside` it, or as attributes with these `names`."""

    beside: dict[str, Any] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)


class Parts(NamedTuple):
    """The names of the methods that turn images into features, and features into outputs."""

    backbone: str
    head: str


def ask(model: Any, name: str, default: Any = None) -> Any:
    """Return an attribute of a model that declares itself; the default for any other module."""
    return getattr(model, name, default) if isinstance(model, ModelInterface) else default


def find_method(model: Any, name: str) -> Callable[..., Any] | None:
    """Return a method of a documented hook's name; None if there is none, or the name is that of a layer or a value."""
    value = getattr(model, name, None)
    return value if callable(value) and not _is_content(value) else None


def check_call(method: Callable[..., Any], expected: str, *values: Any) -> None:
    """Check that a hook takes what it will be called with.

    Args:
        method: Of a model.
        expected: The signature, for the message.
        values: The arguments.

    Raises:
        PlanError: It takes other arguments.
    """
    try:
        inspect.signature(method).bind(*values)
    except ValueError:  # there is no signature to look at
        return
    except TypeError as error:
        name = getattr(method, "__qualname__", type(method).__name__)
        raise PlanError(
            f"{name} cannot be called as {expected}: {error}. Change its arguments, or rename it if it serves "
            "another purpose."
        ) from error


def find_loss(model: Any) -> Callable[..., Any] | None:
    """Return a model's own loss; None if it has none, or something else of that name.

    A module of somebody else's declares it by the signature `loss(outputs, targets, *, label_smoothing)`.
    """
    own = find_method(model, "loss")
    if own is None or isinstance(model, ModelInterface):
        return own
    try:
        arguments = inspect.signature(own).parameters
    except (TypeError, ValueError):
        return None
    return own if "label_smoothing" in arguments and len(arguments) > LOSS_INPUTS else None


def plain_loss(method: _Method) -> _Method:
    """Mark a model's method `loss` as the mean cross-entropy, in whose place a task may put a weighted one."""
    vars(method)["is_plain_loss"] = True
    return method


def has_own_loss(model: Any) -> bool:
    """Whether a model has a loss of its own that is not the plain cross-entropy."""
    own = find_loss(model)
    return own is not None and not getattr(own, "is_plain_loss", False)


def known_config(model: Any) -> dict[str, Any]:
    """Return the configuration that this package gave a model; empty for a module of somebody else's."""
    facts = getattr(model, "config", None)
    return facts if isinstance(facts, dict) and isinstance(facts.get("zoo"), str) else {}


def get_fact(model: Any, name: str, default: Any = None) -> Any:
    """Return what is kept with a model under a name such as `classes`; the default if that name means something else.

    Args:
        model: Any module.
        name: `classes`, `preprocess`, `load_report`, ...
        default: Returned if nothing is kept.
    """
    facts = getattr(model, "__dict__", {}).get(FACTS) or _Facts()
    if name in facts.beside:
        return facts.beside[name]
    is_ours = isinstance(model, ModelInterface) or known_config(model) or name in facts.names or _is_marked(model)
    return getattr(model, name, default) if is_ours else default


def get_task(model: Any, default: str) -> str:
    """Return what a model does, as it declares itself or as this package has kept it; the default for others.

    A module of somebody else's may call anything `task`, also if it was given a preprocessing of this package.
    """
    facts = getattr(model, "__dict__", {}).get(FACTS) or _Facts()
    is_kept = "task" in facts.beside or "task" in facts.names or known_config(model)
    return str(get_fact(model, "task", default) if is_kept else ask(model, "task", default))


def set_fact(model: Any, name: str, value: Any) -> None:
    """Keep something with a model: as its attribute, or out of sight where the module uses that name itself."""
    facts = getattr(model, "__dict__", {}).get(FACTS) or _Facts()
    is_free = name in facts.names or isinstance(model, ModelInterface) or known_config(model) or _is_marked(model)
    is_free = is_free or not (hasattr(type(model), name) or hasattr(model, name))
    if is_free and _set(model, name, value):
        facts.names.add(name)
    else:
        facts.beside[name] = value
    if facts.beside or not isinstance(model, ModelInterface):
        vars(model)[FACTS] = facts


def float_dtype(model: Any) -> "dtype | None":
    """Return the type of a model's first floating-point parameter; None if it has none."""
    return next((parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()), None)


def head_prefixes(model: Any) -> tuple[str, ...]:
    """Return the prefixes of the parameters that a model calls its head; empty if it does not say."""
    prefixes = getattr(model, "head_prefixes", ())
    if isinstance(model, ModelInterface):
        return tuple(prefixes)
    if not isinstance(prefixes, (tuple, list)) or not all(isinstance(prefix, str) and prefix for prefix in prefixes):
        return ()
    names = [name for name, _ in model.named_parameters()]
    return tuple(prefixes) if all(any(map(str.startswith, names, repeat(prefix))) for prefix in prefixes) else ()


def find_parts(model: Any) -> Parts | None:
    """Return how a model is cut into backbone and head; None if it does not say so.

    A module of somebody else's says it by `head_prefixes` that are prefixes of its parameters, together with methods
    `trunk` and `head`; layers of these names say nothing.
    """
    if not head_prefixes(model):
        return None
    for parts in (Parts("run_backbone", "run_head"), Parts("trunk", "head")):
        if all(inspect.isroutine(inspect.getattr_static(type(model), name, None)) for name in parts):
            return parts
    return None


def cut(model: Any) -> Parts:
    """Return what `find_parts` finds.

    Raises:
        InputError: The model does not say how it is cut.
    """
    parts = find_parts(model)
    if parts is None:
        raise InputError(
            f"{type(model).__name__} has no separate backbone. Add methods trunk(images) and head(features), and "
            "head_prefixes, the prefixes of the head's parameters."
        )
    return parts


def _set(model: Any, name: str, value: Any) -> bool:
    """Set an attribute; return whether the module takes it."""
    if _is_content(getattr(model, name, None)):
        return False
    try:
        setattr(model, name, value)
    except (AttributeError, TypeError):  # a property without a setter, a layer or a parameter of this name
        return False
    return True


def _is_marked(model: Any) -> bool:
    """Whether somebody gave a module a preprocessing of this package, and so knows what its names are for."""
    own = getattr(model, "__dict__", {}).get("preprocess", getattr(type(model), "preprocess", None))
    return type(own).__module__.startswith("zoo.")


def _is_content(value: object) -> bool:
    """Whether a value is a layer, a parameter or a buffer."""
    from torch import Tensor, nn

    return isinstance(value, (nn.Module, Tensor))
