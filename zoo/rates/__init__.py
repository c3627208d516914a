"""Decides which parameter learns when, and how fast.

Owns the rate options, parameter groups, the plan and the schedules. Plain numbers: it is known before the first step.
Never touches an optimizer, a loop or a file of a run.
Add a schedule: one class in `schedules`, or `zoo.register_schedule`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
