"""Turns a plan into an optimizer, and keeps frozen parameters frozen.

Owns the optimizers, clipping and centralization of gradients, freezing with its proof, and rates that change live.
Never decides a rate: `rates` did.
Add an optimizer: one file in `optimizers`; it is found by its folder.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
