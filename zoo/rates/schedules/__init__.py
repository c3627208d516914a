"""The shape of a learning rate over a run.

Owns the closed-form curves, their parser, and the exact sequences of torch and super-gradients.
Never knows a parameter: a schedule maps a position in the run to a factor.
Add a schedule: a class in `curves`, or `zoo.register_schedule` from outside.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
