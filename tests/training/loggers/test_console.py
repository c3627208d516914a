from types import SimpleNamespace

from training.loggers.contract import follow, make_records
from zoo.training.kept_weights import KeptWeights
from zoo.training.loggers.console import Console


class Scores(SimpleNamespace):
    """Scores of a run, as a task gives them."""

    def __str__(self):
        return "top-1 50.0 %"

    def rows(self):
        return [{"class": f"class{number}", "recall": "50 %"} for number in range(40)]


def test_the_result_is_printed_last_and_names_the_weights(tmp_path):
    best, last = KeptWeights([1], "top1", metrics={"top1": 0.5}), KeptWeights([2], metrics={"top1": 0.4})
    weights = {"model.safetensors": best, "last.safetensors": last}
    lines = follow(Console, tmp_path / "run", make_records(), result={"evaluation": Scores(), "weights": weights})
    assert "top-1 50.0 % (val, epoch 1, best top-1)" in lines
    assert "top-1 40.00% in epoch 2 (last.safetensors)" in lines
    assert "1 frozen tensors unchanged, checksums compared 1 times" in lines
    assert "class29" in lines
    assert "class30" not in lines
    assert str(tmp_path / "run") in lines.splitlines()[-3]


def test_a_group_whose_halves_have_one_rate_is_shown_once(tmp_path):
    rates = {"head": 0.1, "head (no decay)": 0.1, "stem": 0.01, "stem (no decay)": 0.02}
    (line,) = follow(Console, tmp_path / "run", [make_records()[0] | {"lr": rates}], status="interrupted").splitlines()
    assert line.count("head") == 1
    assert "stem (no decay)" in line


def test_an_interrupted_run_has_no_result(tmp_path):
    lines = follow(Console, tmp_path / "run", make_records()[:1], status="interrupted")
    assert "folder" not in lines
