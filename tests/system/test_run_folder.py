"""The folder of a run: its making, its files, the state in it; models in it are in `test_checkpoint.py`."""

import json
import os
from importlib.metadata import version

import pytest
import torch

from tiny_state import make_state
from zoo.errors import InputError
from zoo.training import run_folder as checkpoint
from zoo.training.run_claim import create_folder, open_folder
from zoo.training.run_folder import RunFolder
from zoo.training.run_identity import describe_environment


@pytest.fixture
def run(tmp_path):
    return create_folder(tmp_path / "run", "unused")


# ---- folders


def test_a_new_folder_is_made_with_its_parents(tmp_path):
    folder = create_folder(tmp_path / "a" / "b", "unused")
    assert folder.path == tmp_path / "a" / "b"
    assert folder.path.is_dir()
    assert create_folder(str(folder.path), "unused").path == folder.path  # still empty


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "file").write_text("mine")
    for wanted in (tmp_path, tmp_path / "file"):
        with pytest.raises(InputError, match=r"exists and is not empty; runs are never overwritten\. Choose another"):
            create_folder(wanted, "unused")
    with pytest.raises(InputError, match=r"the run folder .*: Not a directory\. Choose another"):
        create_folder(tmp_path / "file" / "run", "unused")
    assert (tmp_path / "file").read_text() == "mine"


def test_default_names_get_numbers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = [create_folder(None, "tiny").path.as_posix() for _ in range(3)]
    assert made == ["runs/tiny", "runs/tiny-2", "runs/tiny-3"]
    assert sorted(os.listdir("runs")) == ["tiny", "tiny-2", "tiny-3"]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_default_folder_that_cannot_be_made(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    runs.touch() if kind == "file" else runs.symlink_to("gone")
    with pytest.raises(InputError, match=r"cannot create the run folder runs/tiny: .*\. Pass out="):
        create_folder(None, "tiny")


def test_only_runs_are_opened(tmp_path):
    with pytest.raises(InputError, match=r"gone'. .*Expected a run folder"):
        open_folder(tmp_path / "gone")
    with pytest.raises(InputError, match=r"is not a run folder: it has no config\.json \(it contains: nothing\)"):
        open_folder(tmp_path)
    for name in "ba":
        (tmp_path / name).touch()
    with pytest.raises(
        InputError,
        match=r"\(it contains: a, b\)",
    ):
        open_folder(tmp_path)
    (tmp_path / "config.json").touch()
    assert open_folder(str(tmp_path)).path == tmp_path


# ---- files


def test_values_rates_and_surrogates_are_read_as_they_were_written(run):
    values = {"name": "Käse", "list": [1, 2.5, None, True], "path": "x"}
    run.write_json("notes.json", values)
    assert run.read_json("notes.json") == values
    assert "Käse" in run.file("notes.json").read_text("utf8")
    assert run.file("notes.json").stat().st_mode & 0o777 == 0o644
    assert os.listdir(run.path) == ["notes.json"]
    assert run.read_metrics() == []
    records = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 1 / 3}]
    run.write_metrics(records)
    assert run.read_metrics() == records
    run.write_rates({"fc": [0.1, 1 / 3], "a, b": [0.0, 0.0]})
    assert run.file("rates.csv").read_text() == f'step,"fc","a, b"\n0,0.1,0.0\n1,{1 / 3!r},0.0\n'
    assert run.pictures.is_dir()
    assert run.pictures == run.path / "pictures"
    run.write_json("evaluation.json", {"class": "\ud800", "name": "Käse"})
    assert run.read_json("evaluation.json") == {"class": "\ud800", "name": "Käse"}


@pytest.mark.parametrize("broken", ["write", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(run, monkeypatch, broken):
    run.write_text("preset.yaml", "old")
    if broken == "replace":
        monkeypatch.setattr(os, "replace", fail)
    else:
        monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        run.write_text("preset.yaml", "new")
    assert os.listdir(run.path) == ["preset.yaml"]
    assert run.file("preset.yaml").read_text() == "old"


def fail(*_):
    raise OSError("disk full")


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff", b"[" * 100_000, b" " * 2000])
def test_files_that_are_not_json(run, monkeypatch, content):
    monkeypatch.setattr(checkpoint, "MAX_JSON_BYTES", 1000 if content == b" " * 2000 else 10**6)
    if content is not None:
        run.file("data.json").write_bytes(content)
    with pytest.raises(InputError, match=r"data\.json cannot be read: .*\. Every run"):
        run.read_json("data.json")


# ---- the state of an unfinished run


def test_a_state_is_read_as_it_was_saved(run):
    run.save_state(make_state())
    loaded = run.load_state()
    assert loaded["position"] == make_state()["position"]
    assert torch.equal(loaded["model"]["0.weight"], make_state()["model"]["0.weight"])
    run.drop_state()
    run.drop_state()
    with pytest.raises(InputError, match=r"has no state\.pt: the run is unfinished, but this file is missing"):
        run.load_state()


def test_a_state_is_of_the_files_beside_it(run):
    run.write_json("data.json", {"digest": "a"})
    run.save_state(make_state())
    run.write_json("data.json", {"digest": "b"})
    run.save_state(make_state())  # by the run itself, which began with the first
    with pytest.raises(InputError, match=r'data\.json: digest was "a" and is now "b"'):
        RunFolder(run.path).load_state()


def test_the_environment_is_told_in_plain_values():
    facts = describe_environment("cpu")
    assert json.loads(json.dumps(facts)) == facts
    assert facts["device"] == "cpu"
    assert facts["versions"]["torch"] == version("torch")
