"""A run that is stopped, and whether two runs have the same weights."""

import os
import signal
from collections.abc import Mapping

import torch

import zoo
from zoo.training.callbacks import RunHandle


class StopAfter(zoo.Callback):
    """Stops a run as `kill` or, with `SIGINT`, Ctrl-C would, after a step or at the end of an epoch."""

    def __init__(self, step: int | None = None, *, epoch: int | None = None, number: int = signal.SIGTERM) -> None:
        self.step, self.epoch, self.number = step, epoch, number

    def on_step_end(self, run: RunHandle) -> None:
        if run.step == self.step:
            os.kill(os.getpid(), self.number)

    def on_epoch_end(self, run: RunHandle) -> None:
        if run.epoch == self.epoch:
            os.kill(os.getpid(), self.number)


def equal(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    """Whether both hold the same tensors under the same names, bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())
