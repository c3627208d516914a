"""Statistics of batch norms for weights that no batch has seen, such as a mean of several epochs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from zoo.engine.sync_norms import learning_norms


@torch.no_grad()
def recompute_norms(model: nn.Module, run: Callable[[], object]) -> int:
    """Replace the statistics of the batch norms that train by the mean over all batches of a pass.

    Frozen norms keep theirs, which `torch.optim.swa_utils.update_bn` would reset; of the others the result is the same.

    Args:
        model: In training mode while the pass runs.
        run: Passes all batches through the model.

    Returns:
        How many norms have new statistics. If none trains, the pass is not run.
    """
    norms: list[Any] = [norm for norm in learning_norms(model).values() if norm.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
    if norms:
        model.train()
        run()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return len(norms)
