"""Weights as one folder, for machines without a network: exported on one, imported on the other.

The folder holds the files, each in a folder named like its model, and `weights.json`, which tells where each came from
and its SHA-256. Importing puts them where `pretrained=True` looks first.
"""

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from zoo._version import VERSION
from zoo.errors import InputError, StorageError, WeightsError
from zoo.files import digest_file, open_inside, open_regular, open_whole, read_object, to_path, write_file
from zoo.models.catalog import find_entry
from zoo.models.registry import Entry
from zoo.models.weight_store import CachedWeights, check_stored, find_stored, hub_cache, list_stored, pull_weights
from zoo.weights import CONFIG, FileWeights, Weights, place_file_weights

MANIFEST = "weights.json"
_FIELDS = ("model", "repo", "revision", "filename", "sha256", "size", "licence", "config_sha256")


def export_weights(folder: str | os.PathLike[str], names: Iterable[str] = ()) -> list[CachedWeights]:
    """Copy weights into a folder that another machine can import.

    Args:
        folder: Where to; made if need be. What was exported there before stays, if it is not exported anew.
        names: Models, pulled first if they are not here; empty: all that are here.

    Returns:
        What was copied.

    Raises:
        WeightsError: A file is not what it should be, or cannot be had or copied.
    """
    folder, names = to_path(folder), tuple(names)
    for name in names:
        pull_weights(name)
    chosen = [find_stored(name) for name in names] or [stored for stored in list_stored() if stored.path is not None]
    rows = {row["model"]: row for row in _read_manifest(folder)} if (folder / MANIFEST).is_file() else {}
    for stored in chosen:
        rows[stored.model] = _export(stored, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        manifest = {"zoo": VERSION, "weights": list(rows.values())}
        write_file(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    except StorageError as error:
        raise WeightsError(f"{error} Choose another folder.") from error
    except OSError as error:
        raise WeightsError(f"{folder} cannot be written: {error.strerror or error}. Choose another folder.") from error
    return chosen


def import_weights(folder: str | os.PathLike[str]) -> list[CachedWeights]:
    """Put exported weights where `pretrained=True` looks first. Every file is checked before the first one is copied.

    Args:
        folder: As `export_weights` made it. Its content is untrusted: only models of the registry are taken, and of
            these only files that the registry does not contradict.

    Returns:
        What is now on this machine.

    Raises:
        WeightsError: A file is missing, or is not what it should be; nothing was copied.
    """
    folder = to_path(folder)
    rows = _read_manifest(folder)
    for row in rows:
        _check_row(row, folder)
    for row in rows:
        try:
            _import(row, folder)
        except OSError as error:
            raise WeightsError(
                f"the weights of {row['model']} cannot be written to {hub_cache()}: {_say(error)}. Free some space, "
                "or set HF_HOME to a writable folder."
            ) from error
    return [find_stored(row["model"]) for row in rows]


def _export(stored: CachedWeights, folder: Path) -> dict[str, Any]:
    """Copy the files of one model; return its row of the manifest."""
    verdict = check_stored(stored)
    if not verdict.ok or stored.path is None:
        raise WeightsError(f"the weights of {stored.model} are not exported: {verdict.text}.")
    row = {
        "model": stored.model,
        "repo": stored.weights.repo if isinstance(stored.weights, Weights) else None,
        "revision": stored.revision,
        "filename": stored.weights.filename,
        "sha256": digest_file(stored.path),
        "size": stored.path.stat().st_size,
        "licence": stored.weights.licence,
        "config_sha256": None if stored.config is None else digest_file(stored.config),
    }
    target = _place(folder, row)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy(stored.path, target)
        if stored.config is not None:
            _copy(stored.config, target.with_name(CONFIG))
    except StorageError as error:
        raise WeightsError(f"{error} Choose another folder.") from error
    except OSError as error:
        raise WeightsError(f"{target} cannot be written: {error.strerror or error}. Choose another folder.") from error
    return row


def _copy(source: Path, target: Path) -> None:
    """Copy a file so that another process sees the old one or the whole new one."""
    with open_regular(source) as content, open_whole(target, needed=source.stat().st_size) as file:
        shutil.copyfileobj(content, file)


def _say(error: OSError) -> str:
    return error.strerror or str(error).rstrip(".")


def _place(folder: Path, row: Mapping[str, Any]) -> Path:
    """Return the file of a row: the names of models and files are those of the registry."""
    return folder / str(row["model"]).replace("/", "--") / Path(row["filename"]).name


def _read_manifest(folder: Path) -> list[dict[str, Any]]:
    path = folder / MANIFEST
    try:
        rows = read_object(path).get("weights")
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{path} cannot be used: {error}. Expected a folder written by zoo weights export."
        ) from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) and set(_FIELDS) <= row.keys() for row in rows):
        raise WeightsError(f"{path} does not list weights with {', '.join(_FIELDS)}. Export them again.")
    return rows


