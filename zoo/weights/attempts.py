"""How often the Hub is asked: not at all where nothing answers, again where that may help, never for good.

The client itself tries for half a minute to reach a host that is not there; here that is found out in seconds.
"""

import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from zoo.files import hide_password

RETRY_WAITS_SECONDS = (0.5, 2.0, 8.0)
LAST_TRY_SECONDS = 60.0  # after the first one; a host that is silent has been given a minute by the client itself
REACH_SECONDS = 3.0
_HTTP_LIBRARIES = {"httpx2", "httpx", "requests", "urllib3", "hf_xet"}  # of the client, in its several versions

_Result = TypeVar("_Result")
_reached: set[tuple[str, int]] = set()  # hosts that have answered this process


class UnreachableError(Exception):
    """Nothing answers at the address of the Hub, or of the proxy on the way to it."""


class HostileAnswerError(Exception):
    """An answer that would make the client write outside its cache."""


def check_reach(address: str) -> None:
    """Raise if nothing answers at an address, or at the proxy on the way to it.

    Args:
        address: Of the Hub.

    Raises:
        UnreachableError: The name is unknown, the connection refused, or there is no answer in three seconds.
    """
    from huggingface_hub import constants

    hub = urlsplit(address)
    proxies = getproxies()
    proxy = proxies.get(hub.scheme) or proxies.get("all")
    way = urlsplit(proxy) if proxy and not proxy_bypass(hub.hostname or "") else hub
    place = (way.hostname or "", way.port or (443 if way.scheme == "https" else 80))
    if constants.HF_HUB_OFFLINE or place in _reached or not place[0]:
        return
    found: list[str] = []
    # A thread, for a name server that is silent cannot be given up otherwise.
    attempt = threading.Thread(target=lambda: found.append(_connect(place)), daemon=True)
    attempt.start()
    attempt.join(REACH_SECONDS)
    reason = found[0] if found else f"no answer in {REACH_SECONDS:g} seconds"
    if reason:
        raise UnreachableError(f"{place[0]}: {reason}")
    _reached.add(place)


def _connect(place: tuple[str, int]) -> str:
    """Return why there is no connection; nothing if there is one."""
    try:
        socket.create_connection(place, timeout=REACH_SECONDS).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def try_again(call: Callable[[], _Result]) -> _Result:
    """Call until it succeeds or fails for good, with growing waits, and no more than four times."""
    started = time.monotonic()
    with _watching_names(), hiding_passwords():
        for wait_seconds in RETRY_WAITS_SECONDS:
            try:
                return call()
            except Exception as error:
                if not may_pass(error) or time.monotonic() - started > LAST_TRY_SECONDS:
                    raise
            time.sleep(wait_seconds)
        return call()


@contextmanager
def _watching_names() -> Iterator[None]:
    """Raise at any answer with a commit or ETag that is no plain name: the client makes paths in its cache of them."""
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    def check(answer: Any, *_: object, **__: object) -> None:
        for header in ("X-Linked-ETag", "ETag", "X-Repo-Commit"):
            stated = answer.headers.get(header, "")
            name = stated.removeprefix("W/").strip('"')
            if answer.request.method == "HEAD" and (name in (".", "..") or re.search(r"[/\\\x00-\x1f]", name)):
                raise HostileAnswerError(f"{header} {stated!r:.100}")

    session: Any = get_session()
    hooks = session.event_hooks if hasattr(session, "event_hooks") else session.hooks  # the latter before client 1.0
    hooks["response"].append(check)
    try:
        yield
    finally:
        hooks["response"].remove(check)


@contextmanager
def hiding_passwords() -> Iterator[None]:
    """Keep a password in HF_ENDPOINT out of what the client logs."""

    def hide(record: logging.LogRecord) -> bool:
        record.msg, record.args = hide_password(record.getMessage()), ()
        return True

    logger = logging.getLogger("huggingface_hub")
    places = [*logger.handlers, logger, logging.getLogger("huggingface_hub.utils._http")]
    for place in places:
        place.addFilter(hide)
    try:
        yield
    finally:
        for place in places:
            place.removeFilter(hide)


def may_pass(error: Exception) -> bool:
    """Whether another try may help; look-ups are not tried again, the client has done so."""
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError)):
        return False
    status = get_status(error)
    if status is not None:
        return status in (403, 408, 429) or status >= 500  # 403 for the file itself: its signed address has expired
    return (is_of_transport(error) and not is_of_proxy(error)) or "Consistency check failed" in str(error)


def get_status(error: BaseException) -> int | None:
    """Return the status of the answer that an error is about; None if there was no answer."""
    status: int | None = getattr(getattr(error, "response", None), "status_code", None)
    return status


def is_of_transport(error: BaseException) -> bool:
    """Whether an error is of the connection, not of what came over it."""
    modules = {base.__module__.partition(".")[0] for base in type(error).__mro__}
    return isinstance(error, UnreachableError) or bool(modules & _HTTP_LIBRARIES)


def is_of_proxy(error: BaseException) -> bool:
    """Whether an error is of the proxy."""
    return is_of_transport(error) and type(error).__name__ == "ProxyError"
