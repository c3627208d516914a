"""Nearest neighbours of features by cosine: which images are like no other, and which may be copies."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NEIGHBOURS = 10
LEAST = 50  # images of which an unusual one can be told
FAR = 3.0  # interquartile ranges above the third quartile: Tukey's fence of what is far out
SIMILARITIES_AT_A_TIME = 4_000_000  # 16 MB


class Neighbours(NamedTuple):
    """The images of a base that are nearest to each of some images.

    Attributes:
        places: `(N, K)` in the base, the nearest first.
        similarities: `(N, K)` cosines of features.
    """

    places: NDArray[np.int64]
    similarities: NDArray[np.float32]


def find_neighbours(vectors: Tensor, base: Tensor, *, is_base: bool, count: int = NEIGHBOURS) -> Neighbours:
    """Return the nearest neighbours of features, standardised by the base.

    Args:
        vectors: `(N, D)`.
        base: `(M, D)`, where to look.
        is_base: Whether they are the same images, and an image is no neighbour of itself.
        count: Of neighbours; fewer if the base has fewer.
    """
    mean, scale = base.mean(0), base.std(0, correction=0).clamp_min(1e-6)
    pool = torch.nn.functional.normalize((base - mean) / scale)
    rows, found = max(1, SIMILARITIES_AT_A_TIME // max(1, len(base))), []
    for start in range(0, len(vectors), rows):
        part = torch.nn.functional.normalize((vectors[start : start + rows] - mean) / scale)
        similarities = part @ pool.T
        if is_base:
            similarities[torch.arange(len(part)), torch.arange(start, start + len(part))] = -2
        found.append(similarities.topk(min(count, len(base) - is_base)))
    places, values = (torch.cat(column) for column in ([f.indices for f in found], [f.values for f in found]))
    return Neighbours(places.numpy(), values.numpy())


def find_outliers(distances: NDArray[np.float64], usual: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the places of distances that are far above the usual ones, the largest first."""
    if len(usual) < LEAST:
        return np.zeros(0, np.int64)
    low, high = np.quantile(usual, [0.25, 0.75])
    places = np.flatnonzero(distances > high + FAR * (high - low))
    return places[np.argsort(-distances[places], kind="stable")]
