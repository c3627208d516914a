"""The plan: which parameter learns when and at which rate, known for every step before the first one is taken.

A rate is `base rate × scale × schedule × repeated decay`, and 0 before the group's unfreeze point. A plan is a value:
`zoo.rates.assign` makes it of a model and what the user says, `zoo.optim.freeze` applies it, `zoo.optim.build` gives
it to torch.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol

from zoo.errors import InputError, PlanError
from zoo.rates.plot import Part, draw_plan
from zoo.rates.schedules.parse import Clock, Schedule, parse_schedule
from zoo.rates.spec import DecayEvery

CONSTANT = parse_schedule("constant", {"warmup_steps": 0})
ONE_STEP = Clock(epochs=1, steps_per_epoch=1)
NO_DECAY = " (no decay)"
NUMBERS = ("tensors", "parameters", "lr", "scale", "weight decay")  # columns that are aligned on the right
MOST_SAMPLES = 2000  # of a group's rate in a picture; more cannot be seen


@dataclass(frozen=True)
class Group:
    """Parameters that share everything.

    Attributes:
        name: The key that caught them; ` (no decay)` is added for its biases and norms.
        names: Parameter names, in the order of `model.named_parameters()`.
        lr: Base rate.
        weight_decay: Decay that the optimizer applies.
        frozen: Whether they never learn.
        parameters: How many numbers they hold.
        lr_scale: Factor of the base rate; `lr * lr_scale` is the full rate, which the schedule multiplies.
        schedule: Curve of the rate over the run.
        decay_every: Repeated decay of the rate.
        weight_decay_schedule: Curve that multiplies the weight decay.
        gradient_centralization: Whether the mean of each gradient of rank 2 or more is taken off.
        clip_grad_norm: Longest gradient of the group, as 2-norm.
        unfreeze_at: Epochs that pass before they learn.
        reason: Where the full rate comes from, in words.
        options: Further keys for the optimizer's group, such as `momentum`.
    """

    name: str
    names: tuple[str, ...]
    lr: float
    weight_decay: float
    frozen: bool
    parameters: int
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
    def key(self) -> str:
        """The name without the mark of its half."""
        return self.name.removesuffix(NO_DECAY)

    @property
    def full_lr(self) -> float:
        """The rate at full strength."""
        return self.lr * self.lr_scale

    def waits(self, step: int, clock: Clock) -> bool:
        """Say whether it is still frozen at an optimizer step, from 0."""
        return 0 <= step < self.unfreeze_at * clock.steps_per_epoch

    def rate(self, step: int, clock: Clock) -> float:
        """Return the effective rate at an optimizer step, from 0."""
        if self.frozen or self.waits(step, clock):
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
        return "frozen" if self.frozen else f"from epoch {self.unfreeze_at}" if self.unfreeze_at else "trained"

    def to_dict(self) -> dict[str, Any]:
        """Return the group as plain values."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        decay = self.weight_decay_schedule
        return values | {
            "names": list(self.names),
            "schedule": self.schedule.to_dict(),
            "decay_every": self.decay_every and self.decay_every.model_dump(),
            "weight_decay_schedule": decay and decay.to_dict(),
            "options": dict(self.options),
        }


class RateHook(Protocol):
    """What changes the scheduled rates of a plan before every step: a model's `update_param_groups`."""

    def rates(self, rates: Mapping[str, float], step: int, clock: Clock) -> dict[str, float]:
        """Return the rates of all groups, by name."""


