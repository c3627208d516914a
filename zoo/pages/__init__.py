"""HTML that needs nothing else: tables, facts, images and charts, for a run's report and for notebooks.

Owns how text becomes markup, and the look that all pages share.
Never knows what is shown, loads nothing over the network, and writes no script.
Add a chart: a function in `charts` that returns `Markup`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
