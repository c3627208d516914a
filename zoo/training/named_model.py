"""The model of a run that is named: its task is known at once, its weights are fetched before the data is read."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch

from zoo.errors import InputError, WeightsError, ZooError
from zoo.models import fetch_weights, get, look_up, names_saved
from zoo.settings import Preset
from zoo.tasks import task_of


def default_fields(name: str | os.PathLike[str], optimizer: Any) -> Mapping[str, Any]:
    """Return the fields of the preset that the task of a named model has other defaults for.

    Args:
        name: Of an unknown one there are none; that it is unknown, the checks of the run tell beside all else.
        optimizer: The caller's own.

    Raises:
        InputError: It is an instance, which holds the parameters of another model.
    """
    if isinstance(optimizer, torch.optim.Optimizer):
        raise InputError(
            f"the {type(optimizer).__name__} belongs to another model: {str(name)!r} is created for this run. Pass "
            "the optimizer class, or the model itself."
        )
    try:
        return task_of(look_up(name)).defaults
    except ZooError:
        return {}


def fetch_named(preset: Preset) -> None:
    """Bring the weights of the model that a preset names to this machine, before the images are read.

    Raises:
        WeightsError: They cannot be had, or are not those of the preset.
    """
    weights = fetch_weights(preset.model or "", preset.pretrained)
    found = weights and weights.sha256
    if preset.pretrained_sha256 not in (None, found):
        raise WeightsError(
            f"the weights in {preset.pretrained} differ from those of the preset: their SHA-256 is {found}, expected "
            f"{preset.pretrained_sha256}. Restore the original weights; or, to use these, pass them (--weights, "
            "pretrained=), or remove pretrained_sha256 from the preset."
        )


def make_model(preset: Preset, data: Any, log: Callable[[str], None]) -> Any:
    """Make the model that a preset names for the classes of the data.

    Outputs of classes that the weights know are kept where the preset says so, and always for a saved model; else the
    head is new where the number of classes differs.

    Args:
        preset: The effective one.
        data: Opened data.
        log: Called with what was loaded.

    Raises:
        WeightsError: The weights cannot be had, or do not fit.
    """
    name: Any = preset.model
    by_name = data.named and (preset.match_outputs or names_saved(name))
    classes = {"classes": data.classes} if by_name else {"num_classes": len(data.classes)}
    made = get(name, pretrained=preset.pretrained or False, seed=preset.init_seed, **classes)
    if made.load_report is not None:
        for line in f"weights: {made.load_report}".split("\n"):
            log(line)
    return made
