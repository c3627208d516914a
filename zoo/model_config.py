"""`config.json`: what a checkpoint says of its model, in this package's form or in timm's. It is untrusted input.

Only known keys are read, with types and bounds; the network is built by its registry name, never by a path or a class
that the file names.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zoo.errors import WeightsError
from zoo.preprocess import Preprocess
from zoo.registry import Entry
from zoo.version import VERSION

Name = Annotated[str, Field(min_length=1, max_length=1000)]


class ModelConfig(BaseModel):
    """What is needed to build a model again and to use it as it was trained.

    Attributes:
        model: Registry name; None for a network that is not in the registry.
        task: What it does.
        num_classes: Number of outputs.
        classes: Their names.
        options: Keyword arguments of the builder.
        preprocess: What it expects of an image, as `Preprocess.to_dict()`.
        licence: Licence of the weights that it was loaded or derived from.
        origin: Where those came from: place, revision, SHA-256, seed of new layers.
        zoo: Version that wrote the file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())

    model: Name | None = None
    task: Name = "classification"
    num_classes: Annotated[int, Field(ge=1, le=100_000)] | None = None
    classes: list[Name] | None = None
    options: dict[Name, bool | int | float | str] = Field(default_factory=dict)
    preprocess: dict[str, Any] | None = None
    licence: Name | None = None
    origin: dict[Name, bool | int | str | None] = Field(default_factory=dict)
    zoo: Name = VERSION

    @property
    def names(self) -> tuple[str, ...] | None:
        """The class names, if the file tells them."""
        return tuple(self.classes) if self.classes else None

    @property
    def preprocess_value(self) -> Preprocess | None:
        """The preprocessing, if the file tells it."""
        return Preprocess.from_dict(self.preprocess) if self.preprocess else None

    @classmethod
    def parse(cls, raw: Mapping[str, Any], origin: str) -> "ModelConfig":
        """Read a configuration of either form.

        Args:
            raw: The parsed JSON object.
            origin: Where it is from, for messages.

        Raises:
            WeightsError: Listing every key that is unknown, missing or out of range.
        """
        try:
            known = _from_timm(raw) if "architecture" in raw else dict(raw)
            config = cls.model_validate(known)
            if config.classes and config.num_classes not in (None, len(config.classes)):
                raise ValueError(f"num_classes is {config.num_classes} and there are {len(config.classes)} classes")
            _ = config.preprocess_value
        except ValidationError as error:
            found = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise WeightsError(_refusal(origin, found)) from error
        except (TypeError, ValueError, AttributeError) as error:
            raise WeightsError(_refusal(origin, str(error))) from error
        return config

    def fitting(self, entry: Entry) -> "ModelConfig":
        """Return this configuration if it is one of the entry's model, with options that the entry allows.

        Raises:
            WeightsError: If it describes another model, or asks for an option that is not allowed.
        """
        if self.model is not None and _bare(self.model) != _bare(entry.name):
            raise WeightsError(
                f"these weights are for {self.model}, not for {entry.name}. Ask for {self.model} instead."
            )
        for key, value in self.options.items():
            is_share = type(value) in (int, float) and 0 <= float(value) < 1
            allowed = is_share if key == "drop_rate" else value in entry.options.get(key, ())
            if not allowed:
                raise WeightsError(
                    f"the configuration of these weights sets the option {key}={value!r}; {entry.name} allows "
                    f"{dict(entry.options) | {'drop_rate': '0 to 1'}}. Use weights made for this model."
                )
        return self

    def derived(self, entry: Entry, options: Mapping[str, Any], licence: str | None, **origin: Any) -> "ModelConfig":
        """Return the configuration of a model that was just built: without classes, which may still change."""
        facts = self.origin | origin
        return ModelConfig(model=entry.name, task=entry.task, options=dict(options), licence=licence, origin=facts)


def _from_timm(raw: Mapping[str, Any]) -> dict[str, Any]:
    facts: Mapping[str, Any] = raw.get("pretrained_cfg") or raw
    sides = facts.get("input_size") or (3, 224, 224)
    if len(sides) != 3 or sides[0] != 3 or sides[1] != sides[2]:
        raise ValueError(f"input_size is {sides}; expected [3, side, side]")
    known = Preprocess()
    preprocess = Preprocess(
        image_size=sides[1],
        mean=tuple(facts.get("mean", known.mean)),
        std=tuple(facts.get("std", known.std)),
        interpolation=facts.get("interpolation", known.interpolation),
        crop_pct=facts.get("crop_pct", known.crop_pct),
    )
    return {
        "model": raw["architecture"],
        "num_classes": raw.get("num_classes"),
        "classes": raw.get("label_names"),
        "options": dict(raw.get("model_args") or {}),
        "preprocess": preprocess.to_dict(),
        "licence": facts.get("license"),
    }


def _bare(name: str) -> str:
    """Return the architecture of a name: without `timm/` and without the tag."""
    return name.removeprefix("timm/").partition(".")[0]


def _refusal(origin: str, found: str) -> str:
    return f"config.json of {origin}: {found}. Expected the file of a zoo run or of a timm model."
