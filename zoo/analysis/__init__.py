"""Questions that cached features answer at once: how good, which backbone, which settings, which labels are wrong.

Owns cross-validation, search, suggestions, checks of labels, more classes for a run, and features as data.
Never trains by itself: it solves heads on features, or calls `finetune`.
Add one: a module here, its function in `zoo/__init__.pyi`, and a command in `tools`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
