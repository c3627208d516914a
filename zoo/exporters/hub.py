"""A fine-tuned model becomes a repository on the Hub: shown first, then sent as one commit.

The commit is the last request of all, so that an upload that breaks off before it leaves the repository as it was.
`zoo.get("org/name")` and `zoo.load` bring the model back.
"""

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from json import JSONDecodeError
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo._text import echo
from zoo._version import VERSION
from zoo.errors import InputError, WeightsAccessError, WeightsError, WeightsNetworkError, WeightsNotFoundError
from zoo.exporters._export_package import find_export, pack_export
from zoo.exporters._package import OWN, Package, pack
from zoo.weights import get_endpoint, hiding_passwords, refuse_open_http

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_AS_BEFORE = "nothing was changed"
_STILL_EMPTY = "the repository was created and is empty"
_HTTP_LIBRARIES = {"httpx2", "httpx", "requests", "urllib3"}  # of the Hub's client, in its several versions
_KINDS = {  # of errors, by the status of an answer; any other is one of the network
    400: WeightsError,
    401: WeightsAccessError,
    403: WeightsAccessError,
    404: WeightsNotFoundError,
    409: WeightsError,
    412: WeightsError,
    413: WeightsError,
}


@dataclass(frozen=True)
class Push:
    """What was sent, or would have been.

    Attributes:
        repo: Repository, `org/name`.
        address: Its page.
        revision: Branch.
        files: Path in the repository and size in bytes, of each file.
        commit: 40 hexadecimal digits; None if nothing was sent.
        created: Whether the repository was made for it.
    """

    repo: str
    address: str
    revision: str
    files: tuple[tuple[str, int], ...]
    commit: str | None = None
    created: bool = False

    def __str__(self) -> str:
        if self.commit is None:
            return f"nothing was uploaded to {self.address}"
        return f"uploaded to {self.address}; load it with zoo.get('{self.repo}@{self.commit}')"


def push(
    run_or_model: Any,
    repo: str,
    *,
    private: bool = True,
    token: str | bool | None = None,
    message: str | None = None,
    dry_run: bool = False,
    revision: str | None = None,
    pictures: bool = True,
    log: Callable[[str], object] = echo,
    confirm: Callable[[], bool] | None = None,
    say: Callable[[str], object] | None = None,
) -> Push:
    """Publish a fine-tuned model with its page, settings, scores and plots, as one commit.

    The files are listed before the first request. Optimizer state, environment and local paths are never uploaded.

    Args:
        run_or_model: A run, a run folder, or a model from `zoo.get`; or an export: what `zoo.export` returned, or its
            folder.
        repo: `org/name`; created if it does not exist.
        private: Visibility of a new repository. An existing one keeps its visibility; uploading to a public one needs
            False.
        token: Write token; None: the saved one.
        message: Commit message.
        dry_run: List the files without uploading.
        revision: Branch, created if it does not exist; None: `main`.
        pictures: Whether to upload the plots; some show images of the data.
        log: Called with each line of the list.
        confirm: Called afterwards; False cancels the push. None: no confirmation.
        say: The former name of `log`.

    Raises:
        InputError: The run is not finished, its class is not registered, or a file contains a local path.
        LicenceError: The licence of the weights forbids redistribution.
        WeightsError: The upload failed; the message says what to do and in which state the repository is.
    """
    _check_names(repo, revision)
    branch, log = revision or "main", say or log
    with tempfile.TemporaryDirectory(prefix="zoo-push-") as place:
        export = find_export(run_or_model)
        options: dict[str, Any] = {"repo": repo} if export else {"repo": repo, "pictures": pictures}
        package = (pack_export if export else pack)(export or run_or_model, Path(place), **options)
        made = Push(repo, f"{get_endpoint()}/{repo}", branch, package.files)
        for line in _list(package, made, private):
            log(line)
        if dry_run or (confirm is not None and not confirm()):
            return made
        with hiding_passwords():
            sent = _send(package, made, private, token, message or f"Push {package.model} with zoo {VERSION}", log)
    log(str(sent))
    return sent


export = push  # found by the name of this module


def _check_names(repo: object, revision: object) -> None:
    if not isinstance(repo, str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]{1,96}", repo, re.ASCII):
        raise InputError(
            f"repo is {repo!r}; expected 'org/name' or 'user/name': letters, digits, '-', '_' and '.'. Pass a branch "
            "as revision=."
        )
    if revision is not None and (not isinstance(revision, str) or not re.fullmatch(r"[\w./-]{1,200}", revision)):
        raise InputError(f"revision is {revision!r}; expected a branch name.")
    if isinstance(revision, str) and re.fullmatch("[0-9a-f]{40}", revision):
        raise InputError(f"revision is the commit {revision}; expected a branch; commits cannot be changed.")


def _list(package: Package, made: Push, private: bool) -> Iterator[str]:
    """Tell what goes, and where."""
    branch = "" if made.revision == "main" else f", branch {made.revision}"
    yield f"to {made.address} ({'private' if private else 'public'} if it is new{branch}):"
    width = max(len(name) for name, _ in package.files)
    for name, size in package.files:
        yield f"  {name:<{width}}  {_size(size):>9}"
    yield f"  {f'{len(package.files)} files':<{width}}  {_size(package.size):>9}"
    yield f"licence of the weights: {package.licence or 'none stated'}"
    for note in package.notes:
        yield f"note: {note}"


