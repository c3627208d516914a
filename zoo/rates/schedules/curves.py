"""How a rate goes over a run, in closed form, with what all curves share: warm-up, cool-down, staircase.

Steps are optimizer steps, k from 0. A curve is measured from the end of the warm-up, n steps long, or from step 0 with
`warmup_over`; curves that name steps or epochs of the run (lists, functions, milestones) always count from step 0.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from zoo.errors import InputError

_ROUNDING = 1e-9  # of an epoch: 0.7 · 10 is 7.000000000000001


@dataclass(frozen=True)
class Clock:
    """How long a run is.

    Attributes:
        epochs: Passes over the training data.
        steps_per_epoch: Optimizer steps of one epoch.
        accumulate: Batches per optimizer step.
        batches_per_epoch: Batches of one epoch; None: `steps_per_epoch * accumulate`.
    """

    epochs: int
    steps_per_epoch: int
    accumulate: int = 1
    batches_per_epoch: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; expected 1 or more.")

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        return self.epochs * self.steps_per_epoch

    @property
    def batches(self) -> int:
        """Batches of one epoch."""
        return self.batches_per_epoch or self.steps_per_epoch * self.accumulate

    def to_steps(self, epochs: float) -> int:
        """Return the whole number of steps nearest to that many epochs."""
        return round(epochs * self.steps_per_epoch)


class Schedule(ABC):
    """How the rate of one group goes over a run. A frozen value; `parse_schedule` makes it."""

    @abstractmethod
    def rate(self, step: int, clock: Clock, base: float) -> float:
        """Return the rate of one optimizer step.

        Args:
            step: Number of the step, from 0; after the end of the run the rate stays what it was there.
            clock: Length of the run.
            base: The group's own rate.

        Raises:
            InputError: A negative step, or the schedule cannot serve this run or base.
        """

    @abstractmethod
    def terms(self, step: int, clock: Clock, base: float) -> tuple[tuple[str, float], ...]:
        """Return what makes the rate of a step: labels and factors, whose product times `base` is the rate."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return plain values; `parse_schedule` makes an equal schedule of them."""

    @abstractmethod
    def check(self, clock: Clock) -> None:
        """Refuse a run that the schedule cannot serve.

        Raises:
            InputError: For example a list shorter than the run.
        """

    @abstractmethod
    def is_settled(self, step: int, clock: Clock) -> bool:
        """Say whether the rate is the group's own from this step to the end, for certain."""

    def fixed(self, clock: Clock, bases: Sequence[float]) -> "Schedule":
        """Return an equal schedule that needs no code of the caller's: a function becomes a list of what it gives.

        Args:
            clock: Length of the run.
            bases: The rates that the groups have of their own.
        """
        return self


