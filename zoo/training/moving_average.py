"""The moving average of the weights of a run."""

from typing import Any

from torch import nn

from zoo.optim import set_mode


class MovingAverage:
    """The exponential moving average of a model's weights.

    Args:
        model: Whose weights are averaged.
        decay: Weight of the average so far, 0 to 1.
        warmup: Whether the decay grows from 0 over the first steps.
    """

    def __init__(self, model: nn.Module, decay: float, *, warmup: bool) -> None:
        from timm.utils import ModelEmaV3

        self._source, self._warmup = model, warmup
        self._average = ModelEmaV3(model, decay=decay, use_warmup=warmup, warmup_power=2 / 3)

    @property
    def model(self) -> nn.Module:
        """The model with the averaged weights."""
        model: nn.Module = self._average.module
        return model

    def update(self, optimizer: Any, step: int) -> None:
        """Take in the weights after a step."""
        set_mode(optimizer, learn=False)
        self._average.update(self._source, step=step if self._warmup else None)
        set_mode(optimizer, learn=True)
