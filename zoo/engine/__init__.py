"""Runs networks on the machine at hand.

Owns devices, memory, micro-batches, compilation, the frozen-feature engine and the inputs of a training.
Never knows a task, a preset file or a run folder.
Add a device trick: a module here with its option in `options`; list its names in `__init__.pyi`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
