"""Fine-tune pretrained vision models: exact learning rates, proven freezing, presets that repeat.

The public door. Names are loaded when they are first asked for, so that `import zoo` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

from zoo._version import VERSION as __version__

if TYPE_CHECKING:
    from zoo._user_config import config as config
    from zoo.api import Run as Run
    from zoo.api import finetune as finetune
    from zoo.api import load as load
    from zoo.api import plan as plan
    from zoo.api import resume as resume
    from zoo.errors import ZooError as ZooError
    from zoo.exporters.hub import push as push
    from zoo.models.catalog import describe as describe
    from zoo.models.catalog import get as get
    from zoo.models.catalog import list_models as list_models
    from zoo.models.catalog import register_model as register_model
    from zoo.optim.catalog import register_optimizer as register_optimizer
    from zoo.rates.schedules.parse import register_schedule as register_schedule
    from zoo.settings.preset import Preset as Preset
    from zoo.settings.preset import list_presets as list_presets
    from zoo.settings.preset import load_preset as load_preset
    from zoo.tasks.base import open_data as open_data
    from zoo.training.callbacks import Callback as Callback
    from zoo.training.evaluation import evaluate as evaluate

_ROOMS = {
    "Callback": "training.callbacks",
    "Preset": "settings.preset",
    "Run": "api",
    "ZooError": "errors",
    "config": "_user_config",
    "describe": "models.catalog",
    "evaluate": "training.evaluation",
    "finetune": "api",
    "get": "models.catalog",
    "list_models": "models.catalog",
    "list_presets": "settings.preset",
    "load": "api",
    "load_preset": "settings.preset",
    "open_data": "tasks.base",
    "plan": "api",
    "push": "exporters.hub",
    "register_model": "models.catalog",
    "register_optimizer": "optim.catalog",
    "register_schedule": "rates.schedules.parse",
    "resume": "api",
}

__all__ = [*sorted(_ROOMS), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}; it has {', '.join(_ROOMS)}.")
    return getattr(importlib.import_module(f"zoo.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
