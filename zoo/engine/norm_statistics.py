"""Statistics of batch norms for weights that no batch has seen, such as a mean of several epochs."""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn

from zoo.engine.sync_norms import learning_norms


@torch.no_grad()
def recompute_norms(model: nn.Module, run: Callable[[], object], names: Collection[str] | None = None) -> int:
    """Replace the statistics of the batch norms that train by the mean over all batches of a pass.

    Frozen norms keep theirs, which `torch.optim.swa_utils.update_bn` would reset; of the others the result is the same.

    Args:
        model: In training mode while the pass runs.
        run: Passes all batches through the model.
        names: Of the norms; None: all that train. The others keep their statistics.

    Returns:
        How many norms have new statistics. If none has, the pass is not run.
    """
    known: dict[str, Any] = {name: norm for name, norm in learning_norms(model).items() if norm.track_running_stats}
    norms = [norm for name, norm in known.items() if names is None or name in names]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
    if norms:
        model.train()
        for norm in known.values():
            norm.train(norm in norms)
        run()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return len(norms)