class Curve(BaseModel, Schedule):
    """What all kinds share. A subclass has `factor_at`, or `value_at` if it gives absolute rates, and `label_at`.

    Attributes:
        kind: Name of the curve.
        by: `epoch` makes a staircase: every step has the value of the first step of its epoch.
        warmup_epochs: Length of the warm-up in epochs, rounded to whole steps.
        warmup_steps: The same in steps.
        warmup_start: Rate of the first step over the group's own.
        warmup_start_lr: The same as an absolute rate, at most the group's own.
        warmup: `linear`: from the start to the full rate at step n; `constant`: the start until step n.
        warmup_over: Whether the curve runs from step 0; a linear warm-up then ends on the curve.
        cooldown_epochs: Epochs at the end for which the rate stays what it is; the curve ends so much earlier.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    counts_from_start: ClassVar[bool] = False
    may_settle: ClassVar[bool] = True

    kind: str
    by: Literal["step", "epoch"] = "step"
    warmup_epochs: float | None = Field(default=None, ge=0)
    warmup_steps: int | None = Field(default=None, ge=0)
    warmup_start: float = Field(default=0.1, ge=0, le=1)
    warmup_start_lr: float | None = Field(default=None, ge=0)
    warmup: Literal["linear", "constant"] = "linear"
    warmup_over: bool = False
    cooldown_epochs: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _one_warmup(self) -> Self:
        _at_most_one(self, "warmup_epochs", "warmup_steps")
        if self.warmup_start_lr is not None and "warmup_start" in self.model_fields_set:
            raise ValueError("warmup_start and warmup_start_lr are both set; expected one of them. Remove the other.")
        return self

    def __hash__(self) -> int:
        return hash(str(self.to_dict()))

    def rate(self, step: int, clock: Clock, base: float) -> float:
        """Return the rate of one optimizer step, as `Schedule` says."""
        if step < 0:
            raise InputError(f"step is {step}; expected 0 or more.")
        rise = self.rise(clock)
        if step < rise and self.warmup_over:
            start = self._start(base) * base
            end = self.value_at(self._position(rise, rise, clock), clock, base)
            return start if self.warmup == "constant" else start + (end - start) * step / rise
        value = self.value_at(self._position(step, rise, clock), clock, base)
        return value if step >= rise else self._rise_factor(step, rise, base) * value

    def terms(self, step: int, clock: Clock, base: float) -> tuple[tuple[str, float], ...]:
        """Return labels and factors, as `Schedule` says."""
        rate, rise = self.rate(step, clock, base), self.rise(clock)
        warmup = f"warm-up {step}/{rise}"
        if step < rise and self.warmup_over:
            return ((warmup, _ratio(rate, base)),)
        position = self._position(step, rise, clock)
        terms = [(warmup, self._rise_factor(step, rise, base))] if step < rise else []
        factor = _ratio(self.value_at(position, clock, base), base)
        label = self.label_at(position, clock)
        if label and (step >= rise or factor != 1):
            terms.append((label, factor))
        return tuple(terms)

    def to_dict(self) -> dict[str, Any]:
        """Return the values that are set, lists instead of tuples."""
        left_out = "warmup_start" if self.warmup_start_lr is not None else None
        values = {name: getattr(self, name) for name in type(self).model_fields if name != left_out}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {name: value for name, value in plain.items() if value is not None}

    def check(self, clock: Clock) -> None:
        """Refuse a run that is too short for the warm-up and the cool-down."""
        rise, cooldown = self.rise(clock), clock.to_steps(self.cooldown_epochs)
        if rise + cooldown > clock.steps:
            raise InputError(
                f"schedule {self.kind!r}: {rise} steps of warm-up and {cooldown} of cool-down do not fit into the run "
                f"of {_length_in_words(clock)}. Shorten them."
            )

    def is_settled(self, step: int, clock: Clock) -> bool:
        """Say whether the factor is 1 from this step to the end."""
        if not self.may_settle or step < self.rise(clock):
            return False
        return all(self.rate(later, clock, 1.0) == 1 for later in range(max(step, clock.steps - 1), step - 1, -1))

    def rise(self, clock: Clock) -> int:
        """Return the steps of the warm-up."""
        return self.warmup_steps or clock.to_steps(self.warmup_epochs or 0.0)

    def last(self, clock: Clock) -> int:
        """Return the last step of the run before the cool-down."""
        return max(0, clock.steps - 1 - clock.to_steps(self.cooldown_epochs))

    def value_at(self, position: int, clock: Clock, base: float) -> float:
        """Return the rate at a position of the curve, without warm-up."""
        return base * self.factor_at(position, clock)

    def factor_at(self, position: int, clock: Clock) -> float:
        """Return the factor of the rate at a position of the curve, without warm-up."""
        raise NotImplementedError

    def label_at(self, position: int, clock: Clock) -> str:
        """Return what the factor is called there; nothing if there is nothing to tell."""
        raise NotImplementedError

    def _position(self, step: int, rise: int, clock: Clock) -> int:
        step = min(step, self.last(clock))
        if self.by == "epoch":
            step -= step % clock.steps_per_epoch
        return step if self.warmup_over or self.counts_from_start else max(0, step - rise)

    def _rise_factor(self, step: int, rise: int, base: float) -> float:
        start = self._start(base)
        return start if self.warmup == "constant" else start + (1 - start) * step / rise

    def _start(self, base: float) -> float:
        if self.warmup_start_lr is None:
            return self.warmup_start
        if 0 < base < self.warmup_start_lr:
            raise InputError(downwards(self.warmup_start_lr, base))
        return _ratio(self.warmup_start_lr, base)


def downwards(start: float, rate: float) -> str:
    """Return the error for a warm-up that would start above the rate it leads to."""
    return f"warmup_start_lr is {start:g}, above the rate {rate:g}: it would warm downwards. Expected {rate:g} or less."


class _Constant(Curve):
    """1 throughout."""

    def factor_at(self, position: int, clock: Clock) -> float:
        return 1.0

    def label_at(self, position: int, clock: Clock) -> str:
        return ""

    def is_settled(self, step: int, clock: Clock) -> bool:
        return step >= self.rise(clock)


class _Measured(Curve):
    """A curve with a length: in steps, in epochs, or to the last step before the cool-down."""

    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        _at_most_one(self, "steps", "epochs")
        return self

    def label_at(self, position: int, clock: Clock) -> str:
        return f"{self.kind} {position}/{self.length(clock):g}"

    def length(self, clock: Clock) -> float:
        if self.steps is not None:
            return self.steps
        if self.epochs is not None:
            return self.epochs * clock.steps_per_epoch
        return max(1, self.last(clock) - (0 if self.warmup_over else self.rise(clock)))

    def done(self, position: int, clock: Clock) -> float:
        return min(1.0, position / self.length(clock))


class _Cosine(_Measured):
    """q + (1 − q)·(1 + cos(π·x))/2: from 1 to q = `final_ratio`, x the share of the curve that is done."""

    final_ratio: float = Field(default=0.01, ge=0, le=1)

    def factor_at(self, position: int, clock: Clock) -> float:
        return self.final_ratio + (1 - self.final_ratio) * 0.5 * (1 + math.cos(math.pi * self.done(position, clock)))


class _Polynomial(_Measured):
    """q + (1 − q)·(1 − x)^p: from 1 to q = `final_ratio`, x the share of the curve that is done, p = `power`.

    With `cycle`, a curve that has reached its end grows by its own length, again and again: the rate jumps up and then
    falls more slowly, as in MindSpore's PolynomialDecayLR(update_decay_steps=True) and TensorFlow's `cycle`.
    """

    power: float = Field(default=0.9, gt=0)
    final_ratio: float = Field(default=0.0, ge=0, le=1)
    cycle: bool = False

    def done(self, position: int, clock: Clock) -> float:
        if not self.cycle:
            return super().done(position, clock)
        length = self.length(clock)
        return position / (length * max(1, math.ceil(position / length)))

    def factor_at(self, position: int, clock: Clock) -> float:
        return float(self.final_ratio + (1 - self.final_ratio) * (1 - self.done(position, clock)) ** self.power)


class _Inverse(_Measured):
    """1/(1 + rate·k/steps). It does not stop at its length; with `stair`, k/steps is rounded down."""

    speed: float = Field(default=1.0, gt=0, alias="rate")
    stair: bool = False

    def factor_at(self, position: int, clock: Clock) -> float:
        lengths = position / self.length(clock)
        return 1 / (1 + self.speed * (math.floor(lengths) if self.stair else lengths))

    def to_dict(self) -> dict[str, Any]:
        return {"rate" if name == "speed" else name: value for name, value in super().to_dict().items()}


class _Exponential(Curve):
    """gamma^(k/n), n the steps of an epoch or `every_steps`: a little at every step."""

    gamma: float = Field(gt=0)
    every_steps: int | None = Field(default=None, ge=1)

    def factor_at(self, position: int, clock: Clock) -> float:
        return _power(self.gamma, self._periods(position, clock))

    def label_at(self, position: int, clock: Clock) -> str:
        return f"exponential {self.gamma:g}^{self._periods(position, clock):.4g}"

    def _periods(self, position: int, clock: Clock) -> float:
        return position / (self.every_steps or clock.steps_per_epoch)


class _Step(Curve):
    """gamma^floor(k/n), n a number of epochs or steps: at once after every period."""

    gamma: float = Field(default=0.1, gt=0)
    every_epochs: float | None = Field(default=None, gt=0)
    every_steps: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_period(self) -> Self:
        _exactly_one(self, "every_epochs", "every_steps")
        return self

    def factor_at(self, position: int, clock: Clock) -> float:
        return _power(self.gamma, self._periods(position, clock))

    def label_at(self, position: int, clock: Clock) -> str:
        return f"step {self.gamma:g}^{self._periods(position, clock)}"

    def _periods(self, position: int, clock: Clock) -> int:
        if self.every_steps is not None:
            return position // self.every_steps
        return math.floor(position / clock.steps_per_epoch / (self.every_epochs or 1.0) + _ROUNDING)


def _to_tuple(value: Any) -> Any:
    if hasattr(value, "tolist"):  # an array or a tensor
        value = value.tolist()
    return tuple(value) if isinstance(value, list) else value


class _MultiStep(Curve):
    """gamma at once at every milestone, which is an epoch or a step of the run, warm-up counted."""

    counts_from_start: ClassVar[bool] = True

    gamma: float = Field(default=0.1, gt=0)
    milestones: Annotated[tuple[Annotated[float, Field(ge=0)], ...], BeforeValidator(_to_tuple)] | None = Field(
        default=None, min_length=1, description="a list of epochs, 0 or more"
    )
    milestone_steps: Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_to_tuple)] | None = Field(
        default=None, min_length=1, description="a list of steps, 0 or more"
    )

    @model_validator(mode="after")
    def _one_list(self) -> Self:
        _exactly_one(self, "milestones", "milestone_steps")
        return self

    def factor_at(self, position: int, clock: Clock) -> float:
        return _power(self.gamma, self._passed(position, clock))

    def label_at(self, position: int, clock: Clock) -> str:
        return f"multistep {self.gamma:g}^{self._passed(position, clock)}"

    def _passed(self, position: int, clock: Clock) -> int:
        steps = self.milestone_steps or map(clock.to_steps, self.milestones or ())
        return sum(step <= position for step in steps)


class _OneCycle(Curve):
    """Up from 1/`div_factor` to 1 and down to 1/(`div_factor`·`final_div_factor`).

    Source: the numbers of `torch.optim.lr_scheduler.OneCycleLR`, with `max_lr` as the group's own rate and the steps
    before the cool-down as `total_steps`.
    """

    pct_start: float = Field(default=0.3, ge=0, le=1)
    div_factor: float = Field(default=25.0, gt=0)
    final_div_factor: float = Field(default=1e4, gt=0)
    anneal: Literal["cos", "linear"] = "cos"
    three_phase: bool = False

    @model_validator(mode="after")
    def _rises_alone(self) -> Self:
        for name in ("warmup_epochs", "warmup_steps"):
            if getattr(self, name):
                raise ValueError(f"{name} is {getattr(self, name):g}, but one_cycle has a rise of its own. Remove it.")
        if self.three_phase and self.pct_start > 0.5:
            raise ValueError(f"pct_start is {self.pct_start:g}; expected at most 0.5 with three_phase.")
        return self

    def factor_at(self, position: int, clock: Clock) -> float:
        begin, low = 0.0, 1 / self.div_factor
        for end, high in self._phases(clock):
            if position <= end:
                break
            begin, low = end, high
        done = 1.0 if end == begin else (position - begin) / (end - begin)
        if self.anneal == "linear":
            return low + (high - low) * done
        return high + (low - high) / 2 * (1 + math.cos(math.pi * done))

    def label_at(self, position: int, clock: Clock) -> str:
        return f"one-cycle {position}/{self.last(clock)}"

    def _phases(self, clock: Clock) -> list[tuple[float, float]]:
        count, start = self.last(clock) + 1, 1 / self.div_factor
        top = self.pct_start * count - 1
        if self.three_phase:
            back = 2 * self.pct_start * count - 2
            return [(top, 1.0), (back, start), (count - 1, start / self.final_div_factor)]
        return [(top, 1.0), (count - 1, start / self.final_div_factor)]


class _Listed(Curve):
    counts_from_start: ClassVar[bool] = True

    values: Annotated[tuple[Annotated[float, Field(ge=0)], ...], BeforeValidator(_to_tuple)] = Field(
        min_length=1, description="a list of numbers, 0 or more, one per optimizer step"
    )

    def check(self, clock: Clock) -> None:
        super().check(clock)
        if len(self.values) <= self.last(clock):
            raise InputError(
                f"schedule {self.kind!r} has {len(self.values)} values; the run has {_length_in_words(clock)}. "
                f"Give {self.last(clock) + 1} values or more, one per step."
            )

    def at(self, position: int, clock: Clock) -> float:
        if position >= len(self.values):
            self.check(clock)
        return self.values[position]


class _FactorList(_Listed):
    """A factor for every optimizer step."""

    def factor_at(self, position: int, clock: Clock) -> float:
        return self.at(position, clock)

    def label_at(self, position: int, clock: Clock) -> str:
        return f"list [{position}]"


class _RateList(_Listed):
    """A rate for every optimizer step, whatever the group's own."""

    may_settle: ClassVar[bool] = False

    def value_at(self, position: int, clock: Clock, base: float) -> float:
        return self.at(position, clock)

    def label_at(self, position: int, clock: Clock) -> str:
        return f"rates [{position}]"


