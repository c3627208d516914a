"""Finds a file of pretrained weights, on this machine or on the Hub, and checks its content.

Safetensors files are read; files of other programs only for models that bring a reader of them, which treats them as
data. Weights that are known beforehand have a fixed SHA-256, and a file with other content is refused; of any other
repository the Hub's own digest is held against the content.
"""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo._text import shorten
from zoo.errors import InputError, WeightsContentError, WeightsError, WeightsStorageError
from zoo.files import check_checksum, digest_file, read_object, tell_missing, to_path
from zoo.weights.hub import HubFileRequest, fetch_file, fetch_if_there, get_endpoint
from zoo.weights.spec import FILENAME, REPO, FileWeights, ReadForeign, ResolvedWeights, Weights

CONFIG = "config.json"
_FOREIGN = (".pt", ".pth")  # what a reader of another program's files may be handed
_PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth", ".tar", ".zip")


def find_weights(
    pretrained: bool | str | Path,
    known: Weights | FileWeights | None,
    *,
    name: str,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    read_foreign: ReadForeign | None = None,
) -> ResolvedWeights:
    """Bring a file of weights to this machine and check it.

    Args:
        pretrained: True for the known weights on the Hub; the path of a safetensors file, or of a folder with
            `model.safetensors` or a single other one; or `org/name`, `org/name@revision` of a repository. An existing
            path comes first.
        known: The model's published weights, if there are any; a file with their digest has their licence.
        name: The model, named in errors.
        cache_dir: Cache for downloads; None for the Hub client's own.
        token: Access token; None for the saved one, False for none.
        read_foreign: Reads a file of another program: `.pth` or `.pt`, or a safetensors file whose `config.json` is one
            of transformers. None: the former are refused, the latter taken as they are.

    Raises:
        WeightsError: They cannot be had, or are not what they should be.
        InputError: `pretrained` is none of the above.
    """
    if not isinstance(pretrained, (bool, str, Path)) or pretrained is False:
        raise InputError(f"pretrained is {pretrained!r}; expected True, False, a path, or 'org/name[@revision]'.")
    wanted = HubFileRequest(
        model=name,
        repo="",
        filename=FILENAME,
        cache_dir=None if cache_dir is None else to_path(cache_dir),
        token=token,
    )
    if pretrained is True:
        if not isinstance(known, Weights):
            raise WeightsError(
                f"no pretrained weights are published for {name}. Pass a path or 'org/name' (--weights, "
                "pretrained=), or use random weights (--no-pretrained, pretrained=False)."
            )
        wanted = replace(wanted, repo=known.repo, filename=known.filename, is_known=True)
        wanted = replace(wanted, revision=known.revision or "main")
        return _find_on_hub(wanted, known, read_foreign)
    path = to_path(pretrained)
    if str(pretrained) and os.path.exists(path):
        return _find_locally(path, known, name, read_foreign)
    if missing := tell_missing(pretrained):
        raise WeightsError(f"weights of {name}: {missing}")
    match = REPO.fullmatch(pretrained) if isinstance(pretrained, str) else None
    if match is None or names_pickle(match["repo"]) or match["repo"].endswith(".safetensors"):
        raise WeightsError(
            f"weights of {name}: there is no file or folder {str(pretrained)!r} (current folder: {Path.cwd()}). For "
            "a Hub repository, expected 'org/name' or 'org/name@revision'."
        )
    hint = f"There is also no local file or folder {pretrained!r}."
    return _find_on_hub(
        replace(wanted, repo=match["repo"], revision=match["revision"] or "main", hint=hint), None, read_foreign
    )


def find_file(path: Path, *, model: str, foreign: bool = False) -> Path:
    """Return the safetensors file that is meant.

    Args:
        path: A file; or a folder with `model.safetensors`, or with a single other safetensors file.
        model: The model it is for, named in errors.
        foreign: Whether a `.pth` or `.pt` file will do as well, if the path is the file itself.

    Raises:
        WeightsError: There is none, more than one, or the file is of another kind.
    """
    if path.is_dir():
        path = _choose_in_folder(path, model, foreign)
    accepted = (".safetensors", *_FOREIGN) if foreign else (".safetensors",)
    if path.suffix.lower() not in accepted:
        refused = f"weights of {model}: {path} is not accepted; expected a {' or '.join(accepted)} file."
        if names_pickle(path.name):
            refused += (
                " Loading a pickle can run arbitrary code. If you trust the file, convert it: "
                "safetensors.torch.save_file(torch.load(path, weights_only=True), 'model.safetensors')."
            )
        raise WeightsError(refused)
    if not path.is_file():
        raise WeightsError(f"weights of {model}: {path} does not exist or is not a file.")
    return path


def names_pickle(name: str) -> bool:
    """Whether a file of this name is a pickle, or an archive that may hold one."""
    return name.lower().endswith(_PICKLES)


