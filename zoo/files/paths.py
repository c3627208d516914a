"""Paths as people write them."""

import contextlib
import os
import re
from pathlib import Path

from zoo.errors import did_you_mean

MOST_NAMES = 3  # of what a folder holds instead
_PATH = re.compile(r"[.~/\\]|.*[/\\]$|.*\\|[^@]*/[^@]*/|[A-Za-z]:")


def to_path(path: str | os.PathLike[str]) -> Path:
    """Return a path that a person gave: `~` and `~name` at its beginning are the home folder, here as everywhere."""
    return Path(os.path.expanduser(path))


def lies_inside(path: str | Path, folder: str | Path) -> bool:
    """Tell whether a file lies in a folder, also after the links in its path are followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def tell_missing(place: str | os.PathLike[str]) -> str | None:
    """Say that a folder is missing, if a text can only mean a path, and nothing is there; None otherwise.

    A path begins with a dot, `~` or a slash, has several slashes, or lies in a folder that exists. `org/name@revision`
    is a repository in any case.

    Args:
        place: What somebody gave where a folder, a file or a name was expected.

    Returns:
        Sentences on what is missing and what is there instead.
    """
    text, path = os.fspath(place), to_path(place)
    if os.path.lexists(path):
        return None
    inside = "/" in text and os.path.isdir(path.parent)
    if _PATH.match(text) is None and (not inside or "@" in text):
        return None
    missing = f"there is no folder or file {text!r}."
    if not os.path.isdir(path.parent):
        above = next(folder for folder in path.absolute().parents if os.path.isdir(folder))
        return f"{missing} The last existing folder of the path is {above}."
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = sorted(found.name for found in path.parent.iterdir() if not found.name.startswith("."))
    hint = did_you_mean(path.name, names)
    if not hint and names:
        hint = f" {path.parent} has {', '.join(names[:MOST_NAMES])}{', ...' * (len(names) > MOST_NAMES)}."
    is_name = re.fullmatch(r"\w[\w.-]*/[\w.-]+", text)
    return missing + hint + (f" For a repository on the Hub, add its revision: {text}@main." if is_name else "")
