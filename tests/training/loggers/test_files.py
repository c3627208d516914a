import json
from types import SimpleNamespace

from training.loggers.contract import RATES, follow, make_records
from zoo.training.loggers.files import Files
from zoo.training.run_folder import RunFolder


def test_the_records_of_a_run_can_be_read_again(tmp_path):
    scores = SimpleNamespace(to_dict=lambda: {"top1": 0.5})
    changes = [{"step": 1, "group": "head", "lr": 0.1}]
    follow(Files, tmp_path / "run", make_records(), result={"evaluation": scores, "rate_changes": changes})
    folder = RunFolder(tmp_path / "run")
    assert folder.read_metrics() == make_records()
    assert folder.read_rates() == RATES
    assert folder.read_json("evaluation.json") == {"top1": 0.5}
    assert folder.read_json("rate_changes.json") == changes
    assert json.loads((tmp_path / "run" / "proof.json").read_text())["moments"]


def test_metrics_are_those_of_the_run_and_not_what_a_killed_one_left(tmp_path):
    records = make_records()
    follow(Files, tmp_path / "run", records, status="interrupted")
    again = [records[0], records[1] | {"loss": 7.0}]
    follow(Files, tmp_path / "run", again, done=1)
    assert RunFolder(tmp_path / "run").read_metrics() == again
