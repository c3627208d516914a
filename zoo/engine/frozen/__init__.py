"""Computes what a frozen backbone makes of each image once, and keeps it.

Owns folding, precision, the cache and its keys, shards and the pass over all images.
Never guesses: a backbone that trains, or images that change, are computed anew, and the reason is told.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
