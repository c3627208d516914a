"""What a command is given where a run, a model, data or the name of a plot is expected."""

import os
from pathlib import Path
from typing import Any

import zoo
from zoo._text import warn
from zoo.errors import InputError
from zoo.files import tell_missing, to_path


def load_model(model_or_run: str, *, device: str = "auto") -> Any:
    """Return the model of a run's folder, or a pretrained one by its name.

    Args:
        model_or_run: As somebody typed it.
        device: Where it will work: one that is not there is told before anything is fetched.

    Raises:
        InputError: There is no such folder or model, or no such device.
    """
    from zoo.exporters import is_exported
    from zoo.models import find_entry, list_families
    from zoo.training import read_record, split_run

    path, _ = split_run(model_or_run)
    if is_exported(path):
        return _open_export(model_or_run, device)
    if os.path.isfile(path):
        raise InputError(
            f"{path} is a file; expected the folder of a run, a model's name, or an exported model. "
            f"zoo convert {path} -o DIR makes a folder of a super-gradients checkpoint."
        )
    missing = tell_missing(model_or_run)
    if missing and model_or_run.partition("/")[0] not in list_families():  # timm/resnet18 is a name in any case
        raise InputError(missing)
    if not (os.path.exists(path) or "/" in model_or_run):
        try:
            find_entry(model_or_run)
        except InputError as error:
            raise InputError(f"there is no folder {model_or_run!r}, and no model: {error}") from error
    from zoo.engine import make_accelerator

    make_accelerator(device)
    if os.path.exists(path):
        if read_record(path).get("status") == "interrupted":
            warn(f"note: the run in {path} was interrupted; its weights are those of that moment")
        return zoo.load(model_or_run)
    return zoo.get(model_or_run, pretrained=True)


def _open_export(place: str, device: str) -> Any:
    """Return an exported model, for a device that it runs on."""
    if device not in ("auto", "cpu"):
        raise InputError(f"{place} is an exported model, which runs on the CPU. Leave out --device {device}.")
    return zoo.load(place)


def check_order(command: str, run: str, data: str) -> None:
    """Refuse a run and data that stand in each other's place.

    Args:
        command: Name of the command, for the advice.
        run: The first word.
        data: The second one.

    Raises:
        InputError: The first is a folder that is no run, and the second is a run or a model.
    """
    if _is_run(run) or not os.path.exists(to_path(run)):
        return
    if _is_run(data) or _is_model(data):
        raise InputError(f"{run!r} is no run, and {data!r} is one: the run comes first. zoo {command} {data} {run}")


def check_plot(path: Path) -> Path:
    """Refuse a name under which something else is kept; a plot that was drawn before is replaced."""
    if path.suffix.lower() != ".png":
        raise InputError(f"the plot is a PNG, and '{path}' has another ending. Choose a name that ends in .png.")
    if path.is_dir() or (path.exists() and not _is_drawn(path)):
        raise InputError(f"'{path}' exists and was not drawn by zoo. Choose another name.")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder '{path.parent}' for the plot. Make it, or choose another name.")
    return path


def _is_drawn(path: Path) -> bool:
    """Whether a file is a PNG of matplotlib, which names itself at its beginning."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError:
        return False
    return head.startswith(b"\x89PNG\r\n\x1a\n") and b"Matplotlib" in head


def _is_run(word: str) -> bool:
    from zoo.exporters import is_exported

    return os.path.isfile(to_path(word) / "config.json") or is_exported(word)


def _is_model(word: str) -> bool:
    return not os.path.exists(to_path(word)) and word in zoo.list_models()
