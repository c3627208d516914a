"""Rates while a run runs: the plan's, what a callback has set since, and what a plateau has taken off."""

from collections.abc import Mapping
from typing import Any

from zoo.errors import InputError, did_you_mean
from zoo.rates import Group, Plan, is_rate
from zoo.rates.schedules import Plateau


class LiveRates:
    """The rate of every group that learns, step by step.

    Args:
        plan: With the clock of the run.

    Attributes:
        changes: What was set by hand: `step` from which it holds, `group`, `lr`.
        history: For each group, its rate at every step so far.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.changes: list[dict[str, Any]] = []
        self.history: dict[str, list[float]] = {group.name: [] for group in plan.trained}
        self._assigned: dict[str, float] = {}
        self._plateaus = {
            g.name: Plateau(g.schedule) for g in plan.trained if g.schedule.to_dict()["kind"] == "plateau"
        }

    def take(self, step: int) -> dict[str, float]:
        """Return the rates of an optimizer step, from 0, and write them into the history."""
        rates = self.plan.rates(step)
        for name, plateau in self._plateaus.items():
            rates[name] *= plateau.multiplier
        rates |= self._assigned
        for name, rate in self.history.items():
            rate.append(rates[name])
        return rates

    def assign(self, group: str, lr: float, step: int) -> None:
        """Set the rate of a group by hand, both halves of it, from a step on.

        Args:
            group: Its name, with or without ` (no decay)`.
            lr: A finite number, 0 or more. At 0 it stays where it is, but its momentum goes on.
            step: The step that is next; the group's schedule has to be over by then.

        Raises:
            InputError: There is no such group, it is frozen or scheduled, or the rate is not one.
        """
        members = [member for member in self.plan.groups if group in (member.name, member.key)]
        if not members:
            names = dict.fromkeys(member.key for member in self.plan.trained)
            raise InputError(
                f"set_lr: there is no group {group!r}.{did_you_mean(group, names)} It has {', '.join(names)}."
            )
        if not is_rate(lr):
            raise InputError(f"set_lr: the learning rate of {group!r} is {lr!r}. Expected a finite number, 0 or more.")
        for member in members:
            self._check_free(member, step)
        self._assigned |= dict.fromkeys((member.name for member in members), float(lr))
        self.changes.append({"step": step, "group": group, "lr": float(lr)})

    def update(self, metrics: Mapping[str, float]) -> None:
        """Let plateaus see the metrics of an epoch; one that was not measured in it is waited for."""
        for plateau in self._plateaus.values():
            if plateau.metric in metrics:
                plateau.update(metrics)

    @property
    def awaited(self) -> frozenset[str]:
        """The metrics that plateaus follow."""
        return frozenset(plateau.metric for plateau in self._plateaus.values())

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, as plain values."""
        plateaus = {name: plateau.state_dict() for name, plateau in self._plateaus.items()}
        return {
            "assigned": self._assigned,
            "changes": self.changes,
            "history": self.history,
            "plateaus": plateaus,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was."""
        self._assigned, self.changes = dict(state["assigned"]), list(state["changes"])
        self.history = {name: list(rates) for name, rates in state["history"].items()}
        for name, plateau in self._plateaus.items():
            plateau.load_state_dict(state["plateaus"][name])

    def _check_free(self, group: Group, step: int) -> None:
        clock = self.plan.clock
        if group.frozen:
            raise InputError(
                f"set_lr: {group.name!r} is frozen and not in the optimizer. Start with a learning rate above 0."
            )
        waits = step < group.unfreeze_at * clock.steps_per_epoch
        changes = group.decay_every is not None or not group.schedule.is_settled(step, clock)
        if (waits or changes) and group.name not in self._assigned:
            why = f"is frozen until epoch {group.unfreeze_at}" if waits else "follows a schedule from here on"
            raise InputError(
                f"set_lr: {group.name!r} {why}, which would override the value. Set the group's schedule to "
                "'constant' without warm-up, or wait until then."
            )
