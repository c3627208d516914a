"""Optimizers of super-gradients that torch and timm compute otherwise."""

from collections.abc import Callable

import torch
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
