"""Opens a classifier and labelled images for questions that their features answer."""

import json
import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from zoo._model import head_prefixes
from zoo.engine import check_device
from zoo.errors import InputError, did_you_mean
from zoo.exporters import get, load
from zoo.files import to_path
from zoo.models import look_up, take_model
from zoo.progress import Progress
from zoo.settings import FORMER, Preset, opening_options, preset_fields
from zoo.tasks import sum_up, task_of
from zoo.training import Run, read_run_file, split_run

# Fields of a preset that decide which images are opened, and what the backbone makes of them.
FIELDS = (
    *("pretrained", "image_size", "crop_pct", "decode", "batch_size", "num_workers", "device", "precision"),
    *("backbone_precision", "fuse_backbone", "cache", "cache_dtype", "val_fraction", "split_seed", "seed"),
    *("skip_bad", "image_root", "exclude"),
)


def read_fields(fields: Mapping[str, Any], what: str) -> Preset:
    """Return the preset of some fields, after a check that each has an effect on features.

    Args:
        fields: Of a preset.
        what: What asks, for messages.

    Raises:
        InputError: A field is unknown, does not apply, or has a wrong value.
    """
    for name in fields:
        if FORMER.get(name, name) not in FIELDS:
            known = name in preset_fields() or name in FORMER
            reason = f"{name} has no effect on {what}" if known else f"unknown option {name!r}"
            raise InputError(f"{reason}; it takes {', '.join(FIELDS)}.{did_you_mean(name, FIELDS)}")
    preset = Preset(**fields)
    check_device(preset.device, preset.precision)
    return preset


def check_model(model: Any, what: str) -> None:
    """Refuse what is no classifier with one class per image, before weights or images are read.

    Args:
        model: A name, a place, a run or a module.
        what: What asks, for messages.
    """
    known = model.model if isinstance(model, Run) else model
    if isinstance(known, (str, os.PathLike)):
        known = look_up(split_run(known)[0] if os.path.exists(to_path(known)) else known)
    task = task_of(known)
    if not task.solves:
        raise InputError(f"{what} is for classifiers with one class per image; this is a {task.card.noun}.")


def open_model(model: Any, preset: Preset) -> Any:
    """Return the model of a name, a place, a run or a module, in eval mode; a name has its published weights."""
    if isinstance(model, Run):
        return model.model
    if not isinstance(model, (str, os.PathLike)):
        return take_model(model)
    if os.path.exists(split_run(model)[0]):
        return load(model)
    return get(model, pretrained=True if preset.pretrained is None else preset.pretrained, seed=preset.init_seed)


def open_images(model: Any, data: Any, preset: Preset, show: Progress) -> Any:
    """Open the labelled images of a model, and say what was found.

    Raises:
        InputError: They are loaders.
        DataError: They cannot be used.
    """
    task = task_of(model)
    with show.counting("checking images") as count:
        opened = task.open_data(data, on_progress=count, **opening_options(preset, task))
    if opened.loaders:
        raise InputError("features of images need a folder, a table or data sets; the data are loaders.")
    show.log(f"data: {sum_up(opened)}")
    if opened.skipped:
        show.log(f"note: {len(opened.skipped):,} unreadable images are left out")
    return opened


def tell_trained_backbone(model: Any, network: nn.Module) -> str:
    """Return what to know of a run whose backbone was trained; empty for others."""
    place = model.folder if isinstance(model, Run) else model
    if not isinstance(place, (str, os.PathLike)):
        return ""
    folder = split_run(place)[0]
    if not (folder / "plan.json").is_file():
        return ""
    heads, groups = head_prefixes(network), json.loads(read_run_file(folder, "plan.json")).get("groups", [])
    trained = [name for group in groups if not group.get("frozen") for name in group.get("names", [])]
    if all(name.startswith(heads) for name in trained):
        return ""
    return (
        f"the backbone of {place} was trained on labelled images; if they are among these, the score is too good. Use "
        "the model's published weights instead"
    )
