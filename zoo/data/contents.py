"""What images are, by content: a digest of each, by which a run that is resumed knows its data again.

Files are read once: their digests are noted for the whole folder, with size, inode and times of change. What is in
memory is read as far as that is quick and gives the same twice.
"""

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from zoo.data.digests import THREADS, digest_sources
from zoo.files import YOUNG_SECONDS, cache_folder, open_regular, read_note, write_note

MOST_READ = 2000  # images in memory, evenly spread, of a larger data set
MOST_LISTED = 50_000  # files whose digests a run keeps one by one
MOST_TOLD = 3  # of them in a message
_DIGITS = 16  # of the digests that are kept one by one


def digest_contents(images: Any) -> list[str]:
    """Return a digest of each image of a split; empty for one that is not read."""
    if images.in_threads:
        sources = [images.find_source(index) for index in range(len(images))]
        if all(isinstance(source, (str, os.PathLike)) for source in sources):
            return _digest_files([os.path.abspath(source) for source in sources])
        return digest_sources(images)
    from zoo.data.random_reads import why_random  # torch is imported only where it is needed

    digests = [""] * len(images)
    if len(images) and why_random(images) is None:
        count = min(MOST_READ, len(images))
        chosen = [number * len(images) // count for number in range(count)]
        for index, digest in zip(chosen, digest_sources(images.subset(chosen)), strict=True):
            digests[index] = digest
    return digests


def list_files(splits: Mapping[str, Any], digests: Mapping[str, Sequence[str]]) -> dict[str, dict[str, str]]:
    """Return the digests of a data set's images by split and name, if they are not too many."""
    if sum(map(len, digests.values())) > MOST_LISTED:
        return {}
    return {
        split: {name: digest[:_DIGITS] for name, digest in zip(images.names, digests[split], strict=True)}
        for split, images in splits.items()
    }


def tell_change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say which images of a data set are others than before, as far as that is known; both are from `describe`."""
    found = []
    for split in ("train", "val", "test"):
        old, new = (_names(facts, split) for facts in (before, now))
        if old and new:
            parts = {
                "changed": [name for name, digest in old.items() if name in new and new[name] != digest],
                "missing": [name for name in old if name not in new],
                "new": [name for name in new if name not in old],
            }
            found += [f"{split}: {_count(names, what)}" for what, names in parts.items() if names]
    return "; ".join(found) or "its labels, boxes or order differ"


def _names(facts: Mapping[str, Any], split: str) -> dict[str, str]:
    files = facts.get("files")
    names = files.get(split) if isinstance(files, Mapping) else None
    return dict(names) if isinstance(names, Mapping) else {}


def _count(names: Sequence[str], what: str) -> str:
    shown = ", ".join(repr(name) for name in names[:MOST_TOLD]) + (", ..." if len(names) > MOST_TOLD else "")
    return f"{len(names):,} {what} ({shown})"


def _digest_files(paths: Sequence[str]) -> list[str]:
    """Return the SHA-256 of files, those that have not changed from what was noted."""
    if not paths:
        return []
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    note = cache_folder() / "contents" / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:32]}.json"
    known, digests, has_news = read_note(note) or {}, [], False
    noted = [known.get(path) for path in paths]
    with ThreadPoolExecutor(THREADS) as pool:
        for path, (facts, digest) in zip(paths, pool.map(_look, paths, noted), strict=True):
            digests.append(digest)
            row = [*facts, digest]
            if facts[3] and known.get(path) != row and time.time() - max(facts[1:3]) / 1e9 > YOUNG_SECONDS:
                known[path], has_news = row, True
    if has_news:
        write_note(note, known)
    return digests


def _look(path: str, noted: Any) -> tuple[list[int], str]:
    """Return what tells a file from a changed one, and its digest."""
    try:
        found = os.stat(path)
        facts = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
        if isinstance(noted, list) and noted[:-1] == facts and isinstance(noted[-1], str):
            return facts, noted[-1]
        with open_regular(path) as file:
            return facts, hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):  # data that was not checked may hold what cannot be read
        return [0, 0, 0, 0], "unreadable"
