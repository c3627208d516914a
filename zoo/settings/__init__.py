"""Every option of a run as one checked value, and the YAML files that hold it.

Owns `Preset`, its fields, its files and its resolution. Never acts on an option: the section's package does.
Add an option: a field in `options` of the package that uses it, or of the task that alone has it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
