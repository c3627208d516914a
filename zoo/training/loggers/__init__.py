"""Loggers follow a run: the terminal, the run's files, its plots.

Each module holds one logger and names its class `LOGGER`; it is found by its folder.
Never trains and never changes the run.
Add a logger: one file with a class derived from `Logger`; `is_enabled` makes it opt-in.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
