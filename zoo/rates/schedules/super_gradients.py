"""The exact sequence of rates that super-gradients runs through, for those who repeat an old run.

A run is walked through batch by batch, and the rate that an optimizer step finds is written down. Three things set it
apart from `zoo.rates.schedules.parse`: a schedule acts right after an optimizer step, so its value counts from the
next one on and
the first two steps have the full rate; `step` acts at the end of an epoch, so a milestone counts one epoch later; and
what the reference does with warm-up steps is kept, faults included:

- the cosine does not look at its end when there are warm-up steps, and rises again during a cool-down;
- a warm-up by batch ends with the first epoch at the latest, but the cosine waits for all of its steps;
- warm-up steps left over beside a warm-up by epoch switch the cosine on in the middle of that warm-up.

The reference counts the batches of an optimizer step over the whole run, so that a step may begin in one epoch and end
in the next; our epochs end with a step of the batches that are left over (`Run.whole_epochs`). Where `accumulate`
divides the batches of an epoch both are the same; elsewhere their formula is taken at the batches of our steps.

Source: Deci-AI/super-gradients, commit e0ccacf, `training/utils/callbacks/callbacks.py`. Letters as there: E epochs,
L batches per epoch, W and S warm-up epochs and steps, C cool-down epochs, e and b epoch and batch from 0.
"""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Protocol, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from zoo.errors import InputError

Phase = Literal["TRAIN_EPOCH_START", "TRAIN_BATCH_END", "TRAIN_BATCH_STEP", "TRAIN_EPOCH_END", "VALIDATION_EPOCH_END"]


class Run(NamedTuple):
    """What is walked through: epochs, batches of one epoch, and batches per optimizer step, counted over the run.

    With `whole_epochs` every epoch ends with a step, of the batches that are left over.
    """

    epochs: int
    batches: int
    accumulate: int = 1
    whole_epochs: bool = False

    @property
    def steps(self) -> int:
        """Optimizer steps of the run; batches left over at its end make none without `whole_epochs`."""
        if self.whole_epochs:
            return self.epochs * math.ceil(self.batches / self.accumulate)
        return self.epochs * self.batches // self.accumulate

    def is_step(self, epoch: int, batch: int) -> bool:
        """Whether an optimizer step follows a batch, both counted from 0."""
        if self.whole_epochs:
            return (batch + 1) % self.accumulate == 0 or batch + 1 == self.batches
        return (epoch * self.batches + batch + 1) % self.accumulate == 0


class Reading(NamedTuple):
    """The rate that one optimizer step finds, and what has set it."""

    rate: float
    source: str


class Scheduler(Protocol):
    """A torch scheduler at work: it may be stepped, and its rate read and written."""

    rate: float

    def step(self) -> None:
        """Go on by one."""


def read_rates(settings: "Reference", run: Run, base: float, scheduler: Scheduler | None = None) -> list[Reading]:
    """Walk through a run.

    Args:
        settings: Schedule and warm-up.
        run: Its length.
        base: The group's own rate.
        scheduler: For the kind `torch` the scheduler, at the base rate.

    Returns:
        One reading per optimizer step; what a function of the caller's gives is not checked.

    Raises:
        InputError: The reference itself would stop here.
    """
    if isinstance(settings, Recorded):
        return settings.readings(run, base)
    readings, acts_in = [], settings.acts_in
    rate, source = scheduler.rate if scheduler else base, "base rate"  # torch sets a first rate when it is made

    def act(phase: str) -> None:
        nonlocal rate, source
        if phase == acts_in and settings.is_active(epoch, batch, run):
            rate = _step(scheduler, rate) if scheduler else settings.curve(epoch, batch, run, base)
            source = settings.kind

    rises_by_epoch = settings.warmup == "epoch" and settings.warmup_epochs > 0
    batches_of_rise = min(settings.warmup_steps, run.batches) if settings.warmup == "batch" else 0
    for epoch in range(run.epochs):
        batch = 0
        if rises_by_epoch and epoch <= settings.warmup_epochs:
            rate, source = settings.rate_of_epoch(epoch, base), "warm-up"
        act("TRAIN_EPOCH_START")
        for batch in range(run.batches):
            index = epoch * run.batches + batch
            if index < batches_of_rise:
                rate, source = settings.rate_of_batch(index, batches_of_rise, base), "warm-up"
            act("TRAIN_BATCH_END")
            if run.is_step(epoch, batch):
                readings.append(Reading(rate, source))
                act("TRAIN_BATCH_STEP")
        act("TRAIN_EPOCH_END")
    return readings


