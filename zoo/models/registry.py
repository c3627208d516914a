"""Names of models and what is known of each, as data that can be read without loading any framework."""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo.data import Preprocessing
from zoo.errors import InputError
from zoo.weights import FileWeights, ReadForeign, Weights

Shapes = Mapping[str, tuple[int, ...]]

_ENTRIES: dict[str, "Entry"] = {}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One model.

    Attributes:
        name: Registry name, as for `zoo.get`.
        task: What it does, for example `classification`.
        build: Makes the network, randomly initialised: `build(num_classes=..., **options)`.
        summary: One line on what it is.
        parameters: Millions of parameters, with the classes of its weights; None if not known before it is built.
        preprocess: What its weights expect of an image.
        postprocess: Of a detector: which boxes are kept, as the fields of `zoo.tasks.detection.Postprocess`.
        weights: Where pretrained weights are; None if there are none.
        num_classes: Classes of the weights, and of a new model if nothing else is said; None: it has to be said.
        classes: Names of the classes of the weights; empty: those of ImageNet-1k if there are 1000.
        code_licence: Licence of the architecture's code.
        paper: Where it was published.
        aliases: Other names for it.
        options: Keyword arguments of `build` that a saved configuration may set, and the values allowed.
        read_options: Of names and shapes in a file of weights to the options that they are for; None: there is no need.
        read_foreign: Reads files of another program, as `zoo.weights.find_weights` takes it; None: safetensors only.
        is_custom: Whether a user registered it: any module, of which nothing but `forward` is known.
    """

    name: str
    task: str
    build: Callable[..., Any]
    summary: str
    parameters: float | None
    preprocess: Preprocessing
    postprocess: Mapping[str, Any] | None = None
    weights: Weights | FileWeights | None
    num_classes: int | None = 1000
    classes: tuple[str, ...] = ()
    code_licence: str = "Apache-2.0"
    paper: str = ""
    aliases: tuple[str, ...] = ()
    options: Mapping[str, Container[Any]] = field(default_factory=dict)
    read_options: Callable[[Shapes], dict[str, Any]] | None = None
    read_foreign: ReadForeign | None = None
    is_custom: bool = False

    def describe(self) -> dict[str, Any]:
        """Return the entry as plain values, for tables and cards."""
        weights = None if self.weights is None else self.weights.describe()
        left_out = ("build", "options", "read_options", "read_foreign", "preprocess", "weights", "is_custom")
        facts = {key: value for key, value in vars(self).items() if key not in left_out}
        facts |= {"aliases": list(self.aliases), "preprocess": self.preprocess.to_dict(), "weights": weights}
        if self.postprocess is None:  # what only some models have
            facts.pop("postprocess")
        else:
            facts["postprocess"] = dict(self.postprocess)
        if classes := facts.pop("classes"):
            facts["classes"] = list(classes)
        return facts


def register(**facts: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as the builder of the model of its name.

    Args:
        facts: Fields of `Entry` except `name`, `build` and `summary` (the first line of the function's docstring).
    """

    def add(build: Callable[..., Any]) -> Callable[..., Any]:
        entry = Entry(name=build.__name__, build=build, summary=summarise(build), **facts)
        if entry.name in _ENTRIES:
            raise InputError(f"model {entry.name!r} is already registered. Choose another name.")
        add_entry(entry)
        return build

    return add


def add_entry(entry: Entry) -> None:
    """Register a model; one of the same name is replaced."""
    _ENTRIES[entry.name] = entry


def summarise(build: Callable[..., Any]) -> str:
    """Return the first line of the documentation, without its full stop."""
    return (build.__doc__ or "").strip().partition("\n")[0].rstrip(".")


def entries() -> Mapping[str, Entry]:
    """Return what has been registered so far, by name."""
    return dict(_ENTRIES)
