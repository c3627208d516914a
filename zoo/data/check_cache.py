"""Which image files were found good: a note for each folder of data, so that a second run need not decode them again.

A file that differs from its note in size, inode or time of change is looked at again, and so are all files when
another version of Pillow is installed, or images are decoded in another way. What cannot be read or written is as if
it were not there.
"""

import hashlib
import os
import time
from pathlib import Path
from typing import TypeAlias

import PIL

from zoo._version import DECODER
from zoo.files import YOUNG_SECONDS, cache_folder, read_note, write_note

Facts: TypeAlias = tuple[int, int, int]  # size in bytes, time of change in nanoseconds, inode


class CheckNotes:
    """What is noted of the files below a folder. Several threads may ask and add at once.

    Args:
        root: The folder.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = Path(root).resolve()
        self._path = cache_folder() / "checked" / f"{hashlib.sha256(os.fsencode(self._root)).hexdigest()[:32]}.json"
        self._good, self._has_news = self._load(), False

    def is_good(self, name: str, facts: Facts | None) -> bool:
        """Return whether a file, as it is now, was found good.

        Args:
            name: Its path below the folder.
            facts: From `look`.
        """
        return facts is not None and self._good.get(name) == facts

    def add(self, name: str, facts: Facts | None) -> None:
        """Note that a file is good; its facts are those from before it was read."""
        if facts is not None and time.time() - facts[1] / 1e9 > YOUNG_SECONDS:  # else a change might not show
            self._good[name], self._has_news = facts, True

    def look(self, name: str) -> Facts | None:
        """Return what tells a file from a changed one; None if it cannot be had."""
        try:
            found = os.stat(os.path.join(self._root, name))
        except (OSError, ValueError):
            return None
        return found.st_size, found.st_mtime_ns, found.st_ino

    def save(self) -> None:
        """Write what was added, if anything was."""
        if not self._has_news:
            return
        write_note(self._path, {"root": str(self._root), "decoder": _decoder(), "good": self._good})

    def _load(self) -> dict[str, Facts]:
        noted = read_note(self._path)
        if noted is None:
            return {}
        try:
            if noted["root"] != str(self._root) or noted["decoder"] != _decoder():
                return {}
            return {name: _to_facts(*facts) for name, facts in noted["good"].items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            return {}


def _decoder() -> str:
    return f"pillow {PIL.__version__}, {DECODER}"


def _to_facts(size: object, time_ns: object, inode: object) -> Facts:
    if not (type(size) is type(time_ns) is type(inode) is int):
        raise ValueError("expected whole numbers")
    return size, time_ns, inode
