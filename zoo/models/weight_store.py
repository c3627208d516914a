"""The published weights of the registry: what of them is on this machine, fetching them, and checking them."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from zoo.errors import InputError, WeightsError
from zoo.files import cache_folder, digest_file, has_content, probe_url
from zoo.models.catalog import find_entry, list_models
from zoo.weights import (
    CONFIG,
    FileWeights,
    HubFileRequest,
    ResolvedWeights,
    Weights,
    check_commercial,
    fetch_if_there,
    find_cached,
    find_file_weights,
    find_local_file,
    find_weights,
    get_endpoint,
    look_up,
)


@dataclass(frozen=True)
class CachedWeights:
    """The weights of a model, and what is of them on this machine.

    Attributes:
        model: Registry name.
        weights: What the registry knows of them.
        path: The file; None if it is not here.
        revision: Commit of the file that is here; None for weights that are on no Hub.
        config: The `config.json` of the same commit that the file cannot be read without; None if there is none.
    """

    model: str
    weights: Weights | FileWeights
    path: Path | None = None
    revision: str | None = None
    config: Path | None = None

    @property
    def size(self) -> int | None:
        """Bytes of the file; None if it is not here, and the registry does not know them."""
        if self.path is not None:
            return self.path.stat().st_size
        return self.weights.size if isinstance(self.weights, Weights) else None

    @property
    def origin(self) -> str:
        """The repository, the Python package that the file is in, or the name of a file that is in neither."""
        if isinstance(self.weights, Weights):
            return self.weights.repo
        package = self.weights.package
        is_packaged = package is not None and self.path is not None and self.path == package.find()
        return f"package {package.distribution}" if package is not None and is_packaged else self.weights.filename

    @property
    def pinned(self) -> bool:
        """Whether the content is fixed: of the file that is here, else of every place that may have it."""
        is_own = isinstance(self.weights, FileWeights) and self.path is not None and self.revision is None
        return is_own or self.weights.pinned


class Verdict(NamedTuple):
    """What a check of one model's weights found.

    Attributes:
        model: Registry name.
        ok: Whether nothing contradicts the registry.
        text: What was found.
        on_hub: `revision`, `sha256` and `size` as the Hub has them, to be copied into the registry; empty if it was
            not asked, or did not answer.
    """

    model: str
    ok: bool
    text: str
    on_hub: Mapping[str, str | int | None] = MappingProxyType({})


def list_stored(pattern: str = "*") -> list[CachedWeights]:
    """Return the models that have published weights, with what is of these on this machine; nothing is asked.

    Args:
        pattern: Shell pattern of names.
    """
    return [find_stored(name) for name in list_models(pattern, pretrained=True)]


def find_stored(name: str) -> CachedWeights:
    """Return what is of a model's published weights on this machine; nothing is asked.

    Raises:
        InputError: There is no such model, or it has no published weights.
    """
    entry = find_entry(name)
    if entry.weights is None:
        raise InputError(f"no weights are published for {entry.name}. zoo weights list shows the models with weights.")
    if isinstance(entry.weights, Weights):
        return _find_cached(entry.name, entry.weights, with_config=entry.read_foreign is not None)
    path = find_local_file(entry.weights)
    if path is not None or entry.weights.mirror is None:
        return CachedWeights(entry.name, entry.weights, path)
    copy = _find_cached(entry.name, entry.weights.mirror)
    return CachedWeights(entry.name, entry.weights) if copy.path is None else copy


def _find_cached(model: str, weights: Weights, *, with_config: bool = False) -> CachedWeights:
    """Return what the cache of the Hub's client has."""
    wanted = _want(model, weights)
    cached = find_cached(wanted)
    if cached is None:
        return CachedWeights(model, weights)
    commit = cached.parts[-1 - len(wanted.filename.split("/"))]
    config = find_cached(_want(model, weights, CONFIG, commit)) if with_config else None
    return CachedWeights(model, weights, cached, commit, config)


def pull_weights(name: str, *, token: str | bool | None = None) -> ResolvedWeights:
    """Bring a model's published weights to this machine, and check them.

    Args:
        name: The model.
        token: Access token; None for the saved one, False for none.

    Raises:
        InputError: There is no such model, or it has no published weights.
        WeightsError: They cannot be had, or are not what they should be.
        LicenceError: `ZOO_COMMERCIAL_ONLY` is set, and they are not known to allow commercial use.
    """
    entry = find_entry(name)
    if entry.weights is None:
        raise InputError(f"no weights are published for {entry.name}. zoo weights list shows the models with weights.")
    check_commercial(entry.name, entry.weights.licence)
    if isinstance(entry.weights, FileWeights):
        assert entry.read_foreign is not None
        return find_file_weights(entry.weights, entry.read_foreign, name=entry.name, token=token)
    found = find_weights(True, entry.weights, name=entry.name, token=token)
    if entry.read_foreign is not None:  # it reads the configuration, too; it need not be installed for a download
        fetch_if_there(replace(_want(entry.name, entry.weights, CONFIG, found.revision), token=token))
    return found


