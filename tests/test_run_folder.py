"""The folder of a run: its making, its files, the state in it; models in it are in `test_checkpoint.py`."""

import json
import os
import pickle
from collections import OrderedDict
from importlib.metadata import version

import pytest
import torch

from zoo import checkpoint
from zoo.checkpoint import RunFolder, describe_environment
from zoo.errors import InputError


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run", "unused")


# ---- folders


def test_a_new_folder_is_made_with_its_parents(tmp_path):
    folder = RunFolder.create(tmp_path / "a" / "b", "unused")
    assert folder.path == tmp_path / "a" / "b"
    assert folder.path.is_dir()
    assert RunFolder.create(str(folder.path), "unused").path == folder.path  # still empty


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "file").write_text("mine")
    for wanted in (tmp_path, tmp_path / "file"):
        with pytest.raises(InputError, match=r"exists and is not empty; a run is never written over\. Choose another"):
            RunFolder.create(wanted, "unused")
    with pytest.raises(InputError, match=r"the run folder .* cannot be made: Not a directory\. Choose another"):
        RunFolder.create(tmp_path / "file" / "run", "unused")
    assert (tmp_path / "file").read_text() == "mine"


def test_default_names_get_numbers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = [RunFolder.create(None, "tiny").path.as_posix() for _ in range(3)]
    assert made == ["runs/tiny", "runs/tiny-2", "runs/tiny-3"]
    assert sorted(os.listdir("runs")) == ["tiny", "tiny-2", "tiny-3"]


@pytest.mark.parametrize("kind", ["file", "link to nothing"])
def test_a_default_folder_that_cannot_be_made(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    runs.touch() if kind == "file" else runs.symlink_to("gone")
    with pytest.raises(InputError, match=r"the run folder runs/tiny cannot be made: .*\. Pass out="):
        RunFolder.create(None, "tiny")


def test_only_runs_are_opened(tmp_path):
    with pytest.raises(InputError, match=r"gone is not a folder\. Expected the folder of a run"):
        RunFolder.open(tmp_path / "gone")
    with pytest.raises(InputError, match=r"is not a run: it has no config\.json \(there is: nothing\)"):
        RunFolder.open(tmp_path)
    for name in "ba":
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"\(there is: a, b\)"):
        RunFolder.open(tmp_path)
    (tmp_path / "config.json").touch()
    assert RunFolder.open(str(tmp_path)).path == tmp_path


# ---- files


def test_plain_values_are_read_as_they_were_written(run):
    values = {"name": "Käse", "list": [1, 2.5, None, True], "path": "x"}
    run.write_json("data.json", values)
    assert run.read_json("data.json") == values
    assert "Käse" in run.file("data.json").read_text("utf8")
    assert run.file("data.json").stat().st_mode & 0o777 == 0o644
    assert os.listdir(run.path) == ["data.json"]


@pytest.mark.parametrize("broken", ["write", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(run, monkeypatch, broken):
    run.write_text("preset.yaml", "old")
    if broken == "replace":
        monkeypatch.setattr(checkpoint.os, "replace", fail)
    else:
        monkeypatch.setattr(checkpoint.os, "fdopen", lambda handle, mode: Full(handle))
    with pytest.raises(OSError, match="disk full"):
        run.write_text("preset.yaml", "new")
    assert os.listdir(run.path) == ["preset.yaml"]
    assert run.file("preset.yaml").read_text() == "old"


def fail(*_):
    raise OSError("disk full")


class Full:
    """A file on a full disk."""

    def __init__(self, handle):
        self.handle = handle

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.handle)

    write = fail


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff", b"[" * 100_000, b" " * 2000])
def test_files_that_are_not_json(run, monkeypatch, content):
    monkeypatch.setattr(checkpoint, "MAX_JSON_BYTES", 1000 if content == b" " * 2000 else 10**6)
    if content is not None:
        run.file("data.json").write_bytes(content)
    with pytest.raises(InputError, match=r"data\.json cannot be read: .*\. It is part of every run"):
        run.read_json("data.json")


def test_metrics_and_rates(run):
    assert run.read_metrics() == []
    records = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 1 / 3}]
    run.write_metrics(records)
    assert run.read_metrics() == records
    run.write_rates({"fc": [0.1, 1 / 3], "a, b": [0.0, 0.0]})
    assert run.file("rates.csv").read_text() == f'step,"fc","a, b"\n0,0.1,0.0\n1,{1 / 3!r},0.0\n'
    assert run.pictures.is_dir()
    assert run.pictures == run.path / "pictures"


# ---- the state of an unfinished run


def test_a_state_is_read_as_it_was_saved(run):
    state = {"model": {"a": torch.arange(3)}, "position": {"epoch": 2}, "names": OrderedDict(a=(1, "x", None))}
    run.save_state(state)
    loaded = run.load_state()
    assert torch.equal(loaded.pop("model")["a"], torch.arange(3))
    assert loaded == {key: state[key] for key in ("position", "names")}
    run.drop_state()
    run.drop_state()
    with pytest.raises(InputError, match=r"has no state\.pt: the run is finished, or never began\. zoo.load gives"):
        run.load_state()


class Evil:
    def __reduce__(self):
        return os.mkdir, (os.environ["EVIL"],)


@pytest.mark.parametrize("kind", ["torch", "pickle", "list", "empty", "damaged"])
def test_a_state_that_is_none_is_refused_and_not_run(run, monkeypatch, tmp_path, kind):
    monkeypatch.setenv("EVIL", str(tmp_path / "evil"))
    path = run.file("state.pt")
    if kind in ("torch", "list"):
        torch.save({"position": Evil()} if kind == "torch" else [1, 2], path)
    else:
        path.write_bytes({"pickle": pickle.dumps(Evil(), 2), "empty": b"", "damaged": b"PK\x03\x04junk"}[kind])
    with pytest.raises(InputError, match=r"state\.pt cannot be read .*tensors and plain values.* begin a new one\.$"):
        run.load_state()
    assert not (tmp_path / "evil").exists()
    if kind == "pickle":  # it would have worked
        pickle.loads(path.read_bytes())
        assert (tmp_path / "evil").is_dir()


def test_the_environment_is_told_in_plain_values():
    facts = describe_environment("cpu")
    assert json.loads(json.dumps(facts)) == facts
    assert facts["device"] == "cpu"
    assert facts["versions"]["torch"] == version("torch")
