"""Paths as people write them."""

import os
from pathlib import Path


def to_path(path: str | os.PathLike[str]) -> Path:
    """Return a path that a person gave: `~` and `~name` at its beginning are the home folder, here as everywhere."""
    return Path(os.path.expanduser(path))


def lies_inside(path: str | Path, folder: str | Path) -> bool:
    """Tell whether a file lies in a folder, also after the links in its path are followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
