"""Runs of many epochs, of which not all need be measured: where every epoch costs the same, a few tell the rest."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from _measure import Result, in_turns

FLOOR = "floor"  # has no epochs
TOGETHER = ("zoo", "zoo, again")  # their epochs differ; the second finds what the first has kept


class Turn(NamedTuple):
    """A contender with the epochs that it runs."""

    name: str
    epochs: int

    def __str__(self) -> str:
        return f"{self.name}, {self.epochs} epochs"


def measure_epochs(
    names: Sequence[str],
    epochs: Sequence[int],
    runs: int,
    run: Callable[[Turn, int], Result],
    *,
    measured: int,
    score: str,
) -> dict[int, dict[str, list[Result]]]:
    """Run contenders in turns, and return the results of each by number of epochs and name.

    Args:
        names: Of the contenders.
        epochs: How many are wanted.
        runs: Rounds.
        run: Runs a contender in a round.
        measured: Epochs that contenders run whose epochs cost the same; 0: as many as wanted, whatever they cost.
        score: Key of the score in a result; it is that of the wanted epoch, if that was run.
    """
    groups: list[list[Turn]] = []
    for name in names:
        if name == FLOOR:
            groups.append([Turn(name, 1)])
        elif name in TOGETHER or not measured:
            groups += [[Turn(name, count)] for count in epochs if name != TOGETHER[1]]
        else:
            groups.append([Turn(name, min(measured, max(epochs)))])
    if TOGETHER[1] in names:
        for group in groups:
            if group[0].name == TOGETHER[0]:
                group.append(Turn(TOGETHER[1], group[0].epochs))
    results = in_turns(groups, runs, run)
    return {
        count: {name: [at_epochs(result, count, score) for result in _find(results, name, count)] for name in names}
        for count in epochs
    }


def at_epochs(result: Result, epochs: int, score: str) -> Result:
    """Return what a run would have taken for another number of epochs, at the median of those after the first."""
    ends = result.get("epochs", [])
    if len(ends) in (0, 1, epochs):
        return result
    scores = result.get("scores", [])
    return result | {
        "seconds": result["seconds"] + (epochs - len(ends)) * later_epoch(result),
        "measured_seconds": result["seconds"],
        score: scores[epochs - 1] if epochs <= len(scores) else None,
    }


def later_epoch(result: Result) -> float:
    """Return the median seconds of the epochs after the first; not a number if there are none."""
    gaps = [after - before for before, after in pairwise(result.get("epochs", []))]
    return median(gaps) if gaps else float("nan")


def _find(results: Mapping[Turn, list[Result]], name: str, epochs: int) -> list[Result]:
    """Return the runs of a contender with that many epochs, or those that have to do instead."""
    own = results.get(Turn(name, epochs))
    return own or next(runs for turn, runs in results.items() if turn.name == name)
