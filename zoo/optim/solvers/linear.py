"""The best linear head for features that do not change: multinomial logistic regression with an L2 penalty."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.optim.solvers.objective import Basis, Objective, minimize
from zoo.optim.solvers.rows import FeatureRows

TOLERANCE = 1e-6


@dataclass(frozen=True)
class Head:
    """A linear layer on features as they are, not standardised.

    Attributes:
        weight: `(C, D)`, float64.
        bias: `(C,)`, float64.
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Turn features `(N, D)` into logits `(N, C)`, float64."""
        return features.double() @ self.weight.T + self.bias


@dataclass(frozen=True)
class Solution:
    """The minimum of mean cost and penalty.

    Attributes:
        head: The layer.
        l2: The penalty was `l2 / 2` times the squared weights on standardised features.
        objective: Mean cost plus penalty.
        cost: Mean cost.
        gradient: Norm of the gradient, as a share of that of a head of zeros.
        passes: Over all rows.
    """

    head: Head
    l2: float
    objective: float
    cost: float
    gradient: float
    passes: int


def solve_head(
    rows: FeatureRows,
    costs: Tensor,
    l2: float,
    *,
    basis: Basis | None = None,
    start: tuple[Tensor, Tensor] | None = None,
    fixed: Tensor | None = None,
    tolerance: float = TOLERANCE,
    is_stopping: Callable[[], bool] = lambda: False,
) -> Solution:
    """Return the head with the smallest mean cost plus penalty, in float64.

    scikit-learn's `LogisticRegression` has the same minimum on standardised features with `C = 1 / (N * l2)`.

    Args:
        rows: Features of all images.
        costs: Cost matrix `(C, C)`: of an image of class y, `costs[y, c]` weighs `-log p_c`; the unit matrix is the
            cross-entropy.
        l2: Penalty, above 0.
        basis: Directions of the rows, if they are known.
        start: Weight `(D, C)` and bias `(C,)` on standardised features to start from; None: zeros.
        fixed: Logits of the first K classes on each row, `(N, K)`, from rows of a head that stay as they are: only the
            other C - K classes are solved, as well as they can be beside these. None: all are solved.
        tolerance: Norm of the gradient at the end, as a share of that of a head of zeros.
        is_stopping: Asked in every pass.

    Raises:
        Interrupted: It is to stop.
    """
    found = Basis.of(rows) if basis is None else basis
    shares = torch.full((len(rows), 1), 1 / len(rows), dtype=torch.float64, device=rows.device)
    objective = Objective(lambda: rows.pieces(torch.float64), rows.labels, costs.to(rows.device), shares, fixed)
    nothing = zeros(rows.width, count_solved(costs, fixed), torch.float64, rows.device)
    scale = slope_at_zero(objective, nothing)
    how: dict[str, Any] = {"scale": scale, "tolerance": tolerance, "is_stopping": is_stopping}
    minimum = minimize(objective, l2, start or nothing, values=found.values, vectors=found.vectors, **how)
    cost = minimum.value - l2 / 2 * float(minimum.weight.square().sum())
    head = Head(*rows.unstandardise(minimum.weight, minimum.bias))
    return Solution(head, l2, minimum.value, cost, minimum.gradient, objective.passes)


def count_solved(costs: Tensor, fixed: Tensor | None) -> int:
    """Return the number of classes whose logits are not fixed."""
    return len(costs) - (0 if fixed is None else fixed.shape[1])


def zeros(width: int, outputs: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a head of zeros."""
    return torch.zeros(width, outputs, dtype=dtype, device=device), torch.zeros(outputs, dtype=dtype, device=device)


def slope_at_zero(objective: Objective, start: tuple[Tensor, Tensor]) -> float:
    """Return the norm of the gradient of heads of zeros."""
    _, slopes, offsets = objective(*start, 0.0)
    return math.sqrt(float(slopes.double().square().sum() + offsets.double().square().sum())) or 1.0
