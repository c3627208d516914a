"""What the state of a run belongs to: the preset, configuration and data that its folder names, and the versions.

The state keeps them, so that a folder whose files were edited, or exchanged for those of another run, is not gone on
with as if nothing had happened.
"""

import functools
import json
import platform
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from zoo._version import VERSION
from zoo.errors import InputError, PresetError
from zoo.files import read_object, read_yaml
from zoo.settings import BEFORE, FORMER, Preset, load_preset

FILES = ("preset.yaml", "config.json", "data.json")
FREE = {"device", "num_workers", "image_cache", "image_cache_gb", "log"}  # of a preset: where and how fast, not what
LISTS = {"files"}  # of data.json: too long for each state; its digest tells the same
MOST_BYTES = 64_000_000  # of a file
MOST_TOLD = 6  # differences that a message names
_LONGEST = 60  # characters of a value in it
_ABSENT = object()


def read_identity(folder: Path) -> dict[str, Any]:
    """Return what the files of a run say of it, as plain values; of those that are there."""
    files = {name: _read(folder / name) for name in FILES if (folder / name).is_file()}
    return {"files": files, "versions": read_versions()}


def check_identity(folder: Path, identity: object) -> None:
    """Raise if the files of a run say something else than when its state was saved.

    Raises:
        InputError: With each difference, and the two ways out.
    """
    files = identity.get("files") if isinstance(identity, Mapping) else None
    if not isinstance(files, Mapping) or not all(isinstance(values, Mapping) for values in files.values()):
        raise InputError(
            f"{folder / 'state.pt'} does not record which run it belongs to. Resume it with the zoo version that "
            "started it, or start a new run."
        )
    found = [text for name, before in files.items() if name in FILES for text in _compare(folder, name, before)]
    if found:
        more = f"\n  and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
        told = "".join(f"\n  {text}" for text in found[:MOST_TOLD])
        new = f"start a new run from its weights: --weights {folder}, or pretrained={str(folder)!r}"
        raise InputError(
            f"the run in {folder} was modified after it was interrupted, so resuming would not continue the same "
            f"run:{told}{more}\nUndo the changes and resume; or "
            f"{new if (folder / 'model.safetensors').is_file() else 'start a new run'}."
        )


def tell_versions(identity: Mapping[str, Any]) -> str | None:
    """Return a note if the run began with other versions than it goes on with."""
    began, now = identity.get("versions"), read_versions()
    if not isinstance(began, Mapping):
        return None
    other = [f"{name} {began[name]} (now {value})" for name, value in now.items() if began.get(name, value) != value]
    return f"note: the run started with {', '.join(other)}; results may differ from here on" if other else None


def read_versions() -> dict[str, str | None]:
    """Return the versions of what computes."""
    return {"zoo": VERSION, **{name: _version(name) for name in ("torch", "timm")}}


def describe_environment(device: str) -> dict[str, Any]:
    """Return what the result may depend on: versions, processor, device, threads, command."""
    packages = ("torch", "torchvision", "timm", "accelerate", "safetensors", "numpy", "pillow", "zoo-finetune")
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "versions": {name: _version(name) for name in packages},
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
        "threads": torch.get_num_threads(),
    }


def _compare(folder: Path, name: str, before: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a file says otherwise than it did."""
    path = folder / name
    now = _read(path) if path.is_file() else {}
    free = set()
    if name == "preset.yaml":
        known = {FORMER.get(key, key): value for key, value in before.items()}
        free, before = FREE, _defaults() | BEFORE | known
    for key in sorted({*before, *now} - free):
        for place, old, new in _differ(key, before.get(key, _ABSENT), now.get(key, _ABSENT)):
            yield f"{name}: {place} was {_show(old)} and is now {_show(new)}"


def _differ(place: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield where two plain values differ, and what stands there."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}, key=str):
            yield from _differ(f"{place}.{key}", old.get(key, _ABSENT), new.get(key, _ABSENT))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, pair in enumerate(zip(old, new, strict=True)):
            yield from _differ(f"{place}[{number}]", *pair)
    elif type(old) is not type(new) or old != new:
        yield place, old, new


@functools.cache
def _defaults() -> dict[str, Any]:
    """Return the fields with which a run began that were not yet known to its version of the package."""
    return dict(read_yaml(Preset().to_yaml(full=True)).value)


def _read(path: Path) -> dict[str, Any]:
    """Return what a file says, as plain values.

    Raises:
        InputError: It cannot be read.
    """
    try:
        if path.suffix == ".yaml":
            values = read_yaml(load_preset(path).to_yaml(full=True)).value
            return dict(values)
        found = read_object(path, max_bytes=MOST_BYTES)
        return {key: value for key, value in found.items() if key not in LISTS}
    except PresetError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read: {error}. Every run folder has this file; use a complete run folder."
        ) from error


def _show(value: Any) -> str:
    if value is _ABSENT:
        return "missing"
    text = json.dumps(value, default=str)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
