"""Which process something belongs to, and whether it still runs: its number alone may be another's by now."""

import os
import socket
from dataclasses import dataclass

CLOCK_SECONDS = 5.0  # by which two readings of when a process began may differ


@dataclass(frozen=True)
class Process:
    """A process of some machine.

    Attributes:
        host: Name of the machine.
        pid: Its number there.
        began: When it was started, in seconds since 1970.
        namespace: Which processes it can see: containers of one machine see only their own. Empty if not known.
    """

    host: str
    pid: int
    began: float
    namespace: str = ""

    @classmethod
    def current(cls) -> "Process":
        """Return the process that calls this."""
        return cls(socket.gethostname(), os.getpid(), find_start(os.getpid()), _find_namespace())

    def is_running(self) -> bool | None:
        """Say whether it still runs; None if that cannot be seen from here."""
        if self.host != socket.gethostname() or self.namespace != _find_namespace():
            return None
        return abs(find_start(self.pid) - self.began) <= CLOCK_SECONDS


def find_start(pid: int) -> float:
    """Return when a process of this machine was started, in seconds since 1970; 0 if none of this number runs."""
    import psutil

    try:
        process = psutil.Process(pid)
        return 0.0 if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return 0.0


def _find_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        return ""
