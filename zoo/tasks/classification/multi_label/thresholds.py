"""From which probability on a label is named: chosen for each label on the training images, by cross-validation."""

import torch
from torch import Tensor

DEFAULT = 0.5
FOLDS = 5
LEAST = 2  # images with a label, and without it, that each fold needs


def choose_thresholds(probabilities: Tensor, targets: Tensor) -> list[float]:
    """Return the threshold of each label.

    The images are dealt into five folds. For each fold the threshold with the best F1 on the other four is taken, in
    the middle between the two probabilities that it parts, and is tried on the fold. If these five together have a
    better F1 on the images that they were not chosen on than 0.5 has, their mean is the label's threshold; else it is
    0.5, as for labels with too few images.

    Args:
        probabilities: `(N, C)`, 0 to 1.
        targets: `(N, C)`, 0 or 1.
    """
    columns = zip(probabilities.double().unbind(1), targets.bool().unbind(1), strict=True)
    return [_choose(values, truth) for values, truth in columns]


def _choose(values: Tensor, truth: Tensor) -> float:
    known = values.isfinite()
    values, truth = values[known], truth[known]
    positives = int(truth.sum())
    if min(positives, len(truth) - positives) < LEAST * FOLDS:
        return DEFAULT
    folds = torch.empty(len(truth), dtype=torch.int64, device=truth.device)
    for part in (truth, ~truth):  # each fold gets its share of both
        folds[part] = torch.arange(int(part.sum()), device=truth.device) % FOLDS
    chosen = [_find_best(values[folds != fold], truth[folds != fold]) for fold in range(FOLDS)]
    limits = torch.tensor(chosen, dtype=values.dtype, device=values.device)[folds]
    is_better = compute_f1(values >= limits, truth) > compute_f1(values >= DEFAULT, truth)
    return round(sum(chosen) / FOLDS, 6) if is_better else DEFAULT


def _find_best(values: Tensor, truth: Tensor) -> float:
    """Return the threshold with the best F1, halfway to the next probability below it."""
    order = values.argsort(descending=True)
    values, hits = values[order], truth[order].double().cumsum(0)
    named = torch.arange(1, len(values) + 1, dtype=torch.float64, device=values.device)
    scores = 2 * hits / (named + hits[-1])
    is_last = torch.ones_like(truth)  # of equal probabilities: all of them are named, or none
    is_last[:-1] = values[:-1] > values[1:]
    best = int(scores.where(is_last, -1).argmax())
    below = values[best + 1] if best + 1 < len(values) else torch.zeros_like(values[best])
    return float((values[best] + below) / 2)


def compute_f1(named: Tensor, truth: Tensor) -> float:
    """Return the F1 of what is named, 0 if nothing is right."""
    right = int((named & truth).sum())
    return 2 * right / max(int(named.sum()) + int(truth.sum()), 1)