def _choose_in_folder(folder: Path, model: str, foreign: bool) -> Path:
    if (folder / FILENAME).is_file():
        return folder / FILENAME
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise WeightsError(f"weights of {model}: {folder} cannot be read: {error.strerror}.") from error
    files = [name for name in names if name.lower().endswith(".safetensors")]
    if len(files) == 1:
        return folder / files[0]
    expected = f"Expected {FILENAME}, or a single safetensors file"
    if files:
        raise WeightsError(
            f"weights of {model}: folder {folder} contains {len(files)} safetensors files: {shorten(files)}. "
            f"{expected}. Pass the path of one of them."
        )
    refused = [name for name in names if names_pickle(name)]
    why = f" {shorten(refused)} is a pickle, which can run arbitrary code, and is not read." if refused else ""
    if foreign and (usable := [name for name in names if name.lower().endswith(_FOREIGN)]):
        why = f" It contains {shorten(usable)}: pass the path of one of them."
    raise WeightsError(f"weights of {model}: folder {folder} contains no safetensors file. {expected}.{why}")


def _find_on_hub(wanted: HubFileRequest, known: Weights | None, read_foreign: ReadForeign | None) -> ResolvedWeights:
    path, commit = fetch_file(wanted)
    wanted = replace(wanted, revision=commit)  # whatever else is fetched belongs to the same commit
    path, digest = _verify(path, wanted, known.sha256 if known else None)
    needs_config = known is None or read_foreign is not None
    config_path = fetch_if_there(replace(wanted, filename=CONFIG)) if needs_config else None
    config = None if config_path is None else _read_config(config_path, f"{CONFIG} of {wanted.repo}")
    found = ResolvedWeights(
        path=path,
        config=config,
        origin=f"{get_endpoint()}/{wanted.repo}",
        revision=commit,
        sha256=digest,
        licence=known.licence if known else _get_licence(config),
        pinned=known is not None and known.pinned,
    )
    return _translate(found, read_foreign)


def _translate(found: ResolvedWeights, read_foreign: ReadForeign | None) -> ResolvedWeights:
    """Return a safetensors file as its reader has it, if `config.json` says that it is one of transformers."""
    config = found.config or {}
    if read_foreign is None or "model_type" not in config or "zoo" in config:
        return found
    content = read_foreign(found.path)
    return replace(found, config=content.config, foreign=content.tensors, notes=content.notes)


def _verify(path: Path, wanted: HubFileRequest, expected: str | None) -> tuple[Path, str]:
    """Return the file and its SHA-256, downloaded once more if its content was wrong.

    A cached file is hashed before its first use on this machine, and again when it has changed.
    """
    stored_as = path.resolve().name  # in the cache, a large file goes by the digest that the Hub announced
    expected = expected or (stored_as if re.fullmatch("[0-9a-f]{64}", stored_as) else None)
    digest = _digest(path, wanted)
    if expected in (None, digest):
        return path, digest
    wrong = (
        f"weights of {wanted.model}: {wanted.filename} of {wanted.repo} at {wanted.revision}, from {get_endpoint()}, "
        f"failed verification: its SHA-256 is {digest}, expected {expected}."
    )
    try:
        path, _ = fetch_file(wanted, force=True)
    except WeightsError as error:
        why = str(error).removeprefix(f"weights of {wanted.model}: ")
        raise WeightsContentError(f"{wrong} Downloading it again failed: {why}") from error
    digest_again = _digest(path, wanted)
    if digest_again != expected:
        what = (
            "Downloading it again gave the same content"
            if digest_again == digest
            else f"Downloading it again gave {digest_again}"
        )
        raise WeightsContentError(
            f"{wrong} {what}. Do not use the file; contact the owner of the repository or endpoint."
        )
    return path, digest_again


def _digest(path: Path, wanted: HubFileRequest) -> str:
    try:
        return digest_file(path)
    except OSError as error:
        text = f"weights of {wanted.model}: {path} cannot be read: {error.strerror or error}. Remove it."
        raise WeightsStorageError(text) from error


def _find_locally(
    path: Path, known: Weights | FileWeights | None, name: str, read_foreign: ReadForeign | None
) -> ResolvedWeights:
    path = find_file(path, model=name, foreign=read_foreign is not None)
    check_checksum(path)
    check_checksum(path.with_name(CONFIG))
    try:
        digest = digest_file(path)
    except OSError as error:
        raise WeightsStorageError(f"weights of {name}: {path} cannot be read: {error.strerror}.") from error
    is_known = known is not None and known.sha256 == digest
    if read_foreign is not None and names_pickle(path.name):
        content = read_foreign(path)
        licence = known.licence if known and is_known else None
        return ResolvedWeights(
            path, content.config, str(path), None, digest, licence, is_known, content.tensors, content.notes
        )
    config_path = path.with_name(CONFIG)
    config = _read_config(config_path, str(config_path)) if config_path.is_file() else None
    licence = known.licence if known and is_known else _get_licence(config)
    return _translate(ResolvedWeights(path, config, str(path), None, digest, licence, pinned=False), read_foreign)


def _read_config(path: Path, origin: str) -> dict[str, Any]:
    try:
        return read_object(path)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{origin} cannot be used: {error}. Repair or remove it.") from error


def _get_licence(config: dict[str, Any] | None) -> str | None:
    """Return the licence that a configuration states for its weights, in the places where it is commonly put."""
    inner = (config or {}).get("pretrained_cfg")
    places = [config or {}, inner if isinstance(inner, dict) else {}]
    stated = [place.get(key) for place in places for key in ("licence", "license")]
    return next((text.lower() for text in stated if isinstance(text, str) and 0 < len(text) <= 64), None)
