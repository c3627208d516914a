"""What may be done while a run runs: five moments, and a handle on the run.

```python
class Halve(zoo.Callback):
    def on_epoch_end(self, run):
        run.set_lr("fc", run.rates["fc"] / 2)

zoo.finetune(model, data, schedule="constant", warmup_steps=0, callbacks=[Halve()])
```
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import nn

from zoo.errors import InputError
from zoo.optim import LiveRates
from zoo.rates import Plan

Moment = Literal["on_start", "on_epoch_start", "on_step_end", "on_epoch_end", "on_end"]


@dataclass
class RunHandle:
    """A handle on a run, for its callbacks.

    Attributes:
        model: The model that is trained.
        plan: Which part learns at which rate and when.
        folder: Where the run is kept.
        epochs: Of the whole run.
        epoch: Epochs finished.
        step: Optimizer steps done.
        loss: Training loss of the last step, if it was fetched from the device, else None.
        rates: Rate of each group at the last step, by name.
        metrics: One record per finished epoch, as in `Run.metrics`.
        stopped: Whether `stop` was called.
    """

    model: nn.Module
    plan: Plan
    folder: Path
    epochs: int
    epoch: int = 0
    step: int = 0
    loss: float | None = None
    rates: Mapping[str, float] = field(default_factory=dict)
    metrics: Sequence[Mapping[str, Any]] = ()
    stopped: bool = False
    live_rates: LiveRates | None = field(default=None, repr=False)

    def set_lr(self, group: str, lr: float) -> None:
        """Set the rate of a group from the next step on; the run records it.

        Args:
            group: Name of a group of the plan that has no schedule ahead: see `plan.groups`.
            lr: The new rate, 0 or more.

        Raises:
            InputError: There is no such group, it is frozen or scheduled, or the rate is not one.
        """
        assert self.live_rates is not None
        self.live_rates.assign(group, lr, self.step)

    def stop(self) -> None:
        """End the run after this step, as if it had been its last: it is scored, saved and drawn."""
        self.stopped = True


class Callback:
    """Override what you need; each is called with the run, in every process, in the order of `callbacks`."""

    def on_start(self, run: RunHandle) -> None:
        """Before the first step, also of a resumed run."""

    def on_epoch_start(self, run: RunHandle) -> None:
        """Before the first step of an epoch, once per epoch of this process."""

    def on_step_end(self, run: RunHandle) -> None:
        """After an optimizer step: `run.step` counts it, `run.rates` are those it had."""

    def on_epoch_end(self, run: RunHandle) -> None:
        """After an epoch was scored: `run.metrics[-1]` is its record."""

    def on_end(self, run: RunHandle) -> None:
        """After the last epoch, before the model is saved."""


def check_callbacks(callbacks: Any) -> tuple[Callback, ...]:
    """Return the callbacks as a tuple.

    Raises:
        InputError: One is not a `Callback`.
    """
    items = tuple(callbacks) if isinstance(callbacks, Sequence) else (callbacks,)
    for item in items:
        if not isinstance(item, Callback):
            kind = item.__name__ + " itself" if isinstance(item, type) else type(item).__name__
            raise InputError(f"callbacks: got {kind}; expected instances of zoo.Callback.")
    return items


def call(callbacks: Sequence[Callback], moment: Moment, run: RunHandle) -> None:
    """Call one moment of every callback."""
    for callback in callbacks:
        getattr(callback, moment)(run)