def _send(
    package: Package, made: Push, private: bool, token: str | bool | None, message: str, log: Callable[[str], object]
) -> Push:
    from huggingface_hub import HfApi

    refuse_open_http()
    api = HfApi(token=token, library_name="zoo", library_version=VERSION)
    with _explaining(made, _AS_BEFORE):
        found = _look(api, made.repo)
    created = found is None
    if found is None:
        with _explaining(made, "nothing was created"):
            api.create_repo(made.repo, private=private, exist_ok=False)
    elif private and not found.private:
        raise InputError(
            f"{made.address} exists and is public: everybody can see what you upload. Pass --public (private=False) "
            "to confirm, or choose another name."
        )
    with _explaining(made, _STILL_EMPTY if created else _AS_BEFORE):
        head = _open_branch(api, made)
    if not created:
        log(f"{made.address} exists, at {head.sha[:12]}: files with the same names are replaced")
    commit = _commit(api, package, made, head, message, created)
    if commit == head.sha:
        log("all files are already up to date; no commit was made")
    return replace(made, commit=commit, created=created)


def _look(api: "HfApi", repo: str) -> Any:
    """Return what is known of a repository; None if there is none, or none that the token may see."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        return api.model_info(repo)
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        return None


def _open_branch(api: "HfApi", made: Push) -> Any:
    """Return what is known of the branch, which is made if it is not there."""
    from huggingface_hub.errors import RevisionNotFoundError

    try:
        return api.model_info(made.repo, revision=made.revision)
    except RevisionNotFoundError:
        api.create_branch(made.repo, branch=made.revision)
        return api.model_info(made.repo, revision=made.revision)


def _commit(api: "HfApi", package: Package, made: Push, head: Any, message: str, created: bool) -> str:
    """Send all files as one commit upon the one that was seen, so that nobody else's is written over; return it."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    names = [name for name, _ in package.files]
    present = [sibling.rfilename for sibling in head.siblings or ()]
    stale = [name for name in present if name not in names and (name in OWN or name.startswith("pictures/"))]
    operations = [CommitOperationAdd(name, str((package.folder / name).resolve())) for name in names]
    with _explaining(made, lambda: _tell_state(api, made, head.sha, created)):
        done = api.create_commit(
            made.repo,
            [*operations, *(CommitOperationDelete(name) for name in stale)],
            commit_message=message,
            revision=made.revision,
            parent_commit=head.sha,
        )
    return str(done.oid)


def _tell_state(api: "HfApi", made: Push, before: str, created: bool) -> str:
    """Say whether a commit that failed has changed the repository."""
    try:
        now = api.model_info(made.repo, revision=made.revision).sha
    except Exception:  # whatever broke the upload may still be broken
        return f"it is unknown whether it was changed; see {made.address}/commits/{made.revision}"
    if now != before:
        return f"its head has moved to {now}; see {made.address}/commits/{made.revision}"
    return _STILL_EMPTY if created else _AS_BEFORE


@contextmanager
def _explaining(made: Push, state: str | Callable[[], str]) -> Iterator[None]:
    """Turn what the client raises into one error that says what to do, and what the repository is like now."""
    try:
        yield
    except (InputError, WeightsError):
        raise
    except Exception as error:  # the client lets exceptions of several libraries through
        told = state if isinstance(state, str) else state()
        kind, why = _explain(error, made)
        raise kind(f"pushing to {made.address} failed, {told}: {why}") from error


def _explain(error: Exception, made: Push) -> tuple[type[WeightsError], str]:
    """Return the kind of error, and what happened and what to do."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    hub = get_endpoint()
    if isinstance(error, OfflineModeIsEnabled):
        return WeightsNetworkError, "HF_HUB_OFFLINE is set. Unset it to upload."
    for cause in _causes(error):
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status is not None and status >= 400:
            return _KINDS.get(status, WeightsNetworkError), _explain_answer(int(status), made, cause)
        if {base.__module__.partition(".")[0] for base in type(cause).__mro__} & _HTTP_LIBRARIES:
            return WeightsNetworkError, f"the connection to {hub} broke ({type(cause).__name__}). Push again."
        if isinstance(cause, ConnectionError):
            failed = f"{type(cause).__name__}: {_one_line(cause)}"
            todo = "set HF_HUB_DISABLE_XET=1 before Python starts, and push again"
            return WeightsNetworkError, f"{failed}. If {hub} does not support Xet storage, {todo}."
    if isinstance(error, JSONDecodeError):
        todo = "Check HF_ENDPOINT and the proxy, and push again."
        return WeightsNetworkError, f"{hub} sent an invalid response. {todo}"
    return WeightsError, f"{type(error).__name__}: {_one_line(error)}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it was raised from: the client wraps what happens in an upload."""
    while error is not None:
        yield error
        error = error.__cause__


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _explain_answer(status: int, made: Push, error: BaseException) -> str:
    hub, org = get_endpoint(), made.repo.partition("/")[0]
    words = {
        401: "no valid token was sent (401). Log in (hf auth login) with a write token, or pass token=.",
        403: f"the token has no write access (403). Create a write token at {hub}/settings/tokens, ask for write "
        f"access in {org}, or push under your own user name.",
        404: "the repository does not exist, or this token has no access to it (404). Check the name and the token.",
        409: "it exists, but this token has no access to it, or it was created a moment ago (409). Choose another "
        "name, or use a token with access.",
        412: "somebody else committed to it in the meantime (412). Check their changes, and push again.",
        413: "the files are too large for the Hub (413). Exclude the plots (--no-pictures, pictures=False).",
        429: "too many requests (429). Push again in a few minutes.",
    }
    if status == 400:
        return f"{hub} rejected it (400): {_one_line(error)}"
    return words.get(status, f"{hub} answered {status}. Push again later.")


def _size(count: int) -> str:
    """Return bytes in words."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"
