import json
import os
import tarfile
from pathlib import Path

import pytest

from small_run import TINY, write_run
from zoo.training.run_lock import LOCK, RunLock
from zoo.training.run_summary import find_runs, summarize_run

ARCHIVES = Path(__file__).parents[1] / "fixtures" / "old_runs"
EPOCHS = [{"epoch": 1, "loss": 0.7, "val_loss": 0.6, "top1": 0.5}, {"epoch": 2, "loss": 0.5}]


@pytest.fixture
def run(tmp_path):
    """A finished run."""
    return write_run(tmp_path / "garden")


def interrupt(run):
    """Make a finished run one that can be resumed."""
    run.write_json("run.json", {"status": "interrupted"})
    run.write_text("state.pt", "")


def test_a_finished_run_has_the_scores_of_its_weights(run):
    run.write_json("environment.json", {"time": "2026-11-30T17:08:15+00:00"})
    run.write_metrics(EPOCHS)
    found = summarize_run(run.path)
    assert (found.status, found.problem, found.epochs, found.score) == ("finished", "", 2, ("top-1", 0.75))
    assert json.loads(json.dumps(found.to_dict())) == {
        "run": str(run.path),
        "status": "finished",
        "problem": "",
        "model": TINY,
        "task": "classification",
        "data": "/home/somebody/pictures/garden",
        "epochs": 2,
        "planned_epochs": 2,
        "scores": {"top1": 0.75, "top5": 1.0, "loss": 0.5, "images": 8},
        "started": "2026-11-30T17:08:15+00:00",
        "stopped_early": None,
    }


def test_an_unfinished_run_has_the_scores_of_its_last_scored_epoch(run):
    interrupt(run)
    run.write_metrics(EPOCHS)
    found = summarize_run(run.path)
    assert (found.status, found.problem, found.epochs) == ("interrupted", "", 2)
    assert found.scores == {"top1": 0.5, "loss": 0.6}


@pytest.mark.parametrize("archive", ["classifier", "heads", "own", "yolo_nas"])
def test_runs_of_earlier_versions_are_read(archive, tmp_path):
    with tarfile.open(ARCHIVES / f"{archive}.tar.xz") as file:
        file.extractall(tmp_path, filter="data")
    finished, interrupted = find_runs(tmp_path)
    assert [finished.status, interrupted.status] == ["finished", "interrupted"]
    assert not finished.problem + interrupted.problem
    scores = json.loads((finished.folder / "evaluation.json").read_text())
    assert finished.score[1] == scores["map" if archive == "yolo_nas" else "top1"]
    assert (finished.epochs, interrupted.epochs) == (finished.settings["epochs"], 1)
    assert interrupted.score is not None
    assert "micro_batch_size" in finished.settings
    assert "chunk_size" not in finished.settings


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("config.json", None, "config.json is missing"),
        ("config.json", "{", "config.json cannot be read: Expecting property name"),
        ("config.json", '{"task": ["x"]}', "config.json names the unknown task ['x']"),
        ("data.json", "[]", "data.json cannot be read: expected a JSON object, got list"),
        ("data.json", '{"source": 3}', "data.json cannot be read: source: Input should be a valid string"),
        ("metrics.jsonl", None, "metrics.jsonl is missing"),
        ("metrics.jsonl", '{"epoch": 1}\n{"ep', "metrics.jsonl cannot be read: Unterminated string"),
        ("preset.yaml", "epochs: [", "preset.yaml cannot be read: line"),
        ("preset.yaml", "", "preset.yaml cannot be read: it is no preset"),
        ("evaluation.json", "\xff", "evaluation.json cannot be read"),
        ("model.safetensors", None, "model.safetensors is missing"),
        ("run.json", None, "run.json is missing"),
        ("run.json", "{", "run.json cannot be read: Expecting property name"),
        ("run.json", '{"status": "interrupted"}', "state.pt is missing, so the run cannot be resumed"),
    ],
)
def test_what_is_damaged_is_told(run, name, text, problem):
    run.file(name).unlink()
    if text is not None:
        run.file(name).write_bytes(text.encode("latin1"))
    found = summarize_run(run.path)
    assert found.status == "damaged"
    assert found.problem.startswith(problem)
    assert ";" not in found.problem
    json.dumps(found.to_dict())


@pytest.mark.parametrize("content", ['{"top1": NaN, "loss": "high", "images": true}', '{"top1": null}'])
def test_what_is_no_number_is_no_score(run, content):
    run.write_text("evaluation.json", content)
    assert summarize_run(run.path).scores == {}
    assert summarize_run(run.path).score is None


def test_a_run_that_a_process_works_in_is_running(run):
    interrupt(run)
    lock = RunLock.take(run.path, print)
    assert summarize_run(run.path).status == "running"
    lock.release()
    assert summarize_run(run.path).status == "interrupted"


def test_a_process_of_another_machine_is_told(run):
    interrupt(run)
    holder = {"host": "elsewhere", "pid": 3, "began": 1.0, "namespace": "", "since": "noon"}
    run.write_json(LOCK, holder)
    found = summarize_run(run.path)
    assert found.status == "interrupted"
    assert "may still be running: process 3 on elsewhere since noon" in found.problem


def test_runs_are_found_wherever_they_are_and_once(run, tmp_path):
    write_run(tmp_path / "more" / "deep" / "cells")
    (tmp_path / "claimed").mkdir()
    (tmp_path / "claimed" / "run.json").write_text('{"status": "beginning"}')
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "preset.yaml").write_text("epochs: 3")
    (tmp_path / "more" / "around").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / ".hidden").mkdir()
    os.rename(write_run(tmp_path / "old").path, tmp_path / ".hidden" / "old")
    found = {str(one.folder.relative_to(tmp_path)): one.status for one in find_runs(tmp_path)}
    assert found == {"claimed": "not started", "garden": "finished", "more/deep/cells": "finished"}
    assert [one.folder for one in find_runs(run.path)] == [run.path]
