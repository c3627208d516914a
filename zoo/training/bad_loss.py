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
    where = f"the loss is {loss} at optimizer step {step + 1}, epoch {epoch}"
    parts = [part for part in (inputs if isinstance(inputs, tuple) else (inputs,)) if isinstance(part, Tensor)]
    if not all(map(_is_finite, parts)):
        if all(part.ndim == 4 for part in parts) and not isinstance(inputs, tuple):
            return (
                f"{where}: this batch contains NaN or infinite pixel values. Check the output of the data set or the "
                "loader; the learning rate is not the cause."
            )
        return (
            f"{where}: the cached features of this batch contain NaN or infinite values, so the cache is damaged. "
            "Run `zoo cache clear` and start again."
        )
    if step > 0:
        return (
            f"{where}. The learning rate is probably too high: try a tenth of it, a longer warm-up, or "
            "clip_grad_norm=1.0."
        )
    broken = [name for name, parameter in network.named_parameters() if not _is_finite(parameter)]
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        return (
            f"{where}: the model's weights contain NaN or infinite values before the first update: "
            f"{', '.join(broken[:3])}{more}. Load other weights; the learning rate is not the cause."
        )
    return (
        f"{where}, before the first update, although weights and images are finite: the network's outputs or its "
        "loss overflow. Try precision=no, and check the normalisation of the images and the model's loss."
    )


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor.detach()).all())
