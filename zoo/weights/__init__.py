"""Knows where pretrained weights are, and whether they are what they claim to be.

Owns the places weights come from, their verification, their licence terms, and loading them into a module.
Never builds a network: it gets one and fills it.
Add a place of published files: a field of `FileWeights`, asked in its turn by `find_file_weights`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
