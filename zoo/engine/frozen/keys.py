"""The key of kept features - a digest of everything they depend on - and the folder that it names.

Features are used again only under the same key. Plain facts go into it, and images by the digests of
their files, so that one changed byte, box or label makes another key.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from zoo._version import DECODER, VERSION
from zoo.errors import InputError
from zoo.files import cache_folder, read_object, write_file

ABOUT = "about.json"
FEATURES = 1  # to be raised when the same facts give other features
_LIBRARIES = (
    "torch",  # computes
    "torchvision",  # crops, flips, scales
    "timm",  # has the networks that are asked of it
    "transformers",  # has those of D-FINE, RT-DETRv2 and RF-DETR
    "pillow",  # decodes, resizes
    "numpy",  # letterboxes
)


def make_key(facts: Mapping[str, Any]) -> str:
    """Return the key of facts: SHA-256, 64 hexadecimal digits. The order of the facts does not matter.

    Args:
        facts: Text, numbers, truth values and None, also in lists and in mappings by text. 1, 1.0 and True differ.

    Raises:
        InputError: A fact is something else, or no finite number.
    """
    _check_plain(facts, "facts")
    text = json.dumps(_plain(facts), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def find_versions() -> dict[str, str | int | None]:
    """Return the versions on which features depend; None for what is not installed. Nothing is imported."""
    found: dict[str, str | int | None] = {name: _find_version(name) for name in _LIBRARIES}
    return found | {"zoo": VERSION, "features": FEATURES, "decoder": DECODER}


def features_folder() -> Path:
    """Return the folder of all kept features, which need not exist."""
    return cache_folder() / "features"


def feature_folder(key: str) -> Path:
    """Return the folder of the features with a key of `make_key`, which need not exist."""
    if not re.fullmatch(r"[0-9a-f]{64}", key):
        raise InputError(f"{key!r:.80} is not a feature cache key; expected 64 hexadecimal digits.")
    return features_folder() / key[:32]


def write_about(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write down what features are, for people and for `zoo cache`; they can be used without it.

    Args:
        folder: Of the features.
        facts: Plain values. `zoo cache` shows `model`, `images` and `views`; `created`, seconds since 1970, is added.
    """
    text = json.dumps({"created": time.time(), **facts}, indent=1, default=str)
    with suppress(OSError):  # a disk that is full now still has the features
        write_file(folder / ABOUT, text + "\n")


def read_about(folder: Path) -> dict[str, Any]:
    """Return what was written down about features; nothing if that is missing or cannot be read."""
    try:
        return read_object(folder / ABOUT)
    except (OSError, ValueError):
        return {}


def mark_used(folder: Path) -> None:
    """Note that features are used now: by the time of change of what was written down about them."""
    with suppress(OSError):
        os.utime(folder / ABOUT)


def _check_plain(value: Any, place: str) -> None:
    """Raise if JSON would not give a value back as it is."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if type(name) is not str:
                raise InputError(f"{place} has the name {name!r:.80}; expected a string.")
            _check_plain(inner, f"{place}[{name!r}]")
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            _check_plain(inner, f"{place}[{index}]")
    elif not (value is None or type(value) in (str, int, bool) or (type(value) is float and np.isfinite(value))):
        raise InputError(
            f"{place} is {value!r:.80} ({type(value).__name__}); expected a string, a finite number, True, False, "
            "None, or lists and mappings of these."
        )


def _plain(value: Any) -> Any:
    """Return a checked value with mappings as dicts, which JSON asks for."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _find_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
