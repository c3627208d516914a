"""The nearest class mean by cosine, as a linear head: for a handful of images of each class.

Source: Snell et al., Prototypical networks for few-shot learning, NeurIPS 2017; with cosine as in Gidaris and
Komodakis, Dynamic few-shot visual learning without forgetting, CVPR 2018.
"""

import torch
from torch import Tensor
from torch.nn import functional

from zoo.optim.solvers.linear import Head
from zoo.optim.solvers.rows import FeatureRows

USUAL = 10.0  # sharpness where no image can be left out: each class has a single one
SHARPNESS = tuple(2 ** (step / 2) for step in range(13))  # 1 to 64


def make_prototypes(rows: FeatureRows, classes: int) -> tuple[Head, float]:
    """Return the head whose most probable class is the one with the nearest mean, by the angle between features.

    The angle is that of standardised features. Which class is nearest does not depend on the length of an image's
    features, so the head is linear; only how sure it is does.

    Args:
        rows: Features of all images; every class has one or more.
        classes: Their number, C.

    Returns:
        The head, and its sharpness, by which cosines become logits: that with the smallest cross-entropy of each image
        to the means without it, or 10 where each class has a single image.
    """
    units, lengths = [], []
    for _, piece in rows.pieces(torch.float64):
        lengths.append(piece.norm(dim=1))
        units.append(functional.normalize(piece))
    features, labels = torch.cat(units), rows.labels
    counts = labels.bincount(minlength=classes)
    sums = torch.zeros(classes, rows.width, dtype=torch.float64, device=rows.device).index_add_(0, labels, features)
    means = functional.normalize(sums)
    sharpness = _find_sharpness(features, labels, sums, counts)
    weight = means.T * (sharpness / torch.cat(lengths).mean())
    return Head(*rows.unstandardise(weight, torch.zeros(classes, dtype=torch.float64, device=rows.device))), sharpness


def _find_sharpness(features: Tensor, labels: Tensor, sums: Tensor, counts: Tensor) -> float:
    """Return the sharpness with the smallest cross-entropy of images that were left out of the mean of their class."""
    usable = counts[labels] > 1
    if not bool(usable.any()):
        return USUAL
    chosen, own = features[usable], labels[usable]
    cosines = chosen @ functional.normalize(sums).T
    without = functional.normalize(sums[own] - chosen)
    cosines[torch.arange(len(own), device=own.device), own] = (chosen * without).sum(1)
    costs = [float(functional.cross_entropy(cosines * sharpness, own)) for sharpness in SHARPNESS]
    return SHARPNESS[costs.index(min(costs))]
