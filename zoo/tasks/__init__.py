"""What one kind of model does that the others do not, one folder per task.

Owns data formats, options, loss, evaluator, plots and card facts of each task.
Never runs a loop, builds a model or writes a run folder: the layers above ask a task.
Add a task: a folder here that exports `TASK`, as `base.Task` describes it, with its preset fields in `options`
and the names of its scores in `scores`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
