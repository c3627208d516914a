"""Optimizers of OneFlow that torch and timm compute otherwise."""

from typing import Any

import torch
from torch import Tensor

from zoo.optim.optimizers._elementwise import ElementwiseOptimizer


class OneFlowSGD(ElementwiseOptimizer):
    """SGD as `oneflow.optim.SGD` computes it: the momentum buffer starts at zero, so the first step is damped too.

    `buffer = momentum * buffer + (1 - dampening) * g; w -= lr * buffer`, with `g + momentum * buffer` in place of the
    buffer for Nesterov's momentum. `torch.optim.SGD` starts with `buffer = g`. Decay is added to the gradient.

    Args:
        params: Parameters or groups.
        lr: Rate, a number or a 0-dim tensor.
        momentum: Factor of the buffer; with 0 there is none, and dampening has no effect.
        dampening: Share of the gradient that is kept out of the buffer.
        weight_decay: Decay.
        nesterov: Look ahead; needs momentum and no dampening.

    Source:
        Measured with OneFlow 0.9.0 on CPU. Its option `maximize` is not offered.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        if nesterov and (momentum == 0 or dampening != 0):
            raise ValueError("nesterov needs a momentum above 0 and no dampening")
        defaults = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        super().__init__(params, defaults | {"nesterov": nesterov})

    def _update(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        momentum = group["momentum"]
        if momentum != 0:
            if not state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            buffer = state["momentum_buffer"].mul_(momentum).add_(gradient, alpha=1 - group["dampening"])
            gradient = gradient.add(buffer, alpha=momentum) if group["nesterov"] else buffer
        parameter.sub_(gradient * group["lr"])
