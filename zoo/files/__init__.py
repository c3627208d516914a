"""Reads and writes files of every kind the same safe way.

Owns atomic writes, digests, the cache folder, downloads, and the parsing of JSON, YAML and safetensors from anywhere.
Never knows what a file means: no model, image, preset or run.
Add a kind of file: one module that raises `zoo.errors` and writes through `atomic`; list its names in `__init__.pyi`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
