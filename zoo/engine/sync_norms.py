"""Batch norms of several processes: their statistics are taken over the whole batch, not over each process's share.

A norm changes its class for as long as the run lasts and nothing else: it is the same module with the same parameters,
buffers and hooks under the same name, so whatever refers to it (plan, optimizer, moving average, a second owner) still
does, and what is stored is of the ordinary class.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

GPUS = ("cuda", "xpu")  # of the devices that accelerate trains on, those that torch.nn.SyncBatchNorm runs on
_BEFORE = "_class_before_synchronisation"


def synchronize_norms(model: nn.Module, device: torch.device, processes: int, log: Callable[[str], None]) -> list[str]:
    """Let the batch norms that learn from batches see those of all processes.

    Chosen are the norms that `.train()` puts into training mode; a frozen one keeps its statistics and its class.
    Call it in every process before the loop, as the last thing: from then on a forward pass in training mode waits for
    the other processes. Whether the model is wrapped already does not matter. Call it again when more is unfrozen.

    Args:
        model: Changed in place, until `restore_norms`.
        device: Where it trains. On a GPU only; of any other it is told that each process has statistics of its own.
        processes: How many train together.
        log: Told in a line what was done or not; not called where there is nothing to do.

    Returns:
        Names of the norms that are synchronised now.
    """
    restore_norms(model)
    learning = learning_norms(model) if processes > 1 else {}
    if learning and device.type not in GPUS:
        log(
            f"note: {len(learning)} batch norms use per-process statistics (they are synchronised on GPUs only; this "
            f"is {device.type})"
        )
        return []
    twins = _synchronised_twins() if learning else {}
    chosen: dict[str, Any] = {name: norm for name, norm in learning.items() if type(norm) in twins}
    for norm in chosen.values():
        norm.__dict__[_BEFORE] = type(norm)
        norm.process_group = None  # all processes; the one attribute that the ordinary class does not have
        norm.__class__ = twins[type(norm)]
    if chosen:
        log(f"{len(chosen)} batch norms are synchronised across all {processes} processes")
    if own := sorted({type(norm).__name__ for norm in learning.values() if not isinstance(norm, nn.SyncBatchNorm)}):
        log(f"note: custom batch norm classes are not synchronised: {', '.join(own)}")
    return list(chosen)


def restore_norms(model: nn.Module) -> None:
    """Give every norm back its class that `synchronize_norms` changed, here or in the model this is a copy of."""
    for module in model.modules():
        before = module.__dict__.pop(_BEFORE, None)
        if before is not None:
            norm: Any = module
            norm.__class__ = before
            del norm.process_group


def learning_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Return the batch norms that take their statistics from batches while the model trains."""
    norms = {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
    return {name: norm for name, norm in norms.items() if _learns(norm)}


def _learns(norm: nn.Module) -> bool:
    """Whether a norm follows `.train()`; a frozen one passes it by, and only it knows."""
    before = norm.training
    learns = norm.train().training
    norm.training = before
    return learns


def _synchronised_twins() -> dict[type[nn.Module], type[nn.Module]]:
    """Return the class that computes the same over all processes, for each that has one."""
    from timm.layers import BatchNormAct2d, SyncBatchNormAct

    ordinary = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    return {BatchNormAct2d: SyncBatchNormAct, **dict.fromkeys(ordinary, nn.SyncBatchNorm)}