def verify_stored(names: Iterable[str] = ()) -> Iterator[Verdict]:
    """Hash the weights that are on this machine and hold them against the registry; nothing is asked.

    Of weights without a known SHA-256 the digest that the Hub announced is taken, by which the cache has stored them.

    Args:
        names: Models; empty: all whose weights are here.
    """
    chosen = [find_stored(name) for name in names] or [stored for stored in list_stored() if stored.path is not None]
    return map(check_stored, chosen)


def verify_online(names: Iterable[str] = ()) -> Iterator[Verdict]:
    """Hold the registry against what the Hub says: commit, SHA-256 and size; nothing is downloaded.

    Args:
        names: Models; empty: all that have published weights.

    Raises:
        WeightsError: There is no connection at all.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise InputError("HF_HUB_OFFLINE is set, so the Hub cannot be queried. Unset it, or leave out --online.")
    for stored in [find_stored(name) for name in names] or list_stored():
        if isinstance(stored.weights, FileWeights):
            yield _probe(stored.model, stored.weights)
        else:
            yield _compare(stored.model, stored.weights)


def check_stored(stored: CachedWeights) -> Verdict:
    """Hash weights that are on this machine, and hold them against the registry."""
    if stored.path is None:
        return Verdict(stored.model, False, f"not downloaded: zoo weights pull {stored.model}")
    named = stored.path.resolve().name
    announced = named if re.fullmatch("[0-9a-f]{64}", named) else None
    expected = stored.weights.sha256 or announced
    try:
        digest = digest_file(stored.path, again=True)
    except OSError as error:
        return Verdict(stored.model, False, f"{stored.path} cannot be read: {error.strerror or error}")
    if expected is None:
        return Verdict(stored.model, True, f"SHA-256 {digest}; no reference checksum is known")
    if digest != expected:
        advice = f"It is not used; zoo weights pull {stored.model} downloads it again"
        return Verdict(stored.model, False, f"{stored.path} has SHA-256 {digest}, expected {expected}. {advice}")
    held = "as published" if stored.weights.sha256 else "as announced by the Hub; no published checksum"
    return Verdict(stored.model, True, f"SHA-256 {digest[:12]}... matches ({held})")


def hub_cache() -> Path:
    """Return the folder in which the Hub's client keeps what it downloads."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def name_places() -> dict[str, str]:
    """Return where weights come from and where they are kept, with the variables that change it."""
    return {
        "Hub (HF_ENDPOINT)": get_endpoint(),
        "its cache (HF_HOME, HF_HUB_CACHE)": str(hub_cache()),
        "own cache (XDG_CACHE_HOME)": str(cache_folder()),
    }


def _want(model: str, weights: Weights, filename: str | None = None, revision: str | None = None) -> HubFileRequest:
    revision = revision or weights.revision or "main"
    return HubFileRequest(
        model=model, repo=weights.repo, filename=filename or weights.filename, revision=revision, is_known=True
    )


def _probe(model: str, weights: FileWeights) -> Verdict:
    """Ask every place; one that has the weights is enough."""
    copy = _compare(model, weights.mirror) if weights.mirror else None
    answers = [f"{url}: {probe_url(url)}" for url in weights.locations]
    is_there = any(": it answered 200" in answer for answer in answers)
    if weights.package is not None:
        is_there |= (path := weights.package.find()) is not None and has_content(path, weights.sha256)
        answers.append(f"package {weights.package.distribution}: {path or 'not installed'}")
    if copy is None:
        return Verdict(model, is_there, "; ".join(answers))
    text = "; ".join([f"{weights.mirror.repo}: {copy.text}" if weights.mirror else "", *answers])
    return Verdict(model, copy.ok or is_there, text, copy.on_hub)


def _compare(model: str, weights: Weights) -> Verdict:
    try:
        says = look_up(_want(model, weights))
    except WeightsError as error:
        if _has_no_answer(error):
            raise
        return Verdict(model, False, str(error))
    found = {"revision": says.commit, "sha256": says.sha256, "size": says.size}
    differing = [
        f"{key} is {found[key]}, expected {value}"
        for key in found
        if (value := getattr(weights, key)) is not None and value != found[key]
    ]
    if weights.megabytes and says.size and abs(says.size / 1e6 / weights.megabytes - 1) > 0.01:
        differing.append(f"size is {says.size:,} bytes, expected {weights.megabytes} MB")
    unknown = [key for key in found if getattr(weights, key) is None]
    text = "; ".join(differing) or (f"this version of zoo lacks {', '.join(unknown)}" if unknown else "as pinned here")
    return Verdict(model, not differing, text, found)


def _has_no_answer(error: WeightsError) -> bool:
    return getattr(error.__cause__, "response", None) is None and "the connection to" in str(error)
