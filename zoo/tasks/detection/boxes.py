"""Overlaps of boxes as arrays, where torch is not loaded: in data and in plots."""

import numpy as np

from zoo.tasks.detection.annotations import Floats


def pairwise_iou(first: Floats, second: Floats) -> Floats:
    """Return the intersection over union of all pairs of boxes.

    Args:
        first: `(N, 4)` xyxy, with sides in order.
        second: `(M, 4)`, likewise.

    Returns:
        `(N, M)`, 0 to 1; 0 for two boxes without area.
    """
    corner = np.maximum(first[:, None, :2], second[None, :, :2])
    opposite = np.minimum(first[:, None, 2:], second[None, :, 2:])
    overlap: Floats = np.clip(opposite - corner, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1] - overlap
    iou: Floats = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    return iou
