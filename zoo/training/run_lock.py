"""One process at a time works in the folder of a run: a file in it says which one, and since when.

The file is made in one step, so that of two processes one is refused. One that a killed process left is taken over
where that can be seen: the process is gone, or, of another container on this machine, its file lock is. Whether a
process of another machine still runs cannot be seen; whoever knows that it does not removes the file.
"""

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from zoo.errors import InputError, StorageError
from zoo.files import Process, describe_os_error, open_regular

LOCK = "run.lock"
MAX_BYTES = 10_000

fcntl: Any = import_module("fcntl") if find_spec("fcntl") else None  # Windows has none

_held: set[int] = set()  # descriptors that a forked process must not keep locked


@dataclass(frozen=True)
class Holder:
    """Who works in a folder.

    Attributes:
        process: The process.
        since: When it began to, in words.
    """

    process: Process
    since: str

    def __str__(self) -> str:
        return f"process {self.process.pid} on {self.process.host} since {self.since}"


class RunLock:
    """The right of this process to work in a folder, until it is released or the process ends."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor, self._pid = path, descriptor, os.getpid()
        _held.add(descriptor)

    @classmethod
    def take(cls, folder: Path, log: Callable[[str], None]) -> Self:
        """Take the folder.

        Args:
            folder: Exists.
            log: Called with a line if a process that has ended is taken over from.

        Raises:
            InputError: Another process works in it, or may do so.
            StorageError: The folder cannot be written to.
        """
        path = folder / LOCK
        try:
            with _one_at_a_time(folder):
                while (descriptor := _create(path)) is None:
                    refuse_if_held(folder)
                    if holder := read_holder(folder):
                        log(f"note: {folder} was left by {holder}, which has ended; this run takes it over")
                    path.unlink(missing_ok=True)
        except StorageError:
            raise
        except OSError as error:
            reason = describe_os_error(error, path)
            raise StorageError(f"the run folder {folder} cannot be used: {reason}. Choose another.") from error
        return cls(path, descriptor)

    def release(self) -> None:
        """Let others work in the folder; a process that was forked from the holder releases nothing."""
        if os.getpid() != self._pid or self._descriptor not in _held:
            return
        with contextlib.suppress(OSError):
            if os.path.samestat(self._path.stat(), os.fstat(self._descriptor)):  # else somebody else's by now
                self._path.unlink()
        _held.discard(self._descriptor)
        os.close(self._descriptor)


def read_holder(folder: Path) -> Holder | None:
    """Return who works in a folder, or did when it was killed; None if nobody does, or the file is no longer whole."""
    try:
        with open_regular(folder / LOCK) as file:
            said: Any = json.loads(file.read(MAX_BYTES))
        process = Process(
            host=str(said["host"]), pid=int(said["pid"]), began=float(said["began"]), namespace=str(said["namespace"])
        )
        return Holder(process, str(said["since"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def refuse_if_held(folder: Path) -> None:
    """Refuse a folder that another process works in.

    Raises:
        InputError: It runs, or it is on another machine.
    """
    holder = read_holder(folder)
    if holder is None:
        return
    running = is_at_work(holder, folder)
    if running:
        raise InputError(f"{folder} is in use by {holder}. Wait for it to end, stop it, or choose another folder.")
    if running is None:
        raise InputError(
            f"{folder} is in use by {holder}. This machine cannot see whether that process is still running; if it "
            f"is not, delete {folder / LOCK} and run the command again."
        )


def is_at_work(holder: Holder, folder: Path) -> bool | None:
    """Say whether the process that a folder names still works in it; None if this machine cannot see that."""
    running = holder.process.is_running()
    if running is None and holder.process.host == Process.current().host:
        running = not _is_free(folder / LOCK)
    return running


def _create(path: Path) -> int | None:
    """Make the file with all that it says in one step, and return its descriptor; None if there is one."""
    process = Process.current()
    facts = asdict(process) | {"since": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %z")}
    content = json.dumps(facts, indent=1).encode() + b"\n"
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    descriptor = _write_new(draft, content)
    try:
        os.link(draft, path)
    except FileExistsError:
        os.close(descriptor)
        return None
    except OSError:  # a file system without hard links
        os.close(descriptor)
        try:
            return _write_new(path, content)
        except FileExistsError:
            return None
    finally:
        draft.unlink(missing_ok=True)
    return descriptor


def _write_new(path: Path, content: bytes) -> int:
    """Write a file that must not exist yet, and return its descriptor, locked where the system has such locks."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
        _try_lock(descriptor)
    except BaseException:
        os.close(descriptor)
        path.unlink(missing_ok=True)
        raise
    return descriptor


def _try_lock(descriptor: int) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_free(path: Path) -> bool:
    """Whether no process of this machine has the file locked, for a holder in another container."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        return _try_lock(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Let one process of this machine at a time look at the lock and take over: two could both see it left behind."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems lock no folders
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _forget() -> None:
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
