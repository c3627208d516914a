"""Runs a training from its first step to its last, in a folder that can be resumed.

Owns the loop, the state, evaluation, callbacks, loggers and the run folder.
Never knows a model or task by name: it asks the model and its task.
Add a logger: one file in `loggers`; it is found by its folder.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
