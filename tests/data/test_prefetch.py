import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from zoo.data.prefetch import prefetch_items, submit_ahead
from zoo.errors import DataError, InputError

ROOT = Path(__file__).parents[2]


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "zoo prefetch_items"]


@pytest.mark.parametrize("depth", [1, 2, 100])
def test_items_come_in_order(depth):
    assert list(prefetch_items(iter(range(50)), depth)) == list(range(50))
    assert list(prefetch_items([], depth)) == []
    assert not threads()


def test_items_are_made_ahead_but_not_far():
    made, third = [], threading.Event()

    def items():
        for number in range(10):
            made.append(number)
            if number == 2:
                third.set()
            yield number

    ahead = prefetch_items(items(), 2)
    assert next(ahead) == 0
    assert third.wait(10), "the next two are made while the first is used"
    time.sleep(0.05)
    assert made == [0, 1, 2]
    assert list(ahead) == list(range(1, 10))


def test_errors_pass_on():
    def items():
        yield 1
        raise DataError("the second is damaged")

    ahead = prefetch_items(items())
    assert next(ahead) == 1
    with pytest.raises(DataError, match=r"the second is damaged"):
        next(ahead)
    assert not threads()
    with pytest.raises(TypeError, match=r"not iterable"):
        list(prefetch_items(7))
    with pytest.raises(InputError, match=r"depth is 0; expected 1 or more"):
        next(prefetch_items([1], 0))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_consumer_that_stops_early(error):
    closed = []

    def items():
        try:
            number = 0
            while True:
                yield (number := number + 1)
        finally:
            closed.append(threading.current_thread().name)

    def consume(ahead):
        for number in ahead:
            if number == 3:
                raise error

    ahead = prefetch_items(items())
    with pytest.raises(error):
        consume(ahead)
    assert len(threads()) == 1
    ahead.close()
    assert not threads()
    assert closed == ["zoo prefetch_items"]


def test_nothing_begins_before_the_first_is_asked_for():
    ahead = prefetch_items(iter(range(3)))
    assert not threads()
    ahead.close()
    assert not threads()


def test_ctrl_c_while_waiting(tmp_path):
    """In a process of its own: a signal that comes while the consumer waits for a slow item ends all of it."""
    code = (
        "import signal, time\nfrom zoo.data.prefetch import prefetch_items\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # whoever started the tests may ignore it
        "def items():\n    print('slow', flush=True)\n    time.sleep(3)\n    yield 1\n    yield 2\n"
        "try:\n    list(prefetch_items(items()))\nexcept KeyboardInterrupt:\n    print('stopped', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "slow\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0] == "stopped\n"
    assert process.returncode == 0


def test_calls_are_yielded_in_order_whatever_ends_first():
    def slow(number):
        time.sleep(0.002 * (number % 3 == 0))
        return number

    for ahead in (0, 1, 5, 100):
        calls = submit_ahead(slow, range(30), threads=4, ahead=ahead)
        assert [call.result() for call in calls] == list(range(30))


def test_calls_run_ahead_but_not_far():
    taken = []
    items = (taken.append(number) or number for number in range(100))
    calls = submit_ahead(abs, items, threads=2, ahead=3)
    next(calls)
    assert taken == [0, 1, 2, 3]
    next(calls)
    assert taken == [0, 1, 2, 3, 4]
    calls.close()


def test_calls_that_wait_are_cancelled_when_nobody_wants_more():
    begun, wait = [], threading.Event()

    def block(number):
        begun.append(number)
        wait.wait(10)

    calls = submit_ahead(block, range(10), threads=1, ahead=4)
    first = next(calls)
    threading.Timer(0.05, wait.set).start()
    calls.close()
    assert begun == [0]
    assert first.done()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("zoo submit_ahead")]


def test_an_error_belongs_to_its_call():
    def fail(number):
        if number == 1:
            raise DataError("broken")
        return number

    first, second, third = submit_ahead(fail, range(3), threads=2, ahead=2)
    assert first.result() == 0
    with pytest.raises(DataError, match="broken"):
        second.result()
    assert third.result() == 2
