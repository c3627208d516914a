"""Rates of torch's own schedulers, found by stepping them beside an optimizer that trains nothing.

torch is imported when the first scheduler is asked for, not with this module.
"""

import copy
import functools
import inspect
import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from zoo.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

_MODULE = "torch.optim.lr_scheduler"
_PER_STEP = ("CyclicLR", "OneCycleLR")  # torch documents these two as stepped after every batch, the others per epoch
_OBJECT = " (an object)"
_RISING = ("top1", "top5")


@dataclass(frozen=True)
class TorchScheduler:
    """Which scheduler, before any rate is known; `read_scheduler` makes it.

    Attributes:
        scheduler: Name of a class of `torch.optim.lr_scheduler`, something that makes a scheduler, or a scheduler.
        arguments: Further arguments of the named class.
    """

    scheduler: Any
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the scheduler is called: its class or function."""
        return _name(self.scheduler)

    @property
    def is_made(self) -> bool:
        """Whether it is a scheduler already, made for the rates of its own optimizer."""
        return is_scheduler(self.scheduler)

    @property
    def usual_pace(self) -> str:
        """When torch's documentation steps it: per `step` or per `epoch`."""
        return "step" if self.name in _PER_STEP else "epoch"

    def to_dict(self) -> dict[str, Any]:
        """Return name and arguments; of an object only a name that `read_scheduler` refuses."""
        if isinstance(self.scheduler, str):
            return {"scheduler": self.scheduler, **self.arguments}
        return {"scheduler": self.name + _OBJECT}

    def start(self, base: float) -> "Stepper":
        """Start the scheduler at the rate of a group.

        A scheduler that is made already is copied, with the settings of its optimizer, and goes on from where it
        stands; the user's own is not touched. It must have been made for a group of this rate: those of its groups
        are followed whose `initial_lr` equals it, or whose highest rate does for CyclicLR and OneCycleLR.

        Raises:
            InputError: The scheduler cannot be made, or has no group of this rate.
        """
        if self.is_made:
            return _copy(self.scheduler, base)
        import torch

        make = find_scheduler(self.scheduler) if isinstance(self.scheduler, str) else self.scheduler
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=base, momentum=0.9)  # momentum: some schedulers cycle it too
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                made = make(optimizer, **self.arguments)
            except Exception as error:  # whatever the constructor raises
                raise InputError(f"{self.name} cannot be created: {error}") from error
        if not is_scheduler(made):
            raise InputError(f"{self.name} returns a {type(made).__name__}; expected a torch scheduler.")
        _refuse_plateau(type(made))
        return Stepper(made, optimizer.param_groups)

    def rates(self, base: float, count: int) -> list[float]:
        """Return the rate before the scheduler is stepped, after one step, and so on: `count` rates.

        Raises:
            InputError: The scheduler cannot be started, or stepped as often.
        """
        stepper = self.start(base)
        table = [stepper.rate]
        while len(table) < count:
            stepper.step()
            table.append(stepper.rate)
        return table