def _check_row(row: Mapping[str, Any], folder: Path) -> None:
    """Raise if a file is not the one that its row tells, or the registry knows otherwise."""
    try:
        entry = find_entry(row["model"])
    except InputError as error:
        raise WeightsError(f"{folder / MANIFEST} lists an unknown model: {error}") from error
    known = _facts_of(entry, row["repo"])
    differing = [
        f"{key} {str(row[key])[:80]!r}, expected {value!r}"
        for key, value in known.items()
        if row[key] != value and (value is not None or key == "repo")
    ]
    if known["repo"] and not re.fullmatch("[0-9a-f]{40}", str(row["revision"])):
        differing.append(f"revision {str(row['revision'])[:80]!r}, expected 40 hexadecimal digits")
    if differing:
        raise WeightsError(f"{folder / MANIFEST} lists for {entry.name}: {'; '.join(differing)}. Nothing was imported.")
    files = {_place(folder, row): row["sha256"]}
    if row["config_sha256"]:
        files[_place(folder, row).with_name(CONFIG)] = row["config_sha256"]
    for path, sha256 in files.items():
        try:
            with open_inside(folder, path.relative_to(folder).as_posix()):  # a link could name any file of this machine
                digest = digest_file(path, again=True)
        except OSError as error:
            raise WeightsError(f"{path} cannot be read: {error.strerror or error}. Nothing was imported.") from error
        if digest != sha256:
            raise WeightsError(
                f"{path} failed verification: its SHA-256 is {digest}, expected {str(sha256)[:80]}. Nothing was "
                "imported; export it again."
            )


def _choose_place(weights: Weights | FileWeights | None, repo: Any) -> Weights | FileWeights | None:
    """Return the weights of a model as the place has them that a row names: the mirror, if it is that repository."""
    mirror = weights.mirror if isinstance(weights, FileWeights) else None
    return mirror if mirror is not None and mirror.repo == repo else weights


def _facts_of(entry: Entry, repo: Any) -> dict[str, Any]:
    """Return what a row has to say of a model; None where anything will do."""
    weights = _choose_place(entry.weights, repo)
    if weights is None:
        raise WeightsError(f"no weights of {entry.name} are published. Nothing was imported.")
    on_hub = isinstance(weights, Weights)
    return {
        "model": entry.name,
        "repo": weights.repo if isinstance(weights, Weights) else None,
        "revision": weights.revision if isinstance(weights, Weights) else None,
        "filename": weights.filename,
        "sha256": weights.sha256,
        "licence": weights.licence if on_hub else None,
    }


def _import(row: Mapping[str, Any], folder: Path) -> None:
    """Copy the files of a row, which was checked, to where they are looked for."""
    source = _place(folder, row)
    weights = _choose_place(find_entry(row["model"]).weights, row["repo"])
    if isinstance(weights, FileWeights):
        target = place_file_weights(weights)
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy(source, target)
        return
    cache = hub_cache() / f"models--{row['repo'].replace('/', '--')}"
    _put_into_cache(source, cache, row["revision"], row["filename"], row["sha256"])
    if row["config_sha256"]:
        _put_into_cache(source.with_name(CONFIG), cache, row["revision"], CONFIG, row["config_sha256"])
    if isinstance(weights, Weights) and weights.revision is None:  # then the head of `main` is what is asked for
        (cache / "refs").mkdir(exist_ok=True)
        write_file(cache / "refs" / "main", row["revision"])


def _put_into_cache(source: Path, cache: Path, commit: str, filename: str, sha256: str) -> None:
    """Put a file where the Hub's client keeps it: in `blobs`, by its digest, with a link from `snapshots/<commit>`."""
    blob, pointer = cache / "blobs" / sha256, cache / "snapshots" / commit / filename
    for path in (blob, pointer):
        path.parent.mkdir(parents=True, exist_ok=True)
    _copy(source, blob)
    pointer.unlink(missing_ok=True)
    try:
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    except OSError:  # a file system without links: the client, too, then keeps the file itself there
        blob.replace(pointer)
