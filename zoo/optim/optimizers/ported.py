"""Optimizers that compute what those of other frameworks compute, where torch's and timm's do not."""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class _ElementwiseOptimizer(Optimizer):
    """What the optimizers below share: decay is settled here, the update of one parameter is their own."""

    coupled_decay = True

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        for name, value in defaults.items():
            numbers = value if isinstance(value, list | tuple) else [value]
            if any(not 0.0 <= number < (1.0 if name == "betas" else math.inf) for number in numbers):
                raise ValueError(f"{name} is {value}; expected 0 or more{', below 1' if name == 'betas' else ''}")
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient; return what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = parameter.grad
                if self.coupled_decay and group["weight_decay"] != 0:
                    gradient = gradient.add(parameter, alpha=group["weight_decay"])
                self._update(parameter, gradient, self.state[parameter], group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        raise NotImplementedError


class MindSporeAdam(_ElementwiseOptimizer):
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


class AdamWeightDecay(_ElementwiseOptimizer):
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


class OneFlowSGD(_ElementwiseOptimizer):
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


@functools.cache
def super_gradients_rmsprop() -> type[Optimizer]:
    """Return `SuperGradientsRMSpropTF`; timm, whose RMSpropTF it extends, is imported when it is asked for."""
    from timm.optim import RMSpropTF

    class SuperGradientsRMSpropTF(RMSpropTF):  # type: ignore[misc]
        """RMSpropTF as super-gradients computes it: decoupled decay is not multiplied by the learning rate.

        With `decoupled_decay=True` each step multiplies a weight by `1 - weight_decay`; timm's RMSpropTF multiplies it
        by `1 - lr * weight_decay`. Everything else is the same.

        Source:
            Deci-AI/super-gradients, commit e0ccacf, `training/utils/optimizers/rmsprop_tf.py`.
        """

        @torch.no_grad()
        def step(self, closure: Callable[[], float] | None = None) -> float | None:
            """Update every parameter that has a gradient; return what the closure returns."""
            loss = None
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            decays = [group["weight_decay"] for group in self.param_groups]
            for group in self.param_groups:
                if not group["decoupled_decay"] or group["weight_decay"] == 0:
                    continue
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.mul_(1 - group["weight_decay"])
                group["weight_decay"] = 0.0
            try:
                super().step()
            finally:
                for group, decay in zip(self.param_groups, decays, strict=True):
                    group["weight_decay"] = decay
            return loss

    return SuperGradientsRMSpropTF


def list_ported() -> tuple[type[Optimizer], ...]:
    """Return all classes of this module."""
    return (MindSporeAdam, AdamWeightDecay, OneFlowSGD, super_gradients_rmsprop())


def _float32_complement(beta: float) -> float:
    return _round_to_float32(1.0 - _round_to_float32(beta))


def _round_to_float32(number: float) -> float:
    """Round to 24 binary digits by Veltkamp's splitting: a call that makes a tensor would break a compiled step."""
    scaled = number * (2**29 + 1)
    return scaled - (scaled - number)
