"""The named curves of a learning rate, in closed form."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from zoo.errors import InputError
from zoo.rates.schedules.base import ROUNDING, Clock, Curve, at_most_one, length_in_words


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
        at_most_one(self, "steps", "epochs")
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
        return math.floor(position / clock.steps_per_epoch / (self.every_epochs or 1.0) + ROUNDING)


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
                raise ValueError(f"{name} is {getattr(self, name):g}, but one_cycle has its own warm-up. Remove it.")
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
                f"schedule {self.kind!r} has {len(self.values)} values; the run has {length_in_words(clock)}. Pass "
                f"at least {self.last(clock) + 1} values, one per step."
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


def _exactly_one(curve: Curve, *names: str) -> None:
    at_most_one(curve, *names)
    if all(getattr(curve, name) is None for name in names):
        raise ValueError(f"{' or '.join(names)} is missing; expected one of them.")


def _power(gamma: float, exponent: float) -> float:
    try:
        return float(gamma**exponent)
    except OverflowError as error:
        text = f"gamma {gamma:g} to the power {exponent:g} overflows"
        raise InputError(f"{text}. Choose a gamma of 1 or less, or longer periods.") from error


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
