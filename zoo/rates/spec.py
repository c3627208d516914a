"""What may be said of the rate of a part: keys that name parts, and the settings of one key.

A key is a plain prefix of parameter names (`backbone.`), a kind of layer (`@norm`), both (`backbone@norm`), or
`default` for the rest. Its value is a rate, or settings of which every one is optional.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, get_args

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
)

from zoo._fields import Options, explain, shown
from zoo.errors import PlanError, did_you_mean

Kind = Literal["conv", "norm", "linear", "bias"]
KINDS: tuple[str, ...] = get_args(Kind)
DEFAULT = "default"
MOST_LISTED = 20  # problems in one error


class Key(NamedTuple):
    """What a key catches: names that begin with `prefix`, of parameters of one kind or of any."""

    text: str
    prefix: str
    kind: str | None


class DecayEvery(Options):
    """A rate that is multiplied by `factor` again and again, as OneFlow's eager loop does with its `lr_scale`."""

    steps: int = Field(ge=1, description="optimizer steps between multiplications")
    factor: float = Field(ge=0, description="factor on the learning rate each time")
    start: int | None = Field(default=None, ge=0, description="first step with the new learning rate; null: `steps`")

    def count(self, step: int) -> int:
        """Return how often the rate has been multiplied when this step is taken."""
        start = self.steps if self.start is None else self.start
        return 0 if step < start else 1 + (step - start) // self.steps

    def multiplier(self, step: int) -> float:
        """Return the product of all multiplications before this step."""
        return float(self.factor ** self.count(step))


