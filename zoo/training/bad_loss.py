"""Why a loss is not a finite number, as far as the weights and the inputs tell, and what to do about it."""

from typing import Any

import torch
from torch import Tensor, nn


def explain_loss(loss: float, *, epoch: int, step: int, network: nn.Module, inputs: Any = None) -> str:
    """Return what to say of a loss that is not a finite number.

    Args:
        loss: Its value.
        epoch: From 1.
        step: Optimizer steps done before it.
        network: As it is before the next optimizer step.
        inputs: What the network was given: a tensor or a tuple of them; None: not known any more.
    """
    where = f"the loss is {loss} in optimizer step {step + 1}, in epoch {epoch}"
    parts = [part for part in (inputs if isinstance(inputs, tuple) else (inputs,)) if isinstance(part, Tensor)]
    if not all(map(_is_finite, parts)):
        if all(part.ndim == 4 for part in parts) and not isinstance(inputs, tuple):
            return (
                f"{where}: the images of this batch hold values that are not finite numbers (NaN or infinity). Look at "
                "what the data set or the loader gives; the learning rate has no part in this."
            )
        return (
            f"{where}: the kept features of this batch hold values that are not finite numbers, so their files are "
            "damaged. Remove them with `zoo cache clear` and start again."
        )
    if step > 0:
        return f"{where}. The rate is probably too high: try a tenth of it, a longer warm-up, or clip_grad_norm=1.0."
    broken = [name for name, parameter in network.named_parameters() if not _is_finite(parameter)]
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        return (
            f"{where}: the weights hold values that are not finite numbers (NaN or infinity) before anything was "
            f"learnt: {', '.join(broken[:3])}{more}. Load other weights; the learning rate has no part in this."
        )
    return (
        f"{where}, before anything was learnt, though weights and images are finite numbers: the outputs of the "
        "network or the loss overflow. Try precision='no', and look at how the images are normalised and at the "
        "model's own loss."
    )


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor.detach()).all())
