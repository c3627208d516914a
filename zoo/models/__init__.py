"""Builds networks by name, and opens saved ones.

Owns the catalogue, the families, the model protocol's wrappers, `config.json` and the store of published weights.
Never trains, and never plans a rate.
Add a family: a file or folder in `families`; add a size: one `@register` function there.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
