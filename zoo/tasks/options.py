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
    tasks = [found.name for found in pkgutil.iter_modules([str(Path(__file__).parent)]) if found.ispkg]
    names = {task: f"{__package__}.{task}.{module}" for task in tasks}
    return {task: import_module(name) for task, name in names.items() if find_spec(name)}