class Stepper:
    """A scheduler at work, and those groups of the optimizer beside it whose rate is asked for."""

    def __init__(self, scheduler: "LRScheduler", groups: Sequence[dict[str, Any]]) -> None:
        self._scheduler = scheduler
        self._groups = groups

    @property
    def rate(self) -> float:
        """Present rate of these groups; may be written, as a warm-up does."""
        first, *others = (float(group["lr"]) for group in self._groups)
        if any(other != first for other in others):
            raise InputError(
                f"{_name(self._scheduler)}: two of its groups have the same base rate but different learning rates "
                "later. Pass functools.partial(...) of its class as the schedule of each group instead."
            )
        return first

    @rate.setter
    def rate(self, rate: float) -> None:
        for group in self._groups:
            group["lr"] = rate

    def step(self) -> None:
        """Step the scheduler once.

        Raises:
            InputError: The scheduler cannot go on, for example because it has reached its total number of steps.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that no optimizer was stepped before is as it should be
            try:
                self._scheduler.step()
            except Exception as error:  # whatever the scheduler of a user raises
                raise InputError(f"{_name(self._scheduler)} failed in step(): {error}") from error


class Plateau:
    """The factor of a schedule of kind `plateau` as training goes on; it multiplies the scheduled rate.

    Source: `torch.optim.lr_scheduler.ReduceLROnPlateau`, which does the work.
    """

    _STATE = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")

    def __init__(self, schedule: Any) -> None:
        values = schedule.to_dict()
        if values["kind"] != "plateau":
            raise InputError(f"schedule {values['kind']!r} follows no metric; expected kind 'plateau'.")
        import torch

        self.metric: str = values["metric"]
        self._optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        self._scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self._optimizer,
            mode="max" if self.metric in _RISING else "min",
            min_lr=values["min_ratio"],
            **{name: values[name] for name in ("factor", "patience", "threshold", "cooldown")},
        )

    @property
    def multiplier(self) -> float:
        """Present factor of all rates under this schedule, 1 at first."""
        return float(self._optimizer.param_groups[0]["lr"])

    def update(self, metrics: Mapping[str, float]) -> None:
        """Look at the metrics of an epoch that has ended.

        Raises:
            InputError: The metric that is followed is not among them.
        """
        if self.metric not in metrics:
            known = ", ".join(metrics) or "none"
            raise InputError(f"schedule 'plateau' follows {self.metric!r}, which was not measured. Measured: {known}.")
        self._scheduler.step(metrics[self.metric])

    def state_dict(self) -> dict[str, float | None]:
        """Return what changes during a run, as plain values; `best` is None before the first epoch."""
        state: dict[str, float | None] = {name: getattr(self._scheduler, name) for name in self._STATE}
        best = float(self._scheduler.best)
        return state | {"best": best if math.isfinite(best) else None, "multiplier": self.multiplier}

    def load_state_dict(self, state: Mapping[str, float | None]) -> None:
        """Go on from what `state_dict` has returned.

        Raises:
            InputError: Something of it is missing.
        """
        missing = {*self._STATE, "multiplier"} - set(state)
        if missing:
            raise InputError(
                f"state of schedule 'plateau' has no {', '.join(sorted(missing))}. Does it belong to another schedule?"
            )
        for name in self._STATE:
            setattr(self._scheduler, name, state[name])
        if state["best"] is None:
            self._scheduler.best = self._scheduler.mode_worse
        self._optimizer.param_groups[0]["lr"] = state["multiplier"]


def read_scheduler(scheduler: Any, arguments: Mapping[str, Any], keys: Sequence[str] = ()) -> TorchScheduler:
    """Check what is known before any run.

    Args:
        scheduler: As for `TorchScheduler`. A class of torch or a `functools.partial` of it becomes name and arguments
            where these are plain.
        arguments: Further arguments for a name.
        keys: What else could have been meant by an unknown argument.

    Raises:
        InputError: An unknown name or argument, `ReduceLROnPlateau`, or no scheduler at all.
    """
    if isinstance(scheduler, str):
        _check_arguments(scheduler, arguments, keys)
        read = TorchScheduler(scheduler, dict(arguments))
    elif arguments:
        raise InputError(f"{', '.join(arguments)} would have no effect: the scheduler already exists. Remove them.")
    elif is_scheduler(scheduler):
        read = TorchScheduler(scheduler)
    elif makes_scheduler(scheduler):
        read = _to_plain(scheduler) or TorchScheduler(scheduler)
    else:
        raise InputError(f"scheduler is {scheduler!r}; expected a name of {_MODULE}, or a scheduler.")
    if read.is_made:
        _refuse_plateau(type(scheduler))
    else:
        read.start(base=0.1)
    return read


def find_scheduler(name: str) -> type["LRScheduler"]:
    """Return the class of that name in `torch.optim.lr_scheduler`; nothing else is looked at.

    Raises:
        InputError: There is none, or it is `ReduceLROnPlateau`.
    """
    from torch.optim import lr_scheduler

    usable = {
        key: kind
        for key, kind in vars(lr_scheduler).items()
        if inspect.isclass(kind) and issubclass(kind, lr_scheduler.LRScheduler)
        if kind is not lr_scheduler.LRScheduler and not key.startswith("_")
    }
    if name.endswith(_OBJECT):
        raise InputError(f"scheduler {name!r} is a Python object and cannot be saved to a file. Pass it again.")
    if name not in usable:
        known = ", ".join(sorted(set(usable) - {"ReduceLROnPlateau"}))
        raise InputError(f"unknown torch scheduler {name!r}.{did_you_mean(name, usable)} Known: {known}.")
    _refuse_plateau(usable[name])
    return usable[name]


def is_scheduler(value: Any) -> bool:
    """Say whether a value is a scheduler object of torch; torch is not imported if nobody has."""
    return _MODULE in sys.modules and isinstance(value, sys.modules[_MODULE].LRScheduler)


def makes_scheduler(value: Any) -> bool:
    """Say whether a value makes a scheduler from an optimizer.

    That is a scheduler class, a `functools.partial` of one, or a function whose first argument is named `optimizer`.
    """
    if isinstance(value, functools.partial):
        return makes_scheduler(value.func)
    if inspect.isclass(value):
        return any(base.__module__ == _MODULE for base in value.__mro__)
    return inspect.isfunction(value) and next(iter(inspect.signature(value).parameters), "") == "optimizer"


def _name(scheduler: Any) -> str:
    if isinstance(scheduler, functools.partial):
        return _name(scheduler.func)
    return scheduler if isinstance(scheduler, str) else str(getattr(scheduler, "__name__", type(scheduler).__name__))


def _check_arguments(name: str, arguments: Mapping[str, Any], keys: Sequence[str]) -> None:
    known = [key for key in inspect.signature(find_scheduler(name)).parameters if key != "optimizer"]
    for key, value in arguments.items():
        if key not in known:
            raise InputError(f"{name} has no argument {key!r}.{did_you_mean(key, [*known, *keys])}")
        if callable(value):
            advice = f"Pass functools.partial({name}, {key}=...) as the schedule."
            raise InputError(f"{key} of {name} is a function and cannot be saved to a file. {advice}")


def _to_plain(maker: Any) -> TorchScheduler | None:
    """Return name and arguments, if the maker is a class of torch with plain keyword arguments."""
    whole = maker if isinstance(maker, functools.partial) else functools.partial(maker)
    kind = whole.func
    is_torchs = inspect.isclass(kind) and kind.__module__ == _MODULE
    if not is_torchs or whole.args or any(map(callable, whole.keywords.values())):
        return None
    return TorchScheduler(kind.__name__, whole.keywords)


def _refuse_plateau(kind: type) -> None:
    if kind.__name__ == "ReduceLROnPlateau":
        raise InputError("ReduceLROnPlateau needs a metric. Use {'kind': 'plateau', 'metric': ...} instead.")


def _copy(scheduler: "LRScheduler", base: float) -> Stepper:
    optimizer = _copy_optimizer(scheduler.optimizer)
    copied = copy.deepcopy(scheduler, memo={id(scheduler.optimizer): optimizer})
    full_rates = [_full_rates(group, copied, index) for index, group in enumerate(optimizer.param_groups)]
    groups = [
        group
        for group, rates in zip(optimizer.param_groups, full_rates, strict=True)
        if any(math.isclose(rate, base, rel_tol=1e-9) for rate in rates)
    ]
    if not groups:
        made_for = ", ".join(f"{rates[-1]:g}" for rates in full_rates)
        raise InputError(
            f"{_name(scheduler)} was created for the learning rates {made_for}; none is {base:g}, the learning rate "
            "of the group. Create it for the learning rates of the plan, or pass "
            f"functools.partial({_name(scheduler)}, ...), which creates one per group."
        )
    return Stepper(copied, groups)


def _copy_optimizer(optimizer: "Optimizer") -> "Optimizer":
    import torch

    plain = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    return torch.optim.SGD([{**copy.deepcopy(options), "params": [torch.zeros(1)]} for options in plain], lr=0.0)


def _full_rates(group: Mapping[str, Any], scheduler: "LRScheduler", index: int) -> list[float]:
    """Return what may have been the group's own rate; CyclicLR and OneCycleLR overwrite `initial_lr` by their start."""
    highest = [group["max_lr"]] if "max_lr" in group else getattr(scheduler, "max_lrs", [])[index : index + 1]
    return [float(rate) for rate in (group["initial_lr"], *highest)]
