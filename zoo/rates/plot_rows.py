"""The rows of the plot of a plan: parts with their rates, and which of them share a row."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo._figures import MOST_POINTS
from zoo.errors import InputError
from zoo.rates.groups import NO_DECAY

Rates = npt.NDArray[np.float64]

FROZEN, FROM_THE_START = "frozen", "from the start"
MOST_ROWS_APART = 24  # beyond, neighbours with equal rates share a row
MOST_ROWS = 60  # beyond, neighbours share a row whatever their rates


@dataclass(frozen=True)
class Part:
    """A group of parameters and its rates over the whole run.

    Attributes:
        name: As the plan calls it. The halves `x` and `x (no decay)` share a row if their rates are equal.
        parameters: How many numbers it holds.
        tensors: In how many tensors.
        rates: Effective rates, any number of samples evenly spread over the run: sample i of n holds from i/n to
            (i + 1)/n of it; so one per optimizer step, or fewer.
        state: `frozen`; `from the start`; anything else, for example `from epoch 3`, is a part that is frozen until
            its first rate above 0.
        note: Why it has this rate, for example `0.01 × 0.3`.
    """

    name: str
    parameters: int
    tensors: int
    rates: Sequence[float]
    state: str
    note: str = ""


@dataclass(frozen=True, eq=False)
class PlotRow:
    """Parts that are drawn as one: `rates` are MOST_POINTS values, NaN while frozen; `start` is in epochs."""

    names: tuple[str, ...]
    parameters: int
    rates: Rates
    state: str
    note: str
    peaks: tuple[float, float]  # lowest and highest of its parts
    start: float

    @property
    def label(self) -> str:
        """Its name, or from where to where it goes."""
        return " … ".join(dict.fromkeys([self.names[0], self.names[-1]]))

    @property
    def key(self) -> tuple[Any, ...]:
        """Rows with the same key look the same."""
        return (self.curve, self.state, self.peaks)

    @property
    def curve(self) -> bytes:
        """The rates as something to compare."""
        return self.rates.tobytes()

    @property
    def learns(self) -> bool:
        """Whether any rate is above 0."""
        return self.peaks[1] > 0


def check_part(part: Part) -> None:
    """Refuse rates that cannot be, and those of a part that is frozen."""
    rates = np.asarray(part.rates, dtype=np.float64)
    if rates.ndim != 1 or not rates.size or not (np.isfinite(rates) & (rates >= 0)).all():
        raise InputError(
            f"part {part.name!r} has invalid learning rates; expected one or more finite numbers, 0 or more."
        )
    if part.state == FROZEN and rates.any():
        raise InputError(f"part {part.name!r} is frozen, but has rates above 0; expected zeros, or another state.")


def find_rows(parts: Sequence[Part], epochs: int) -> list[PlotRow]:
    """Return one row for the two halves of a key, and for neighbours if there are too many."""
    halves: dict[Any, PlotRow] = {}
    for part in parts:
        row, whole = _to_row(part, epochs), part.name.removesuffix(NO_DECAY)
        key = (whole, row.key)
        halves[key] = replace(_merge([halves[key], row]), names=(whole,)) if key in halves else row
    rows = list(halves.values())
    if len(rows) > MOST_ROWS_APART:
        rows = [_merge(list(alike)) for _, alike in groupby(rows, key=lambda row: row.key)]
    if len(rows) > MOST_ROWS:
        rows = _thin([list(alike) for _, alike in groupby(rows, key=lambda row: row.state)])
    return _thin([rows]) if len(rows) > MOST_ROWS else rows


def _thin(runs: Sequence[Sequence[PlotRow]]) -> list[PlotRow]:
    """Merge neighbours of one run, so many at a time that not too many rows are left."""
    number = -(-sum(map(len, runs)) // max(MOST_ROWS - len(runs) + 1, 1))
    return [_merge(run[i : i + number]) for run in runs for i in range(0, len(run), number)]


def _to_row(part: Part, epochs: int) -> PlotRow:
    given = np.asarray(part.rates, dtype=np.float64)
    number, peak = len(given), float(given.max())
    frozen = int((given > 0).argmax()) if peak else number
    if part.state == FROM_THE_START:
        frozen = 0
    rates = given[np.arange(MOST_POINTS) * number // MOST_POINTS]
    rates[: -(-frozen * MOST_POINTS // number)] = np.nan
    start = epochs * frozen / number
    return PlotRow((part.name,), part.parameters, rates, part.state, part.note, (peak, peak), start)


def _merge(rows: Sequence[PlotRow]) -> PlotRow:
    states, notes = {row.state for row in rows}, {row.note for row in rows}
    peaks = [peak for row in rows for peak in row.peaks]
    if max(peaks) > 0 and min(peaks) == 0:
        notes = {"some are frozen"}
    return PlotRow(
        names=tuple(name for row in rows for name in row.names),
        parameters=sum(row.parameters for row in rows),
        rates=np.fmax.reduce([row.rates for row in rows]),
        state=states.pop() if len(states) == 1 else "",
        note=notes.pop() if len(notes) == 1 else "",
        peaks=(min(peaks), max(peaks)),
        start=min(row.start for row in rows),
    )
