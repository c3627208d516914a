"""`config.json`: what a checkpoint says of its model, in this package's form or in timm's. It is untrusted input.

Only known keys are read, with types and bounds; the network is built by its registry name, never by a path or a class
that the file names.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from zoo._model import ask, get_fact, get_task, known_config, set_fact
from zoo._version import VERSION
from zoo.data import Preprocess, Preprocessing, read_preprocessing
from zoo.errors import ExportedError, InputError, WeightsError, did_you_mean
from zoo.models.registry import Entry
from zoo.tasks import DEFAULT_TASK

if TYPE_CHECKING:
    from zoo.tasks.detection import Postprocess

MAX_CLASSES = 100_000
MAX_SIDE = 8192  # pixels
SEEDS = (-(2**63), 2**64 - 1)  # that torch.manual_seed takes
Name = Annotated[str, Field(min_length=1, max_length=1000)]


class ModelConfig(BaseModel):
    """What is needed to build a model again and to use it as it was trained.

    Attributes:
        model: Registry name; None for a network that is not in the registry.
        task: What it does.
        num_classes: Number of outputs.
        classes: Their names.
        options: Keyword arguments of the builder.
        preprocess: What it expects of an image, as the `to_dict()` of a `Preprocessing`.
        postprocess: Of a detector: which boxes are kept, as the fields of `Postprocess`.
        thresholds: Of a classifier with several labels: from which probability on each is named.
        licence: Licence of the weights that it was loaded or derived from.
        origin: Where those came from: place, revision, SHA-256, seed of new layers.
        zoo: Version that wrote the file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())

    model: Name | None = None
    task: Name = "classification"
    num_classes: Annotated[int, Field(ge=1, le=MAX_CLASSES)] | None = None
    classes: list[Name] | None = None
    options: dict[Name, bool | int | float | str] = Field(default_factory=dict)
    preprocess: dict[str, Any] | None = None
    postprocess: dict[str, Any] | None = None
    thresholds: list[Annotated[float, Field(ge=0, le=1)]] | None = None
    licence: Name | None = None
    origin: dict[Name, bool | int | str | None] = Field(default_factory=dict)
    zoo: Name = VERSION

    @model_serializer(mode="wrap")
    def _without_nothing(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what only some classifiers have: earlier versions refuse a key that they do not know."""
        values: dict[str, Any] = handler(self)
        return {key: value for key, value in values.items() if key != "thresholds" or value is not None}

    @property
    def names(self) -> tuple[str, ...] | None:
        """The class names, if the file tells them."""
        return tuple(self.classes) if self.classes else None

    @property
    def preprocess_value(self) -> Preprocessing | None:
        """The preprocessing, if the file tells it."""
        return read_preprocessing(self.preprocess) if self.preprocess else None

    @property
    def init_seed(self) -> int:
        """The seed that new layers were made with; 0 if the file does not tell it."""
        seed = self.origin.get("init_seed")
        if seed is not None and (type(seed) is not int or not SEEDS[0] <= seed <= SEEDS[1]):
            raise ValueError(f"origin: init_seed is {seed!r}; expected an integer of 64 bits")
        return int(seed or 0)

    @classmethod
    def parse(cls, raw: Mapping[str, Any], origin: str) -> "ModelConfig":
        """Read a configuration of either form.

        Args:
            raw: The parsed JSON object.
            origin: Where it is from, for messages.

        Raises:
            ExportedError: It is that of an exported model.
            WeightsError: Listing every key that is unknown, missing or out of range.
        """
        if isinstance(raw, Mapping) and "export" in raw:
            raise ExportedError(
                f"{origin} is an exported model: it predicts (zoo predict, zoo.load), and has no weights to train. "
                "Use the run or the model that it was exported from."
            )
        try:
            _check_object("it", raw)
            config = cls.model_validate(_from_timm(raw) if "architecture" in raw else dict(raw))
            if config.classes and config.num_classes not in (None, len(config.classes)):
                raise ValueError(f"num_classes is {config.num_classes}, but there are {len(config.classes)} classes")
            if config.thresholds is not None and len(config.thresholds) != len(config.classes or ()):
                raise ValueError(
                    f"there are {len(config.thresholds)} thresholds for {len(config.classes or ())} classes"
                )
            _ = config.init_seed, config.postprocess and make_postprocess(config.postprocess)
            _check_resize(config.preprocess_value)
        except ValidationError as error:
            raise WeightsError(_refusal(origin, _word(error))) from error
        except ValueError as error:
            raise WeightsError(_refusal(origin, str(error))) from error
        return config.model_copy(update={"num_classes": len(config.classes)}) if config.classes else config

    def fitting(self, entry: Entry) -> "ModelConfig":
        """Return this configuration if it is one of the entry's model, with options that the entry allows.

        Raises:
            WeightsError: If it describes another model, or asks for an option that is not allowed.
        """
        if self.model is not None and _bare(self.model) != _bare(entry.name):
            raise WeightsError(f"these weights are for {self.model}, not for {entry.name}. Use {self.model} instead.")
        kinds = type(self.preprocess_value), type(entry.preprocess)
        if self.preprocess and kinds[0] is not kinds[1]:
            raise WeightsError(
                f"the configuration of these weights has preprocessing of type {kinds[0].__name__}; {entry.name} "
                f"needs {kinds[1].__name__}. Use weights of this model."
            )
        for key, value in self.options.items():
            is_share = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1
            allowed = is_share if key == "drop_rate" else value in entry.options.get(key, ())
            if not allowed:
                raise WeightsError(
                    f"the configuration of these weights sets the option {key}={value!r}; {entry.name} supports "
                    f"{dict(entry.options) | {'drop_rate': '0 to 1'}}. Use weights of this model."
                )
        return self

    def derived(self, entry: Entry, options: Mapping[str, Any], licence: str | None, **origin: Any) -> "ModelConfig":
        """Return the configuration of a model that was just built: without classes, which may still change."""
        facts = self.origin | origin
        return ModelConfig(model=entry.name, task=entry.task, options=dict(options), licence=licence, origin=facts)


def describe_model(model: Any) -> ModelConfig:
    """Return the configuration that a checkpoint of this model carries, with its classes and settings of the moment."""
    from zoo.tasks.detection import Postprocess

    facts = dict(known_config(model))
    if ask(model, "is_altered", False):  # its name would build another network
        facts |= {"model": None, "options": {}}
    classes, preprocess = get_fact(model, "classes"), get_fact(model, "preprocess")
    facts |= {"classes": list(classes) if classes else None, "num_classes": len(classes) if classes else None}
    facts["preprocess"] = preprocess.to_dict() if isinstance(preprocess, Preprocessing) else None
    thresholds = get_fact(model, "thresholds")
    facts |= {"task": get_task(model, DEFAULT_TASK), "thresholds": list(thresholds) if thresholds else None}
    if "in_channels" in facts.get("options", {}):  # they can be replaced
        facts["options"] = facts["options"] | {"in_channels": model.in_channels}
    if isinstance(postprocess := getattr(model, "postprocess", None), Postprocess):
        facts["postprocess"] = asdict(postprocess)
    return ModelConfig(**facts)


def adopt_thresholds(model: Any, config: ModelConfig) -> None:
    """Give a model the thresholds of a configuration, and the task that has them, if they are of its classes."""
    fits = config.task.partition(".")[0] == get_task(model, DEFAULT_TASK).partition(".")[0]
    if fits and config.thresholds and len(config.thresholds) == len(get_fact(model, "classes", ())):
        set_fact(model, "task", config.task)
        set_fact(model, "thresholds", tuple(config.thresholds))


def make_postprocess(values: Mapping[str, Any]) -> "Postprocess":
    """Make the settings of a detector's outputs; fields that are missing have their defaults.

    Raises:
        InputError: If a key is unknown or a value out of range.
    """
    from zoo.tasks.detection import Postprocess

    names = [field.name for field in fields(Postprocess)]
    for key in values:
        if key not in names:
            raise InputError(
                f"postprocess: unknown key {key!r}.{did_you_mean(str(key), names)} Expected {', '.join(names)}."
            )
    return Postprocess(**values)


def _from_timm(raw: Mapping[str, Any]) -> dict[str, Any]:
    facts, options = raw.get("pretrained_cfg") or raw, raw.get("model_args") or {}
    _check_object("pretrained_cfg", facts)
    _check_object("model_args", options)
    sides = facts.get("input_size") or [3, 224, 224]
    if not isinstance(sides, list) or len(sides) != 3 or sides[0] != 3 or sides[1] != sides[2]:
        raise ValueError(f"input_size is {sides!r}; expected [3, side, side]")
    stated = {key: facts[key] for key in Preprocess().to_dict() if facts.get(key) is not None}
    repeated = {"num_classes": (raw.get("num_classes"),), "in_chans": (3,), "img_size": (sides[1], sides[1:])}
    return {
        "model": raw["architecture"],
        "num_classes": raw.get("num_classes"),
        "classes": raw.get("label_names"),
        "options": {key: value for key, value in options.items() if value not in repeated.get(key, ())},
        "preprocess": Preprocess().to_dict() | stated | {"image_size": sides[1]},
        "licence": facts.get("license"),
    }


def _check_resize(preprocess: Preprocessing | None) -> None:
    """Refuse a crop so small that images would be resized to fill the memory before it."""
    if preprocess is not None and preprocess.resized_side > MAX_SIDE:
        values = preprocess.to_dict()
        raise ValueError(
            f"crop_pct is {values.get('crop_pct')!r} with an image_size of {values.get('image_size')}; expected "
            f"images resized to at most {MAX_SIDE} pixels"
        )


def _check_object(name: str, value: object) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} is a {type(value).__name__}; expected an object")


def _word(error: ValidationError) -> str:
    """Say what is wrong with each key, once for a key of which several types are allowed."""
    found: dict[str, str] = {}
    for problem in error.errors():
        place = problem["loc"]
        if problem["type"] == "extra_forbidden":
            found[str(place[0])] = f"unknown key {place[0]!r}"
        elif place[0] in ("options", "origin") and len(place) > 2:
            found[str(place[1])] = f"{place[0]}.{place[1]}: Input should be a plain value"
        else:
            found[str(place)] = f"{'.'.join(map(str, place))}: {problem['msg']}"
    return "; ".join(found.values())


def _bare(name: str) -> str:
    """Return the architecture of a name: without `timm/` and without the tag."""
    return name.removeprefix("timm/").partition(".")[0]


def _refusal(origin: str, found: str) -> str:
    return f"config.json of {origin}: {found.rstrip('.')}. Expected the config.json of a zoo run or a timm model."