class Reference(BaseModel):
    """What all kinds share: warm-up and cool-down. Frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    kind: str
    warmup_epochs: int = Field(default=0, ge=0)
    warmup_steps: int = Field(default=0, ge=0)
    warmup: Literal["epoch", "batch"] = "epoch"
    warmup_start_lr: float | None = Field(default=None, ge=0)
    cooldown_epochs: int = Field(default=0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _choose_warmup(cls, values: Any) -> Any:
        only_steps = values.get("warmup_steps") and not values.get("warmup_epochs")
        return {"warmup": "batch" if only_steps else "epoch"} | values

    @model_validator(mode="after")
    def _batches_need_a_start(self) -> Self:
        if self.warmup == "batch" and self.warmup_start_lr is None:
            raise ValueError("warmup_start_lr is missing: a warm-up by batch has no default start. Set it.")
        return self

    def rate_of_epoch(self, epoch: int, base: float) -> float:
        """Return the rate that the warm-up by epoch sets at the start of an epoch up to W."""
        start = base / (self.warmup_epochs + 1) if self.warmup_start_lr is None else self.warmup_start_lr
        return start + epoch * ((base - start) / self.warmup_epochs)

    def rate_of_batch(self, index: int, count: int, base: float) -> float:
        """Return the rate that the warm-up by batch, `count` batches long, sets before the batch of that index."""
        start = self.warmup_start_lr or 0.0
        if count == 1:
            return start
        return base if index == count - 1 else start + index * ((base - start) / (count - 1))

    @property
    def acts_in(self) -> str:
        """The phase in which the schedule sets the rate."""
        return "TRAIN_BATCH_STEP"

    def is_active(self, epoch: int, batch: int, run: Run) -> bool:
        """Say whether the schedule does anything at this batch."""
        return self.warmup_epochs <= epoch < run.epochs - self.cooldown_epochs

    def curve(self, epoch: int, batch: int, run: Run, base: float) -> float:
        """Return the rate that this batch, or the end of its epoch, leaves behind."""
        raise NotImplementedError

    def _done(self, epoch: int, batch: int, run: Run) -> int:
        return run.batches * (epoch - self.warmup_epochs) + batch

    def _length(self, run: Run) -> int:
        return run.batches * (run.epochs - self.warmup_epochs - self.cooldown_epochs)


class Constant(Reference):
    """No schedule; a warm-up works nevertheless."""

    def is_active(self, epoch: int, batch: int, run: Run) -> bool:
        """Say no."""
        return False


class Cosine(Reference):
    """Half a cosine; it ends above its final ratio, by the one in N + 1 and by one step."""

    final_ratio: float = Field(default=0.01, ge=0, le=1)

    def is_active(self, epoch: int, batch: int, run: Run) -> bool:
        """Look at the warm-up steps alone if there are any."""
        if self.warmup_steps:
            return epoch * run.batches + batch >= self.warmup_steps
        return super().is_active(epoch, batch, run)

    def curve(self, epoch: int, batch: int, run: Run, base: float) -> float:
        """Return r·q + (1 − q)·r/2·(1 + cos(π·i/(N + 1)))."""
        done = max(0, self._done(epoch, batch, run) - self.warmup_steps)
        length = self._length(run) - self.warmup_steps + 1
        if length == 0:
            raise InputError("no steps are left for the cosine schedule after the warm-up. Shorten the warm-up.")
        falling = 0.5 * base * (1.0 + math.cos(done / length * math.pi))
        return falling * (1 - self.final_ratio) + base * self.final_ratio


class Polynomial(Reference):
    """(1 − x)^0.9."""

    power: float = Field(default=0.9, ge=0.9, le=0.9)  # fixed in the reference

    def curve(self, epoch: int, batch: int, run: Run, base: float) -> float:
        """Return r·(1 − i/N)^0.9."""
        return float(base * (1.0 - self._done(epoch, batch, run) / self._length(run)) ** self.power)


class Exponential(Reference):
    """gamma per epoch, at every step."""

    gamma: float = Field(gt=0)

    def curve(self, epoch: int, batch: int, run: Run, base: float) -> float:
        """Return r·γ^(i/L)."""
        return base * _power(self.gamma, self._done(epoch, batch, run) / run.batches)


def _to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class Step(Reference):
    """gamma at the end of every milestone's epoch; milestones are given, or made from a distance."""

    gamma: float = Field(gt=0)
    milestones: Annotated[tuple[float, ...], BeforeValidator(_to_tuple)] | None = Field(
        default=None, description="a list of epochs"
    )
    every_epochs: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if bool(self.milestones) == (self.every_epochs is not None):
            raise ValueError("set exactly one of milestones and every_epochs.")
        return self

    @property
    def acts_in(self) -> str:
        """The end of an epoch."""
        return "TRAIN_EPOCH_END"

    def is_active(self, epoch: int, batch: int, run: Run) -> bool:
        """Say whether the warm-up is over; the cool-down is not looked at."""
        return epoch >= self.warmup_epochs

    def curve(self, epoch: int, batch: int, run: Run, base: float) -> float:
        """Return r·γ^(milestones up to this epoch)."""
        return base * _power(self.gamma, sum(milestone <= epoch for milestone in self._milestones(run)))

    def _milestones(self, run: Run) -> tuple[float, ...]:
        if self.every_epochs is None:
            return self.milestones or ()
        end = run.epochs - self.cooldown_epochs
        made = (math.ceil(self.every_epochs * count) for count in range(1, end))
        return tuple(milestone for milestone in made if self.warmup_epochs <= milestone < end)


