"""Where a run stands."""

from dataclasses import dataclass, field


@dataclass
class Position:
    """Where a run stands: between two optimizer steps.

    Attributes:
        epoch: Epochs finished.
        batch: Batches done of the epoch after them.
        step: Optimizer steps done.
        images: Images seen in the unfinished epoch, by this process.
        loss_sum: Sum of their losses.
        seconds: Time spent on it.
        waiting: Seconds of that spent waiting for data.
        first_loss: Loss of the first step of the run; None before it.
        highest_loss: The highest loss of a step that was fetched from the device, or None.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    images: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    waiting: float = 0.0
    first_loss: float | None = field(default=None, compare=False)
    highest_loss: float | None = field(default=None, compare=False)

    @property
    def images_per_second(self) -> float:
        """Speed in the unfinished epoch, of this process."""
        return self.images / max(self.seconds, 1e-9)

    @property
    def waiting_share(self) -> float:
        """Share of the time of the unfinished epoch spent waiting for data, 0 to 1."""
        return min(1.0, self.waiting / max(self.seconds, 1e-9))

    def note(self, loss: float) -> None:
        """Remember the loss of a step."""
        self.first_loss = loss if self.first_loss is None else self.first_loss
        self.highest_loss = loss if self.highest_loss is None else max(self.highest_loss, loss)
