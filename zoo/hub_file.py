"""One file of a repository on a Hub: from the cache or the network, or one error that says what to do.

The client library brings the cache, the locks and the retries of look-ups. Added here are retries of the transfer
itself, the commit that a file came from, and errors in words. The client reads its environment (`HF_ENDPOINT`,
`HF_HOME`, `HF_HUB_OFFLINE` ...) when it is imported; nothing here changes it. The endpoint has to be trusted like a
package index: it decides where in its cache the client writes.
"""

import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from zoo.errors import WeightsError
from zoo.version import VERSION

RETRY_WAITS_SECONDS = (0.5, 2.0)
_HTTP_LIBRARIES = {"httpx2", "httpx", "requests", "urllib3", "hf_xet"}  # of the client, in its several versions


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file that is wanted.

    Attributes:
        model: The model it is for, named in errors.
        repo: Repository, `org/name`.
        filename: Path in the repository.
        revision: Commit, branch or tag.
        cache_dir: Cache of the client; None for its own.
        token: Access token; None for the saved one, False for none. It never appears in an error.
        hint: One more sentence for the error that the repository was not found.
    """

    model: str
    repo: str
    filename: str
    revision: str = "main"
    cache_dir: Path | None = None
    token: str | bool | None = field(default=None, repr=False)
    hint: str = ""


def fetch_file(wanted: HubFile, *, force: bool = False) -> tuple[Path, str]:
    """Download a file, or find it in the cache; a cached file of a full commit needs no network.

    Args:
        wanted: What to fetch.
        force: Download it although it is in the cache.

    Returns:
        The file in the cache, and the commit that it belongs to (40 hexadecimal digits).

    Raises:
        WeightsError: It cannot be had. `__cause__` is what the client raised.
    """
    _refuse_open_http()
    path = _download(wanted, force)
    commit = path.parents[len(PurePosixPath(wanted.filename).parts) - 1].name  # .../snapshots/<commit>/<filename>
    if not re.fullmatch("[0-9a-f]{40}", commit):
        raise WeightsError(
            f"weights of {wanted.model}: {get_endpoint()} gave {wanted.repo} the commit {commit!r}; expected 40 "
            "hexadecimal digits. Check HF_ENDPOINT."
        )
    return path, commit


def fetch_if_there(wanted: HubFile) -> Path | None:
    """Fetch a file that a repository need not have; None if it is known that it has not.

    Args:
        wanted: What to fetch; its revision is a full commit.

    Raises:
        WeightsError: As `fetch_file`, except when there is no such file.
    """
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    cached = _look_into_cache(wanted)
    if cached is not None:
        return Path(cached) if isinstance(cached, str) else None  # the other value says: known to be absent
    try:
        return fetch_file(wanted)[0]
    except WeightsError as error:
        absent = isinstance(error.__cause__, EntryNotFoundError)
        if absent and not isinstance(error.__cause__, LocalEntryNotFoundError):
            return None
        raise


def get_endpoint() -> str:
    """Return the address of the Hub that the client asks, without a password that may be in it."""
    from huggingface_hub import constants

    return re.sub(r"//[^/@]*@", "//", constants.ENDPOINT)


def _download(wanted: HubFile, force: bool) -> Path:
    from huggingface_hub import hf_hub_download

    for wait_seconds in (*RETRY_WAITS_SECONDS, None):
        try:
            path = hf_hub_download(
                wanted.repo,
                wanted.filename,
                revision=wanted.revision,
                cache_dir=wanted.cache_dir,
                token=wanted.token,
                force_download=force,
                library_name="zoo",
                library_version=VERSION,
            )
            break
        except Exception as error:  # the client lets exceptions of four libraries through
            may_pass = _may_pass(error)
            if may_pass and wait_seconds is not None:
                time.sleep(wait_seconds)
                continue
            cached = _look_into_cache(wanted) if may_pass and not force else None  # the client skips it after a reset
            if not isinstance(cached, str):
                raise WeightsError(f"weights of {wanted.model}: {_explain(error, wanted)}") from error
            path = cached
    return Path(path)


def _look_into_cache(wanted: HubFile) -> object:
    """Return a path (`str`), None if nothing is known, or something else if the file is known to be absent."""
    from huggingface_hub import try_to_load_from_cache

    return try_to_load_from_cache(wanted.repo, wanted.filename, cache_dir=wanted.cache_dir, revision=wanted.revision)


def _refuse_open_http() -> None:
    """Raise if files would travel where anybody on the way can change them, and with them the client's cache."""
    from huggingface_hub import constants

    address = urlsplit(get_endpoint())
    local = address.hostname in ("localhost", "::1") or (address.hostname or "").startswith("127.")
    if address.scheme == "http" and not (local or constants.HF_HUB_OFFLINE or os.environ.get("ZOO_ALLOW_HTTP") == "1"):
        raise WeightsError(
            f"HF_ENDPOINT is {get_endpoint()}: on the way, anybody can change what comes over http. Expected https. "
            "If you trust that network, set ZOO_ALLOW_HTTP=1."
        )


