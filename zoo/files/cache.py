"""What this package keeps on this machine: a folder of its own, and there the digests of files that were hashed.

Hashing a large file takes as long as reading it, so its SHA-256 is remembered with its size, inode and times of change;
a file that differs in one of them is hashed again. Each digest has a small file of its own: two processes never write
to the same one at once. A note holds a digest of itself: one that cannot be read, or is damaged, is as if it were not
there.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.files.atomic import sweep_drafts, write_file
from zoo.files.json import read_object
from zoo.files.paths import to_path
from zoo.files.regular_file import open_regular

MOST_BYTES = 1_000_000_000  # of a note: a large data set has one of many megabytes
YOUNG_SECONDS = 2.0  # the clock of some file systems is no finer: a later change might not show
DRAFT_SECONDS = 24 * 3600.0


def cache_folder() -> Path:
    """Return the folder, which need not exist: `zoo` in `XDG_CACHE_HOME`, or in `.cache` of the home folder."""
    return to_path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zoo"


def sweep_cache() -> None:
    """Remove what killed processes had not finished writing there; others may be writing now, but not for a day."""
    for folder, _, _ in os.walk(cache_folder()):
        sweep_drafts(folder, older_than=DRAFT_SECONDS)


def write_note(path: Path, facts: Mapping[str, Any]) -> None:
    """Keep facts, plain values, on this machine; that they cannot be kept costs time later, nothing else."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps({**facts, "digest": _digest(facts)}, separators=(",", ":")))


def read_note(path: Path) -> dict[str, Any] | None:
    """Return what `write_note` kept; None if there is nothing, or not what was written."""
    try:
        facts = read_object(path, max_bytes=MOST_BYTES)
        return facts if facts.pop("digest", None) == _digest(facts) else None
    except (OSError, ValueError):
        return None


def digest_file(path: str | os.PathLike[str], *, again: bool = False, start: int = 0) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits, remembered from an earlier call if it has not changed.

    Args:
        path: The file.
        again: Read it, whatever is remembered.
        start: Bytes at its beginning that are left out.

    Raises:
        OSError: It cannot be read.
    """
    path = Path(path).resolve()
    facts = _identify(path) | ({"start": start} if start else {})
    note = cache_folder() / "hashed" / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"
    if not again and (known := _recall(note, facts)):
        return known
    with open_regular(path) as file:
        file.seek(start)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    is_young = time.time() - facts["mtime_ns"] / 1e9 < YOUNG_SECONDS
    if not is_young and _identify(path).items() <= facts.items():
        write_note(note, facts | {"sha256": digest})
    return digest


def _identify(path: Path) -> dict[str, Any]:
    """Return what tells a file from another one, or from a changed one."""
    found = path.stat()
    times = {"mtime_ns": found.st_mtime_ns, "ctime_ns": found.st_ctime_ns}  # the second tells a change of the first
    return {"path": str(path), "size": found.st_size, "inode": found.st_ino, **times}


def _recall(note: Path, facts: dict[str, Any]) -> str | None:
    noted = read_note(note) or {}
    digest = noted.pop("sha256", None)
    return digest if noted == facts and isinstance(digest, str) else None


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