@dataclass(frozen=True)
class Plan:
    """Every parameter of a model in exactly one group.

    Attributes:
        groups: The groups, ordered by their first parameter.
        clock: Epochs and steps of the run; rates and pictures follow it.
        starts: Prefix → epochs that pass before what it catches learns, None for never; for modules without
            parameters, such as dropout. Empty if a model's own hook made the plan.
        steps_are_known: Whether the clock's steps are those of a run, not an assumption.
        hook: What the model itself does to the rates; it is no part of the plan as data.
    """

    groups: tuple[Group, ...]
    clock: Clock = ONE_STEP
    starts: Mapping[str, int | None] = field(default_factory=dict)
    steps_are_known: bool = field(default=True, compare=False)
    hook: RateHook | None = field(default=None, compare=False, repr=False)

    @property
    def trained(self) -> tuple[Group, ...]:
        """The groups that learn at some time; all of them are in the optimizer from the first step."""
        return tuple(group for group in self.groups if not group.frozen)

    @property
    def frozen_names(self) -> frozenset[str]:
        """Names of all parameters that never learn."""
        return frozenset(name for group in self.groups if group.frozen for name in group.names)

    @property
    def unfreeze_epochs(self) -> tuple[int, ...]:
        """Epochs before which something begins to learn, in order; those of the run only."""
        return tuple(sorted({g.unfreeze_at for g in self.trained if 0 < g.unfreeze_at < self.clock.epochs}))

    @property
    def adjusts_gradients(self) -> bool:
        """Whether a group clips or centralizes its gradients."""
        return any(group.gradient_centralization or group.clip_grad_norm is not None for group in self.trained)

    def at(self, clock: Clock) -> "Plan":
        """Return the plan of a run of this length.

        Raises:
            PlanError: Schedules that do not reach so far, such as a list of rates that is too short; or a model's hook
                that gives no rates for the first step.
        """
        _check_schedules(self.groups, clock)
        made = replace(self, groups=tuple(group.fixed(clock) for group in self.groups), clock=clock)
        made = replace(made, steps_are_known=True)
        if made.hook is not None:
            made.rates(0)
        return made

    def frozen_at(self, epoch: int) -> frozenset[str]:
        """Return the names of all parameters that do not learn in an epoch, from 0."""
        waiting = (group for group in self.groups if group.frozen or group.unfreeze_at > epoch)
        return frozenset(name for group in waiting for name in group.names)

    def rates(self, step: int) -> dict[str, float]:
        """Return the rate of every group at an optimizer step, from 0, by the group's name."""
        rates = {group.name: group.rate(step, self.clock) for group in self.groups}
        return rates if self.hook is None else self.hook.rates(rates, step, self.clock)

    def weight_decays(self, step: int) -> dict[str, float]:
        """Return the weight decay of every group that learns, at an optimizer step, by the group's name."""
        return {group.name: group.decay(step, self.clock) for group in self.trained}

    def explain(self, step: int) -> dict[str, str]:
        """Return every group's rate at a step with what it is made of, by the group's name."""
        rates, texts = self.rates(step), {}
        for group in self.groups:
            is_own = rates[group.name] == group.rate(step, self.clock)
            hooked = f"{rates[group.name]:.4g}, set by update_param_groups"
            texts[group.name] = group.explain(step, self.clock) if is_own else hooked
        return texts

    @property
    def digest(self) -> str:
        """SHA-256 of the plan as data: equal plans have equal digests, in every process."""
        text = json.dumps(self.to_dict(), sort_keys=True, default=_name_of_type)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        clock = {**vars(self.clock), "batches_per_epoch": self.clock.batches}
        return {
            "clock": clock,
            "starts": dict(self.starts),
            "groups": [group.to_dict() for group in self.groups],
        }

    def records(self) -> list[dict[str, Any]]:
        """Return one row of numbers per group, as `pandas.DataFrame` takes them; rates are those of the whole run."""
        total = sum(group.parameters for group in self.groups)
        curves = self._curves()
        return [
            {
                "name": group.name,
                "state": group.state,
                "tensors": len(group.names),
                "parameters": group.parameters,
                "share": group.parameters / total,
                "lr": group.lr,
                "lr_scale": group.lr_scale,
                "weight_decay": group.weight_decay,
                "schedule": group.schedule.to_dict().get("kind"),
                "gradient_centralization": group.gradient_centralization,
                "unfreeze_at": None if group.frozen else group.unfreeze_at,
                "first_rate": curves[group.name][0],
                "highest_rate": max(curves[group.name]),
                "last_rate": curves[group.name][-1],
                "reason": group.reason,
            }
            for group in self.groups
        ]

    def rows(self) -> list[dict[str, str]]:
        """Return the table of groups as text; columns that say nothing new are left out."""
        options = _differing_options(self.trained)
        rows = [_row(group, options) for group in self.groups]
        learning = [row for row, group in zip(rows, self.groups, strict=True) if not group.frozen]
        usual = dict.fromkeys(("centralized", "clip", "decays", "optimizer"), "-") | {"scale": "1", "why": ""}
        usual["schedule"] = learning[0]["schedule"] if learning else "-"
        bare = {name for name, value in usual.items() if all(row[name] == value for row in learning)}
        return [{name: value for name, value in row.items() if name not in bare} for row in rows]

    def totals(self) -> dict[str, str]:
        """Return the last line of the table: how much of the model learns."""
        total = sum(group.parameters for group in self.groups)
        trained = sum(group.parameters for group in self.trained)
        return {
            "prefix": "total",
            "state": f"{trained / total:.2%} trained",
            "tensors": f"{sum(len(group.names) for group in self.groups)}",
            "parameters": f"{total:,}",
        }

    def plot(self, path: str | Path, *, title: str = "Learning rates") -> Path:
        """Draw the network's parts with their share of the parameters, and the rate of each over the whole run.

        Args:
            path: The PNG to write.
            title: Its heading.

        Returns:
            The path.
        """
        curves = self._curves()
        parts = [
            Part(
                name=group.name,
                parameters=group.parameters,
                tensors=len(group.names),
                rates=curves[group.name],
                state="from the start" if group.state == "trained" else group.state,
                note=group.reason.partition(",")[0],
            )
            for group in self.groups
        ]
        epochs, steps = self.clock.epochs, self.clock.steps_per_epoch
        return draw_plan(parts, path, epochs=epochs, steps_per_epoch=steps, title=title)

    def _curves(self) -> dict[str, list[float]]:
        """Rates at steps evenly spread over the run, the first and the last among them."""
        steps = list(_spread(self.clock.steps))
        if self.hook is not None:
            table = [self.rates(step) for step in steps]
            return {group.name: [rates[group.name] for rates in table] for group in self.groups}
        made: dict[tuple[Any, ...], list[float]] = {}  # the halves of a group have the same rates
        for group in self.groups:
            if _alike(group) not in made:
                made[_alike(group)] = [group.rate(step, self.clock) for step in steps]
        return {group.name: made[_alike(group)] for group in self.groups}

    def __str__(self) -> str:
        return _as_text([*self.rows(), self.totals()])

    def __rich__(self) -> Any:
        """Return the table as rich prints it."""
        from rich import box
        from rich.markup import escape
        from rich.table import Table

        rows, totals = self.rows(), self.totals()
        table = Table(box=box.SIMPLE, show_footer=True)
        for column in rows[0]:
            justify: Any = "right" if column in NUMBERS else "left"
            table.add_column(column, footer=totals.get(column, ""), justify=justify)
        for row in rows:
            table.add_row(*map(escape, row.values()))
        return table


