import json
from types import SimpleNamespace

from training.loggers.contract import RATES, follow, make_records
from zoo.training.kept_weights import KeptWeights
from zoo.training.loggers.files import Files
from zoo.training.run_folder import RunFolder


def test_the_records_of_a_run_can_be_read_again(tmp_path):
    scores = SimpleNamespace(to_dict=lambda: {"top1": 0.5})
    kept = {"model.safetensors": KeptWeights([2], "top1", metrics={"epoch": 2, "loss": 0.25, "seconds": 1.0})}
    changes = [{"step": 1, "group": "head", "lr": 0.1}]
    result = {"evaluation": scores, "rate_changes": changes, "weights": kept}
    follow(Files, tmp_path / "run", make_records(), result=result)
    folder = RunFolder(tmp_path / "run")
    assert folder.read_metrics() == make_records()
    assert folder.read_rates() == RATES
    assert folder.read_json("evaluation.json") == {
        "top1": 0.5,
        "weights": {"model.safetensors": {"epochs": [2], "chosen_by": "top1", "moving_average": False, "loss": 0.25}},
    }
    assert folder.read_json("rate_changes.json") == changes
    assert json.loads((tmp_path / "run" / "proof.json").read_text())["moments"]


def test_metrics_are_those_of_the_run_and_not_what_a_killed_one_left(tmp_path):
    records = make_records()
    follow(Files, tmp_path / "run", records, status="interrupted")
    again = [records[0], records[1] | {"loss": 7.0}]
    follow(Files, tmp_path / "run", again, done=1)
    assert RunFolder(tmp_path / "run").read_metrics() == again
