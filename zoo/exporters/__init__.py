"""Takes a finished run to where it is used, and brings it back from there.

Owns the Hub repository, its model card, and other formats. Never trains, and never changes the run it exports.
Add an exporter: one file here with `export(run, target, **options)`; it is found by its folder. A format
of `zoo.export` also has `FILE`, `EXTRA`, `MODULES` and `write`; one that comes back `RUNS_WITH` and `open_file`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