class _MetricCurve(Curve):
    """The group's own rate: what the metric will be is not known in advance. `Plateau` has the factor.

    Attributes:
        factor: What one reduction multiplies the rate by.
        patience: Epochs without progress that are put up with.
        metric: What is looked at after every epoch; the losses should fall, `top1` and `top5` rise.
        threshold: Share by which the metric must improve to count as progress.
        cooldown: Epochs after a reduction that do not count.
        min_ratio: Least factor of the rate.
    """

    may_settle: ClassVar[bool] = False

    factor: float = Field(default=0.1, gt=0, lt=1)
    patience: int = Field(default=10, ge=0)
    metric: Literal["val_loss", "top1", "top5", "loss"] = "val_loss"
    threshold: float = Field(default=1e-4, ge=0)
    cooldown: int = Field(default=0, ge=0)
    min_ratio: float = Field(default=0.0, ge=0, lt=1)

    def factor_at(self, position: int, clock: Clock) -> float:
        return 1.0

    def label_at(self, position: int, clock: Clock) -> str:
        return ""


def _at_most_one(curve: Curve, *names: str) -> None:
    given = [name for name in names if getattr(curve, name)]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} are both set; expected one of them. Remove the other.")


def _exactly_one(curve: Curve, *names: str) -> None:
    _at_most_one(curve, *names)
    if all(getattr(curve, name) is None for name in names):
        raise ValueError(f"{' or '.join(names)} is missing; expected one of them.")


def _power(gamma: float, exponent: float) -> float:
    try:
        return float(gamma**exponent)
    except OverflowError as error:
        text = f"gamma {gamma:g} to the power {exponent:g} is beyond all numbers"
        raise InputError(f"{text}. Choose a gamma of 1 or less, or longer periods.") from error


def _ratio(rate: float, base: float) -> float:
    return rate / base if base else 0.0


def _length_in_words(clock: Clock) -> str:
    return f"{clock.steps} optimizer steps ({clock.epochs} epochs of {clock.steps_per_epoch})"


CURVES: Mapping[str, type[Curve]] = {
    "constant": _Constant,
    "cosine": _Cosine,
    "exponential": _Exponential,
    "inverse": _Inverse,
    "list": _FactorList,
    "multistep": _MultiStep,
    "one_cycle": _OneCycle,
    "plateau": _MetricCurve,
    "polynomial": _Polynomial,
    "rates": _RateList,
    "step": _Step,
}
