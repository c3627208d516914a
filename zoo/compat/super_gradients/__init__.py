"""Training parameters and recipes of super-gradients, translated into presets.

Every key that is given comes back: translated, or in the list of what has no counterpart.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