def _to_plain(value: Any) -> Any:
    """Make arrays, tensors and tuples lists, and their single numbers numbers."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    return list(plain) if isinstance(plain, tuple) else plain


class GroupSettings(Options):
    """What one key says of its parameters; None: what the run says of all."""

    lr: Annotated[NonNegativeFloat | list[NonNegativeFloat] | None, BeforeValidator(_to_plain)] = Field(
        default=None, description="learning rate, or one per optimizer step; null: that of 'default'; 0 freezes"
    )
    lr_scale: Annotated[NonNegativeFloat, BeforeValidator(_to_plain)] = Field(
        default=1.0, description="factor on the learning rate during the whole run"
    )
    schedule: Any = Field(default=None, description="own schedule: a name, or a mapping with 'kind'")
    decay_every: DecayEvery | None = Field(
        default=None, description="repeated decay of the learning rate: {steps, factor}"
    )
    weight_decay: Annotated[NonNegativeFloat | None, BeforeValidator(_to_plain)] = Field(
        default=None, description="weight decay"
    )
    weight_decay_schedule: Any = Field(default=None, description="schedule of the weight decay")
    gradient_centralization: bool | None = Field(default=None, description="subtract the mean of each gradient")
    clip_grad_norm: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="maximum gradient norm of these parameters (clipping)"
    )
    unfreeze_at: int | None = Field(default=None, ge=0, description="epochs before it is unfrozen")
    optimizer_params: dict[str, Any] = Field(default={}, description="optimizer arguments for these parameters only")

    @field_validator("lr")
    @classmethod
    def _has_rates(cls, lr: float | list[float] | None) -> float | list[float] | None:
        if lr == []:
            raise ValueError("lr is an empty list; expected one rate per optimizer step.")
        return lr

    @model_serializer(mode="wrap")
    def _only_what_is_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if name in self.model_fields_set}

    @property
    def said(self) -> dict[str, Any]:
        """The settings that were given, by name."""
        return {name: getattr(self, name) for name in self.model_fields_set if getattr(self, name) is not None}


Rate = NonNegativeFloat | GroupSettings


GivenRate: TypeAlias = float | Sequence[float] | Mapping[str, Any] | GroupSettings  # a list: one rate per step
GivenRates: TypeAlias = float | Mapping[str, GivenRate]


class Prefixes:
    """Prefixes of names; `longest` finds the one that holds for a name, however many there are."""

    def __init__(self, prefixes: Iterable[str]) -> None:
        self._known = frozenset(prefixes)
        self._lengths = sorted({len(prefix) for prefix in self._known}, reverse=True)

    def longest(self, *names: str) -> str | None:
        """Return the longest prefix that one of the names of a parameter begins with."""
        for length in self._lengths:
            for name in names:
                if name[:length] in self._known:
                    return name[:length]
        return None


def parse_key(text: Any) -> Key:
    """Read a key: `backbone.`, `@norm`, `backbone@norm` or `default`.

    Raises:
        PlanError: It is no text, is empty, or names a kind of layer that is not known.
    """
    if not isinstance(text, str) or not text:
        raise PlanError(f"key {text!r} is not a parameter-name prefix. Expected, for example, 'head' or '@norm'.")
    prefix, at, kind = text.partition("@")
    if at and kind not in KINDS:
        near = did_you_mean(kind, KINDS)
        raise PlanError(f"key {text!r} names an unknown layer kind {kind!r}.{near} Known: {', '.join(KINDS)}.")
    if at and prefix == DEFAULT:
        raise PlanError(
            f"key {text!r} means the same as '@{kind}', which applies where no more specific key does. Use that."
        )
    return Key(text, "" if prefix == DEFAULT else prefix, kind if at else None)


def read_rates(rates: Mapping[str, Any]) -> dict[str, GroupSettings]:
    """Return the settings of every key.

    Args:
        rates: Key → rate, settings, or a mapping of settings; with a `"default"`.

    Raises:
        PlanError: Listing everything that is wrong.
    """
    spec: dict[str, GroupSettings] = {}
    problems: list[str] = []
    wrong: list[str] = []
    for text, value in rates.items():
        try:
            parse_key(text)
        except PlanError as error:
            problems.append(str(error))
            continue
        if isinstance(value, GroupSettings):
            spec[text] = value
        elif is_rate(value):
            spec[text] = GroupSettings(lr=float(value))
        elif isinstance(value, Mapping):
            spec[text], found = read_settings(value)
            problems += [f"{text!r}: {problem}" for problem in found]
        else:
            wrong.append(f"{text!r} is {shown(value)}" + ("" if _is_number(value) else f" ({type(value).__name__})"))
    if wrong:
        problems.append(f"{'; '.join(wrong)}. Expected a finite number, 0 or more; 0 freezes.")
    if DEFAULT not in rates:
        problems.append(
            f"the mapping {shown(dict(rates))} has no 'default', the learning rate of all other parameters. Add it; "
            "0 freezes."
        )
    raise_all("lr plan", problems)
    return spec


def raise_all(where: str, problems: Sequence[str]) -> None:
    """Raise one error of all sentences that say what is wrong; do nothing if there is none.

    Raises:
        PlanError: One line for each.
    """
    if len(problems) == 1:
        raise PlanError(f"{where}: {problems[0]}")
    if problems:
        hidden = f"and {len(problems) - MOST_LISTED} more."
        lines = [*problems[:MOST_LISTED], *[hidden] * (len(problems) > MOST_LISTED)]
        raise PlanError("\n  ".join([f"{where}: {len(problems)} errors.", *lines]))


def read_settings(values: Mapping[Any, Any]) -> tuple[GroupSettings, list[str]]:
    """Return the settings of one key, and all that is wrong with them, as sentences."""
    strange = [key for key in values if not isinstance(key, str)]
    if strange:
        return GroupSettings(), [
            f"the settings {', '.join(map(repr, strange))} are not strings. Expected, for example, 'lr'."
        ]
    try:
        return GroupSettings(**values), []
    except ValidationError as error:
        told = explain(
            error, values, GroupSettings.model_fields, lambda key: did_you_mean(key, GroupSettings.model_fields)
        )
        return GroupSettings(), [sentence for _, sentence in told]


def peak_lr(said: Mapping[str, Any]) -> float:
    """Return the rate that settings with `lr` come to, the highest one if it is a list."""
    lr = said["lr"]
    return float(said.get("lr_scale", 1.0) * (max(lr) if isinstance(lr, list) else lr))


def is_rate(value: Any) -> bool:
    """Whether a value is a finite number of 0 or more."""
    return _is_number(value) and math.isfinite(value) and bool(value >= 0)


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real)
