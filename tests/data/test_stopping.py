import os
import signal
import threading

import pytest

from zoo.data.stopping import SIGNALS, StopRequest, leave_stopping_to_parent, stopping_at_once

NAMED = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)


@pytest.fixture(autouse=True)
def _heard():
    """Whoever starts the tests may ignore a signal, as `nohup` does with a hang-up, and a shell with Ctrl-C."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@NAMED
def test_at_once_each_signal_is_a_keyboard_interrupt(number):
    before = [signal.getsignal(one) for one in SIGNALS]
    with pytest.raises(KeyboardInterrupt, match=number.name), stopping_at_once():
        os.kill(os.getpid(), number)
    assert [signal.getsignal(one) for one in SIGNALS] == before


@NAMED
def test_the_first_signal_is_a_wish_and_a_second_interrupt_a_command(number):
    with stopping_at_once(), StopRequest() as stop:
        assert not stop.asked
        os.kill(os.getpid(), number)
        assert stop.asked
        for other in SIGNALS[1:]:
            os.kill(os.getpid(), other)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no hang-up here")
def test_a_hang_up_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping_at_once(), StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.asked
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_the_main_thread_signals_are_left_alone():
    seen = []

    def enter():
        with stopping_at_once(), StopRequest():
            seen.extend(signal.getsignal(number) for number in SIGNALS)

    before = [signal.getsignal(number) for number in SIGNALS]
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_process_that_loads_lives_on_until_its_parent_insists():
    child = os.fork()
    if not child:
        leave_stopping_to_parent()
        for number in SIGNALS:
            os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signal.SIGTERM
