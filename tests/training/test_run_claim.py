import signal

import pytest

from zoo.errors import InputError, Interrupted
from zoo.training.run_claim import claimed, claiming, new_folder
from zoo.training.run_folder import RunFolder
from zoo.training.run_lock import LOCK
from zoo.training.run_stage import find_stage


def test_a_claimed_folder_is_claimed_again_by_its_run_only(tmp_path):
    out = tmp_path / "deep" / "run"
    with claiming(out, print) as folder:
        assert find_stage(out) == "claimed"
        assert new_folder(folder) is folder
        with claimed(folder, print, is_new=True):
            assert (out / LOCK).exists()
        assert (out / LOCK).exists()  # until the outer one ends
        with pytest.raises(InputError, match="is in use: process"), claiming(out, print):
            pass
        assert find_stage(out) == "claimed"
        (out / "mine.txt").write_text("what the run has made")
    assert [path.name for path in out.iterdir() if path.name == LOCK] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("is_named", [True, False])
def test_a_signal_before_the_data_is_open_leaves_nothing(tmp_path, number, is_named):
    out = tmp_path / "deep" / "run" if is_named else None
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="nothing was trained, and no run is left"), claiming(out, print):
        signal.raise_signal(number)
    assert signal.getsignal(number) is before
    assert not list(tmp_path.iterdir())


def test_what_a_run_says_when_it_is_stopped_is_not_said_otherwise(tmp_path):
    with pytest.raises(Interrupted, match="everything is saved"), claiming(tmp_path / "run", print):
        raise Interrupted("stopped after 1 of 2 epochs; everything is saved.")


def fail_in(out, status):
    with claiming(out, print) as folder:
        if status is not None:
            folder.write_json("run.json", {"status": status})
        raise InputError("no such data")


def test_an_error_before_the_run_leaves_nothing_and_what_was_written_stays(tmp_path):
    for status in (None, "interrupted"):
        with pytest.raises(InputError, match="no such data"):
            fail_in(tmp_path / "run", status)
        assert (tmp_path / "run").exists() == (status is not None)


def test_a_folder_that_is_used_is_refused_before_anything_else(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match="exists and is not empty"), claiming(tmp_path, print):
        raise AssertionError("never reached")
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_folder_without_a_name_is_called_after_model_and_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = new_folder(None, RunFolder, tmp_path / "my flowers")
    assert folder.path.parent.name == "runs"
    assert "-my-flowers-" in folder.path.name
