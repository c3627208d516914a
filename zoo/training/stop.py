"""Stopping a run between two steps, after the same step in every process."""

import torch
from accelerate import Accelerator

from zoo.data import StopRequest

STEPS_PER_VOTE = 8  # how often several processes ask each other whether to stop, which makes a GPU wait


class StopVote:
    """Asks all processes whether one of them was asked to stop: all must leave the loop together, or wait forever.

    Args:
        request: Of this process.
        accelerator: Knows the others.
    """

    def __init__(self, request: StopRequest, accelerator: Accelerator) -> None:
        self.request, self.accelerator = request, accelerator
        self.every = 1 if accelerator.num_processes == 1 else STEPS_PER_VOTE

    def agree(self) -> bool:
        """Return whether to stop; call it in every process."""
        if self.accelerator.num_processes == 1:
            return self.request.asked
        votes = torch.tensor(float(self.request.asked), device=self.accelerator.device)
        return float(self.accelerator.reduce(votes, "sum")) > 0

    def agree_after(self, step: int) -> bool:
        """Return whether to stop after an optimizer step, if it is one after which to ask."""
        return step % self.every == 0 and self.agree()
