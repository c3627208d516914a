"""Exporters by name: each module beside this one is an exporter, unless its name begins with an underscore."""

import importlib
from collections.abc import Callable
from typing import Any

from zoo import exporters
from zoo.errors import InputError, did_you_mean
from zoo.files import module_names


def list_exporters() -> list[str]:
    """Return the names of the exporters, sorted."""
    return module_names(exporters)


def find_exporter(name: str) -> Callable[..., Any]:
    """Return `export(run, target, **options)` of an exporter.

    `run` is a finished run, its folder, or a model of `zoo.get`, and stays as it is; `target` is where it goes. What
    comes back says what was written.

    Raises:
        InputError: There is no such exporter.
    """
    names = list_exporters()
    if name not in names:
        raise InputError(f"unknown exporter {name!r}.{did_you_mean(str(name), names)} Known: {', '.join(names)}.")
    export: Callable[..., Any] = importlib.import_module(f"{exporters.__name__}.{name}").export
    return export
