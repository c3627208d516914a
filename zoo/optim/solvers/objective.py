"""The convex objective of linear heads, and its minimum by L-BFGS in coordinates that suit the features.

For an image of class y the cost is `-Σ_c T[y, c] log p_c`. With T = 1 that is the cross-entropy; weights of classes and
label smoothing are other values of T.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.errors import Interrupted
from zoo.optim.solvers.rows import FeatureRows

CURVATURE = 0.1  # of the cost along an eigenvector, as a share of the eigenvalue; 0.5 is the bound (Böhning 1992)
SAMPLE = 8192  # rows from which the coordinates are found
RANK = 1e-9  # of the largest eigenvalue: directions with less are none
MEMORY = 10  # steps that L-BFGS remembers
MOST_PASSES = 4000

Pieces = Callable[[], Iterable[tuple[slice, Tensor]]]


class Basis(NamedTuple):
    """The directions in which standardised features vary.

    Attributes:
        vectors: `(D, R)`, float64, orthonormal; they span all rows.
        values: Variance along each, `(R,)`, float64.
    """

    vectors: Tensor
    values: Tensor

    @classmethod
    def of(cls, rows: FeatureRows) -> "Basis":
        """Return the directions of some rows: all of them, or as many as it takes to know the directions well."""
        sample = rows.sample(max(SAMPLE, 2 * rows.width))
        count, width = sample.shape
        if count < width:
            values, vectors = torch.linalg.eigh((sample @ sample.T).double())
            kept = values > values[-1] * RANK
            values, vectors = values[kept], vectors[:, kept]
            return cls(torch.linalg.qr(sample.double().T @ vectors / values.sqrt())[0], values / count)
        values, vectors = torch.linalg.eigh(sample.T @ sample / count)
        return cls(vectors.double(), values.double().clamp_min(0))


class Objective:
    """Mean cost of F linear heads of C classes at the same time, each on rows of its own, plus their L2 penalty.

    Args:
        pieces: Yields rows `(n, D)`, in every pass the same.
        labels: Class of each row, `(N,)`.
        costs: T, `(C, C)`.
        shares: How much each row counts for each head, `(N, F)`; columns add up to 1.
        fixed: Logits of the first K classes that no head changes, `(N, K)`; heads have the other classes only. None:
            there are no such classes.

    Attributes:
        passes: Over all rows, so far.
    """

    def __init__(
        self, pieces: Pieces, labels: Tensor, costs: Tensor, shares: Tensor, fixed: Tensor | None = None
    ) -> None:
        self.pieces, self.labels, self.costs, self.shares, self.fixed = pieces, labels, costs, shares, fixed
        self.passes = 0

    def __call__(self, weight: Tensor, bias: Tensor, l2: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sum of the objectives, and its gradients.

        Args:
            weight: `(D, F * C)`; C - K instead of C with fixed logits of K classes.
            bias: `(F * C,)`, likewise.
            l2: The penalty is `l2 / 2` times the squared weights; the bias is free.
        """
        self.passes += 1
        heads = self.shares.shape[1]
        total = weight.square().sum() * (l2 / 2)
        slopes, offsets = weight * l2, torch.zeros_like(bias)
        for where, rows in self.pieces():
            costs, shares = self.costs[self.labels[where]].to(rows.dtype), self.shares[where].to(rows.dtype)
            log_p = join(torch.addmm(bias, rows, weight).view(len(rows), heads, -1), self.fixed, where).log_softmax(-1)
            total = total - ((log_p * costs[:, None]).sum(-1) * shares).sum()
            slope = log_p.exp_().mul_(costs.sum(1)[:, None, None]).sub_(costs[:, None]).mul_(shares[:, :, None])
            flat = (slope if self.fixed is None else slope[:, :, self.fixed.shape[1] :]).reshape(len(rows), -1)
            slopes.addmm_(rows.T, flat)
            offsets += flat.sum(0)
        return total, slopes, offsets


def join(logits: Tensor, fixed: Tensor | None, where: slice) -> Tensor:
    """Return the logits of heads `(n, F, C - K)` after the fixed ones of these rows: `(n, F, C)`."""
    if fixed is None:
        return logits
    first = fixed[where].to(logits.dtype)[:, None].expand(-1, logits.shape[1], -1)
    return torch.cat([first, logits], -1)


class Minimum(NamedTuple):
    """Where an objective is smallest.

    Attributes:
        weight: `(D, F * C)`.
        bias: `(F * C,)`.
        value: Of the objective.
        gradient: Its norm there, as a share of that at zero.
    """

    weight: Tensor
    bias: Tensor
    value: float
    gradient: float


def minimize(
    objective: Objective,
    l2: float,
    start: tuple[Tensor, Tensor],
    *,
    values: Tensor,
    vectors: Tensor | None = None,
    scale: float,
    tolerance: float,
    is_stopping: Callable[[], bool] = lambda: False,
) -> Minimum:
    """Find the minimum by L-BFGS, in directions of equal curvature.

    Args:
        objective: Of one head or several.
        l2: Penalty, above 0.
        start: Weight and bias to start from.
        values: Variance along each direction, `(R,)`.
        vectors: The directions, `(D, R)`; None: rows are given in them already.
        scale: Norm of the gradient at zero.
        tolerance: Norm of the gradient at the end, as a share of `scale`.
        is_stopping: Asked at every step.

    Raises:
        Interrupted: It is to stop.
    """
    from scipy.optimize import minimize as minimize_by

    weight, bias = start
    like: dict[str, Any] = {"dtype": weight.dtype, "device": weight.device}
    stretch = (CURVATURE * values + l2).sqrt().to(**like)[:, None]
    turn = None if vectors is None else vectors.to(**like)
    size, steepness = len(stretch) * weight.shape[1], math.sqrt(CURVATURE)
    last: dict[str, Any] = {"point": None}  # L-BFGS begins and ends where the objective is known already

    def unpack(point: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        there = torch.from_numpy(point).to(**like)
        turned = there[:size].view(len(stretch), -1) / stretch
        return turned if turn is None else turn @ turned, there[size:] / steepness

    def evaluate(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        if last["point"] is None or not np.array_equal(point, last["point"]):
            if is_stopping():
                raise Interrupted("stopped while the head was solved")
            total, slopes, offsets = objective(*unpack(point), l2)
            turned = (slopes if turn is None else turn.T @ slopes) / stretch
            last["norm"] = math.sqrt(float(slopes.double().square().sum() + offsets.double().square().sum()))
            last["value"], last["point"] = float(total), point.copy()
            last["gradient"] = torch.cat([turned.flatten(), offsets / steepness]).double().cpu().numpy()
        return last["value"], last["gradient"].copy()

    def stop_when_flat(intermediate_result: object) -> None:
        if last["norm"] <= tolerance * scale:
            raise StopIteration

    first = (weight if turn is None else turn.T @ weight) * stretch
    point = torch.cat([first.flatten(), bias * steepness]).double().cpu().numpy()
    evaluate(point)
    if last["norm"] > tolerance * scale:
        options = {"maxcor": MEMORY, "maxiter": MOST_PASSES, "maxfun": MOST_PASSES, "ftol": 0.0, "gtol": 0.0}
        found = minimize_by(evaluate, point, jac=True, method="L-BFGS-B", callback=stop_when_flat, options=options)
        point = found.x
    value, _ = evaluate(point)
    return Minimum(*unpack(point), value, last["norm"] / scale)
