"""What parameters get: their settings resolved, by parameter and then by group."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from zoo.rates.schedules.parse import Clock, Schedule, parse_schedule
from zoo.rates.spec import DecayEvery

CONSTANT = parse_schedule("constant", {"warmup_steps": 0})
ONE_STEP = Clock(epochs=1, steps_per_epoch=1)
NO_DECAY = " (no decay)"
UNUSED = " (dormant)"  # saved runs hold this name
Starts = Mapping[str, int | None]  # as in `zoo.rates.plan.Plan`


@dataclass(frozen=True, kw_only=True)
class ParameterSettings:
    """All that is decided of a parameter, nothing left open; at a rate of 0 it is frozen.

    Attributes:
        lr: Base rate.
        lr_scale: Factor of the base rate; `lr * lr_scale` is the full rate, which the schedule multiplies.
        weight_decay: Decay that the optimizer applies.
        schedule: Curve of the rate over the run.
        decay_every: Repeated decay of the rate.
        weight_decay_schedule: Curve that multiplies the weight decay.
        gradient_centralization: Whether the mean of each gradient of rank 2 or more is taken off.
        clip_grad_norm: Longest gradient of the group, as 2-norm.
        unfreeze_at: Epochs that pass before it learns.
        reason: Where the full rate comes from, in words.
        options: Further keys for the optimizer's group, such as `momentum`.
    """

    lr: float
    weight_decay: float = 0.0
    lr_scale: float = 1.0
    schedule: Schedule = CONSTANT
    decay_every: DecayEvery | None = None
    weight_decay_schedule: Schedule | None = None
    gradient_centralization: bool = False
    clip_grad_norm: float | None = None
    unfreeze_at: int = 0
    reason: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def frozen(self) -> bool:
        """Whether it never learns."""
        return self.lr == 0

    @property
    def full_lr(self) -> float:
        """The rate at full strength."""
        return self.lr * self.lr_scale


@dataclass(frozen=True, kw_only=True)
class Assignment(ParameterSettings):
    """The settings of one parameter; parameters with equal assignments make one group.

    Attributes:
        label: Name of the group.
        key: The key of the mapping that caught it.
        decays_surely: Whether its kind was given a decay by name, which the switch for norms and biases respects.
    """

    label: str
    key: str = field(default="", compare=False)
    decays_surely: bool = field(default=False, compare=False)

    @property
    def decays(self) -> bool:
        """Whether it has any weight decay."""
        return self.weight_decay > 0 or self.weight_decay_schedule is not None


@dataclass(frozen=True, kw_only=True)
class Group(ParameterSettings):
    """Parameters that share everything.

    Attributes:
        name: The key that caught them; ` (no decay)` is added for its biases and norms.
        names: Parameter names, in the order of `model.named_parameters()`.
        parameters: How many numbers they hold.
        solver: What solves them at once, so that they have no rate; None: they are trained in steps.
    """

    name: str
    names: tuple[str, ...]
    parameters: int
    solver: str | None = None

    @classmethod
    def of(cls, settings: ParameterSettings, **members: Any) -> "Group":
        """Return the group of some parameters that share these settings."""
        return cls(**{item.name: getattr(settings, item.name) for item in fields(ParameterSettings)}, **members)

    @property
    def key(self) -> str:
        """The name without the mark of its half."""
        return self.name.removesuffix(NO_DECAY)

    def waits(self, step: int, clock: Clock) -> bool:
        """Say whether it is still frozen at an optimizer step, from 0."""
        return 0 <= step < self.unfreeze_at * clock.steps_per_epoch

    def rate(self, step: int, clock: Clock) -> float:
        """Return the effective rate at an optimizer step, from 0."""
        if self.frozen or self.solver or self.waits(step, clock):
            return 0.0
        rate = self.schedule.rate(step, clock, self.full_lr)
        return rate if self.decay_every is None else rate * self.decay_every.multiplier(step)

    def decay(self, step: int, clock: Clock) -> float:
        """Return the weight decay at an optimizer step, from 0."""
        if self.weight_decay_schedule is None:
            return self.weight_decay
        return self.weight_decay_schedule.rate(step, clock, self.weight_decay)

    def explain(self, step: int, clock: Clock) -> str:
        """Return the rate at a step with the factors it is made of, such as `0.003 = 0.01 × 0.3 × warm-up 3/10`."""
        if self.frozen:
            return "0: frozen"
        if self.solver:
            return f"0: solved, not stepped ({self.solver})"
        if self.waits(step, clock):
            return f"0: frozen until epoch {self.unfreeze_at}"
        factors = [f"{self.lr:g}"] + [f"{self.lr_scale:g}"] * (self.lr_scale != 1)
        factors += [f"{label} ({value:.3g})" for label, value in self.schedule.terms(step, clock, self.full_lr)]
        if self.decay_every is not None and (count := self.decay_every.count(step)):
            factors.append(f"decay {self.decay_every.factor:g}^{count}")
        rate = f"{self.rate(step, clock):.4g}"
        return f"{rate} = {' × '.join(factors)}" if len(factors) > 1 else rate

    def fixed(self, clock: Clock) -> "Group":
        """Return an equal group whose schedules need no code of the caller's."""
        decay = self.weight_decay_schedule
        return replace(
            self,
            schedule=self.schedule.fixed(clock, [self.full_lr]),
            weight_decay_schedule=decay and decay.fixed(clock, [1.0]),
        )

    @property
    def state(self) -> str:
        """When it learns, in words."""
        if self.solver and not self.frozen:
            return "solved, not stepped"
        return "frozen" if self.frozen else f"from epoch {self.unfreeze_at}" if self.unfreeze_at else "trained"

    def to_dict(self) -> dict[str, Any]:
        """Return the group as plain values."""
        decay = self.weight_decay_schedule
        told = {"name": self.name, "names": list(self.names), "lr": self.lr, "weight_decay": self.weight_decay}
        told |= {"frozen": self.frozen, "parameters": self.parameters} | (
            {"solver": self.solver} if self.solver else {}
        )
        return (
            told
            | {item.name: getattr(self, item.name) for item in fields(ParameterSettings)}
            | {
                "schedule": self.schedule.to_dict(),
                "decay_every": self.decay_every and self.decay_every.model_dump(),
                "weight_decay_schedule": decay and decay.to_dict(),
                "options": dict(self.options),
            }
        )
