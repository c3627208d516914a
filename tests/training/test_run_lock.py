import json
import os
import subprocess
import sys
import threading

import pytest

from zoo.errors import InputError, StorageError
from zoo.training import run_lock
from zoo.training.run_lock import LOCK, RunLock, read_holder, refuse_if_held

HOLD = """
import sys, pathlib
from zoo.training.run_lock import RunLock
RunLock.take(pathlib.Path(sys.argv[1]), print)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def change(folder, **facts):
    path = folder / LOCK
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def test_one_process_holds_a_folder_until_it_lets_go(tmp_path):
    lock = RunLock.take(tmp_path, print)
    assert os.listdir(tmp_path) == [LOCK]
    with pytest.raises(InputError, match=rf"is in use by process {os.getpid()} on .* since 20.*\. Wait"):
        RunLock.take(tmp_path, print)
    lock.release()
    lock.release()
    assert os.listdir(tmp_path) == []


def test_another_process_is_named_and_a_killed_one_is_taken_over_from(tmp_path, other):
    with pytest.raises(InputError, match=rf"is in use by process {other.pid} on"):
        RunLock.take(tmp_path, print)
    other.kill()
    other.wait()
    said = []
    RunLock.take(tmp_path, said.append).release()
    (line,) = said
    assert f"was left by process {other.pid} on" in line
    assert line.endswith("which has ended; this run takes it over")


def test_a_number_that_is_another_process_now_counts_as_ended(tmp_path):
    lock = RunLock.take(tmp_path, print)
    change(tmp_path, began=1000.0)
    refuse_if_held(tmp_path)
    second = RunLock.take(tmp_path, lambda line: None)
    lock.release()  # it is not its own any more
    assert read_holder(tmp_path) is not None
    second.release()


def test_a_process_of_another_machine_may_still_run(tmp_path):
    RunLock.take(tmp_path, print)
    change(tmp_path, host="node7")
    with pytest.raises(InputError, match=rf"on node7 .*if it is not, delete .*{LOCK} and"):
        RunLock.take(tmp_path, print)
    (tmp_path / LOCK).unlink()
    RunLock.take(tmp_path, print).release()


@pytest.mark.skipif(run_lock.fcntl is None, reason="no file locks here")
def test_a_process_of_another_container_is_seen_by_its_file_lock(tmp_path, other):
    change(tmp_path, namespace="pid:[1]")
    with pytest.raises(InputError, match="is in use"):
        RunLock.take(tmp_path, print)
    other.kill()
    other.wait()
    RunLock.take(tmp_path, print).release()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', '{"host": "a", "pid": "x", "began": 0}'])
def test_a_lock_that_is_not_whole_is_nobodys(tmp_path, content):
    (tmp_path / LOCK).write_text(content)
    RunLock.take(tmp_path, print).release()


@pytest.mark.parametrize("links", [True, False])
def test_of_many_that_take_a_folder_left_behind_one_gets_it(tmp_path, monkeypatch, links):
    RunLock.take(tmp_path, print)
    change(tmp_path, began=1000.0)
    if not links:
        monkeypatch.setattr(os, "link", refuse_links)
    got, refused = [], []

    def take():
        try:
            got.append(RunLock.take(tmp_path, lambda line: None))
        except InputError as error:
            refused.append(error)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 7)
    assert os.listdir(tmp_path) == [LOCK]


def refuse_links(*_):
    raise PermissionError("no hard links")


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run").rmdir()
    with pytest.raises(StorageError, match=r"run cannot be used: No such file or directory\. Choose another"):
        RunLock.take(tmp_path / "run", print)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_neither_holds_nor_releases(tmp_path):
    lock = RunLock.take(tmp_path, print)
    child = os.fork()
    if not child:
        lock.release()
        os._exit(0 if not run_lock._held else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert (tmp_path / LOCK).exists()
    lock.release()


def test_a_lock_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / LOCK)
    assert read_holder(tmp_path) is None
    RunLock.take(tmp_path, print).release()
    assert not (tmp_path / LOCK).exists()
