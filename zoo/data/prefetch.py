"""Items made a little ahead of their use, by a thread: batches that are read or decoded while the network computes."""

import threading
from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from typing import Any, TypeVar

from zoo.errors import InputError

Item = TypeVar("Item")


def read_ahead(items: Iterable[Item], depth: int = 2) -> Iterator[Item]:
    """Yield items that a thread makes a little ahead of their use.

    The thread has modes of its own: `no_grad`, `autocast` and the like have to be set where items are made. It ends
    when this generator does: at the end, at an error, or when it is closed.

    Args:
        items: Run through in the thread, and closed there.
        depth: How many items may wait, the one in the making counted.

    Raises:
        Exception: What the items raised, in its place.
    """
    if depth < 1:
        raise InputError(f"depth is {depth}; expected 1 or more.")
    ready: SimpleQueue[tuple[bool, Any]] = SimpleQueue()
    room, stopped, source = threading.Semaphore(depth), threading.Event(), iter(items)

    def work() -> None:
        try:
            while room.acquire() and not stopped.is_set():
                ready.put((True, next(source)))
        except BaseException as error:  # whatever it is, it belongs to whoever waits
            ready.put((False, error))
        finally:
            getattr(source, "close", lambda: None)()

    thread = threading.Thread(target=work, name="zoo read_ahead", daemon=True)
    thread.start()
    try:
        while True:
            is_item, found = ready.get()
            if isinstance(found, StopIteration) and not is_item:
                return
            if not is_item:
                raise found
            room.release()
            yield found
    finally:
        stopped.set()
        room.release()
        thread.join()
