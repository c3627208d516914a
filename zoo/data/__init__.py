"""Turns files and samples into images, and images into batches.

Owns decoding, transforms, letterboxing, splits, loaders and the stores of decoded images.
Never knows a task: labels are numbers or names, targets are opaque.
Add a source of images: a module beside `splits`; list its names in `__init__.pyi`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