def _check_schedules(groups: Sequence[Group], clock: Clock) -> None:
    """Refuse what cannot serve a run of this length; what is wrong with all groups is told without their names."""
    learning = [group for group in groups if not group.frozen]
    problems: dict[str, list[str]] = {}
    for group in learning:
        for schedule in filter(None, (group.schedule, group.weight_decay_schedule)):
            try:
                schedule.check(clock)
            except InputError as error:
                problems.setdefault(str(error), []).append(group.name)
    texts = [text if len(names) == len(learning) else f"{names[0]!r}: {text}" for text, names in problems.items()]
    if texts:
        raise PlanError("\n  ".join(["lr plan:", *texts]) if len(texts) > 1 else f"lr plan: {texts[0]}")


def _name_of_type(value: Any) -> str:
    """Stand for an option of the optimizer that is no plain value."""
    return type(value).__qualname__


def _alike(group: Group) -> tuple[Any, ...]:
    """Return what decides on the rates of a group."""
    return (group.full_lr, group.unfreeze_at, group.decay_every, id(group.schedule))


def _differing_options(groups: Sequence[Group]) -> list[str]:
    """Return the options of the optimizer that are not the same in all groups."""
    names = dict.fromkeys(name for group in groups for name in group.options)
    return [name for name in names if len({repr(group.options.get(name)) for group in groups}) > 1]


def _row(group: Group, options: Sequence[str]) -> dict[str, str]:
    row = {
        "prefix": group.name,
        "state": group.state,
        "tensors": f"{len(group.names)}",
        "parameters": f"{group.parameters:,}",
        "lr": "0",
    }
    row |= dict.fromkeys(("scale", "weight decay", "schedule", "centralized", "clip", "decays", "optimizer"), "-")
    if group.frozen:
        return row | {"why": ""}
    scheduled, every = group.weight_decay_schedule, group.decay_every
    own = [f"{name} {group.options[name]}" for name in options if name in group.options]
    return row | {
        "lr": f"{group.lr:g}",
        "scale": f"{group.lr_scale:.4g}",
        "weight decay": f"{group.weight_decay:g}" + (f" × {scheduled.to_dict()['kind']}" if scheduled else ""),
        "schedule": str(group.schedule.to_dict()["kind"]),
        "centralized": "yes" if group.gradient_centralization else "-",
        "clip": "-" if group.clip_grad_norm is None else f"{group.clip_grad_norm:g}",
        "decays": "-" if every is None else f"× {every.factor:g} every {every.steps} steps",
        "optimizer": ", ".join(own) or "-",
        "why": group.reason,
    }


def _spread(steps: int) -> Iterator[int]:
    stride = max(1, math.ceil(steps / MOST_SAMPLES))
    yield from range(0, steps - 1, stride)
    yield steps - 1


def _as_text(rows: Sequence[Mapping[str, str]]) -> str:
    columns = list(rows[0])
    widths = {column: max(len(column), *(len(row.get(column, "")) for row in rows)) for column in columns}
    lines = []
    for row in [dict(zip(columns, columns, strict=True)), *rows]:
        texts = [(column, row.get(column, "")) for column in columns]
        cells = [text.rjust(widths[c]) if c in NUMBERS else text.ljust(widths[c]) for c, text in texts]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
