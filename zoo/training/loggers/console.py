"""Shows a bar in each epoch, a line after it, and the result."""

from collections.abc import Mapping, Sequence
from typing import Any

from zoo.training.kept_weights import KeptWeights, name_epochs
from zoo.training.loggers.base import Logger, RunFacts, RunResult
from zoo.training.position import Position

MOST_ROWS = 30  # of the table of scores


class Console(Logger):
    """Prints what a run does through `Progress`, which owns the terminal."""

    order = 90  # the result is the last thing printed

    def start(self, facts: RunFacts) -> None:
        """Show the columns of the task's scores from here on."""
        self.facts, steps, columns = facts, facts.steps_per_epoch, facts.task.columns
        self.lines = facts.show.start(facts.preset.epochs, len(facts.records), steps, columns)

    def step(self, position: Position, loss: float | None) -> None:
        """Move the bar of the epoch."""
        step = position.step - position.epoch * self.facts.steps_per_epoch
        self.lines.step(step, loss, position.images_per_second, position.waiting_share)

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Print the line of an epoch."""
        self.lines.epoch({**record, "lr": _merge_halves(record["lr"])})

    def finish(self, result: RunResult) -> None:
        """Print the scores, and where to find the rest."""
        if result.status != "finished":
            return
        folder = self.facts.folder.path
        lines = {"folder": str(folder), "plots": str(folder / "pictures")}
        if result.evaluation is not None:
            kept, *beside = result.weights.values()
            lines = {"result": f"{result.evaluation} (val, {kept})"} | _tell_last(beside, kept) | lines
            rows, secondary = result.evaluation.rows()[:MOST_ROWS], self.facts.task.secondary
            self.facts.show.table(rows, title="per-class scores", secondary=secondary, in_full="evaluation.json")
        if count := len(result.proof.get("digests", ())):
            lines["proof"] = (
                f"{count} frozen tensors unchanged, checksums compared {len(result.proof['moments'])} times"
            )
        self.facts.show.finish(lines)


def _tell_last(beside: Sequence[KeptWeights], kept: KeptWeights) -> dict[str, str]:
    """Say how the weights of the last epoch score that stand beside the best, if those are others."""
    last = next((last for last in beside if last.epochs != kept.epochs), None)
    score = last.tell(kept.chosen_by or "") if last else ""
    return {"last": f"{score} in {name_epochs(last.epochs)} (last.safetensors)"} if last and score else {}


def _merge_halves(rates: Mapping[str, float]) -> dict[str, float]:
    """Leave out the half of a group that has no decay where both halves have the same rate."""
    return {
        name: rate
        for name, rate in rates.items()
        if rates.get(name.removesuffix(" (no decay)")) != rate or not name.endswith(" (no decay)")
    }


LOGGER = Console
