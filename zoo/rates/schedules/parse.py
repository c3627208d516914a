"""From a name, a mapping, a function or a torch scheduler to one schedule.

One flat mapping says all: `{"kind": "cosine", "warmup_epochs": 1, "final_ratio": 0.01}`. A text is the kind alone.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, Union

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from zoo._fields import in_words, shown
from zoo.errors import InputError, did_you_mean
from zoo.rates.schedules.base import Clock, Curve, Schedule, downwards
from zoo.rates.schedules.curves import CURVES
from zoo.rates.schedules.super_gradients import REFERENCES, Reading, Recorded, Reference, Run, read_rates
from zoo.rates.schedules.torch import Plateau, TorchScheduler, is_scheduler, makes_scheduler, read_scheduler

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler

__all__ = [
    "COMPAT",
    "Clock",
    "Plateau",
    "Schedule",
    "list_schedules",
    "parse_schedule",
    "register_schedule",
    "to_plain",
]

COMPAT = "super-gradients"
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

Given = Union[str, Mapping[str, Any], Callable[..., Any], Schedule, "LRScheduler"]
_Function = TypeVar("_Function", bound=Callable[..., Any])
_Model = TypeVar("_Model", bound=BaseModel)

_REGISTERED: dict[str, Callable[..., Any]] = {}


def parse_schedule(value: Given, defaults: Mapping[str, Any] | None = None, compat: str | None = None) -> Schedule:
    """Make a schedule.

    Args:
        value: A kind (`list_schedules` names them); a mapping with `kind`, the keys of the kind, and those of the
            warm-up (see `zoo.rates.schedules.base.Curve`); a function `f(step)` or `f(step, clock)` that returns the
            factor of
            an optimizer step; a scheduler of torch, its class, or a `functools.partial` of it; or a schedule, which
            is returned as it is.
        defaults: What counts where the mapping says nothing: `warmup_epochs`, `warmup_steps`, `warmup_start`,
            `warmup_start_lr`, `warmup`, `cooldown_epochs`, and `final_lr_ratio` for the cosine. With `largest_rate`,
            the largest rate of all groups, `warmup_start_lr` becomes one ratio for all, so that no group warms
            downwards. None counts as not set; other keys are not looked at.
        compat: `super-gradients` for its exact sequence of rates, see `zoo.rates.schedules.super_gradients`; a mapping
        may say it too.
            `warmup_epochs` and `cooldown_epochs` are whole numbers then, `warmup` is `epoch` or `batch`,
            `warmup_start_lr` the absolute start of every group, and a function gets `initial_lr`, `epoch`, `iter`,
            `max_epoch` and `iters_per_epoch` and returns a rate.

    Raises:
        InputError: With everything that is wrong.
    """
    if isinstance(value, Schedule):
        return value
    values = _to_mapping(value)
    compat = values.pop("compat", compat)
    given = {key: default for key, default in (defaults or {}).items() if default is not None}
    if compat is None:
        curve = _choose(values, _CURVES, _FunctionCurve)
        return _build(curve, _with_defaults(_complete(values, curve), given))
    if compat != COMPAT:
        raise InputError(f"compat is {shown(compat)}; expected {COMPAT!r}, or null.")
    reference = _choose(values, REFERENCES, REFERENCES["function"])
    return _Compatible(_build(reference, _with_reference_defaults(_complete(values, reference), given)))


def to_plain(
    value: Given,
    clock: Clock,
    *,
    compat: str | None = None,
    defaults: Mapping[str, Any] | None = None,
    bases: Sequence[float] = (1.0,),
) -> Any:
    """Return a schedule as a preset can hold it: names and mappings as they are, functions as lists of what they give.

    Args:
        value: What `parse_schedule` takes.
        clock: The run that the list is made for.
        compat: As in `parse_schedule`.
        defaults: As in `parse_schedule`; a list of rates contains the warm-up that they describe.
        bases: The groups' own rates. A function of super-gradients gives rates, not factors: one list for each.
    """
    if isinstance(value, str) or (isinstance(value, Mapping) and not any(map(callable, value.values()))):
        return value
    schedule = parse_schedule(value, defaults, compat)
    values = schedule.fixed(clock, bases).to_dict()
    if isinstance(schedule, _Compatible):
        return values
    return {key: item for key, item in values.items() if key == "kind" or key not in Curve.model_fields}


def register_schedule(name: str) -> Callable[[_Function], _Function]:
    """Register the decorated function `f(step)` or `f(step, clock)` as a kind, so that a preset can name it.

    Raises:
        InputError: The name is taken.
    """
    if not isinstance(name, str):
        raise InputError("register_schedule: the name is missing. Write @register_schedule('name').")

    def add(function: _Function) -> _Function:
        if name in list_schedules():
            raise InputError(f"schedule {name!r} is already registered. Choose another name.")
        _REGISTERED[name] = function
        return function

    return add


def list_schedules() -> list[str]:
    """Return the names of all kinds, those registered included."""
    return sorted({**_CURVES, **_REGISTERED})


class _FunctionCurve(Curve):
    """Factors that a function of the caller's gives, asked once for every step of a run."""

    counts_from_start: ClassVar[bool] = True

    function: Callable[..., Any] = Field(description="a function of the step")

    def factor_at(self, position: int, clock: Clock) -> float:
        return self._table(clock)[position]

    def label_at(self, position: int, clock: Clock) -> str:
        return f"{_called(self.function)}({position})"

    def check(self, clock: Clock) -> None:
        super().check(clock)
        self._table(clock)

    def to_dict(self) -> dict[str, Any]:
        return _without_function(super().to_dict())

    def fixed(self, clock: Clock, bases: Sequence[float]) -> Schedule:
        if self.kind in _REGISTERED:
            return self
        values = {key: value for key, value in self.to_dict().items() if key != "name"}
        return parse_schedule(values | {"kind": "list", "values": self._table(clock)})

    @cached_property
    def tables(self) -> dict[Clock, list[float]]:
        return {}

    def _table(self, clock: Clock) -> list[float]:
        if clock not in self.tables:
            further = (clock,) if _takes_clock(self.function) else ()
            factors = (self.function(step, *further) for step in range(clock.steps))
            self.tables[clock] = _checked(factors, f"schedule {_called(self.function)!r}")
        return self.tables[clock]


