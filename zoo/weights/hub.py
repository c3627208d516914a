"""One file of a repository on a Hub: from the cache or the network, or one error that says what to do.

The client library brings the cache, the locks and the retries of look-ups. Added here are retries of the transfer
itself, the commit that a file came from, a look at the names that an answer would give to files in the cache, and
errors in words. The client reads its environment (`HF_ENDPOINT`, `HF_HOME`, `HF_HUB_OFFLINE` ...) when it is imported;
nothing here changes it.
"""

import errno
import os
import re
import shutil
from dataclasses import dataclass, field
from http.client import responses
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from zoo._version import VERSION
from zoo.errors import (
    WeightsAccessError,
    WeightsContentError,
    WeightsError,
    WeightsNetworkError,
    WeightsNotFoundError,
    WeightsStorageError,
)
from zoo.files import hide_password, is_private
from zoo.weights.attempts import (
    HostileAnswerError,
    UnreachableError,
    check_reach,
    get_status,
    is_of_proxy,
    is_of_transport,
    may_pass,
    try_again,
)

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, kw_only=True)
class HubFileRequest:
    """A file that is wanted.

    Attributes:
        model: The model it is for, named in errors.
        repo: Repository, `org/name`.
        filename: Path in the repository.
        revision: Commit, branch or tag.
        cache_dir: Cache of the client; None for its own.
        token: Access token; None for the saved one, False for none. It never appears in an error.
        hint: One more sentence for the error that the repository was not found.
        is_known: Whether it is the file that the registry has for the model: `zoo weights` knows it, too.
    """

    model: str
    repo: str
    filename: str
    revision: str = "main"
    cache_dir: Path | None = None
    token: str | bool | None = field(default=None, repr=False)
    hint: str = ""
    is_known: bool = False


@dataclass(frozen=True)
class Announced:
    """What a Hub says of a file.

    Attributes:
        commit: That the revision is at, 40 hexadecimal digits.
        sha256: Of the file; None if the Hub does not tell it, as for small text files.
        size: In bytes; None if it is not told.
    """

    commit: str
    sha256: str | None
    size: int | None


def fetch_file(wanted: HubFileRequest, *, force: bool = False) -> tuple[Path, str]:
    """Download a file, or find it in the cache; a cached file of a full commit needs no network.

    Args:
        wanted: What to fetch.
        force: Download it although it is in the cache.

    Returns:
        The file in the cache, and the commit that it belongs to (40 hexadecimal digits).

    Raises:
        WeightsError: It cannot be had. `__cause__` is what the client raised.
    """
    refuse_open_http()
    _check_filename(wanted)
    path = _download(wanted, force)
    commit = path.parents[len(PurePosixPath(wanted.filename).parts) - 1].name  # .../snapshots/<commit>/<filename>
    return path, _check_commit(commit, wanted)


