"""Fine-tune pretrained vision models: exact learning rates, proven freezing, presets that repeat.

The public door. Names are loaded when they are first asked for, so that `import zoo` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

from zoo.version import VERSION as __version__

if TYPE_CHECKING:
    from zoo.callbacks import Callback as Callback
    from zoo.errors import ZooError as ZooError
    from zoo.evaluation import evaluate as evaluate
    from zoo.hub import push as push
    from zoo.models import describe as describe
    from zoo.models import get as get
    from zoo.models import list_models as list_models
    from zoo.models import register_model as register_model
    from zoo.optimizers import register_optimizer as register_optimizer
    from zoo.preset import Preset as Preset
    from zoo.preset import list_presets as list_presets
    from zoo.preset import load_preset as load_preset
    from zoo.recipe import Run as Run
    from zoo.recipe import finetune as finetune
    from zoo.recipe import load as load
    from zoo.recipe import plan as plan
    from zoo.recipe import resume as resume
    from zoo.schedule import register_schedule as register_schedule
    from zoo.settings import config as config
    from zoo.tasks import open_data as open_data

_ROOMS = {
    "Callback": "callbacks",
    "Preset": "preset",
    "Run": "recipe",
    "ZooError": "errors",
    "config": "settings",
    "describe": "models",
    "evaluate": "evaluation",
    "finetune": "recipe",
    "get": "models",
    "list_models": "models",
    "list_presets": "preset",
    "load": "recipe",
    "load_preset": "preset",
    "open_data": "tasks",
    "plan": "recipe",
    "push": "hub",
    "register_model": "models",
    "register_optimizer": "optimizers",
    "register_schedule": "schedule",
    "resume": "recipe",
}

__all__ = [*sorted(_ROOMS), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}; it has {', '.join(_ROOMS)}.")
    return getattr(importlib.import_module(f"zoo.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
