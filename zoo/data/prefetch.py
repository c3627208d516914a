"""Items made a little ahead of their use, by threads: read or decoded while the network computes."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, TypeVar

from zoo.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch_items(items: Iterable[Item], depth: int = 2) -> Iterator[Item]:
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

    thread = threading.Thread(target=work, name="zoo prefetch_items", daemon=True)
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


def submit_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int
) -> Generator[Future[Result]]:
    """Yield the call of a function with each item, in order; calls run in threads, a bounded number ahead.

    Calls that have not begun are cancelled when this generator ends, and those that have are waited for.

    Args:
        function: Called in the threads.
        items: Run through in the calling thread, as calls are needed.
        threads: Calls that run at once.
        ahead: Calls that are submitted before the first one is yielded, and stay so many ahead of it.
    """
    running: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="zoo submit_ahead")
    try:
        for item in items:
            running.append(pool.submit(function, item))
            if len(running) > ahead:
                yield running.popleft()
        while running:
            yield running.popleft()
    finally:
        pool.shutdown(cancel_futures=True)
