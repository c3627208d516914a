"""One label for each image: data, loss, scores, plots and options of classifiers.

Never knows a network: any module that maps images to logits will do.
Add a score or a plot: `metrics`, `plots`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
