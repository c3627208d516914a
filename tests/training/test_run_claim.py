import signal
from contextlib import contextmanager

import pytest

from zoo.data import stopping_at_once
from zoo.errors import InputError, Interrupted
from zoo.training.run_claim import claimed, leaving_nothing, new_folder
from zoo.training.run_folder import RunFolder
from zoo.training.run_lock import LOCK
from zoo.training.run_stage import find_stage


@contextmanager
def beginning(out):
    """Claim a folder as a new run does."""
    with stopping_at_once(), claimed(new_folder(out), print, is_new=True) as folder, leaving_nothing(folder):
        yield folder


def test_a_claimed_folder_is_claimed_once(tmp_path):
    out = tmp_path / "deep" / "run"
    with beginning(out) as folder:
        assert find_stage(out) == "claimed"
        with pytest.raises(InputError, match="is in use by process"), beginning(out):
            pass
        assert find_stage(out) == "claimed"
        folder.has_steps = True
    assert not (out / LOCK).exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_data_is_open_leaves_nothing(tmp_path, number):
    before = signal.getsignal(number)
    with (
        pytest.raises(Interrupted, match="stopped before the first step; no run folder was kept"),
        beginning(tmp_path / "a" / "run"),
    ):
        signal.raise_signal(number)
    assert signal.getsignal(number) is before
    assert not list(tmp_path.iterdir())


def fail_in(out, has_steps):
    with beginning(out) as folder:
        folder.has_steps = has_steps
        raise InputError("no such data")


@pytest.mark.parametrize("has_steps", [False, True])
def test_an_error_before_the_first_step_leaves_nothing(tmp_path, has_steps):
    with pytest.raises(InputError, match="no such data"):
        fail_in(tmp_path / "run", has_steps)
    assert (tmp_path / "run").exists() == has_steps


def test_a_folder_that_is_used_is_refused_before_anything_else(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match="exists and is not empty"), beginning(tmp_path):
        raise AssertionError("never reached")
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_folder_without_a_name_is_called_after_model_and_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = new_folder(None, RunFolder, tmp_path / "my flowers")
    assert folder.path.parent.name == "runs"
    assert "-my-flowers-" in folder.path.name
