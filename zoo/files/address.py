"""Web addresses: which of them nobody on the way can listen to, and how they are shown without a password."""

import ipaddress
import re
from urllib.parse import urlsplit


def is_private(url: str) -> bool:
    """Whether nobody on the way can read and change what is sent: https, or http on this machine itself.

    This machine is `localhost` and the addresses 127.0.0.0/8 and ::1, written out; whatever else leads there, or only
    looks like it (`127.0.0.1.example.org`, `http://127.0.0.1@example.org`), is not.
    """
    try:
        address = urlsplit(url)
        host = address.hostname or ""
    except ValueError:
        return False
    place = address.netloc.rpartition("@")[2]
    if re.search(r"[\\\s\x00-\x1f]", url) or not re.fullmatch(r"(\[[^][]*\]|[^][:]*)(:\d*)?", place):
        return False  # programs disagree on where the host ends
    return address.scheme == "https" or (address.scheme == "http" and _is_this_machine(host))


def hide_password(text: str) -> str:
    """Return a text without the name and password that may stand in its addresses."""
    return re.sub(r"://[^/\s]*@", "://", text)


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback
