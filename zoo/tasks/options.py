"""The options that each task adds to a preset, found by folder: a module `options` with a class `Options`."""

import functools
import pkgutil
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from zoo._fields import Options


@functools.cache
def find_options() -> Mapping[str, type[Options]]:
    """Return the class of options of every task that has some, by the task's name."""
    found: dict[str, type[Options]] = {}
    for folder in pkgutil.iter_modules([str(Path(__file__).parent)]):
        name = f"{__package__}.{folder.name}.options"
        if folder.ispkg and find_spec(name):
            found[folder.name] = import_module(name).Options
    return MappingProxyType(found)
