"""Optimizers by name.

A name is looked up in `torch.optim`, then in timm, then in the folder `optimizers`, then among those that users
registered. Case and separators do not count. Names never import code: a custom class is passed as it is, or registered.
"""

import functools
import inspect
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar, cast

import torch
from torch.optim import Optimizer

from zoo.errors import InputError, did_you_mean
from zoo.files import import_modules
from zoo.optim import optimizers
from zoo.optim.modes import set_mode

Kind = TypeVar("Kind", bound=type[Optimizer])

SGD_WEIGHT_DECAY = 1e-4  # constructors of SGD have no decay and no momentum; these are what image classifiers use
SGD_MOMENTUM = 0.9
_FIELDS = ("params", "lr", "weight_decay")  # set by fields of the preset
_OF_A_DEVICE = ("capturable", "fused")  # arguments that are not tried on the CPU
_REFUSED = {
    "lbfgs": "LBFGS runs the model several times per step, which the training loop does not support. Use 'SGD' or "
    "'AdamW'.",
    "sparseadam": "SparseAdam needs sparse gradients; image models have dense ones. Use 'Adam'.",
    "adahessian": "AdaHessian needs second derivatives, which the training loop does not compute. Use 'AdamW'.",
}
_CAVEATS = {
    "rprop": "Rprop uses the learning rate for its first step only, so schedules have no effect.",
    "asgd": "ASGD applies a new learning rate one step late.",
}
_LEFT_TO_TIMM = "muon"  # torch's takes matrices alone; timm's updates convolutions too, and the rest as AdamW does
_registered: dict[str, type[Optimizer]] = {}  # by the name as it was given


def find_optimizer(name: str) -> type[Optimizer]:
    """Return the optimizer class of a name, such as `AdamW`, `adam_w`, `RMS-prop`, `rmsproptf` or `lamb`.

    Where torch and timm both know a name (`sgd`, `rmsprop`, `nadam`, `adafactor`) it is torch's, except `muon`. A name
    by which timm means a class with other arguments (`nesterovw`, `lambc`) gives a subclass that has them.

    Raises:
        InputError: For an unknown name, one that contains a path, and optimizers that cannot work here.
    """
    if not isinstance(name, str) or re.search(r"[./:\\]", name):
        raise InputError(
            f"optimizer {name!r} is not a name, and names never import code. Pass the class itself, or register it "
            "with @register_optimizer() and use its name."
        )
    key = _key(name)
    if key in _REFUSED:
        raise InputError(f"optimizer {name!r} cannot be used: {_REFUSED[key]}")
    if key.startswith("lookahead"):
        raise InputError(
            f"optimizer {name!r} cannot be used: Lookahead wraps another optimizer and keeps its own weights, which "
            f"per-group learning rates do not affect. Use {name[len('lookahead') :].lstrip('_- ') or 'AdamW'!r} "
            "alone."
        )
    found = _torch_kinds().get(key) or _timm_kind(key) or _own_kinds().get(key)
    if found is None and key == _LEFT_TO_TIMM:
        raise InputError(f"optimizer {name!r} comes from timm, and the installed version lacks it. Update timm.")
    if found is None:
        names = list_optimizers()
        raise InputError(
            f"unknown optimizer {name!r}.{did_you_mean(name, names)} There are {len(names)} (`zoo optimizers`, "
            "zoo.optim.list_optimizers())."
        )
    return found


def list_optimizers() -> list[str]:
    """Return every name that can be used here, each once, without regard to case in alphabetical order."""
    timm_names = {name for name, info in _timm_entries().items() if _is_installed(info) and name not in _REFUSED}
    theirs = timm_names - set(_torch_kinds())
    ours = [kind.__name__ for kind in shipped_kinds().values()]
    return sorted([*(kind.__name__ for kind in _torch_kinds().values()), *theirs, *ours, *_registered], key=str.lower)


def register_optimizer(name: str | None = None) -> Callable[[Kind], Kind]:
    """Make an optimizer class usable by name, in presets too; used as a decorator with parentheses.

    Args:
        name: Its name; the class's own if none is given.

    Raises:
        InputError: For what is no optimizer class with a rate, and for a name that something else has.
    """
    if name is not None and not isinstance(name, str):
        raise InputError("register_optimizer needs parentheses: @register_optimizer(), or with a name.")

    def register(kind: Kind) -> Kind:
        label = name or kind.__name__
        arguments(kind)
        key = _key(label)
        known = _torch_kinds().get(key) or _timm_kind(key) or _own_kinds().get(key)
        if not key or key in _REFUSED or (known is not None and _place(known) != _place(kind)):
            owner = "nothing" if known is None else _place(known)
            raise InputError(f"register_optimizer: the name {label!r} is {owner}. Choose another name.")
        _registered[label] = kind
        return kind

    return register


