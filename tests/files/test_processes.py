import os
import subprocess
import sys
from dataclasses import replace

from zoo.files.processes import Process, find_start


def test_a_process_is_known_by_number_and_start():
    own = Process.current()
    assert own.pid == os.getpid()
    assert own.is_running() is True
    assert replace(own, began=own.began - 60).is_running() is False  # the number was another's then
    assert replace(own, host="elsewhere").is_running() is None
    assert replace(own, namespace="pid:[1]").is_running() is None


def test_one_that_has_ended_does_not_run_even_before_its_parent_has_asked():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = replace(Process.current(), pid=child.pid, began=find_start(child.pid))
    assert process.is_running() is True
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is a zombie
    assert process.is_running() is False
    child.communicate()
    assert find_start(child.pid) == 0