class Function(Reference):
    """A function of the caller's, with the reference's five arguments."""

    function: Callable[..., Any] = Field(description="a function")

    def curve(self, epoch: int, batch: int, run: Run, base: float) -> float:
        """Return what the function says, unchecked."""
        rate: float = self.function(
            initial_lr=base,
            epoch=epoch - self.warmup_epochs,
            iter=batch,
            max_epoch=run.epochs - self.warmup_epochs - self.cooldown_epochs,
            iters_per_epoch=run.batches,
        )
        return rate


def _to_tuples(value: Any) -> Any:
    return {str(key): _to_tuple(item) for key, item in value.items()} if isinstance(value, Mapping) else value


class Recorded(Reference):
    """What a function gave in a run, warm-up included: one list of rates for each base rate."""

    rates: Annotated[dict[str, tuple[Annotated[float, Field(ge=0)], ...]], BeforeValidator(_to_tuples)] = Field(
        description="a mapping of base rates to lists of rates, one per optimizer step"
    )

    def readings(self, run: Run, base: float) -> list[Reading]:
        """Return the recorded rates.

        Raises:
            InputError: They are of another base rate, or of a run of another length.
        """
        rates = self.rates.get(repr(base))
        if rates is None:
            raise InputError(
                f"the schedule was recorded for learning rate {' and '.join(self.rates)}; this run has {base!r}. "
                "Pass the function again, or use a recorded learning rate."
            )
        if len(rates) != run.steps:
            raise InputError(
                f"the schedule was recorded for {len(rates)} optimizer steps; this run has {run.steps}. Pass the "
                "function again, or use the same number of images, epochs and batches."
            )
        return [Reading(rate, "recorded") for rate in rates]


class Torch(Reference):
    """A torch scheduler. It acts on the present rate, so it compounds with a warm-up."""

    scheduler: Any
    phase: Phase

    @property
    def acts_in(self) -> str:
        """The phase that was asked for; validation ends with the epoch."""
        return "TRAIN_EPOCH_END" if self.phase == "VALIDATION_EPOCH_END" else self.phase

    def is_active(self, epoch: int, batch: int, run: Run) -> bool:
        """Say whether the warm-up is over; the cool-down is not looked at."""
        return epoch >= self.warmup_epochs


REFERENCES: Mapping[str, type[Reference]] = {
    "constant": Constant,
    "cosine": Cosine,
    "exponential": Exponential,
    "function": Function,
    "polynomial": Polynomial,
    "recorded": Recorded,
    "step": Step,
    "torch": Torch,
}


def _step(scheduler: Scheduler, rate: float) -> float:
    scheduler.rate = rate
    scheduler.step()
    return scheduler.rate


def _power(gamma: float, exponent: float) -> float:
    try:
        return float(gamma**exponent)
    except OverflowError as error:
        raise InputError(f"gamma {gamma:g} to the power {exponent:g} overflows. Use a gamma of 1 or less.") from error
