import json
import re

import numpy as np
import pytest

from figure_checks import is_drawn
from small_run import DATA, write_run
from tools.cli import main
from zoo.training.answers import write_answers
from zoo.training.run_folder import RunFolder


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with runs of two learning rates, one of them with two seeds."""
    made = {"low-0": (0.01, 0, 0.5), "low-1": (0.01, 1, 0.7), "high": (0.1, 0, 0.9)}
    for name, (lr, seed, score) in made.items():
        run = write_run(tmp_path / name, lr=lr, seed=seed)
        run.write_json("evaluation.json", {"top1": score, "images": 1234})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(capsys, *argv):
    code = main(["compare", *argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_settings_scores_and_spread_are_told(desk, capsys):
    code, out, _ = call(capsys, "low-0", "low-1", "high")
    assert code == 0
    assert re.search(r"setting +low-0 +low-1 +high\n", out)
    assert re.search(r"\nlr +0\.01 +0\.01 +0\.1\n", out)
    assert re.search(r"\nseed +0 +1 +0\n", out)
    assert "epochs" not in out.partition("scores")[0]
    assert re.search(r"\nrun +status +epochs +top-1 +images\n", out)
    assert re.search(r"\nhigh +finished +2/2 +0\.9000 +1,234\n", out)
    assert "2 runs that differ only in their seed: low-0, low-1" in out
    assert re.search(r"\ntop-1 +0\.6000 +0\.1414\n", out)


def test_equal_runs_and_unfinished_ones_are_told(desk, capsys):
    run = write_run(desk / "again" / "low-0", lr=0.01)
    run.write_json("run.json", {"status": "interrupted"})
    run.write_text("state.pt", "")
    code, out, _ = call(capsys, "low-0", "again/low-0")
    assert code == 0
    assert "no setting differs" in out
    assert re.search(r"\nagain/low-0 +interrupted +2/2", out)
    assert "note: the scores of unfinished runs are those of their last scored epoch" in out


def test_json_says_the_same(desk, capsys):
    found = json.loads(call(capsys, "low-0", "low-1", "high", "--json")[1])
    assert found["settings"]["lr"] == {"low-0": 0.01, "low-1": 0.01, "high": 0.1}
    assert [run["scores"]["top1"] for run in found["runs"]] == [0.5, 0.7, 0.9]
    (spread,) = found["seeds"]
    assert spread["runs"] == ["low-0", "low-1"]
    assert spread["scores"]["top1"]["mean"] == pytest.approx(0.6)
    assert found["notes"] == [
        "it is not recorded which validation images these runs were scored on: low-0, low-1, high"
    ]


def test_runs_are_compared_image_by_image(desk, capsys):
    digests = {f"{number}.png": f"{number:016x}" for number in range(40)}
    for name, right, order in (("low-0", 20, 1), ("high", 32, -1)):
        run = RunFolder(desk / name)
        files = dict(list(digests.items())[::order])
        run.write_json("data.json", DATA | {"files": {"val": files}})
        true = np.zeros(40, np.int32)
        write_answers(run.path, {"true": true, "predicted": (np.arange(40)[::order] >= right).astype(np.int32)})
    code, out, _ = call(capsys, "low-0", "high", "low-1")
    assert code == 0
    assert "compared with low-0 on the same images (McNemar's exact test)" in out
    assert re.search(r"\nhigh +top-1 +\+0\.3000 +\+0\.\d+ to \+0\.\d+ +0\.00049 +0 +12 +40\n", out)
    assert "low-1 cannot be compared with low-0 image by image: low-1 keeps no answers for each image" in out
    (desk / "high/answers.safetensors").write_bytes(b"{")
    found = json.loads(call(capsys, "low-0", "high", "--json")[1])
    assert "cannot be read" in found["paired"][0]["reason"]


def test_the_curves_are_drawn(desk, capsys):
    code, out, _ = call(capsys, "low-0", "high", "--plot", "curves.png")
    assert code == 0
    assert out.endswith("plot: curves.png\n")
    assert is_drawn(desk / "curves.png")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["low-0"], "expected two different runs or more"),
        (["low-0", "./low-0"], "expected two different runs or more"),
        (["low-0", "./lo"], "there is no folder or file './lo'"),
        (["low-0", "lo"], "'lo' does not exist"),
        (["low-0", "."], "'.' is not a run folder"),
        (["low-0", "high", "--plot", "high"], "the plot is a PNG"),
    ],
)
def test_wrong_words_are_refused(desk, capsys, words, text):
    code, out, err = call(capsys, *words)
    assert (code, out) == (2, "")
    assert text in err
