"""Operators of this package, made of torch's own."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop


def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float) -> Tensor:
    """Translate `zoo::suppress`: a box stays if no surer one that stays overlaps it.

    Asked of all boxes at once, again and again: each round settles at least the surest box that was open, and the
    answer that no round changes is that of going through the boxes one by one.
    """
    order = scores.sort(dim=-1, descending=True, stable=True).indices
    x1, y1, x2, y2 = (side.gather(1, order) for side in boxes.unbind(-1))
    sure, group = scores.gather(1, order), groups.gather(1, order)
    areas = (x2 - x1) * (y2 - y1)
    width = _pair(torch.minimum, x2) - _pair(torch.maximum, x1)
    height = _pair(torch.minimum, y2) - _pair(torch.maximum, y1)
    shared = width.clamp(min=0) * height.clamp(min=0)  # (N, K, K)
    overlaps = (shared / (_pair(torch.add, areas) - shared) > iou) & _pair(torch.eq, group)
    hides = overlaps.float().triu(1)  # from the surer one, which comes first
    given = sure > 0

    def goes_on(kept: Tensor, changed: Tensor) -> Tensor:
        return changed.clone()  # a loop's own values may not come out of it

    def thin(kept: Tensor, changed: Tensor) -> tuple[Tensor, Tensor]:
        found = given & (torch.bmm(kept[:, None].float(), hides)[:, 0] == 0)
        return found, (found != kept).any()

    loop: Any = while_loop  # which has no types
    kept, _ = loop(goes_on, thin, (given.clone(), given.any()))
    return torch.zeros_like(scores).scatter(1, order, sure * kept)


def _pair(of: Callable[[Tensor, Tensor], Tensor], values: Tensor) -> Tensor:
    """Return an operation on each pair of values `(N, K)`."""
    return of(values[:, :, None], values[:, None])