def default_weight_decay(optimizer: str | type[Optimizer]) -> float:
    """Return the decay that holds if nobody names one: 1e-4 for SGD, else the constructor's own, else 0."""
    kind = find_optimizer(optimizer) if isinstance(optimizer, str) else optimizer
    if kind is torch.optim.SGD:
        return SGD_WEIGHT_DECAY
    argument = inspect.signature(kind).parameters.get("weight_decay")
    return 0.0 if argument is None or argument.default in (argument.empty, None) else float(argument.default)


def default_params(optimizer: str | type[Optimizer]) -> dict[str, Any]:
    """Return what is added to the constructor's own defaults: momentum 0.9 for SGD."""
    kind = find_optimizer(optimizer) if isinstance(optimizer, str) else optimizer
    return {"momentum": SGD_MOMENTUM} if kind is torch.optim.SGD else {}


def check_params(optimizer: str | type[Optimizer], params: Mapping[str, Any]) -> None:
    """Check an optimizer's further arguments by making one of a single small parameter, and a step with it.

    Raises:
        InputError: For an argument that it does not have, one that a field of the preset sets, or a value that it
            refuses.
    """
    kind = find_optimizer(optimizer) if isinstance(optimizer, str) else optimizer
    accepted = arguments(kind)
    for key in params:
        if key in _FIELDS:
            raise InputError(f"optimizer_params: {key!r} is set by the preset field {key!r}. Remove it here.")
        if accepted is not None and key not in accepted:
            near = did_you_mean(key, accepted) or f" It has: {', '.join(sorted(accepted))}."
            raise InputError(f"optimizer_params: {kind.__name__} has no argument {key!r}.{near}")
    make_optimizer(kind, [{"params": [torch.zeros(2, 2, requires_grad=True)]}], lr=0.1, **params)
    anywhere = {key: value for key, value in params.items() if key not in _OF_A_DEVICE}
    if anywhere != default_params(kind):
        _try_step(kind, anywhere)


def arguments(kind: type[Optimizer]) -> frozenset[str] | None:
    """Return the constructor's arguments other than parameters, rate and decay; None if it takes any.

    Raises:
        InputError: If it is no optimizer class, or takes no rate.
    """
    if not (inspect.isclass(kind) and issubclass(kind, Optimizer)):
        raise InputError(f"{kind!r} is not an optimizer class; expected a subclass of torch.optim.Optimizer.")
    found = inspect.signature(kind).parameters
    if any(argument.kind is argument.VAR_KEYWORD for argument in found.values()):
        return None
    if "lr" not in found:
        raise InputError(f"{kind.__name__} has no argument 'lr', so learning rates cannot be set.")
    return frozenset(found) - set(_FIELDS)


def takes_weight_decay(kind: type[Optimizer]) -> bool:
    """Whether the constructor takes a weight decay."""
    found = inspect.signature(kind).parameters
    return "weight_decay" in found or any(argument.kind is argument.VAR_KEYWORD for argument in found.values())


def make_optimizer(kind: type[Optimizer], groups: Iterable[dict[str, Any]], **settings: Any) -> Optimizer:
    """Call a constructor and tell in one sentence what it refuses."""
    with _telling_refusal(kind, settings):
        return kind(cast(Any, groups), **settings)


