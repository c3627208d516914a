"""The catalogue: which models there are, and what is known of each.

A family is one file or folder in `families`; the names in it begin with its name, so finding a model opens one family.
"""

import importlib
import re
from fnmatch import fnmatchcase
from typing import Any

from zoo.errors import InputError, did_you_mean
from zoo.files import import_modules, module_names
from zoo.models import families
from zoo.models.registry import Entry, entries
from zoo.weights import is_commercial


def find_entry(name: str) -> Entry:
    """Return what is known of a model; case, `-` and `_` do not matter, and `timm/<name>` reaches the rest of timm.

    Raises:
        InputError: If no model has that name; the text names the nearest ones.
    """
    if not isinstance(name, str):
        raise InputError(
            f"a model name is a string, not {type(name).__name__}. To list models: `zoo models`, zoo.list_models()."
        )
    family, slash, rest = name.partition("/")
    if slash and family in list_families():
        module = importlib.import_module(f"{families.__name__}.{family}")
        if hasattr(module, "open_entry"):
            entry: Entry = module.open_entry(rest)
            return entry
    wanted = plain_name(name)
    for family in sorted(list_families(), key=len, reverse=True):
        if wanted.startswith(plain_name(family)):
            importlib.import_module(f"{families.__name__}.{family}")
            break
    for entry in entries().values():
        if wanted in map(plain_name, (entry.name, *entry.aliases)):
            return entry
    known = list_models()
    near = _find_in_open_families(name) or did_you_mean(name, known)
    raise InputError(
        f"unknown model {name!r}.{near} There are {len(known)} (`zoo models`, zoo.list_models()); 'timm/<name>' "
        "loads any timm classifier."
    )


def _find_in_open_families(name: str) -> str:
    """Return ` Did you mean ...?` if a family that opens another library has a model of exactly this name."""
    for family in list_families():
        module = importlib.import_module(f"{families.__name__}.{family}")
        if hasattr(module, "has_model") and module.has_model(name):
            return f" Did you mean '{family}/{name}'?"
    return ""


def list_models(
    pattern: str = "*", *, task: str | None = None, pretrained: bool | None = None, commercial: bool | None = None
) -> list[str]:
    """Return the names of models, sorted.

    Args:
        pattern: Shell pattern, for example `resnet*`.
        task: Only models for this task, for example `classification`.
        pretrained: Only models with (True) or without (False) pretrained weights.
        commercial: Only models whose weights are known to allow commercial use (True), or the others (False).
    """
    import_families()
    found = [
        entry.name
        for entry in entries().values()
        if fnmatchcase(entry.name, pattern)
        and task in (None, entry.task)
        and pretrained in (None, entry.weights is not None)
        and commercial in (None, entry.weights is None or is_commercial(entry.weights.licence))
    ]
    return sorted(found, key=_natural)


def describe(name: str) -> dict[str, Any]:
    """Return all that is known of a model as plain values: parameters, input, weights, licences, score, paper."""
    return find_entry(name).describe()


def list_families() -> list[str]:
    """Return the names of the families: the files and folders of `zoo.models.families`."""
    return module_names(families)


def import_families() -> None:
    """Import every family, so that all its models are registered."""
    import_modules(families)


def plain_name(name: str) -> str:
    """Return a name without what does not matter in it: case, `-` and `_`."""
    return name.lower().replace("_", "").replace("-", "")


def _natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """Order `resnet18` before `resnet101`."""
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in re.findall(r"\d+|\D+", name))
