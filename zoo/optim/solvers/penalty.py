"""The penalty of a linear head, chosen by cross-validation within the training images."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.optim.solvers.linear import count_solved, slope_at_zero, zeros
from zoo.optim.solvers.objective import Basis, Objective, join, minimize
from zoo.optim.solvers.rows import HOLD_BYTES, FeatureRows

PATH = tuple(10 ** (1 - step / 8) for step in range(41))  # 10 to 1e-4, from strong to weak
LEAST = 20  # penalties that are tried in any case
TOO_WEAK = 3.0  # standard errors above the smallest cost: weaker penalties are not tried
TOLERANCE = 1e-3  # of a gradient, where only the order of penalties counts
MOST_AHEAD = 1.5  # steps of the path that are foreseen from the one before
MOST_TOGETHER = 4_000_000  # numbers of the heads that are solved at the same time


class Point(NamedTuple):
    """One penalty, scored on images that its heads were not solved on.

    Attributes:
        l2: The penalty.
        cost: Mean cost.
        error: Standard error of that mean.
        accuracy: Share of images whose most probable class is theirs.
    """

    l2: float
    cost: float
    error: float
    accuracy: float


@dataclass(frozen=True)
class Choice:
    """What a cross-validation has found.

    Attributes:
        l2: The chosen penalty.
        path: The penalties that were tried, from strong to weak.
        folds: Their number.
        logits: Of each row at the chosen penalty, from the head that was solved without its fold, `(N, C)`, float32.
        start: Mean of these heads on standardised features, `(D, C)` and `(C,)`: near the head of all rows.
    """

    l2: float
    path: tuple[Point, ...]
    folds: int
    logits: Tensor
    start: tuple[Tensor, Tensor]


def choose_l2(
    rows: FeatureRows,
    costs: Tensor,
    folds: Tensor,
    *,
    basis: Basis | None = None,
    fixed: Tensor | None = None,
    path: Sequence[float] = PATH,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    is_stopping: Callable[[], bool] = lambda: False,
) -> Choice:
    """Return the strongest penalty whose cost on held-out images is within a standard error of the smallest.

    The heads of all folds are solved together, in float32, each penalty from the heads of the one before, until weaker
    ones are clearly worse. Source of the rule: Hastie et al., The elements of statistical learning, 2nd edition,
    section 7.10.

    Args:
        rows: Features of all images.
        costs: As in `solve_head`.
        folds: Fold of each row, `(N,)`: 0 to K - 1; rows of one image belong to one fold.
        basis: Directions of the rows, if they are known.
        fixed: As in `solve_head`.
        path: Penalties, from strong to weak.
        on_progress: Called with the number of penalties that are done, and of all.
        is_stopping: Asked in every pass.

    Raises:
        Interrupted: It is to stop.
    """
    known = Basis.of(rows) if basis is None else basis
    heads = _Heads(rows, costs.to(rows.device), folds, known, fixed, is_stopping)
    points: list[Point] = []
    for place, l2 in enumerate(path):
        points.append(_score(l2, heads.solve(l2), rows.labels, costs.to(rows.device)))
        on_progress(place + 1, len(path))
        best = min(points, key=lambda point: point.cost)
        if place + 1 >= LEAST and min(point.cost for point in points[-2:]) > best.cost + TOO_WEAK * best.error:
            break
    l2 = max(point.l2 for point in points if point.cost <= best.cost + best.error)
    return Choice(l2, tuple(points), int(folds.max()) + 1, heads.solve(l2), heads.mean())


def predict_held_out(rows: FeatureRows, costs: Tensor, folds: Tensor, l2: float) -> Tensor:
    """Return logits `(N, C)` of each row from the head that was solved without its fold; see `choose_l2`."""
    return choose_l2(rows, costs, folds, path=(l2,)).logits


@dataclass
class _Part:
    """Heads of some folds that are solved together.

    Attributes:
        first: The first of these folds.
        objective: Of their heads.
        scale: Norm of its gradient at zero.
        heads: Weight and bias at the last penalty.
    """

    first: int
    objective: Objective
    scale: float
    heads: tuple[Tensor, Tensor]
    _l2: float | None = None
    _before: tuple[float, tuple[Tensor, Tensor]] | None = None

    def foresee(self, l2: float) -> tuple[Tensor, Tensor]:
        """Return about what the heads will be at the next penalty: they follow a smooth path. It halves the passes."""
        if self._before is None or self._l2 is None:
            return self.heads
        step, last = math.log(l2 / self._l2), math.log(self._l2 / self._before[0])
        if not 0 < step / last < MOST_AHEAD:
            return self.heads
        weight, bias = (
            now + (now - then) * (step / last) for now, then in zip(self.heads, self._before[1], strict=True)
        )
        return weight, bias

    def keep(self, l2: float, heads: tuple[Tensor, Tensor]) -> None:
        """Keep the heads of a penalty."""
        self._before = None if self._l2 is None else (self._l2, self.heads)
        self._l2, self.heads = l2, heads


class _Heads:
    """The heads of a cross-validation, one for each fold, from penalty to penalty.

    Args:
        rows: Features of all images.
        costs: `(C, C)`.
        folds: `(N,)`.
        basis: Directions of the rows.
        fixed: Logits of classes that no head has, `(N, K)`.
        is_stopping: Asked in every pass.
    """

    def __init__(
        self,
        rows: FeatureRows,
        costs: Tensor,
        folds: Tensor,
        basis: Basis,
        fixed: Tensor | None,
        is_stopping: Callable[[], bool],
    ) -> None:
        self.folds, self.basis, self.fixed, self.is_stopping = folds, basis, fixed, is_stopping
        self.solved, self.classes = count_solved(costs, fixed), len(costs)
        count, numbers = int(folds.max()) + 1, len(basis.values) * self.solved
        together = max(1, MOST_TOGETHER // numbers)
        self.turned = _turn(rows, basis)
        self.vectors = None if self.turned else basis.vectors
        self.pieces = (lambda: self.turned) if self.turned else (lambda: rows.pieces(torch.float32))
        width = len(basis.values) if self.turned else rows.width
        self.parts: list[_Part] = []
        for first in range(0, count, together):
            mine = torch.arange(first, min(first + together, count), device=rows.device)
            shares = (folds[:, None] != mine).double()
            objective = Objective(self.pieces, rows.labels, costs, shares / shares.sum(0), fixed)
            start = zeros(width, len(mine) * self.solved, torch.float32, rows.device)
            self.parts.append(_Part(first, objective, slope_at_zero(objective, start), start))

    def solve(self, l2: float) -> Tensor:
        """Return the logits of each row from the head without its fold, `(N, C)`."""
        found = torch.empty(len(self.folds), self.classes, device=self.folds.device)
        for part in self.parts:
            minimum = minimize(
                part.objective,
                l2,
                part.foresee(l2),
                values=self.basis.values,
                vectors=self.vectors,
                scale=part.scale,
                tolerance=TOLERANCE,
                is_stopping=self.is_stopping,
            )
            part.keep(l2, (minimum.weight, minimum.bias))
            for where, rows in self.pieces():
                logits = torch.addmm(minimum.bias, rows, minimum.weight).view(len(rows), -1, self.solved)
                logits = join(logits, self.fixed, where)
                own = self.folds[where] - part.first
                mine = ((own >= 0) & (own < logits.shape[1])).nonzero()[:, 0]
                found[mine + where.start] = logits[mine, own[mine]]
        return found

    def mean(self) -> tuple[Tensor, Tensor]:
        """Return the mean of the heads on standardised features."""
        weights, biases = zip(*(part.heads for part in self.parts), strict=True)
        weight = torch.cat([part.view(len(part), -1, self.solved) for part in weights], 1).double().mean(1)
        bias = torch.cat([part.view(-1, self.solved) for part in biases]).double().mean(0)
        return (self.basis.vectors @ weight if self.turned else weight), bias


def _turn(rows: FeatureRows, basis: Basis) -> list[tuple[slice, Tensor]]:
    """Return all rows in the directions of the basis, in which the path needs fewer numbers; none if they are many."""
    if len(rows) * len(basis.values) * torch.float32.itemsize > HOLD_BYTES:
        return []
    vectors = basis.vectors.float()
    return [(where, piece @ vectors) for where, piece in rows.pieces(torch.float32)]


def _score(l2: float, logits: Tensor, labels: Tensor, costs: Tensor) -> Point:
    log_p = logits.double().log_softmax(-1)
    each = -(log_p * costs[labels]).sum(-1)
    right = (logits.argmax(-1) == labels).double().mean()
    return Point(l2, float(each.mean()), float(each.std() / len(each) ** 0.5), float(right))
