"""Optimizers of MindSpore that torch and timm compute otherwise."""

from typing import Any

import torch
from torch import Tensor

from zoo.optim.optimizers._elementwise import ElementwiseOptimizer


class MindSporeAdam(ElementwiseOptimizer):
    """Adam as `mindspore.nn.Adam` computes it: epsilon is added outside the bias correction.

    `w -= lr * sqrt(1 - b2**t) / (1 - b1**t) * m / (sqrt(v) + eps)`, where `torch.optim.Adam` divides by
    `sqrt(v) / sqrt(1 - b2**t) + eps`. Decay is added to the gradient.

    Args:
        params: Parameters or groups.
        lr: Rate, a number or a 0-dim tensor.
        betas: Factors of the running means of gradients and squared gradients.
        eps: Added to the root of the mean of squares.
        weight_decay: Decay.
        use_nesterov: Take `b1 * m + (1 - b1) * g` instead of `m` in the update.
        use_amsgrad: Take the largest `v` so far instead of `v` in the update.

    Source:
        Measured with MindSpore 2.10.0 on CPU; the two options follow its documentation (`ops.Adam`,
        `ops.ApplyAdamWithAmsgradV2`) and were not measured. There `use_amsgrad` silently ignores `use_nesterov`.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        use_nesterov: bool = False,
        use_amsgrad: bool = False,
    ) -> None:
        if use_nesterov and use_amsgrad:
            raise ValueError("use_nesterov and use_amsgrad are both true; expected at most one of them")
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults | {"use_nesterov": use_nesterov, "use_amsgrad": use_amsgrad})

    def _update(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float64)  # on the CPU, as torch's: it is no part of the update
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            if group["use_amsgrad"]:
                state["max_exp_avg_sq"] = torch.zeros_like(parameter)
        step, mean, square = state["step"], state["exp_avg"], state["exp_avg_sq"]
        step += 1
        mean.lerp_(gradient, 1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        if group["use_nesterov"]:
            mean = mean.lerp(gradient, 1 - beta1)
        if group["use_amsgrad"]:
            square = torch.maximum(state["max_exp_avg_sq"], square, out=state["max_exp_avg_sq"])
        correction = (1 - beta2**step).sqrt() / (1 - beta1**step)
        parameter.sub_(mean / square.sqrt().add_(group["eps"]) * correction * group["lr"])


class AdamWeightDecay(ElementwiseOptimizer):
    """Adam as `mindspore.nn.AdamWeightDecay` computes it: decoupled decay, and no bias correction.

    `w -= lr * (m / (sqrt(v) + eps) + weight_decay * w)`. The shares of a new gradient, `1 - b1` and `1 - b2`, are
    differences of float32 numbers there, and here: 0.0010000467 for 0.999.

    Args:
        params: Parameters or groups.
        lr: Rate, a number or a 0-dim tensor.
        betas: Factors of the running means of gradients and squared gradients.
        eps: Added to the root of the mean of squares.
        weight_decay: Decay, multiplied by the rate.

    Source:
        Measured with MindSpore 2.10.0 on CPU.
    """

    coupled_decay = False

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def _update(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        beta1, beta2 = group["betas"]
        share1, share2 = _float32_complement(beta1), _float32_complement(beta2)
        mean.mul_(beta1).add_(gradient, alpha=share1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=share2)
        update = mean / square.sqrt().add_(group["eps"])
        if group["weight_decay"] != 0:
            update.add_(parameter, alpha=group["weight_decay"])
        parameter.sub_(update.mul_(group["lr"]))


def _float32_complement(beta: float) -> float:
    return _round_to_float32(1.0 - _round_to_float32(beta))


def _round_to_float32(number: float) -> float:
    """Round to 24 binary digits by Veltkamp's splitting: a call that makes a tensor would break a compiled step."""
    scaled = number * (2**29 + 1)
    return scaled - (scaled - number)
