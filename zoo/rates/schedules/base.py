"""What all schedules share: the clock they are read on, warm-up, cool-down and staircase.

Steps are optimizer steps, k from 0. A curve is measured from the end of the warm-up, n steps long, or from step 0 with
`warmup_over`; curves that name steps or epochs of the run (lists, functions, milestones) always count from step 0.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from zoo.errors import InputError

ROUNDING = 1e-9  # of an epoch: 0.7 · 10 is 7.000000000000001


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

    def rise(self, clock: Clock) -> int:
        """Return the steps of the warm-up."""
        return 0

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
        at_most_one(self, "warmup_epochs", "warmup_steps")
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
                f"schedule {self.kind!r}: {rise} warm-up steps and {cooldown} cool-down steps do not fit in "
                f"{length_in_words(clock)}. Shorten them."
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
    return f"warmup_start_lr is {start:g}, above the learning rate {rate:g}. Expected {rate:g} or less."


def _ratio(rate: float, base: float) -> float:
    return rate / base if base else 0.0


def length_in_words(clock: Clock) -> str:
    """Return how long a run is, for messages."""
    return f"{clock.steps} optimizer steps ({clock.epochs} epochs of {clock.steps_per_epoch})"


def at_most_one(curve: Curve, *names: str) -> None:
    """Refuse more than one of these options."""
    given = [name for name in names if getattr(curve, name)]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} are both set; expected one of them. Remove the other.")