def look_up(wanted: HubFileRequest) -> Announced:
    """Ask the Hub what it says of a file, without downloading it; the cache is not looked into.

    Raises:
        WeightsError: There is no answer, or none that can be used.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    refuse_open_http()
    _check_filename(wanted)
    url = hf_hub_url(wanted.repo, wanted.filename, revision=wanted.revision)
    try:
        check_reach(get_endpoint())
        found = try_again(lambda: get_hf_file_metadata(url, token=wanted.token, library_name="zoo"))
    except Exception as error:
        raise _translate(error, wanted, "") from error
    etag = found.etag or ""
    sha256 = etag if re.fullmatch("[0-9a-f]{64}", etag) else None
    return Announced(_check_commit(found.commit_hash or "", wanted), sha256, found.size)


def find_pinned(wanted: HubFileRequest) -> Path | None:
    """Return a file of a full commit from the cache, which nobody has to be asked for; None if it is not there."""
    return find_cached(wanted) if re.fullmatch("[0-9a-f]{40}", wanted.revision) else None


def find_cached(wanted: HubFileRequest) -> Path | None:
    """Return a file from the cache, without any request; None if it is not there."""
    found = _look_into_cache(wanted)
    return Path(found) if isinstance(found, str) else None


def fetch_if_there(wanted: HubFileRequest) -> Path | None:
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


def is_plain_path(name: str) -> bool:
    """Whether a name stays below the folder that it is joined to, on any system; the client looks at that, too."""
    return not re.search(r"[\\:\x00]", name) and all(part not in ("", ".", "..") for part in name.split("/"))


def get_endpoint() -> str:
    """Return the address of the Hub that the client asks, without a password that may be in it."""
    from huggingface_hub import constants

    return hide_password(constants.ENDPOINT)


def refuse_open_http() -> None:
    """Raise if token and files would travel where anybody on the way can read and change them."""
    from huggingface_hub import constants

    if not (is_private(constants.ENDPOINT) or constants.HF_HUB_OFFLINE or os.environ.get("ZOO_ALLOW_HTTP") == "1"):
        raise WeightsNetworkError(
            f"HF_ENDPOINT is {get_endpoint()}, which is not encrypted: others on the network can read the token and "
            "change the files. Use https, or set ZOO_ALLOW_HTTP=1 if you trust the network."
        )


def _download(wanted: HubFileRequest, force: bool) -> Path:
    from huggingface_hub import hf_hub_download

    def download() -> str:
        return hf_hub_download(
            wanted.repo,
            wanted.filename,
            revision=wanted.revision,
            cache_dir=wanted.cache_dir,
            token=wanted.token,
            force_download=force,
            library_name="zoo",
            library_version=VERSION,
        )

    try:
        if force or find_pinned(wanted) is None:
            check_reach(get_endpoint())
        return Path(try_again(download))
    except Exception as error:  # the client lets exceptions of four libraries through
        may_serve = not force and (may_pass(error) or is_of_proxy(error))  # the client itself does not after a reset
        cached = find_cached(wanted) if may_serve else None
        if cached is None:
            place = f"{wanted.filename} of {wanted.repo} is not in the cache {_find_cache(wanted)}"
            raise _translate(error, wanted, "" if force else f", and {place}. ") from error
        return cached


def _look_into_cache(wanted: HubFileRequest) -> object:
    """Return a path (`str`), None if nothing is known, or something else if the file is known to be absent."""
    from huggingface_hub import try_to_load_from_cache

    return try_to_load_from_cache(wanted.repo, wanted.filename, cache_dir=wanted.cache_dir, revision=wanted.revision)


def _check_filename(wanted: HubFileRequest) -> None:
    if not is_plain_path(wanted.filename):
        raise WeightsNotFoundError(
            f"weights of {wanted.model}: {wanted.filename!r} of {wanted.repo} is not a valid file name in a "
            "repository. Expected, for example, 'model.safetensors'; no '..', not absolute."
        )


def _check_commit(commit: str, wanted: HubFileRequest) -> str:
    if re.fullmatch("[0-9a-f]{40}", commit):
        return commit
    raise WeightsContentError(
        f"weights of {wanted.model}: {get_endpoint()} returned the commit {commit!r} for {wanted.repo}; expected 40 "
        "hexadecimal digits. Check HF_ENDPOINT."
    )


def _name_proxy() -> str:
    """Return the proxy that is set for the Hub, without a password that may be in it; nothing if there is none."""
    hub = urlsplit(get_endpoint())
    proxies = getproxies()
    address = proxies.get(hub.scheme) or proxies.get("all")
    if not address or proxy_bypass(hub.hostname or ""):
        return ""
    return f"the proxy {hide_password(address)} ({hub.scheme.upper()}_PROXY)"


def _find_cache(wanted: HubFileRequest) -> Path:
    from huggingface_hub import constants

    return Path(wanted.cache_dir or constants.HF_HUB_CACHE)


def _translate(error: BaseException, wanted: HubFileRequest, lack: str) -> WeightsError:
    """Return an error that says what happened and what to do; `lack` ends the sentence that nothing answers."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    if isinstance(error, (LocalEntryNotFoundError, ValueError)) and error.__cause__ is not None:
        error = error.__cause__  # behind "cannot find the requested files ... check your connection"
    status = get_status(error)
    told = _explain_failure(error, wanted, lack) if status is None else _explain_answer(error, status, wanted)
    return _find_kind(error, status)(f"weights of {wanted.model}: {told}")


