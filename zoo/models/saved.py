"""A repository on a Hub, or a folder, whose `config.json` says which model it holds: `zoo.get("org/name")`.

The configuration is fetched first, and is untrusted: what it names is looked up in the registry, and no address, path
or other repository in it is ever followed. The weights are then those of the same commit.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from zoo.errors import InputError, WeightsError
from zoo.files import check_checksum, read_object, tell_missing, to_path
from zoo.models.catalog import find_entry
from zoo.models.config import ModelConfig
from zoo.models.registry import Entry
from zoo.weights import HubFileRequest, fetch_file, get_endpoint

CONFIG = "config.json"
_REPO = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[\w.-]+)(?:@(?P<revision>[^\s@]+))?", re.ASCII)


class Saved(NamedTuple):
    """A model that was saved with its configuration.

    Attributes:
        config: What `config.json` says.
        source: Where the weights are, as `zoo.weights.find.find_weights` takes it: `org/name@commit`, or a folder.
        is_timm: Whether the configuration has timm's form, so that its names are timm's.
    """

    config: ModelConfig
    source: str | Path
    is_timm: bool


def names_repository(text: object) -> bool:
    """Whether a text has the form of a repository, `org/name` or `org/name@revision`."""
    return isinstance(text, str) and _REPO.fullmatch(text) is not None


def open_saved(
    place: str | os.PathLike[str], *, cache_dir: str | os.PathLike[str] | None = None, token: str | bool | None = None
) -> Saved:
    """Read what a folder or a repository holds; its weights are not fetched yet.

    Args:
        place: A folder with `config.json`, or `org/name`, `org/name@revision`. An existing folder comes first.
        cache_dir: Cache for downloads; None for the Hub client's own.
        token: Access token; None for the saved one, False for none.

    Raises:
        WeightsError: It cannot be had, has no configuration, or one that is not understood.
    """
    folder = to_path(place)
    if os.path.isdir(folder):
        check_checksum(folder / CONFIG)
        return _parse(_read(folder / CONFIG, str(folder)), str(folder), folder)
    if missing := tell_missing(place):
        raise WeightsError(missing)
    match = _REPO.fullmatch(os.fspath(place))
    if match is None:
        raise WeightsError(f"{os.fspath(place)!r} is neither a folder nor a Hub repository 'org/name'.")
    repo, revision = match["repo"], match["revision"] or "main"
    wanted = HubFileRequest(
        model=repo,
        repo=repo,
        filename=CONFIG,
        revision=revision,
        cache_dir=None if cache_dir is None else to_path(cache_dir),
        token=token,
        hint=f"There is also no folder and no model {repo!r} (`zoo models`, zoo.list_models()).",
    )
    try:
        path, commit = fetch_file(wanted)
    except WeightsError as error:
        if not _is_absent(error):
            raise
        raise WeightsError(
            f"{repo} at {get_endpoint()} has no {CONFIG} in revision {revision!r}, so its model is unknown. If you "
            f"know it, name it: zoo.get('resnet18', pretrained={os.fspath(place)!r})."
        ) from error
    origin = f"{repo} at {commit[:12]}"
    return _parse(_read(path, origin), origin, f"{repo}@{commit}")


def find_saved_entry(saved: Saved) -> Entry:
    """Return what is known of the model of a repository or folder.

    Raises:
        InputError: There is no such model here; for one that a user registered, the text says so.
    """
    name = saved.config.model or ""
    try:
        return find_entry(name)
    except InputError as error:
        if saved.is_timm:
            return find_entry(f"timm/{name}")
        if not saved.config.origin.get("registered"):
            raise
        raise InputError(
            f"this is a checkpoint of {name!r}, a custom model that is not registered in this process. Import the "
            "module that registers it, or build the network and pass it as model=."
        ) from error


def _is_absent(error: WeightsError) -> bool:
    """Whether the repository is there, and has no such file."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    cause = error.__cause__
    return isinstance(cause, EntryNotFoundError) and not isinstance(cause, LocalEntryNotFoundError)


def _read(path: Path, origin: str) -> dict[str, Any]:
    try:
        return read_object(path)
    except FileNotFoundError as error:
        raise WeightsError(f"{origin} has no {CONFIG}. Expected a run folder.") from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"{CONFIG} of {origin} cannot be used: {error}. Repair or remove it.") from error


def _parse(raw: Mapping[str, Any], origin: str, source: str | Path) -> Saved:
    config = ModelConfig.parse(raw, origin)
    if config.model is None:
        raise WeightsError(
            f"{CONFIG} of {origin} names no model: its class is not registered. Build the network and pass it as "
            "model=, for example zoo.load(folder, model=...)."
        )
    return Saved(config, source, "architecture" in raw)