def _try_step(kind: type[Optimizer], params: Mapping[str, Any]) -> None:
    """Make a step with a small parameter: many constructors take what only their first step stumbles over."""
    weight = torch.ones(2, 2, requires_grad=True)
    weight.grad = torch.ones(2, 2)
    with (
        _telling_refusal(kind, params),
        torch.random.fork_rng(devices=[]),
        torch.compiler.set_stance("force_eager"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        kind(cast(Any, [{"params": [weight]}]), lr=0.1, **params).step()  # type: ignore[call-arg]


@contextmanager
def _telling_refusal(kind: type[Optimizer], settings: Mapping[str, Any]) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, AssertionError, RuntimeError) as error:
        shown = {key: value for key, value in settings.items() if key != "lr"}
        reason = str(error).partition("\n")[0]
        if not isinstance(error, (TypeError, ValueError, RuntimeError, AssertionError)):
            reason = f"a value has the wrong type or length ({type(error).__name__}: {reason})"
        raise InputError(f"optimizer {kind.__name__} rejects {shown}: {reason}") from error


def couples_decay(kind: type[Optimizer], params: Mapping[str, Any]) -> bool:
    """Whether an optimizer adds `weight_decay * w` to the gradient before it does anything else with it.

    Found by trying: such an optimizer takes the gradient `-weight_decay * w` for no gradient at all. Numbers are powers
    of two, so that nothing is rounded.
    """
    if not takes_weight_decay(kind):
        return False
    ends = []
    for decay in (0.5, 0.0):
        weight = torch.tensor([[1.0, 2.0], [-4.0, 8.0]], requires_grad=True)
        optimizer = make_optimizer(kind, [{"params": [weight], "weight_decay": decay}], lr=0.25, **params)
        set_mode(optimizer, learn=True)
        for _ in range(8):  # RAdam is plain SGD, to which both kinds of decay are the same, for five
            weight.grad = -decay * weight.detach()
            optimizer.step()
        ends.append(weight.detach())
    return torch.equal(*ends)


def rate_caveat(optimizer: str | type[Optimizer]) -> str | None:
    """Return in what way an optimizer does not follow its rate at once, or None if it does."""
    kind = find_optimizer(optimizer) if isinstance(optimizer, str) else optimizer
    return _CAVEATS.get(kind.__name__.lower()) if kind.__module__.startswith("torch.") else None


def _key(name: str) -> str:
    """Return what counts of a name: letters and digits, in lower case."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _place(kind: type[Optimizer]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


@functools.cache
def _torch_kinds() -> dict[str, type[Optimizer]]:
    kinds = [kind for kind in vars(torch.optim).values() if inspect.isclass(kind) and issubclass(kind, Optimizer)]
    usable = {_key(kind.__name__): kind for kind in kinds if kind is not Optimizer}
    return {key: kind for key, kind in usable.items() if key not in _REFUSED and key != _LEFT_TO_TIMM}


@functools.cache
def shipped_kinds() -> dict[str, type[Optimizer]]:
    """Return the classes that the modules of the folder define."""
    return {
        _key(kind.__name__): kind
        for module in import_modules(optimizers)
        for kind in vars(module).values()
        if inspect.isclass(kind) and issubclass(kind, Optimizer) and kind.__module__ == module.__name__
    }


def _own_kinds() -> dict[str, type[Optimizer]]:
    return shipped_kinds() | {_key(name): kind for name, kind in _registered.items()}


@functools.cache
def _timm_entries() -> dict[str, Any]:
    """Return what timm knows of its optimizers, by the key of the name."""
    from timm.optim import get_optimizer_info
    from timm.optim import list_optimizers as timm_names

    return {_key(name): get_optimizer_info(name) for name in timm_names()}


def _is_installed(info: Any) -> bool:
    """Whether the class is there: those of Apex and bitsandbytes are named only, and need a GPU."""
    return inspect.isclass(info.opt_class)


@functools.cache
def _timm_kind(key: str) -> type[Optimizer] | None:
    info = _timm_entries().get(key)
    if info is None:
        return None
    if not _is_installed(info):
        raise InputError(
            f"optimizer {info.name!r} is {info.opt_class}, which is in neither torch nor timm. Import the class and "
            "pass it as optimizer."
        )
    kind: type[Optimizer] = info.opt_class
    found = inspect.signature(kind).parameters
    bound = {name: value for name, value in (info.defaults or {}).items() if found[name].default != value}
    if bound.get("nesterov") and "momentum" in found and found["momentum"].default == 0:
        bound["momentum"] = SGD_MOMENTUM  # timm's too; without momentum its constructor refuses Nesterov's
    return _bind(kind, key, bound) if bound else kind


def _bind(kind: type[Optimizer], name: str, bound: Mapping[str, Any]) -> type[Optimizer]:
    """Return a subclass whose constructor has other defaults."""

    def construct(self: Optimizer, params: Any, **settings: Any) -> None:
        kind.__init__(self, params, **{**bound, **settings})

    changed = ", ".join(f"{key}={value}" for key, value in bound.items())
    body = {"__init__": construct, "__signature__": inspect.signature(partial(kind, **bound))}
    made = type(name, (kind,), {**body, "__doc__": f"{kind.__name__} of timm with {changed}.", "__module__": __name__})
    return cast(type[Optimizer], made)
