import pytest

import zoo
from coloured_folder import write_coloured
from training.loggers.contract import make_facts, make_records, make_result
from zoo.training.loggers.base import Logger, Loggers
from zoo.training.position import Position

TINY = {"epochs": 2, "batch_size": 4, "image_size": 32, "num_workers": 0, "device": "cpu"}


class Listing(Logger):
    """Keeps what it is told."""

    def __init__(self):
        self.told = []
        made.append(self)

    def start(self, facts):
        self.told.append(("start", facts.steps_per_epoch))

    def epoch(self, record):
        self.told.append(("epoch", record["epoch"]))

    def finish(self, result):
        self.told.append(("finish", result.status))


made: list[Listing] = []


@pytest.fixture(autouse=True)
def _forget():
    made.clear()


def broken(moment):
    """Return a logger that fails at one moment."""

    def fail(self, *values):
        self.told.append(moment)
        raise RuntimeError("the server is gone\nmore")

    return type("Broken", (Listing,), {moment: fail, "__doc__": "Fails."})


def run(kinds, path):
    said = []
    loggers = Loggers(kinds, said.append)
    loggers.start(make_facts(path))
    for record in make_records():
        loggers.step(Position(step=record["step"]), 0.5)
        loggers.epoch(record)
    for required in (True, False):
        loggers.finish(make_result(make_records()), required=required)
    return said


@pytest.mark.parametrize("moment", ["start", "step", "epoch", "finish"])
def test_a_logger_that_fails_is_dropped_and_the_others_go_on(tmp_path, moment):
    said = run([broken(moment), Listing], tmp_path / "run")
    assert said == ["note: logger Broken failed and is switched off: RuntimeError: the server is gone"]
    failed, other = made
    assert failed.told.count(moment) == 1
    assert other.told == [("start", 2), ("epoch", 1), ("epoch", 2), ("finish", "finished")]


def test_one_that_cannot_be_made_is_dropped_too(tmp_path):
    class Unready(Listing):
        @classmethod
        def is_enabled(cls, facts):
            raise ImportError("no module named tracker")

    assert run([Unready], tmp_path / "run") == [
        "note: logger Unready failed and is switched off: ImportError: no module named tracker"
    ]


def test_a_required_one_ends_the_run_and_finishes_before_the_others(tmp_path):
    kind = broken("epoch")
    kind.is_required = True
    with pytest.raises(RuntimeError, match="the server is gone"):
        run([kind], tmp_path / "run")
    made.clear()
    order = []
    first = type("First", (Listing,), {"finish": lambda self, result: order.append("other")})
    needed = {"finish": lambda self, result: order.append("required"), "is_required": True}
    run([first, type("Needed", (Listing,), needed)], tmp_path / "second")
    assert order == ["required", "other"]


def test_one_that_is_not_enabled_is_told_nothing(tmp_path):
    class OptIn(Listing):
        @classmethod
        def is_enabled(cls, facts):
            return facts.preset.epochs > 100

    assert run([OptIn], tmp_path / "run") == []
    assert made == []


def test_a_run_goes_on_without_a_logger_that_fails(tmp_path, monkeypatch, capsys):
    images = write_coloured(tmp_path / "images", train=6, val=3)
    from zoo.training.loggers.base import find_loggers

    kinds = [broken("epoch"), Listing, *find_loggers()]
    monkeypatch.setattr("zoo.training.run.find_loggers", lambda: kinds)
    model = zoo.get("timm/test_resnet", num_classes=3)
    done = zoo.finetune(model, images, lr=0.05, out=tmp_path / "run", **TINY)
    assert "logger Broken failed and is switched off" in capsys.readouterr().out
    assert [record["epoch"] for record in done.metrics] == [1, 2]
    assert made[1].told[1:] == [("epoch", 1), ("epoch", 2), ("finish", "finished")]