class _TorchCurve(Curve):
    """The rates of a torch scheduler that starts at the group's own."""

    may_settle: ClassVar[bool] = False

    scheduler: Any = Field(description="a name of torch.optim.lr_scheduler, or a scheduler")
    per: Literal["step", "epoch"] = "epoch"

    def value_at(self, position: int, clock: Clock, base: float) -> float:
        return self._table(clock, base)[self._calls(position, clock)]

    def label_at(self, position: int, clock: Clock) -> str:
        calls = self._calls(position, clock)
        return f"{self.scheduler.name} after {calls} {self.per}{'s' * (calls != 1)}"

    def check(self, clock: Clock) -> None:
        super().check(clock)
        if not self.scheduler.is_made:  # one that is made already only knows the rates of its own optimizer
            self._table(clock, 1.0)

    def to_dict(self) -> dict[str, Any]:
        arguments: dict[str, Any] = self.scheduler.to_dict()
        return super().to_dict() | arguments

    @cached_property
    def tables(self) -> dict[tuple[Clock, float], list[float]]:
        return {}

    def _calls(self, position: int, clock: Clock) -> int:
        """Return how often the scheduler has been stepped: after every step, or at the end of every epoch."""
        if self.per == "step":
            return position
        before = 0 if self.warmup_over else self.rise(clock)
        return (before + position) // clock.steps_per_epoch - before // clock.steps_per_epoch

    def _table(self, clock: Clock, base: float) -> list[float]:
        if (clock, base) not in self.tables:
            last = self.last(clock)
            count = 1 + (last if self.per == "step" else last // clock.steps_per_epoch)
            self.tables[clock, base] = _checked(self.scheduler.rates(base, count), self.scheduler.name)
        return self.tables[clock, base]


_CURVES: Mapping[str, type[Curve]] = {**CURVES, "function": _FunctionCurve, "torch": _TorchCurve}


@dataclass(frozen=True)
class _Compatible(Schedule):
    """The sequence of super-gradients."""

    settings: Reference

    def __hash__(self) -> int:
        return hash(str(self.to_dict()))

    def rate(self, step: int, clock: Clock, base: float) -> float:
        return self._reading(step, clock, base).rate

    def terms(self, step: int, clock: Clock, base: float) -> tuple[tuple[str, float], ...]:
        rate, source = self._reading(step, clock, base)
        return ((f"{COMPAT} {source}", rate / base if base else 0.0),)

    def to_dict(self) -> dict[str, Any]:
        values = {name: getattr(self.settings, name) for name in type(self.settings).model_fields}
        plain = {name: _tuples_to_lists(value) for name, value in values.items() if value is not None}
        plain |= {"compat": COMPAT}
        return _without_function(plain) | (self._scheduler.to_dict() if self._scheduler else {})

    def check(self, clock: Clock) -> None:
        if isinstance(self.settings, Recorded):
            for base in map(float, self.settings.rates):
                self._table(clock, base)
        elif not (self._scheduler and self._scheduler.is_made):
            self._table(clock, 1.0)

    def fixed(self, clock: Clock, bases: Sequence[float]) -> Schedule:
        if self.settings.kind not in ("function", "recorded"):
            return self
        shared = {name: getattr(self.settings, name) for name in Reference.model_fields if name != "kind"}
        rates = {repr(base): tuple(reading.rate for reading in self._table(clock, base)) for base in bases}
        return _Compatible(Recorded(kind="recorded", rates=rates, **shared))

    def is_settled(self, step: int, clock: Clock) -> bool:
        if self._scheduler or isinstance(self.settings, Recorded):
            return False
        readings = self._table(clock, 1.0)[min(step, clock.steps - 1) :]
        return all(math.isclose(reading.rate, 1.0, rel_tol=1e-12) for reading in readings)

    @cached_property
    def tables(self) -> dict[tuple[Clock, float], list[Reading]]:
        return {}

    @property
    def _scheduler(self) -> TorchScheduler | None:
        return getattr(self.settings, "scheduler", None)

    def _reading(self, step: int, clock: Clock, base: float) -> Reading:
        if step < 0:
            raise InputError(f"step is {step}; expected 0 or more.")
        table = self._table(clock, base)
        return table[min(step, len(table) - 1)]

    def _table(self, clock: Clock, base: float) -> list[Reading]:
        if (clock, base) not in self.tables:
            stepper = self._scheduler.start(base) if self._scheduler else None
            run = Run(clock.epochs, clock.batches, clock.accumulate, whole_epochs=True)
            readings = read_rates(self.settings, run, base, stepper)
            _checked((reading.rate for reading in readings), f"schedule {self.settings.kind!r} of {COMPAT}")
            self.tables[clock, base] = readings
        return self.tables[clock, base]


def _to_mapping(value: Given) -> dict[str, Any]:
    """Return a fresh mapping with `kind`, without keys that are None."""
    if isinstance(value, str):
        return {"kind": value}
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items() if item is not None}
    if is_scheduler(value) or makes_scheduler(value):
        return {"kind": "torch", "scheduler": value}
    if callable(value):
        name = next((name for name, function in _REGISTERED.items() if function is value), None)
        return {"kind": name} if name else {"kind": "function", "function": value}
    expected = "a name such as 'cosine', a mapping with 'kind', a function of the step or a torch scheduler"
    raise InputError(f"schedule is {shown(value)}; expected {expected}.")


