"""What a package holds, found by its folder, so that adding one of its kind edits no list."""

import importlib
import pkgutil
from types import ModuleType


def module_names(package: ModuleType) -> list[str]:
    """Return the names of the modules and folders in a package, sorted; those with a leading underscore are helpers."""
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_"))


def import_modules(package: ModuleType) -> list[ModuleType]:
    """Import each module that `module_names` returns."""
    return [importlib.import_module(f"{package.__name__}.{name}") for name in module_names(package)]
