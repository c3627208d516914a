import json
import subprocess
import sys

import pytest

from small_run import write_run
from tools.cli import main

TIMES = {"best": "2026-11-29T10:00:00+00:00", "plain": "2026-11-30T10:00:00+00:00"}


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with the folder `runs`, in which to work."""
    for name, score in {"best": 0.9, "plain": 0.25}.items():
        run = write_run(tmp_path / "runs" / name)
        run.write_json("evaluation.json", {"top1": score})
        run.write_json("environment.json", {"time": TIMES[name]})
    write_run(tmp_path / "runs" / "broken").file("config.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(capsys, *argv):
    code = main(["runs", *argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def listed(out):
    """The rows of the runs that are not damaged."""
    return [line.split()[0] for line in out.splitlines() if line.startswith("runs/") and "broken" not in line]


def test_the_table_has_every_run_and_says_what_is_damaged(desk, capsys):
    code, out, _ = call(capsys)
    assert code == 0
    row = next(line for line in out.splitlines() if line.startswith("runs/best"))
    assert row.split()[1:8] == ["timm/test_resnet", "garden", "2/2", "finished", "top-1", "90.0", "%"]
    assert "  damaged  " in out
    assert "\nruns/broken: config.json cannot be read: Expecting" in out
    assert listed(out) == ["runs/plain", "runs/best"]


@pytest.mark.parametrize("column", ["run", "model", "data", "epochs", "status", "score", "started"])
def test_the_runs_are_sorted_by_any_column(desk, capsys, column):
    code, out, _ = call(capsys, "--sort", column)
    assert code == 0
    assert listed(out) == (["runs/plain", "runs/best"] if column == "started" else ["runs/best", "runs/plain"])


def test_scores_of_different_tasks_are_not_mixed(desk, capsys):
    run = write_run(desk / "runs" / "cells")
    run.write_json("config.json", run.read_json("config.json") | {"task": "detection"})
    run.write_json("evaluation.json", {"map": 0.5})
    out = call(capsys, "--sort", "score")[1]
    assert listed(out) == ["runs/best", "runs/plain", "runs/cells"]
    assert "mAP 50.0 %" in out


def test_json_has_paths_scores_and_problems(desk, capsys):
    found = {run["run"]: run for run in json.loads(call(capsys, "runs", "--json")[1])}
    assert found["runs/best"]["scores"] == {"top1": 0.9}
    assert found["runs/broken"]["status"] == "damaged"
    assert found["runs/broken"]["problem"]


def test_a_run_that_stopped_early_is_marked(desk, capsys):
    run = write_run(desk / "runs" / "plain-2", epochs=9)
    run.write_json("run.json", {"status": "finished", "stopped_early": "top1 has not improved for 3 evaluations"})
    assert "2/9 (stopped early)" in call(capsys)[1]
    found = {run["run"]: run for run in json.loads(call(capsys, "runs", "--json")[1])}
    assert found["runs/plain-2"]["stopped_early"] == "top1 has not improved for 3 evaluations"
    assert found["runs/best"]["stopped_early"] is None


def test_no_runs_are_no_error_and_no_folder_is_one(desk, capsys):
    (desk / "empty").mkdir()
    assert call(capsys, "empty")[:2] == (0, "no runs in empty or below it\n")
    assert json.loads(call(capsys, "empty", "--json")[1]) == []
    code, _, err = call(capsys, "nowhere")
    assert code == 2
    assert "there is no folder 'nowhere'" in err
    assert "unknown column 'scor'. Did you mean 'score'?" in call(capsys, "--sort", "scor")[2]


def test_the_list_needs_no_framework(desk):
    code = "import sys; from zoo.tools.cli import main; main(['runs']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "runs/best" in done.stdout
    assert done.returncode == 0, done.stderr