def _may_pass(error: Exception) -> bool:
    """Whether another try may help; look-ups are not tried again, the client has done so."""
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError)):
        return False
    status = _get_status(error)
    if status is not None:
        return status in (403, 408, 429) or status >= 500  # 403 for the file itself: its signed address has expired
    return _is_of_transport(error) or "Consistency check failed" in str(error)


def _get_status(error: BaseException) -> int | None:
    """Return the status of the answer that an error is about; None if there was no answer."""
    status: int | None = getattr(getattr(error, "response", None), "status_code", None)
    return status


def _is_of_transport(error: BaseException) -> bool:
    modules = {base.__module__.partition(".")[0] for base in type(error).__mro__}
    return bool(modules & _HTTP_LIBRARIES)


def _explain(error: BaseException, wanted: HubFile) -> str:
    """Say what happened and what to do."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    if isinstance(error, (LocalEntryNotFoundError, ValueError)) and error.__cause__ is not None:
        error = error.__cause__  # behind "cannot find the requested files ... check your connection"
    status = _get_status(error)
    return _explain_failure(error, wanted) if status is None else _explain_answer(error, status, wanted)


def _explain_answer(error: BaseException, status: int, wanted: HubFile) -> str:
    """Explain an answer of the Hub that is not the file."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    hub, repo = get_endpoint(), wanted.repo
    if isinstance(error, GatedRepoError):
        why = "the token that was sent has no access" if status == 403 else "no usable token was sent"
        todo = f"Accept its terms at {hub}/{repo}, then log in (hf auth login) or pass token=."
        return f"{repo} is gated, and {why}. {todo}"
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{hub} has no repository {repo}, or does not show it to you. Check the name; if it is private, log in "
            f"(hf auth login) or pass token=.{wanted.hint and ' '}{wanted.hint}"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{repo} at {hub} has no revision {wanted.revision!r}. Expected a branch, a tag or a full commit."
    if isinstance(error, EntryNotFoundError):
        return (
            f"{repo} at {hub} has no file {wanted.filename!r} in revision {wanted.revision!r}. Only safetensors files "
            "are read; a .bin or .pth file is never taken instead."
        )
    if status in (401, 403):
        what = "does not accept the token for" if status == 401 else "refuses access to"
        return (
            f"{hub} {what} {repo} ({status}). Log in anew (hf auth login), or pass another token=, or False for none."
        )
    return f"{hub} answered {status} when asked for {wanted.filename} of {repo}. {_ways_out(wanted)}"


def _explain_failure(error: BaseException, wanted: HubFile) -> str:
    """Explain why there is no answer, or none that can be used."""
    from huggingface_hub import constants
    from huggingface_hub.errors import FileMetadataError, OfflineModeIsEnabled

    hub, file = get_endpoint(), f"{wanted.filename} of {wanted.repo}"
    cache = wanted.cache_dir or constants.HF_HUB_CACHE
    if isinstance(error, OfflineModeIsEnabled):
        return f"HF_HUB_OFFLINE is set, and {file} is not in the cache {cache}. {_ways_out(wanted)}"
    if isinstance(error, FileMetadataError):
        strange = f"{hub} does not answer as a Hub does when asked for {file}"
        return f"{strange}. Check HF_ENDPOINT and the proxy. {_ways_out(wanted)}"
    if _is_of_transport(error):
        failed = f"the connection to {hub} failed ({type(error).__name__})"
        return f"{failed}, and {file} is not in the cache {cache}. {_ways_out(wanted)}"
    if "Consistency check failed" in str(error):
        return f"{file} came from {hub} with another length than announced, several times. {_ways_out(wanted)}"
    if isinstance(error, OSError) and error.errno is not None:
        return (
            f"{file} cannot be put into the cache {cache}: {error.strerror}. "
            "Set HF_HOME to a folder that can be written to, or pass cache_dir=."
        )
    return f"{file} cannot be fetched from {hub}: {type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _ways_out(wanted: HubFile) -> str:
    command = f"hf download {wanted.repo} {wanted.filename} --revision {wanted.revision}"
    return (
        f"Three ways out: (1) run `{command}` where there is a network, bring its cache here, set HF_HOME to it and "
        "HF_HUB_OFFLINE=1; (2) pass pretrained= the path of a safetensors file or of a folder with one; "
        "(3) pretrained=False, for random weights."
    )
