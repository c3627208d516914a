"""The options that each task adds to a preset, found by folder: a module `options` with a class `Options`."""

import functools
import pkgutil
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType, ModuleType

from zoo._fields import Options


@functools.cache
def find_options() -> Mapping[str, type[Options]]:
    """Return the class of options of every task that has some, by the task's name."""
    return MappingProxyType({task: part.Options for task, part in import_parts("options").items()})


def import_parts(module: str) -> dict[str, ModuleType]:
    """Return the module of this name of every task that has one, by the task's name."""
    names = {task: f"{__package__}.{task}.{module}" for task in list_tasks()}
    return {task: import_module(name) for task, name in names.items() if find_spec(name)}


def list_tasks() -> list[str]:
    """Return the names of the tasks, those of their folders, and with a dot those of the variants in these.

    A variant is a folder in that of its task that has a module `task`.
    """
    root = Path(__file__).parent
    tasks = _list_folders(root)
    variants = [f"{task}.{name}" for task in tasks for name in _list_folders(root / task)]
    return sorted([*tasks, *(name for name in variants if find_spec(f"{__package__}.{name}.task"))])


def _list_folders(folder: Path) -> list[str]:
    return [found.name for found in pkgutil.iter_modules([str(folder)]) if found.ispkg]
