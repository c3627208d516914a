"""Folds of a cross-validation that have the classes in the same shares."""

import torch
from torch import Tensor


def make_folds(labels: Tensor, count: int, *, seed: int = 0) -> Tensor:
    """Return the fold of each image, `(N,)`, int64, 0 to `count` - 1: classes and folds are as even as they can be.

    Args:
        labels: Class of each image, `(N,)`.
        count: Number of folds.
        seed: Decides which image of a class is in which fold.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels.cpu()[order].argsort(stable=True)]  # class by class; folds are dealt round and round
    folds = torch.empty(len(labels), dtype=torch.int64)
    folds[order] = torch.arange(len(labels)) % count
    return folds.to(labels.device)
