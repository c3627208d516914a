"""Boxes on images: data, augmentation, loss, mAP, plots and options of detectors.

Never knows a network: a detector maps images to boxes and scores.
Add a box format: a file or folder in `formats`; it is found by its folder.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
