"""What happens to gradients between backward and the optimizer's step: centralization and clipping, group by group.

Both read the optimizer's groups: `gradient_centralization`, `coupled_decay`, `clip_grad_norm` and `members`.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from zoo.rates import NO_DECAY


@torch.no_grad()
def centralize_gradients(optimizer: Optimizer) -> None:
    """Take the mean over all dimensions but the first out of the gradients of the groups that ask for it.

    Every parameter of two or more dimensions is meant: convolutions and dense layers of any shape. Decay comes first,
    then the mean: where the optimizer itself adds `weight_decay * w` to the gradient, `weight_decay * mean(w)` is taken
    out as well, so that what it works with is `g + weight_decay * w` without its mean.

    Args:
        optimizer: Its gradients, unscaled and clipped if they are to be, are changed in place.

    Source:
        Yong et al. 2020, "Gradient Centralization", arXiv 2004.01461. Decay before mean is MindSpore's order.
    """
    for group in optimizer.param_groups:
        if not group.get("gradient_centralization"):
            continue
        decay = group["weight_decay"] if group.get("coupled_decay") else 0.0
        for parameter in group["params"]:
            if parameter.ndim >= 2 and parameter.grad is not None and not parameter.grad.is_sparse:
                _centralize(parameter, -decay if group.get("maximize") else decay)


def clip_groups(optimizer: Optimizer) -> dict[str, Tensor]:
    """Scale the gradients of every group that has a limit so that their common norm does not exceed it.

    Keys of the plan count one by one, also where the optimizer holds several as one; the two halves of a key, with and
    without decay, count together.

    Args:
        optimizer: Its gradients, unscaled, are changed in place.

    Returns:
        The Euclidean norm that the gradients of each clipped key had before.
    """
    limits: dict[str, float] = {}
    members: dict[str, list[Any]] = {}
    for group in optimizer.param_groups:
        if group.get("clip_grad_norm") is not None:
            for name, parameters in split_members(group):
                key = name.removesuffix(NO_DECAY)
                limits[key] = group["clip_grad_norm"]
                members.setdefault(key, []).extend(parameters)
    return {key: clip_grad_norm_(members[key], limit) for key, limit in limits.items()}


def split_members(group: dict[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """Yield the plan's groups in one group of an optimizer, or of its state: name and what `params` holds of it."""
    start = 0
    for name, count in group.get("members") or [[group["name"], len(group["params"])]]:
        yield name, group["params"][start : start + count]
        start += count


def _centralize(parameter: Tensor, decay: float) -> None:
    gradient, dimensions = parameter.grad, tuple(range(1, parameter.ndim))
    assert gradient is not None
    gradient.sub_(gradient.mean(dimensions, keepdim=True))
    if decay != 0:
        gradient.sub_(parameter.mean(dimensions, keepdim=True) * decay)
