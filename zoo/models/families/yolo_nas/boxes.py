"""Box maths with the broadcasting and the epsilons of super-gradients, which torchvision.ops does not have.

Boxes are `(..., 4)` floating-point tensors: left, top, right, bottom. All arguments of a call share one unit.
"""

import torch
from torch import Tensor


def xyxy_to_distances(boxes: Tensor, points: Tensor) -> Tensor:
    """Turn boxes into the distances of their sides from points; negative where a point lies beyond a side."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)


def box_iou(first: Tensor, second: Tensor, *, eps: float = 1e-9) -> Tensor:
    """Return the IoU of boxes that belong together; for all pairs pass `first[:, None]` and `second`.

    Args:
        first: `(..., 4)` xyxy. A box whose right side is left of its left one, or its bottom above its top, has no
            area.
        second: The same, broadcast against `first`.
        eps: Added to the union, so that two boxes without area have the IoU 0.

    Returns:
        `(...)`, 0 to 1.
    """
    overlap = _overlap(first, second)
    return overlap / (_area(first) + _area(second) - overlap + eps)


def generalized_iou(first: Tensor, second: Tensor, *, eps: float = 1e-10) -> Tensor:
    """Return the GIoU of boxes that belong together.

    Args:
        first: `(..., 4)` xyxy, with sides in order.
        second: The same, broadcast against `first`.
        eps: Added to the union, and to the area of the smallest box around both.

    Returns:
        `(...)`, -1 to 1.

    Source:
        Rezatofighi et al. 2019, "Generalized Intersection over Union", arXiv 1902.09630.
    """
    overlap = _overlap(first, second)
    union = _area(first) + _area(second) - overlap + eps
    corner, opposite = torch.minimum(first, second)[..., :2], torch.maximum(first, second)[..., 2:]
    around = (opposite - corner).prod(dim=-1) + eps
    return overlap / union - (around - union) / around


def _overlap(first: Tensor, second: Tensor) -> Tensor:
    """Area of the intersection, side by side: a `(..., 4)` intermediate of all pairs would need four times as much."""
    width = torch.minimum(first[..., 2], second[..., 2]) - torch.maximum(first[..., 0], second[..., 0])
    height = torch.minimum(first[..., 3], second[..., 3]) - torch.maximum(first[..., 1], second[..., 1])
    return width.clamp(min=0) * height.clamp(min=0)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0)
