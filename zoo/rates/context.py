"""What holds for all groups of a plan, which the ways to say rates share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from zoo.errors import InputError, PlanError
from zoo.rates.groups import ONE_STEP, Assignment
from zoo.rates.options import RateOptions
from zoo.rates.schedules.options import ScheduleOptions
from zoo.rates.schedules.parse import Clock, Schedule, parse_schedule
from zoo.rates.spec import peak_lr

CURVES = frozenset({"constant", "cosine", "exponential", "inverse", "multistep", "plateau", "polynomial", "step"})


def schedule_defaults(options: ScheduleOptions) -> dict[str, Any]:
    """Return what a schedule takes from the options where it says nothing itself."""
    names = ("warmup_epochs", "warmup_steps", "warmup_start_lr", "cooldown_epochs", "final_lr_ratio")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    given["warmup_start"] = options.warmup_start
    return given


@dataclass(frozen=True, kw_only=True)
class PlanContext:
    """What holds for all groups that say nothing else.

    Attributes:
        options: What the run says of them.
        clock: Epochs and steps of the run.
        usual_warmup: Warm-up, in epochs, of the curves that have one where nobody says anything of it.
        largest_rate: Of all groups, so that a warm-up from an absolute rate is one ratio for all; None: not known yet.
        weight_decay: Decay of the trained groups: the options', or the optimizer's own.
        unfrozen_lr: Rate of what has rate 0 and is unfrozen nevertheless; None: that is an error.
        unfrozen_reason: Where it comes from, in words.
        reasons: Key → where its rate comes from, in words.
    """

    options: RateOptions
    clock: Clock = ONE_STEP
    usual_warmup: float = 0.0
    largest_rate: float | None = None
    weight_decay: float = 0.0
    unfrozen_lr: float | None = None
    unfrozen_reason: str = ""
    reasons: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def curve(self) -> Schedule:
        """The schedule of all groups that have none of their own."""
        return self.parse(self.options.schedule)

    @cached_property
    def unfreeze(self) -> dict[int, Sequence[str]]:
        """Epochs that pass before a part learns → its prefixes; `default` is what no key of the rates names."""
        points = self.options.unfreeze.items()
        return {int(epoch): [prefixes] if isinstance(prefixes, str) else prefixes for epoch, prefixes in points}

    def parse(self, schedule: Any) -> Schedule:
        """Return a schedule with the defaults of the run filled in.

        The usual warm-up is for curves alone: lists, functions and schedulers say every rate themselves, and one_cycle,
        which rises itself, never takes a warm-up that was meant for others.
        """
        kind, compat = schedule.get("kind") if isinstance(schedule, Mapping) else schedule, self.options.compat
        defaults = schedule_defaults(self.options)
        if self.largest_rate is not None:
            defaults["largest_rate"] = self.largest_rate
        if kind == "one_cycle" and schedule != self.options.schedule:
            defaults = {name: value for name, value in defaults.items() if not name.startswith("warmup")}
        elif isinstance(kind, str) and kind in CURVES and not {"warmup_epochs", "warmup_steps"} & defaults.keys():
            own = isinstance(schedule, Mapping) and "warmup_steps" in schedule
            defaults |= {} if own or compat else {"warmup_epochs": self.usual_warmup}
        return parse_schedule(schedule, defaults, compat)

    def assign(self, label: str, said: Mapping[str, Any], *, key: str = "", decays_surely: bool = False) -> Assignment:
        """Return the assignment that settings come to.

        Args:
            label: Name of the group.
            said: GroupSettings by name, as in `zoo.rates.spec.Settings`; `lr` is among them.
            key: The key that caught it.
            decays_surely: As in `Assignment`.

        Raises:
            PlanError: A schedule is wrong, or stands beside a list of rates.
        """
        lr, scale = said["lr"], said.get("lr_scale", 1.0)
        if peak_lr(said) == 0:
            return Assignment(label=label, lr=0.0, key=key)
        decays = said.get("weight_decay_schedule")
        try:
            schedule = self._own_schedule(said)
            decay_schedule = None if decays is None else parse_schedule(decays, {"warmup_steps": 0})
        except InputError as error:
            raise PlanError(f"{label!r}: {error}") from error
        base = float(max(lr) if isinstance(lr, list) else lr)
        return Assignment(
            label=label,
            lr=base,
            lr_scale=float(scale),
            weight_decay=float(said.get("weight_decay", self.weight_decay)),
            schedule=schedule,
            decay_every=said.get("decay_every"),
            weight_decay_schedule=decay_schedule,
            gradient_centralization=said.get("gradient_centralization", self.options.gradient_centralization),
            clip_grad_norm=said.get("clip_grad_norm"),
            unfreeze_at=said.get("unfreeze_at", 0),
            reason=self.reasons.get(key, _reason(base, scale, lr)),
            options=said.get("optimizer_params", {}),
            key=key,
            decays_surely=decays_surely,
        )

    def with_largest(self, rates: Iterable[float]) -> "PlanContext":
        """Return this with the largest of the rates of all groups."""
        return replace(self, largest_rate=max(rates, default=0.0))

    def _own_schedule(self, said: Mapping[str, Any]) -> Schedule:
        if not isinstance(said["lr"], list):
            return self.parse(said["schedule"]) if "schedule" in said else self.curve
        if "schedule" in said:
            raise PlanError("lr is a list of rates, which already is a schedule. Remove lr or schedule.")
        values = [rate * said.get("lr_scale", 1.0) for rate in said["lr"]]
        return parse_schedule({"kind": "rates", "values": values, "warmup_steps": 0})


def _reason(base: float, scale: float, lr: Any) -> str:
    text = f"{base:g} × {scale:g} (lr_scale)" if scale != 1 else ""
    return f"{text or f'{base:g}'}, highest of {len(lr)} rates" if isinstance(lr, list) else text
