"""Formats that boxes are stored in, one module or folder each.

Owns reading, and writing where the format can be written. Never decodes an image.
Add a format: a file or folder here with a `FORMAT`, see `BoxFormat`; it is found by its folder.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
