"""An export comes back: the folder that `zoo.export` wrote, a file of it, or a repository that it was pushed to."""

import os
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from zoo.errors import ExportedError, InputError
from zoo.exporters._facts import CONFIG, Facts, read_facts
from zoo.exporters._find import list_exporters
from zoo.exporters._graph_file import GraphFile
from zoo.exporters._opened import make_model
from zoo.files import check_checksum, open_regular, read_object, tell_missing, to_path
from zoo.models import Model, find_entry, names_repository
from zoo.weights import HubFileRequest, check_commercial, fetch_file, fetch_if_there

SUMS = "SHA256SUMS"


def is_exported(place: str | os.PathLike[str]) -> bool:
    """Whether a path is that of a file in one of the formats, or of the folder of an export."""
    path = to_path(place)
    if path.suffix in _list_readers() and not (path / CONFIG).is_file():
        return path.exists()
    try:
        return "export" in read_object(path / CONFIG)
    except (OSError, ValueError):
        return False


def open_export(
    place: str | os.PathLike[str],
    *,
    commercial: bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> Model:
    """Return an exported model behind the interface of `zoo.get`, run by its own runtime.

    Args:
        place: The folder of an export, a file of one of the formats, or a repository, `org/name[@revision]`.
        commercial: Whether to refuse weights that are not known to allow commercial use; None asks the environment.
        cache_dir: Where downloads are kept; None: the Hub client's own cache.
        token: For private or gated repositories; None: the client's saved one.

    Raises:
        InputError: The file is damaged, is not what it says, or a package is missing.
        LicenceError: The licence of the weights does not allow what was asked for.
        WeightsError: A repository cannot be had.
    """
    path = to_path(place)
    if names_repository(place) and not path.exists():
        path = _fetch(str(place), cache_dir, token)
    if missing := tell_missing(place):
        raise InputError(missing)
    file = _choose_file(path) if (path / CONFIG).is_file() else path
    graph, facts = open_graph(file)
    check_commercial(str(file), facts.config.licence, commercial)
    return make_model(graph, facts, _find_code_licence(facts.config.model))


def open_graph(file: Path) -> tuple[GraphFile, Facts]:
    """Return an open file with what is known of it; errors are those of `open_export`."""
    reader = _find_reader(file)
    _check_file(file)
    graph: GraphFile = reader.open_file(file, torch.get_num_threads())
    return graph, read_facts(graph)


def list_files(folder: Path) -> list[Path]:
    """Return the model files of the folder of an export, as its `config.json` lists them.

    Raises:
        InputError: It lists none, or one that is no plain name.
    """
    check_checksum(folder / CONFIG)
    try:
        export = read_object(folder / CONFIG).get("export")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder / CONFIG} cannot be read: {error}. Restore it, or export the model again."
        ) from error
    files = export.get("files") if isinstance(export, Mapping) else None
    names = list(files.values()) if isinstance(files, Mapping) else []
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise InputError(f"{folder / CONFIG} is damaged: export names no files in its folder. Export the model again.")
    return [folder / name for name in names]


def _fetch(place: str, cache_dir: str | os.PathLike[str] | None, token: str | bool | None) -> Path:
    """Bring the files of a repository to this machine, all of one commit; return their folder."""
    repo, _, revision = place.partition("@")
    cache = None if cache_dir is None else to_path(cache_dir)
    wanted = HubFileRequest(
        model=repo, repo=repo, filename=CONFIG, revision=revision or "main", cache_dir=cache, token=token
    )
    config, commit = fetch_file(wanted)
    wanted = replace(wanted, revision=commit)
    fetch_if_there(replace(wanted, filename=SUMS))
    for file in list_files(config.parent):
        for name in name_parts(file):
            fetch_file(replace(wanted, filename=name))
    return config.parent


def name_parts(file: Path) -> list[str]:
    """Return the names of the files that a model file consists of."""
    more = getattr(_list_readers().get(file.suffix), "BESIDE", ())
    return [file.name, *(file.with_suffix(ending).name for ending in more)]


def _choose_file(folder: Path) -> Path:
    """Return the first file of a folder whose runtime is installed."""
    files, readers = list_files(folder), _list_readers()
    usable = (file for file in files if file.suffix in readers and not _list_missing(readers[file.suffix]))
    return next(usable, files[0])


def _list_readers() -> dict[str, Any]:
    """Return the exporters that can open their files, by the ending of these."""
    modules = (import_module(f"zoo.exporters.{name}") for name in list_exporters())
    return {Path(module.FILE).suffix: module for module in modules if hasattr(module, "open_file")}


def _find_reader(file: Path) -> Any:
    """Return the exporter that opens a file."""
    readers = _list_readers()
    if file.suffix not in readers:
        raise ExportedError(
            f"{file} is a file; expected the folder of a run, the folder of an export (zoo export), or a file of one, "
            f"{' or '.join(sorted(readers))}."
        )
    reader = readers[file.suffix]
    if missing := _list_missing(reader):
        raise InputError(
            f"{file} needs {' and '.join(missing)} to run. Install: pip install 'zoo-finetune[{reader.EXTRA}]'"
        )
    return reader


def _list_missing(reader: Any) -> list[str]:
    return [package for package in reader.RUNS_WITH if find_spec(package) is None]


def _check_file(file: Path) -> None:
    """Refuse what is no file, is empty, or is not the one that was written."""
    try:
        with open_regular(file) as content:
            is_empty = not content.read(1)
    except (InputError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{file} cannot be read: {reason}. Expected a model file, or the folder of an export."
        ) from error
    if is_empty:
        raise InputError(f"{file} is empty. Export the model again.")
    check_checksum(file)


def _find_code_licence(name: str | None) -> str:
    try:
        return find_entry(name or "").code_licence
    except InputError:
        return "unknown"
