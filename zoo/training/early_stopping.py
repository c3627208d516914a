"""Which epoch of a run is the best, and when training stops because no later one is better."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.rates import Plan
from zoo.settings import Preset
from zoo.tasks import LOSSES, Task


@dataclass(frozen=True)
class Monitor:
    """Looks at one metric of the records of a run; what it says depends on these alone, also after a resume.

    Attributes:
        key: Of the metric in a record.
        patience: Evaluations without improvement after which training stops; None: it does not.
        min_delta: Least change that counts as an improvement.
        first_epoch: Number of epochs at the start that do not count as waiting: the learning rate still rises, or
            layers are still frozen that train later.
    """

    key: str
    patience: int | None = None
    min_delta: float = 0.0
    first_epoch: int = 0

    @classmethod
    def of(cls, preset: Preset, task: Task, plan: Plan) -> "Monitor":
        """Return what the preset asks for; the plan knows warm-up and unfreeze points."""
        clock = plan.clock
        ends = (group.schedule.rise(clock) / clock.steps_per_epoch for group in plan.trained)
        first = max([0, *plan.unfreeze_epochs, *map(math.ceil, ends)])
        return cls(preset.monitor or task.monitors[0], preset.patience, preset.min_delta, first)

    def record(self, evaluation: Any) -> dict[str, Any]:
        """Return what the record of an epoch holds of its evaluation, with the metric if it is that of a class."""
        record: dict[str, Any] = evaluation.record()
        score, _, name = self.key.partition(":")
        if name:
            record[self.key] = next(row[score] for row in evaluation.per_class() if row["class"] == name)
        return record

    def score(self, record: Mapping[str, Any]) -> float:
        """Return the metric so that higher is better; -inf where there is none, or it is not a number."""
        value = record.get(self.key)
        if value is None or math.isnan(value):
            return -math.inf
        return -float(value) if self.key in LOSSES else float(value)

    def find_stop(self, records: Sequence[Mapping[str, Any]]) -> str | None:
        """Return why training stops after these epochs; None: it goes on."""
        if self.patience is None:
            return None
        best, best_epoch, waited = -math.inf, 0, 0
        for record in records:
            if self.key not in record:
                continue
            if (score := self.score(record)) > best + (self.min_delta if best_epoch else 0.0):
                best, best_epoch, waited = score, record["epoch"], 0
            elif record["epoch"] > self.first_epoch:
                waited += 1
            if waited >= self.patience:
                value = f"{abs(best):.4g} in epoch {best_epoch}" if best_epoch else "none"
                return (
                    f"stopped early after epoch {record['epoch']}: {self.key} has not improved for {waited} "
                    f"evaluation{'s' * (waited > 1)} (best: {value})"
                )
        return None
