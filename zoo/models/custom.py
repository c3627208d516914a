"""Models that users register: any module that can be built for a number of classes.

Nothing is asked of it but `forward`. What a feature needs beyond that it asks for itself, for example `head_prefixes`
for weights of other classes.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from zoo._model import ModelInterface
from zoo.data import Preprocess, Preprocessing
from zoo.errors import InputError, WeightsError
from zoo.models.catalog import import_families, list_families, plain_name
from zoo.models.config import ModelConfig
from zoo.models.registry import Entry, add_entry, entries, summarise
from zoo.tasks import DEFAULT_TASK
from zoo.weights import LoadReport, ResolvedWeights, load_into

if TYPE_CHECKING:
    from torch import nn

_Builder = TypeVar("_Builder", bound=Callable[..., Any])
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")


def make_entry(
    build: Callable[..., Any],
    name: str | None,
    *,
    preprocess: Preprocess | Mapping[str, Any] | None,
    code_licence: str,
    summary: str | None,
) -> Entry:
    """Return what is known of a model, of the signature of its class or builder.

    Raises:
        InputError: The name has odd characters, or the builder is none or takes no `num_classes`.
    """
    if not (inspect.isclass(build) or inspect.isroutine(build) or isinstance(build, partial)):
        raise InputError(
            f"register_model: a {type(build).__name__} is neither a class nor a function. Register its class."
        )
    name = place(build)[-1].rpartition(".")[2] if name is None else name
    if not _NAME.fullmatch(name):
        raise InputError(
            f"register_model: invalid name {name!r}. Expected a letter, then letters, digits, '_' and '-', at most "
            "100 characters."
        )
    arguments = inspect.signature(build).parameters
    takes_any = any(argument.kind is argument.VAR_KEYWORD for argument in arguments.values())
    if "num_classes" not in arguments and not takes_any:
        raise InputError(
            f"register_model: {place(build)[-1]} has no argument 'num_classes'. It is called with num_classes=N; "
            "register a function that accepts it and returns the module."
        )
    usual = arguments["num_classes"].default if "num_classes" in arguments else None
    if isinstance(preprocess, Mapping):
        preprocess = Preprocess.from_dict(Preprocess().to_dict() | dict(preprocess))
    return Entry(
        name=name,
        task=_find_task(build),
        build=build,
        summary=summarise(build) if summary is None else summary,
        parameters=None,
        preprocess=preprocess or Preprocess(),
        weights=None,
        num_classes=usual if type(usual) is int else None,
        code_licence=code_licence,
        is_custom=True,
    )


def _find_task(build: Callable[..., Any]) -> str:
    """Return the task that a class of `ModelInterface` names; all else is taken for a classifier."""
    is_declared = inspect.isclass(build) and issubclass(build, ModelInterface)
    return str(getattr(build, "task", DEFAULT_TASK)) if is_declared else DEFAULT_TASK


def place(build: Callable[..., Any]) -> tuple[str, str]:
    """Return module and name of a builder."""
    whole = build.func if isinstance(build, partial) else build
    return whole.__module__, whole.__qualname__


def build_custom(entry: Entry, num_classes: int | None, drop_rate: float) -> "nn.Module":
    """Call a builder and check what it returns.

    Raises:
        InputError: It was not told what it needs, is no module, or has attributes that are needed here.
    """
    from torch import nn

    if num_classes is None:
        raise InputError(f"{entry.name} needs the number of classes. Pass num_classes= or classes=.")
    takes_rate = takes_drop_rate(entry)
    if drop_rate and not takes_rate:
        raise InputError(f"{entry.name} does not support drop_rate. Remove it, or add the argument to its builder.")
    model = entry.build(num_classes=num_classes, **({"drop_rate": drop_rate} if takes_rate else {}))
    if not isinstance(model, nn.Module):
        raise InputError(f"the builder of {entry.name} returned a {type(model).__name__}; expected a torch.nn.Module.")
    _check_attributes(entry, model)
    return model


def takes_drop_rate(entry: Entry) -> bool:
    """Whether a builder has an argument of that name."""
    return "drop_rate" in inspect.signature(entry.build).parameters


def take_weights(
    entry: Entry, model: "nn.Module", found: ResolvedWeights, config: ModelConfig, classes: tuple[str, ...] | None
) -> LoadReport:
    """Load a file; its head is left out if it is for other classes, which needs `head_prefixes` of the module.

    Raises:
        WeightsError: The file does not fit.
    """
    heads = tuple(getattr(model, "head_prefixes", ()))
    advice = (
        f"set the prefixes of the head's parameters in the class, for example head_prefixes = {_guess_head(model)!r}."
    )
    if not heads:
        if classes and config.names and classes != config.names:
            raise WeightsError(
                f"{found.origin} has different classes, and {entry.name} does not define its head. Remove classes=, "
                f"or {advice}"
            )
        try:
            return load_into(model, found, head=(), keep_head=True)
        except WeightsError as error:
            raise WeightsError(f"{error} If it has a different number of classes, {advice}") from error
    theirs, ours = found.shapes(), model.state_dict()
    of_head = {name for name in (*theirs, *ours) if name.startswith(heads)}
    fits = all(name in theirs and name in ours and list(theirs[name]) == list(ours[name].shape) for name in of_head)
    is_same = classes is None or config.names in (None, classes)
    return load_into(model, found, head=heads, keep_head=fits and is_same)


def choose_preprocess(entry: Entry, model: "nn.Module", config: ModelConfig) -> Preprocessing:
    """Return what the checkpoint says, or the registration, or the module itself."""
    own = getattr(model, "preprocess", None)
    registered = entry.preprocess if entry.preprocess != Preprocess() else None
    return config.preprocess_value or registered or (own if isinstance(own, Preprocessing) else Preprocess())


def _check_attributes(entry: Entry, model: "nn.Module") -> None:
    """Refuse a module that uses, for something else, a name that every model here has."""
    from zoo.weights import Licence

    kinds: dict[str, Any] = {
        "preprocess": Preprocess,
        "classes": (tuple, list),
        "licence": Licence,
        "load_report": LoadReport,
    }
    present = {name: getattr(model, name, None) for name in (*kinds, "config")}
    taken = [name for name, kind in kinds.items() if present[name] is not None and not isinstance(present[name], kind)]
    config = present["config"]
    if config is not None and not (isinstance(config, dict) and (not config or "zoo" in config)):
        taken.append("config")
    if taken:
        raise InputError(
            f"{type(model).__name__} defines the attributes {', '.join(taken)}, which zoo sets on every model. "
            "Rename them in the class."
        )


def _guess_head(model: "nn.Module") -> tuple[str, ...]:
    last = next(reversed([name for name, _ in model.named_parameters()]), "head")
    return (f"{last.rpartition('.')[0] or last}.",)


def register_model(
    name: str | None = None,
    *,
    preprocess: Preprocess | Mapping[str, Any] | None = None,
    code_licence: str = "unknown",
    summary: str | None = None,
) -> Callable[[_Builder], _Builder]:
    """Make a class of modules, or a function that builds one, usable by name; a decorator with parentheses.

    It is called with `num_classes=N`, and with `drop_rate` if it has such an argument. Any module will do; what a
    feature needs beyond `forward` it asks for itself, such as `get_finetune_lr_dict(lr)` for `mode="head"`.
    Checkpoints hold the name: where they are loaded, the model has to be registered before.

    Args:
        name: Its name; that of the class or function if none is given.
        preprocess: What it expects of an image, or only what differs from the usual, such as `{"image_size": 64}`.
        code_licence: Of its code, SPDX identifier.
        summary: One line on what it is; None: the first of its documentation.

    Raises:
        InputError: The name is taken or has odd characters, or `num_classes` is no argument.
    """
    if name is not None and not isinstance(name, str):
        raise InputError("register_model needs parentheses: @zoo.register_model(), or with a name.")

    def register(build: _Builder) -> _Builder:
        entry = make_entry(build, name, preprocess=preprocess, code_licence=code_licence, summary=summary)
        _check_free(entry)
        add_entry(entry)
        return build

    return register


def _check_free(entry: Entry) -> None:
    """Refuse a name that means something else already."""
    import_families()
    wanted = plain_name(entry.name)
    if wanted in map(plain_name, list_families()):
        raise InputError(f"register_model: {entry.name!r} is the name of a model family. Choose another name.")
    for known in entries().values():
        if wanted not in map(plain_name, (known.name, *known.aliases)):
            continue
        if known.is_custom and known.name == entry.name and place(known.build) == place(entry.build):
            continue  # the same lines run again, as in a notebook
        what = ".".join(place(known.build)) if known.is_custom else "a built-in model"
        raise InputError(f"register_model: the name {entry.name!r} is {what}. Choose another name.")