def _find_kind(error: BaseException, status: int | None) -> type[WeightsError]:
    from huggingface_hub.errors import (
        EntryNotFoundError,
        FileMetadataError,
        GatedRepoError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return WeightsAccessError
    if isinstance(error, (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError)):
        return WeightsNotFoundError
    if status in (401, 403):
        return WeightsAccessError
    if status is not None or isinstance(error, (FileMetadataError, OfflineModeIsEnabled)) or is_of_transport(error):
        return WeightsNetworkError
    if isinstance(error, HostileAnswerError) or "Consistency check failed" in str(error):
        return WeightsContentError
    return WeightsStorageError if isinstance(error, OSError) and error.errno is not None else WeightsError


def _explain_answer(error: BaseException, status: int, wanted: HubFileRequest) -> str:
    """Explain an answer of the Hub that is not the file."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    hub, repo = get_endpoint(), wanted.repo
    if isinstance(error, GatedRepoError):
        why = "the token has no access" if status == 403 else "no valid token was sent"
        todo = f"Accept its terms at {hub}/{repo}, then log in (hf auth login) or pass token=."
        return f"{repo} is gated, and {why}. {todo}"
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{hub} has no repository {repo}, or you have no access to it. Check the name; if it is private, log in "
            f"(hf auth login) or pass token=.{wanted.hint and ' '}{wanted.hint}"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{repo} at {hub} has no revision {wanted.revision!r}. Expected a branch, a tag or a full commit."
    if isinstance(error, EntryNotFoundError):
        return (
            f"{repo} at {hub} has no file {wanted.filename!r} in revision {wanted.revision!r}. Only safetensors "
            "files are read, never .bin or .pth files."
        )
    if status in (401, 403):
        what = "does not accept the token for" if status == 401 else "refuses access to"
        return (
            f"{hub} {what} {repo} ({status}). Log in again (hf auth login), pass another token=, or token=False to "
            "send none."
        )
    if status == 407:
        return f"{_name_proxy() or 'a proxy before ' + hub} requires a login (407). Add it to the proxy address."
    what = "it may be down" if status >= 500 else responses.get(status, "no file").lower()
    return f"{hub} answered {status} ({what}) when asked for {wanted.filename} of {repo}. {_ways_out(wanted)}"


def _explain_failure(error: BaseException, wanted: HubFileRequest, lack: str) -> str:
    """Explain why there is no answer, or none that can be used."""
    from huggingface_hub.errors import FileMetadataError, OfflineModeIsEnabled

    hub, file = get_endpoint(), f"{wanted.filename} of {wanted.repo}"
    if isinstance(error, OfflineModeIsEnabled):
        return f"HF_HUB_OFFLINE is set{lack or ', so nothing is downloaded. '}{_ways_out(wanted)}"
    if isinstance(error, FileMetadataError):
        strange = f"{hub} sent an invalid response for {file}"
        return f"{strange}. Check HF_ENDPOINT and the proxy. {_ways_out(wanted)}"
    if isinstance(error, HostileAnswerError):
        return (
            f"{hub} sent {file} with the {error}, which would write outside the cache. Nothing was written. Do not "
            "use this endpoint (HF_ENDPOINT)."
        )
    if is_of_transport(error):
        kind = "" if isinstance(error, UnreachableError) else f"{type(error).__name__}: "
        why = f"{kind}{str(error).partition(chr(10))[0]}"
        proxy = _name_proxy()
        way, check = (f" through {proxy}", " Check the proxy.") if proxy else ("", "")
        return f"the connection to {hub}{way} failed ({why}){lack or '. '}{_ways_out(wanted)}{check}"
    if "Consistency check failed" in str(error):
        return f"{file} from {hub} repeatedly had the wrong length. {_ways_out(wanted)}"
    if isinstance(error, OSError) and error.errno is not None:
        return _explain_disk(error, wanted)
    return f"{file} cannot be downloaded from {hub}: {type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _explain_disk(error: OSError, wanted: HubFileRequest) -> str:
    """Explain why a file cannot be put into the cache."""
    cache = _find_cache(wanted)
    failed = f"{wanted.filename} of {wanted.repo} cannot be written to the cache {cache}: {error.strerror}"
    todo = "Set HF_HOME to a writable folder, or pass cache_dir=."
    if error.errno not in _FULL:
        return f"{failed}. {todo}"
    there = next((folder for folder in (cache, *cache.parents) if folder.is_dir()), Path("/"))
    free = shutil.disk_usage(there).free / 1e6
    return f"{failed} ({free:,.1f} MB free). Free some space, set HF_HOME to another disk, or pass cache_dir=."


def _ways_out(wanted: HubFileRequest) -> str:
    bring = (
        f"run `hf download {wanted.repo} {wanted.filename} --revision {wanted.revision}` on a machine with a "
        "network, copy its cache here, set HF_HOME to it and HF_HUB_OFFLINE=1"
    )
    if wanted.is_known:
        bring = (
            f"run `zoo weights export DIR {wanted.model}` on a machine with a network, copy DIR here and run `zoo "
            "weights import DIR`"
        )
    return (
        f"Options: (1) {bring}; (2) pass the path of a safetensors file or its folder (--weights, pretrained=); (3) "
        "use random weights (--no-pretrained, pretrained=False)."
    )
