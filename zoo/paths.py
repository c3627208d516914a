"""Paths as people write them."""

import os
from pathlib import Path


def to_path(path: str | os.PathLike[str]) -> Path:
    """Return a path that a person gave: `~` and `~name` at its beginning are the home folder, here as everywhere."""
    return Path(os.path.expanduser(path))
