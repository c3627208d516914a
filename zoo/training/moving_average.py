"""Averages of the weights of a run: the moving average of all steps, and the mean of the last epochs."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel

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


class EpochMean:
    """The mean of a model's weights after each of the last epochs, known as stochastic weight averaging.

    Source: Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, UAI 2018.

    Args:
        model: Whose weights are averaged.
        epochs: How many.
        planned: Epochs of the whole run.
    """

    def __init__(self, model: nn.Module, epochs: int, planned: int) -> None:
        self._source, self._first = model, planned - epochs + 1
        self._mean: AveragedModel | None = None  # from the first of these epochs on

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs so far, from 1."""
        count = 0 if self._mean is None else int(self._mean.n_averaged)
        return tuple(range(self._first, self._first + count))

    @property
    def model(self) -> nn.Module:
        """The model with the mean of the weights; its buffers are those of the last epoch."""
        assert self._mean is not None
        model: nn.Module = self._mean.module
        return model

    def update(self, epoch: int) -> None:
        """Take in the weights after an epoch, with the optimizer set not to learn."""
        if epoch >= self._first:
            self._mean = self._mean or AveragedModel(self._source)
            self._mean.update_parameters(self._source)

    def state_dict(self) -> dict[str, Any] | None:
        """Return what a resumed run needs; None before the first epoch."""
        return {"weights": self.model.state_dict(), "epochs": len(self.epochs)} if self._mean is not None else None

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Go on where `state_dict` was."""
        if state is not None:
            self._mean = AveragedModel(self._source)
            self.model.load_state_dict(state["weights"])
            self._mean.n_averaged.fill_(state["epochs"])
