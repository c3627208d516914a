"""Parts of a run that act around its steps and own their state: frozen parts and rates."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from zoo.errors import InputError
from zoo.optim import (
    LiveRates,
    Proof,
    apply_plan,
    check_reached,
    frozen_tensors,
    keep_norm_statistics,
    set_rates,
)
from zoo.rates import Plan
from zoo.training.position import Position
from zoo.training.setup import RunParts


def freeze(model: nn.Module, plan: Plan, epoch: int, *, norm_statistics: bool) -> None:
    """Freeze what does not learn in an epoch, and the statistics of all norms if asked to."""
    apply_plan(model, plan, epoch)
    if norm_statistics:
        keep_norm_statistics(model)


class FrozenParts:
    """Freezes, unfreezes, and proves that nothing frozen has changed.

    Args:
        parts: The model, frozen as its plan says for the epoch.
        epoch: The first to train, from 0.
    """

    def __init__(self, parts: RunParts, epoch: int) -> None:
        self.model, self.plan = parts.model, parts.plan
        self.norm_statistics = parts.preset.freeze_norm_stats
        self.proof = Proof(frozen_tensors(self.model, self.plan, epoch))

    def unfreeze(self, epoch: int) -> list[str]:
        """Let the groups learn whose epoch has come, and return their keys; the proof holds for them until now."""
        before = set(self.proof.digests)
        freeze(self.model, self.plan, epoch, norm_statistics=self.norm_statistics)
        names = sorted(before - set(frozen_tensors(self.model, self.plan, epoch)))
        self.proof.release(names, f"before epoch {epoch + 1}, which unfreezes {len(names)} tensors")
        return list(dict.fromkeys(group.key for group in self.plan.trained if group.unfreeze_at == epoch))

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"digests": self.proof.digests, "moments": self.proof.moments}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was."""
        self.proof.continue_from(state)


class RateSetter:
    """Sets rate and decay of every group before each update.

    Args:
        parts: The optimizer and the plan, on the clock of the run.
        log: Told about parameters that get no gradient.

    Attributes:
        live: The rates so far, and those to come.
        current: Rates of the last step, by group.
    """

    def __init__(self, parts: RunParts, log: Callable[[str], None]) -> None:
        self.model, self.plan, self.optimizer, self.log = parts.model, parts.plan, parts.optimizer, log
        self.live = LiveRates(self.plan)
        self.current: Mapping[str, float] = {}
        self._checks_gradients = True
        if parts.supply.val is None and (awaited := self.live.awaited - {"loss"}):
            raise InputError(
                f"schedule 'plateau' follows {', '.join(sorted(awaited))}, but there are no validation images. Set "
                "its metric to 'loss', or add validation images."
            )

    def watch_gradients(self) -> None:
        """Check in the next step that all that learns gets a gradient."""
        self._checks_gradients = True

    def set(self, position: Position) -> None:
        """Set the rates of the step that a position is before."""
        if self._checks_gradients:
            check_reached(self.model, self.plan, self.log, position.epoch)
            self._checks_gradients = False
        self.current = self.live.take(position.step)
        set_rates(self.optimizer, self.current, self.plan.weight_decays(position.step))

    def list_last(self) -> dict[str, float]:
        """Return the rate of every group in the last step, those of frozen groups last."""
        frozen = {group.name: 0.0 for group in self.plan.groups if group.frozen}
        return {name: rates[-1] for name, rates in self.live.history.items()} | frozen
