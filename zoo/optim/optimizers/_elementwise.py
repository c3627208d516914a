"""The base of optimizers whose update of one parameter does not depend on the others."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class ElementwiseOptimizer(Optimizer):
    """An optimizer that updates one parameter after the other.

    Checks the arguments and adds coupled decay; a subclass writes `_update`.

    Attributes:
        coupled_decay: Whether decay is added to the gradient. If not, `_update` applies it.
    """

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
        """Change a parameter in place.

        Args:
            parameter: To update.
            gradient: Of the same shape, with coupled decay.
            state: Of this parameter; empty before its first update.
            group: The settings of its group.
        """
        raise NotImplementedError
