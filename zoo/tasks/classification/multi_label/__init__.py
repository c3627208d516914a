"""Any number of labels for each image: a variant of the task of classifiers, by the option `labels: multi`.

A model of it has the task `classification.multi_label` and a threshold for each label; softmax is never applied.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
