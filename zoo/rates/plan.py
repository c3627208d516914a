"""The plan: which parameter learns when and at which rate, known for every step before the first one is taken.

A rate is `base rate × scale × schedule × repeated decay`, and 0 before the group's unfreeze point. A plan is a value:
`zoo.rates.assign` makes it of a model and what the user says, `zoo.optim.freeze` applies it, `zoo.optim.build` gives
it to torch.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from zoo.errors import InputError, PlanError
from zoo.pages import make_fragment, make_table
from zoo.rates.groups import ONE_STEP, Group, Starts
from zoo.rates.plot import draw_plan
from zoo.rates.plot_rows import Part
from zoo.rates.schedules.parse import Clock
from zoo.rates.table import as_rich, as_text, list_records, list_rows, sum_up

MOST_SAMPLES = 2000  # of a group's rate in a plot; more cannot be seen


class RateHook(Protocol):
    """What changes the scheduled rates of a plan before every step: a model's `update_param_groups`."""

    def rates(self, rates: Mapping[str, float], step: int, clock: Clock) -> dict[str, float]:
        """Return the rates of all groups, by name."""


@dataclass(frozen=True, repr=False)
class Plan:
    """Every parameter of a model in exactly one group.

    Attributes:
        groups: The groups, ordered by their first parameter.
        clock: Epochs and steps of the run; rates and plots follow it.
        starts: Prefix → epochs that pass before what it catches learns, None for never; for modules without
            parameters, such as dropout. Empty if a model's own hook made the plan.
        steps_are_known: Whether the clock's steps are those of a run, not an assumption.
        hook: What the model itself does to the rates; it is no part of the plan as data.
    """

    groups: tuple[Group, ...]
    clock: Clock = ONE_STEP
    starts: Starts = field(default_factory=dict)
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
            is_custom = rates[group.name] == group.rate(step, self.clock)
            hooked = f"{rates[group.name]:.4g}, set by update_param_groups"
            texts[group.name] = group.explain(step, self.clock) if is_custom else hooked
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
        return list_records(self.groups, self._curves())

    def rows(self) -> list[dict[str, str]]:
        """Return the table of groups as text; columns that say nothing new are left out."""
        return list_rows(self.groups)

    def totals(self) -> dict[str, str]:
        """Return the last line of the table: how much of the model learns."""
        return sum_up(self.groups)

    def plot(self, path: str | os.PathLike[str], *, title: str = "Learning rates") -> Path:
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
        return draw_plan(parts, Path(path), epochs=epochs, steps_per_epoch=steps, title=title)

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
        return as_text(self.rows(), self.totals())

    def __repr__(self) -> str:
        known = "" if self.steps_are_known else " (assumed)"
        length = f"{self.clock.epochs} epochs × {self.clock.steps_per_epoch:,} steps{known}"
        share, count = self.totals()["state"], len(self.trained)
        return f"<Plan: {count} of {len(self.groups)} groups trained, {share}, {length}; print it for the table>"

    def _repr_html_(self) -> str:
        """Return the table as a notebook shows it."""
        return make_fragment(repr(self).strip("<>").partition(";")[0], make_table(self.rows(), self.totals()))

    def __rich__(self) -> Any:
        """Return the table as rich prints it."""
        return as_rich(self.rows(), self.totals())


def mark_solved(plan: Plan, solver: str) -> Plan:
    """Return the plan in which everything that learns is solved at once, not trained in steps."""
    groups = (group if group.frozen else replace(group, solver=solver) for group in plan.groups)
    return replace(plan, groups=tuple(groups))


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


def _spread(steps: int) -> Iterator[int]:
    stride = max(1, math.ceil(steps / MOST_SAMPLES))
    yield from range(0, steps - 1, stride)
    yield steps - 1
