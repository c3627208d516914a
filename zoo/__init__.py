"""Fine-tune pretrained vision models: exact learning rates, proven freezing, presets that repeat.

The public names stand in `__init__.pyi`. Each is loaded when it is first asked for, so `import zoo` costs nothing.
"""

import lazy_loader

from zoo._version import VERSION as __version__  # noqa: F401

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__.append("__version__")