def _choose(values: Mapping[str, Any], kinds: Mapping[str, type[_Model]], function: type[_Model]) -> type[_Model]:
    """Return the model of a kind; all that is registered shares one."""
    known = {**kinds, **dict.fromkeys(_REGISTERED, function)}
    kind = values.get("kind")
    if kind is None:
        raise InputError(f"schedule {shown(dict(values))} has no 'kind'. Add it; known: {', '.join(sorted(known))}.")
    if not isinstance(kind, str) or kind not in known:
        names = ", ".join(sorted(known))
        raise InputError(f"unknown schedule {shown(kind)}.{did_you_mean(str(kind), known)} Known: {names}.")
    return known[kind]


def _complete(values: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Put in the function of a registered kind, and gather the arguments of a torch scheduler."""
    if values["kind"] in _REGISTERED:
        return values | {"function": _REGISTERED[values["kind"]]}
    if values["kind"] == "function" and "function" not in values:
        name = values.get("name", "function")
        raise InputError(
            f"schedule {name!r} is a Python function and cannot be saved to a file. Pass it again, or register it "
            f"with @register_schedule({name!r}) and write {{'kind': {name!r}}}."
        )
    if values["kind"] != "torch" or "scheduler" not in values:
        return values
    own = {key: value for key, value in values.items() if key in model.model_fields}
    arguments = {key: value for key, value in values.items() if key not in own}
    scheduler = read_scheduler(own["scheduler"], arguments, keys=list(model.model_fields))
    pace = {"per": scheduler.usual_pace} if "per" in model.model_fields else {}
    return pace | own | {"scheduler": scheduler}


def _with_defaults(values: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what the schedule itself does not say; its length and its start of the warm-up are one thing each."""
    usual = {key: defaults[key] for key in ("warmup", "cooldown_epochs") if key in defaults}
    if values["kind"] == "cosine" and "final_lr_ratio" in defaults:
        usual["final_ratio"] = defaults["final_lr_ratio"]
    if not {"warmup_epochs", "warmup_steps"} & values.keys():
        lengths = {key: defaults[key] for key in ("warmup_epochs", "warmup_steps") if defaults.get(key)}
        usual |= lengths or {"warmup_steps": 0}
    if not {"warmup_start", "warmup_start_lr"} & values.keys():
        start = next((key for key in ("warmup_start_lr", "warmup_start") if key in defaults), None)
        usual |= {start: defaults[start]} if start else {}
    filled = usual | values
    return _start_as_ratio(filled, defaults["largest_rate"]) if defaults.get("largest_rate") else filled


def _start_as_ratio(values: dict[str, Any], largest_rate: float) -> dict[str, Any]:
    start = values.get("warmup_start_lr")
    if "warmup_start" in values or isinstance(start, bool) or not isinstance(start, int | float):
        return values  # nothing to do, or something wrong that the check of all values tells
    if start > largest_rate:
        raise InputError(f"schedule {values['kind']!r}: {downwards(start, largest_rate)}")
    others = {key: value for key, value in values.items() if key != "warmup_start_lr"}
    return others | {"warmup_start": start / largest_rate}


def _with_reference_defaults(values: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("warmup_epochs", "warmup_steps", "warmup", "warmup_start_lr", "cooldown_epochs")
    usual = {key: defaults[key] for key in keys if key in defaults}
    if values["kind"] == "cosine" and "final_lr_ratio" in defaults:
        usual["final_ratio"] = defaults["final_lr_ratio"]
    filled = usual | values
    whole = {key: int(value) for key, value in filled.items() if isinstance(value, float) and value.is_integer()}
    return filled | {key: value for key, value in whole.items() if key in ("warmup_epochs", "cooldown_epochs")}


def _build(model: type[_Model], values: dict[str, Any]) -> _Model:
    try:
        return model(**values)
    except ValidationError as error:
        texts = [_sentence(detail, model) for detail in error.errors()]
        count = f"{len(texts)} error{'s' * (len(texts) > 1)}"
        raise InputError("\n  ".join([f"schedule {values['kind']!r}: {count}.", *texts])) from error


def _sentence(detail: ErrorDetails, model: type[BaseModel]) -> str:
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    name = ".".join(map(str, detail["loc"]))
    if detail["type"] == "extra_forbidden":
        return f"unknown key {name!r}.{did_you_mean(name, fields)}"
    field = fields[str(detail["loc"][0])]
    expected = field.description or in_words(field.annotation, field.metadata)
    if detail["type"] == "missing":
        return f"{name} is missing; expected {expected}."
    return f"{name} is {shown(detail['input'])}; expected {expected}."


def _checked(values: Iterable[Any], source: str) -> list[float]:
    """Return factors or rates as floats, or refuse the first that is none."""
    checked = []
    for step, value in enumerate(values):
        number = float(value) if not isinstance(value, bool) and isinstance(value, Real) else math.nan
        if not (math.isfinite(number) and number >= 0):
            raise InputError(f"{source} gives {shown(value)} at step {step}; expected a finite number, 0 or more.")
        checked.append(number)
    return checked


def _takes_clock(function: Callable[..., Any]) -> bool:
    """Say whether the second argument is for the clock: it is called so, or has no value of its own."""
    try:
        parameters = list(inspect.signature(function).parameters.values())[1:2]
    except ValueError:  # some functions written in C have no signature
        return False
    return any(
        parameter.name == "clock" or (parameter.default is parameter.empty and parameter.kind in _POSITIONAL)
        for parameter in parameters
    )


def _tuples_to_lists(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _tuples_to_lists(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _called(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", type(function).__name__))


def _without_function(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out a function; one that is not registered leaves its name."""
    if "function" not in values:
        return values
    named = {} if values["kind"] in _REGISTERED else {"name": _called(values["function"])}
    return {key: value for key, value in values.items() if key != "function"} | named
