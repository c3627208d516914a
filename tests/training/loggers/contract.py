"""What every logger has to do, whatever it writes; `test_contract` asks it of each that the folder holds."""

from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console as RichConsole

from zoo.progress import Progress
from zoo.settings.preset import Preset
from zoo.tasks.base import task_of
from zoo.training.loggers.base import Logger, Loggers, RunFacts, RunResult
from zoo.training.position import Position
from zoo.training.run_claim import create_folder
from zoo.training.run_folder import RunFolder

RATES = {"head": [0.01, 0.1, 0.05, 0.0], "trunk": [0.0, 0.0, 0.0, 0.0]}


def make_records(*, scored: bool = True) -> list[dict[str, Any]]:
    """Return records of two epochs, as a run makes them."""
    scores = {"val_loss": 1.0, "top1": 0.5, "top5": 0.9} if scored else {}
    known = {"epochs": 2, "lr": {"head": 0.1, "trunk": 0.0}, "images_per_second": 10.0, "waiting": 0.1}
    known |= {"seconds": 1.0, "seconds_left": 1.0} | scores
    return [{"epoch": epoch, "step": 2 * epoch, "loss": 1.2 / epoch, **known} for epoch in (1, 2)]


def make_facts(path: Path, output: StringIO | None = None, **options: Any) -> RunFacts:
    """Return what a run of two epochs says when it starts, in a folder that is made if need be."""
    folder = RunFolder(path) if path.is_dir() else create_folder(path, "run")
    show = Progress(console=RichConsole(file=output or StringIO(), width=200))
    known = {"preset": Preset(epochs=2), "plan": None, "task": task_of("classification"), "steps_per_epoch": 2}
    return RunFacts(**known | {"folder": folder, "show": show} | options)


def make_result(records: list[dict[str, Any]], status: Any = "finished", **options: Any) -> RunResult:
    """Return what such a run has led to."""
    proof = {"digests": {"backbone.weight": "1"}, "moments": [{"when": "now", "sha256": "1"}]}
    return RunResult(status, records, RATES, **{"proof": proof} | options)


def follow(kind: type[Logger], path: Path, records: list[dict[str, Any]], *, done: int = 0, **options: Any) -> str:
    """Let a logger follow a run of two epochs, of which some are done; return what was printed."""
    output, grown, said = StringIO(), records[:done], []
    status = options.pop("status", "finished")
    result_options = options.pop("result", {})
    loggers = Loggers([kind], said.append)
    loggers.start(make_facts(path, output, records=grown, **options))
    for record in records[done:]:
        for loss in (None, record["loss"]):
            loggers.step(Position(epoch=record["epoch"] - 1, step=record["step"] - 1, images=4, seconds=0.5), loss)
        grown.append(record)
        loggers.epoch(record)
    for required in (True, False):
        loggers.finish(make_result(grown, status, **result_options), required=required)
    assert said == []
    return output.getvalue()


class LoggerContract:
    """Checks of a logger; `kind` is its class, as a fixture."""

    def test_it_follows_a_run(self, kind: type[Logger], tmp_path: Path) -> None:
        records = make_records()
        follow(kind, tmp_path / "run", records)
        assert records == make_records()
        assert RATES["head"] == [0.01, 0.1, 0.05, 0.0]

    def test_it_follows_a_run_without_scores(self, kind: type[Logger], tmp_path: Path) -> None:
        follow(kind, tmp_path / "run", make_records(scored=False))

    def test_it_follows_a_run_that_is_resumed(self, kind: type[Logger], tmp_path: Path) -> None:
        records, straight, cut = make_records(), tmp_path / "straight", tmp_path / "cut"
        follow(kind, cut, records[:1], status="interrupted")
        follow(kind, cut, records, done=1)
        follow(kind, straight, records)
        names = [{file.relative_to(root) for file in root.rglob("*")} for root in (straight, cut)]
        assert names[0] == names[1]

    def test_it_follows_a_run_that_ends_before_its_first_epoch(self, kind: type[Logger], tmp_path: Path) -> None:
        follow(kind, tmp_path / "run", [], status="interrupted")

    def test_it_says_what_it_does(self, kind: type[Logger]) -> None:
        assert issubclass(kind, Logger)
        assert kind.__doc__ != Logger.__doc__
        assert kind.__doc__
        assert isinstance(kind.order, int)
