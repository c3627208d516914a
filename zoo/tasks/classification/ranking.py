"""From logits to what is said of an image: its most probable classes, or all labels above their thresholds."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Ranked(NamedTuple):
    """What is said of one image, the most probable first: class numbers, and their probabilities, 0 to 1."""

    numbers: list[int]
    probabilities: list[float]


def rank_classes(looks: Sequence[Tensor], thresholds: Sequence[float] | None, most: int | None) -> list[Ranked]:
    """Return what is said of each image.

    Args:
        looks: Logits `(B, C)` of each look at the images, whose probabilities are averaged.
        thresholds: From which probability on each label is named; None: each image is of one class.
        most: Numbers per image at most; None: 5 of classes, all labels.
    """
    exact = [logits.to(torch.promote_types(logits.dtype, torch.float32)) for logits in looks]
    values = torch.stack([one.softmax(-1) if thresholds is None else one.sigmoid() for one in exact]).mean(0)
    count = values.shape[-1]
    best = values.topk(min(most or (5 if thresholds is None else count), count), -1)
    ranked = [Ranked(*row) for row in zip(best.indices.tolist(), best.values.tolist(), strict=True)]
    if thresholds is None:
        return ranked
    named = [[pair for pair in zip(*row, strict=True) if pair[1] >= thresholds[pair[0]]] for row in ranked]
    return [Ranked([number for number, _ in pairs], [value for _, value in pairs]) for pairs in named]
