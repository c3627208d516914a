"""How a run is stopped from outside: Ctrl-C, SIGTERM (a scheduler) and SIGHUP (a terminal that was closed)."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any, TypeAlias

Handler: TypeAlias = Callable[[int, FrameType | None], None]

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """Raise `KeyboardInterrupt` for each of the signals: where nothing is lost that was not there before."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    with _handling(stop):
        yield


class StopRequest(AbstractContextManager["StopRequest"]):
    """Turns the first signal into a wish that the loop reads; a second Ctrl-C stops at once.

    Attributes:
        asked: Whether a signal has come.
    """

    def __init__(self) -> None:
        self.asked = False
        self._handling: Any = None

    def __enter__(self) -> "StopRequest":
        self._handling = _handling(self._ask)
        self._handling.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._handling.__exit__(*error)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True


def leave_stopping_to_parent() -> None:
    """Let a process that loads images go on when all processes get a signal: the parent decides how to stop.

    A second SIGTERM ends it: then it is the parent that sends them.
    """
    asked = False

    def wait(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            os._exit(128 + number)
        asked = True

    for number in SIGNALS:
        signal.signal(number, wait if number == signal.SIGTERM else signal.SIG_IGN)


@contextmanager
def _handling(handler: Handler) -> Iterator[None]:
    """Handle the signals, in the main thread; a hang-up that is to be ignored (`nohup`) stays ignored."""
    before: dict[int, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                is_ignored = signal.getsignal(number) is signal.SIG_IGN and number != signal.SIGINT
                if not is_ignored:
                    before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former if former is not None else signal.SIG_DFL)
