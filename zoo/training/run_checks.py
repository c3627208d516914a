"""What can be known of a new run before its weights and images are read, besides its preset: folders and room."""

import os
import shutil
from typing import Any

import torch
from torch import nn

from zoo._model import head_prefixes
from zoo.errors import InputError, StorageError
from zoo.files import to_path
from zoo.models import find_entry
from zoo.progress import is_main_process
from zoo.rates import Plan
from zoo.settings import Findings, Preset, find_faults, find_missing
from zoo.tasks import DEFAULT_TASK, open_data
from zoo.training.run_claim import refuse_used
from zoo.training.run_lock import refuse_if_held

COPIES = 2  # of a run's state are on the disk while a new one takes the place of the old


def check_run(
    preset: Preset,
    model: nn.Module | None = None,
    *,
    optimizer: Any = None,
    data: Any = None,
    out: str | os.PathLike[str] | None = None,
) -> Plan | None:
    """Check all of a new run that can be known at once, and return its plan; nothing is written.

    Args:
        preset: The effective one.
        model: The network; None: an outline of the model that the preset names.
        optimizer: The caller's own, a class or an instance.
        data: What `finetune` takes; a path is only looked for.
        out: The run's folder; None: one in `runs`.

    Returns:
        The plan; of an outline, it is that of the weights' classes.

    Raises:
        ZooError: With all that is wrong.
    """
    _refuse_swapped(preset.model, data)
    findings = Findings(preset, model, asks_hub=True)
    plan = find_faults(findings, optimizer)
    find_missing(findings)
    if isinstance(data, (str, os.PathLike)) and not os.path.exists(to_path(data)):
        findings.get((), _open, data, DEFAULT_TASK if findings.task is None else findings.task.name)
    if is_main_process():
        findings.get((), _check_folder, out, _count_bytes(findings.network, preset))
    findings.refuse()
    return plan


def _refuse_swapped(model: str | None, data: Any) -> None:
    """Refuse a model and data that stand in each other's place."""
    if model is None or not isinstance(data, (str, os.PathLike)) or os.path.exists(to_path(data)):
        return
    if os.path.isdir(to_path(model)) and not os.path.isfile(to_path(model) / "config.json"):
        try:
            find_entry(str(data))
        except InputError:
            return
        raise InputError(f"{model!r} is a folder and {str(data)!r} is a model: swap them; the model comes first.")


def _open(data: str | os.PathLike[str], task: str) -> None:
    """Let a task say what it expects in the place of a path that does not exist."""
    open_data(data, task=task)


def _check_folder(out: str | os.PathLike[str] | None, needed: int) -> None:
    """Refuse a folder that holds something else, or cannot hold a run.

    Args:
        out: The run's folder; None: one in `runs`.
        needed: Bytes of what a run keeps at least.
    """
    path = to_path("runs" if out is None else out)
    if out is not None:
        if path.is_dir():
            refuse_if_held(path)
        refuse_used(path)
    place = next(parent for parent in (path.absolute(), *path.absolute().parents) if os.path.lexists(parent))
    advice = "Choose another folder."
    if not place.is_dir():
        raise StorageError(f"cannot create the run folder {path}: {place} is a file. {advice}")
    if not os.access(place, os.W_OK | os.X_OK):
        raise StorageError(f"cannot create the run folder {path}: {place} is not writable. {advice}")
    free = shutil.disk_usage(place).free
    if free < needed:
        raise StorageError(
            f"the run needs at least {needed / 1e6:,.1f} MB in {path}, but only {free / 1e6:,.1f} MB are free. Free "
            "some space, or choose another folder."
        )


def _count_bytes(model: nn.Module | None, preset: Preset) -> int:
    """Return how many bytes a run keeps at least: its state without the optimizer's, and without the head."""
    if model is None:
        return 0
    heads = head_prefixes(model)
    tensors = [value for name, value in model.state_dict().items() if not (heads and name.startswith(heads))]
    weights = sum(value.numel() * value.element_size() for value in tensors if isinstance(value, torch.Tensor))
    return COPIES * weights * (1 + (preset.ema_decay is not None) + (preset.swa_epochs is not None))
