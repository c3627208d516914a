"""One file from a fixed address, into a folder of this machine: whole, with the right content, or not at all.

Only https is asked, and http on this machine. What goes wrong is told in one line, because there may be other places to
try; who calls adds what the file is for.
"""

import hashlib
import http.client
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeAlias
from urllib.parse import urljoin

from zoo._version import VERSION
from zoo.errors import StorageError, WeightsError
from zoo.files.address import is_private
from zoo.files.atomic import open_whole
from zoo.files.cache import digest_file

SILENCE_SECONDS = 10.0  # without a byte: the host is taken for dead
LIMIT_SECONDS = 3600.0  # for the whole file
LIMIT_BYTES = 2_000_000_000
CHUNK_BYTES = 1 << 20

OnProgress: TypeAlias = Callable[[int, int | None], None]


def fetch_url(
    url: str, target: Path, *, sha256: str, limit_bytes: int = LIMIT_BYTES, on_progress: OnProgress | None = None
) -> Path:
    """Download a file, or find it where it was put before.

    Args:
        url: Its address.
        target: Where to put it; folders are made. A file that is there with the right content is taken as it is.
        sha256: Of its content, 64 hexadecimal digits.
        limit_bytes: Longer files are refused.
        on_progress: Called with the bytes so far, and all of them if the server tells.

    Returns:
        `target`.

    Raises:
        WeightsError: It cannot be had from there, or is another file; the text is the answer of this one place.
    """
    if has_content(target, sha256):
        return target
    _refuse_open_http(url)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(f"cannot create the folder {target.parent}: {error.strerror}") from error
    try:
        with open_whole(target) as file:
            digest = _ask(url, file, target, limit_bytes, on_progress)
            if digest != sha256:
                raise WeightsError(f"it sent a different file: its SHA-256 is {digest}, expected {sha256}")
    except StorageError as error:
        raise WeightsError(str(error).removesuffix(".")) from error
    return target


def has_content(path: Path, sha256: str) -> bool:
    """Whether there is a file with this content."""
    return path.is_file() and digest_file(path) == sha256


def probe_url(url: str) -> str:
    """Ask an address whether it has something, without downloading it; return its answer in a few words."""
    try:
        _refuse_open_http(url)
        request = urllib.request.Request(url, headers={"User-Agent": f"zoo/{VERSION}"}, method="HEAD")
        with urllib.request.build_opener(_OnlyHttps()).open(request, timeout=SILENCE_SECONDS) as answer:
            length = answer.headers.get("Content-Length", "")
            return f"it answered {answer.status}" + (f", {int(length):,} bytes" if length.isdecimal() else "")
    except WeightsError as error:
        return str(error)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return _explain(error, Path(url))


def _ask(url: str, file: IO[bytes], target: Path, limit_bytes: int, on_progress: OnProgress | None) -> str:
    """Write what an address sends; return its SHA-256, or tell in one line what came instead."""
    try:
        return _download(url, file, limit_bytes, on_progress)
    except WeightsError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise WeightsError(_explain(error, target)) from error


def _download(url: str, file: IO[bytes], limit_bytes: int, on_progress: OnProgress | None) -> str:
    """Write what an address sends; return its SHA-256."""
    request = urllib.request.Request(url, headers={"User-Agent": f"zoo/{VERSION}"})
    opener = urllib.request.build_opener(_OnlyHttps())
    ends, done, digest = time.monotonic() + LIMIT_SECONDS, 0, hashlib.sha256()
    with opener.open(request, timeout=SILENCE_SECONDS) as answer:
        length = answer.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        while chunk := answer.read1(CHUNK_BYTES):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if max(done, total or 0) > limit_bytes:
                raise WeightsError(f"it sent {total or done:,} bytes, more than the {limit_bytes:,} allowed")
            if time.monotonic() > ends:
                raise WeightsError(f"{done:,} bytes took more than {LIMIT_SECONDS:g} seconds")
            if on_progress:
                on_progress(done, total)
    if total is not None and done != total:
        raise WeightsError(f"the download stopped after {done:,} of {total:,} bytes")
    return digest.hexdigest()


class _OnlyHttps(urllib.request.HTTPRedirectHandler):
    """Follows redirects to addresses that could have been asked at once, and to no others."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        try:
            _refuse_open_http(urljoin(req.full_url, newurl), "it redirects to ")
        except WeightsError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _refuse_open_http(url: str, prefix: str = "") -> None:
    if not is_private(url):
        raise WeightsError(f"{prefix}{url}, which is not https")


def _explain(error: BaseException, target: Path) -> str:
    """Say in one line what came instead of the file."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()  # it is the answer, too
        return f"it answered {error.code} ({str(error.reason).partition(chr(10))[0]})"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    if isinstance(error, TimeoutError):
        return f"no answer for {SILENCE_SECONDS:g} seconds"
    if isinstance(error, socket.gaierror):
        return "unknown host, or no network"
    if isinstance(error, ssl.SSLError):
        return f"the connection is not secure ({error.reason or error})"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(error, (ConnectionError, http.client.HTTPException)):
        return f"the connection broke ({type(error).__name__})"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{target} cannot be written, or the network cannot be reached: {error.strerror}"
    return f"{type(error).__name__}: {error}"
