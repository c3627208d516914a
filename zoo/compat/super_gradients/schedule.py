"""Schedule, warm-up and cool-down of super-gradients → the fields of a preset that say how rates go over a run.

Source: Deci-AI/super-gradients, release 3.7.1, `training/utils/callbacks/callbacks.py`.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from zoo._fields import shown
from zoo.compat.super_gradients.parameters import SCORES, Book, fuzzy, join_names, read_number
from zoo.errors import PresetError, did_you_mean

_KINDS = {  # lr_mode, by the names of today and by the old ones
    "CosineLRScheduler": "cosine",
    "PolyLRScheduler": "polynomial",
    "ExponentialLRScheduler": "exponential",
    "StepLRScheduler": "step",
    "FunctionLRScheduler": "function",
    "cosine": "cosine",
    "poly": "polynomial",
    "exp": "exponential",
    "step": "step",
    "function": "function",
}
_OF_SOME_KINDS = (
    "cosine_final_lr_ratio",
    "lr_decay_factor",
    "lr_updates",
    "step_lr_update_freq",
    "lr_schedule_function",
)
_TORCH_SCHEDULERS = (
    "StepLR",
    "LambdaLR",
    "MultiStepLR",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "ReduceLROnPlateau",
    "LinearLR",
)
_PACES = {  # a phase, and what a scheduler counts that is stepped in it
    "TRAIN_EPOCH_START": "epoch",
    "TRAIN_BATCH_END": "step",
    "TRAIN_BATCH_STEP": "step",
    "TRAIN_EPOCH_END": "epoch",
    "VALIDATION_EPOCH_END": "epoch",
}
_PLATEAU = ("factor", "patience", "threshold", "cooldown")
_WARMUPS = {
    "LinearEpochLRWarmup": "epoch",
    "LinearBatchLRWarmup": "batch",
    "linear_epoch_step": "epoch",
    "linear_batch_step": "batch",
    "linear_step": "epoch",
}
_LONGEST_WARMUP = 10  # epochs that they accept


def read_course(book: Book) -> None:
    """Translate all that says how rates go over a run; the fields `lr`, if it could be read, are there already."""
    schedule, remark = _read_schedule(book)
    schedule |= _read_exact_warmup(book, schedule["kind"]) if book.exact else _read_meant_warmup(book)
    _read_start(book, schedule)
    book.put("lr_mode", {"schedule": schedule if len(schedule) > 1 else schedule["kind"]}, remark)
    cooldown = book.whole("lr_cooldown_epochs") if book.exact else book.number("lr_cooldown_epochs")
    book.put("lr_cooldown_epochs", {"cooldown_epochs": float(cooldown)})
    for key in _OF_SOME_KINDS:
        if key in book.values and not book.has(key):
            book.note(key, remark=f"not read by lr_mode {shown(book.get('lr_mode'))}")


def _read_schedule(book: Book) -> tuple[dict[str, Any], str]:
    """Return the schedule as a mapping, and a remark."""
    mode = book.get("lr_mode")
    if mode is None:
        return {"kind": "constant"}, ""
    if isinstance(mode, Mapping):
        return _read_torch_schedule(book, mode)
    if not isinstance(mode, str) or mode not in _KINDS:
        near = did_you_mean(str(mode), _KINDS)
        raise PresetError(f"unknown lr_mode {shown(mode)}.{near} Known: {join_names(_KINDS)}.")
    kind = _KINDS[mode]
    if kind == "cosine":
        book.put("cosine_final_lr_ratio", {"final_lr_ratio": book.number("cosine_final_lr_ratio")})
    if kind == "step":
        return _read_steps(book)
    if kind == "function":
        return _read_function(book)
    return {"kind": kind, **(_read_gamma(book) if kind == "exponential" else {})}, ""


def _read_gamma(book: Book) -> dict[str, float]:
    gamma = book.number("lr_decay_factor")
    book.note("lr_decay_factor", "schedule.gamma", shown(gamma))
    return {"gamma": gamma}


def _read_steps(book: Book) -> tuple[dict[str, Any], str]:
    updates, distance = book.get("lr_updates"), book.get("step_lr_update_freq")
    updates = updates.tolist() if hasattr(updates, "tolist") else updates  # an array
    if not isinstance(updates, Sequence) or isinstance(updates, str):
        raise PresetError(f"lr_updates is {shown(updates)}; expected a list of epochs.")
    if bool(updates) == bool(distance):
        raise PresetError("lr_updates, step_lr_update_freq: lr_mode step needs exactly one of them.")
    made: dict[str, Any] = {"milestones": [read_number("lr_updates", update) for update in updates]}
    if distance:
        every = book.number("step_lr_update_freq")
        made = {"every_epochs": every} if book.exact else {"milestones": _updates_every(book, every)}
    ((field, ours),) = made.items()
    book.note("step_lr_update_freq" if distance else "lr_updates", f"schedule.{field}", shown(ours))
    remark = (
        "a milestone takes effect at the end of its epoch, as in super-gradients"
        if book.exact
        else "in super-gradients one epoch later"
    )
    return {"kind": "step" if book.exact else "multistep", **_read_gamma(book), **made}, remark


def _updates_every(book: Book, distance: float) -> list[float]:
    """Return ceil(f·x) for x = 1, 2, …, from the end of the warm-up to the cool-down, as they compute it."""
    epochs = book.plain.epochs if book.get("max_epochs") is None else book.whole("max_epochs", 1)
    end = math.ceil(epochs - book.number("lr_cooldown_epochs"))
    updates = [float(math.ceil(distance * count)) for count in range(1, end)]
    found = [update for update in updates if book.number("lr_warmup_epochs") <= update < end]
    if not found:
        raise PresetError(f"step_lr_update_freq is {distance:g}: no update within {epochs} epochs. Lower it.")
    return found


def _read_function(book: Book) -> tuple[dict[str, Any], str]:
    function = book.get("lr_schedule_function")
    if not callable(function):
        raise PresetError(
            f"lr_schedule_function is {shown(function)}; lr_mode function needs a Python function, which cannot be "
            "saved to a file. Pass it in Python, or choose another lr_mode."
        )
    book.note("lr_schedule_function", "schedule.function", str(getattr(function, "__name__", type(function).__name__)))
    schedule = {"kind": "function", "function": function}
    if book.exact:
        return schedule, ""
    return schedule | {"compat": "super-gradients"}, "the function is called with super-gradients' arguments"


def _read_torch_schedule(book: Book, mode: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    name = next(iter(mode), None)
    if name not in _TORCH_SCHEDULERS:
        near = did_you_mean(str(name), _TORCH_SCHEDULERS)
        raise PresetError(f"unknown lr_mode {shown(name)}.{near} Known: {join_names(_TORCH_SCHEDULERS)}.")
    for other in list(mode)[1:]:
        book.leave(f"lr_mode.{other}", "super-gradients reads only the first scheduler")
    if not isinstance(mode[name], Mapping):
        raise PresetError(f"lr_mode {name!r} is {shown(mode[name])}; expected a mapping of arguments and 'phase'.")
    phase = mode[name].get("phase")
    phase = getattr(phase, "name", phase)  # an enum in Python, its name in a file
    if phase not in _PACES:
        raise PresetError(f"lr_mode {name!r}: phase is {shown(phase)}; expected one of {join_names(_PACES)}.")
    arguments = {str(key): value for key, value in mode[name].items() if key not in ("phase", "metric_name")}
    if name == "ReduceLROnPlateau":
        return _read_plateau(book, arguments, mode[name].get("metric_name"))
    pace = {"phase": phase} if book.exact else {"per": _PACES[phase]}
    if any(map(callable, arguments.values())):
        return {"kind": "torch", "scheduler": _with_arguments(name, arguments), **pace}, ""
    return {"kind": "torch", "scheduler": name, **arguments, **pace}, ""


def _with_arguments(name: str, arguments: Mapping[str, Any]) -> Any:
    """Return a scheduler class with its arguments, where one of them is a function."""
    from torch.optim import lr_scheduler

    return functools.partial(getattr(lr_scheduler, name), **arguments)


def _read_plateau(book: Book, arguments: Mapping[str, Any], metric: Any) -> tuple[dict[str, Any], str]:
    """Read a schedule that follows a metric: it has no rates that could be known beforehand, so it is never exact."""
    if metric is None:
        raise PresetError("lr_mode 'ReduceLROnPlateau': metric_name is missing; expected the name of a metric.")
    book.exact = False
    book.fields["compat"] = None
    followed = SCORES.get(fuzzy(str(metric)), "val_loss")
    for key in arguments:
        if key not in _PLATEAU:
            book.leave(f"lr_mode.{key}", f"only its arguments {join_names(_PLATEAU)} are supported")
    settings = {key: value for key, value in arguments.items() if key in _PLATEAU}
    remark = (
        f"{shown(metric)} becomes {followed}; these learning rates, and a warm-up with them, cannot be reproduced "
        "exactly"
    )
    return {"kind": "plateau", "metric": followed, **settings}, remark


def _read_exact_warmup(book: Book, kind: str) -> dict[str, str]:
    """Set both lengths, because the schedule looks at both; return what it has to be told of the kind of warm-up."""
    by, epochs, steps = _warmup_kind(book), book.whole("lr_warmup_epochs"), book.whole("lr_warmup_steps")
    of_epochs = f"super-gradients rejects more than {_LONGEST_WARMUP}" if epochs > _LONGEST_WARMUP else ""
    if by == "batch" and epochs:
        of_epochs = "no warm-up by batch; the schedule starts after these steps, as in super-gradients"
    of_steps = "at most one epoch long, as in super-gradients" if by == "batch" else "no warm-up by epoch"
    if kind == "cosine":
        of_steps += "; the cosine starts after all of them, as in super-gradients"
    book.put("lr_warmup_epochs", {"warmup_epochs": float(epochs)} if epochs else {}, of_epochs)
    book.put("lr_warmup_steps", {"warmup_steps": steps} if steps else {}, of_steps if steps else "")
    taken_for_granted = "batch" if steps and not epochs else "epoch"
    return {"warmup": by} if (steps or epochs) and by != taken_for_granted else {}


def _read_meant_warmup(book: Book) -> dict[str, str]:
    """Set the length that the kind of warm-up reads, and not the one that is left over."""
    by, epochs, steps = _warmup_kind(book), book.number("lr_warmup_epochs"), book.whole("lr_warmup_steps")
    unread = "lr_warmup_steps" if by == "epoch" else "lr_warmup_epochs"
    if by == "epoch":
        remark = "updated every step; in super-gradients every epoch" if epochs else ""
        book.put("lr_warmup_epochs", {"warmup_epochs": epochs}, remark)
    else:
        count = book.whole("batch_accumulate", 1)
        length = {"warmup_steps": math.ceil(steps / count)} if steps else {"warmup_epochs": 0.0}
        book.put("lr_warmup_steps", length, f"steps of {count} batches" if count > 1 else "")
    if unread in book.values:
        book.note(unread, remark=f"not read by warmup_mode {shown(book.get('warmup_mode'))}")
    return {}


def _warmup_kind(book: Book) -> str:
    """Return `epoch` or `batch`."""
    mode = book.get("warmup_mode")
    if not isinstance(mode, str) or mode not in _WARMUPS:
        near = did_you_mean(str(mode), _WARMUPS)
        raise PresetError(f"unknown warmup_mode {shown(mode)}.{near} Known: {join_names(_WARMUPS)}.")
    by = _WARMUPS[mode]
    if "warmup_mode" in book.values:
        field = "warmup_epochs" if by == "epoch" else "warmup_steps"
        book.note("warmup_mode", remark=f"linear, by {by}: see {field}")
    return by


def _read_start(book: Book, schedule: dict[str, Any]) -> None:
    """Set the rate that the warm-up begins with."""
    by = _WARMUPS[book.get("warmup_mode")]
    length = book.number("lr_warmup_epochs" if by == "epoch" else "lr_warmup_steps")
    start = book.get("warmup_initial_lr")
    if not length and "warmup" not in schedule:
        if "warmup_initial_lr" in book.values:
            book.note("warmup_initial_lr", remark="there is no warm-up")
    elif isinstance(start, Mapping):
        _start_by_group(book, start, schedule)
    elif start is not None:
        _start_of_all(book, read_number("warmup_initial_lr", start))
        if schedule.get("warmup") == "batch":
            schedule["warmup_start_lr"] = float(start)  # a schedule that says one says both
    elif by == "batch":
        raise PresetError(
            "warmup_initial_lr is missing; expected a learning rate: warmup_mode LinearBatchLRWarmup needs one."
        )
    elif length and book.exact:
        book.note("warmup_initial_lr", "compat", "super-gradients", f"lr / {length + 1:g}, as in super-gradients")
    elif length:
        book.put("warmup_initial_lr", {"warmup_start": 1 / (length + 1)}, f"lr / {length + 1:g}, as in super-gradients")


def _start_of_all(book: Book, start: float) -> None:
    lr = book.fields.get("lr", start)
    rates = [rate for rate in lr.values() if rate] if isinstance(lr, Mapping) else [lr]
    if book.exact:
        remark = (
            "groups with a lower learning rate warm up downwards, as in super-gradients"
            if min(rates, default=start) < start
            else ""
        )
        book.put("warmup_initial_lr", {"warmup_start_lr": start}, remark)
    elif start > max(rates, default=start):
        book.put("warmup_initial_lr", {"warmup_start": 1.0}, "above all learning rates; zoo never warms up downwards")
    else:
        remark = "of the highest learning rate; the others start in the same proportion" if len(rates) > 1 else ""
        book.put("warmup_initial_lr", {"warmup_start_lr": start}, remark)


def _start_by_group(book: Book, given: Mapping[Any, Any], schedule: Mapping[str, Any]) -> None:
    """Set a start for every key of `lr`; those of frozen ones have no effect."""
    lr = book.fields.get("lr")
    if book.flag("finetune"):
        raise PresetError(
            "warmup_initial_lr is a mapping, but with finetune the model sets the groups. Use a single learning rate."
        )
    keys = list(lr) if isinstance(lr, Mapping) else ["default"]
    missing = [key for key in keys if key not in given]
    if missing:
        raise PresetError(f"warmup_initial_lr has no {join_names(missing)}; expected every key of initial_lr.")
    for key in given:
        if key not in keys:
            book.leave(f"warmup_initial_lr.{key}", "initial_lr has no such key")
    starts = {key: read_number(f"warmup_initial_lr of {key!r}", given[key]) for key in keys}
    if not isinstance(lr, Mapping):
        _start_of_all(book, starts["default"])
        return
    own = {
        key: {"lr": rate, "schedule": {**schedule, **_own_start(book, starts[key], rate)}} for key, rate in lr.items()
    }
    book.put("warmup_initial_lr", {"lr": {key: own[key] if rate else rate for key, rate in lr.items()}})


def _own_start(book: Book, start: float, rate: float) -> dict[str, float]:
    if book.exact:
        return {"warmup_start_lr": start}
    return {"warmup_start": min(1.0, start / rate) if rate else 0.0}  # nothing warms downwards
