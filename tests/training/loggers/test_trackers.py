import importlib.util
import json

import pytest
from PIL import Image

from training.loggers.contract import follow, make_facts, make_records
from zoo.errors import InputError, PresetError
from zoo.settings import Preset, check_trackers
from zoo.training.loggers import _services, trackers
from zoo.training.loggers.base import Loggers
from zoo.training.loggers.trackers import Trackers

MOMENTS = ["start", "store_init_configuration", "log", "log_images", "finish"]


class Fake:
    """A tracker of accelerate that writes down what it is told, and fails at one moment."""

    fails_at = None
    told = ()

    def __init__(self, project, **options):
        self._tell("init", project, options)
        self.run = self

    @property
    def tracker(self):
        return self

    def _tell(self, moment, *what):
        self.told.append((moment, *what))
        if self.fails_at == moment:
            raise SystemExit("no\naccount")

    def start(self):
        self._tell("start")

    def store_init_configuration(self, values):
        self._tell("store_init_configuration", values)

    def log(self, values, step):
        self._tell("log", values, step)

    def log_images(self, values, step):
        self._tell("log_images", list(values), step)

    def finish(self):
        self._tell("finish")


class Service(_services.Service):
    name = "aim"

    def options(self):
        return {"key": self.key}

    def find_key(self):
        return "17"

    def log_files(self, paths):
        self.run._tell("log_files", [path.name for path in paths])


class Second(Service):
    name = "wandb"

    def find_key(self):
        return None


@pytest.fixture
def fakes(monkeypatch):
    """Two trackers, of which the first may fail."""
    first, second = type("First", (Fake,), {"told": []}), type("Second", (Fake,), {"told": []})
    monkeypatch.setattr(_services, "LOGGER_TYPE_TO_CLASS", {"aim": first, "wandb": second})
    monkeypatch.setattr(trackers, "SERVICES", {"aim": Service, "wandb": Second})
    return first, second


def follow_run(path, **options):
    return follow(Trackers, path, make_records(), preset=Preset(epochs=2, log="aim,wandb"), **options)


def test_all_trackers_get_the_same_names(fakes, tmp_path):
    first, second = fakes
    follow_run(tmp_path / "run")
    assert first.told[2:] == second.told[2:]
    (_, project, options), _, (_, settings), *logged, (_, files), _ = first.told
    assert (project, options) == ("zoo", {"key": None})
    assert settings["epochs"] == "2"
    epochs = [(values, step) for _, values, step in logged]
    assert [step for _, step in epochs] == [1, 2]
    assert epochs[1][0] == {
        "loss": 0.6,
        "images_per_second": 10.0,
        "waiting": 0.1,
        "seconds": 1.0,
        "val_loss": 1.0,
        "top1": 0.5,
        "top5": 0.9,
        "lr/head": 0.1,
        "lr/trunk": 0.0,
    }
    assert files == []


def test_names_of_groups_are_spelt_for_every_tracker():
    record = make_records()[0] | {"lr": {"fc (no decay)": 0.1, "@norm": 0.2, "a.b/c": float("nan")}}
    assert {"lr/fc_no_decay", "lr/norm", "lr/a.b/c"} <= trackers.name_metrics(record).keys()


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_tracker_that_fails_is_told_once_and_the_others_go_on(fakes, tmp_path, moment):
    first, second = fakes
    first.fails_at = moment
    plots = tmp_path / "run" / "pictures"
    plots.mkdir(parents=True)
    Image.new("RGB", (2, 2)).save(plots / "curves.png")
    said = follow_run(tmp_path / "run")
    assert said.count("warning: ") == 1
    assert "Aim" in said
    assert ": no. The run goes on without it." in said
    assert [told[0] for told in second.told].count("log") == 2
    assert second.told[-1] == ("finish",)
    assert [told[0] for told in first.told if told[0] != "finish"][-1] == (
        "log_files" if moment == "finish" else moment
    )
    assert first.told[-1][0] == ("start" if moment == "start" else "finish")


def test_a_resumed_run_goes_on_where_it_began(fakes, tmp_path):
    first, _ = fakes
    preset = Preset(epochs=2, log=["aim"])
    records = make_records()
    follow(Trackers, tmp_path / "run", records[:1], preset=preset, status="interrupted")
    assert json.loads((tmp_path / "run/trackers.json").read_text()) == {"aim": "17"}
    assert first.told[-1] == ("finish",)
    follow(Trackers, tmp_path / "run", records, done=1, preset=preset)
    openings = [told for told in first.told if told[0] in ("init", "store_init_configuration")]
    assert [told[0] for told in openings] == ["init", "store_init_configuration", "init"]
    assert openings[-1][2] == {"key": "17"}


def test_a_run_that_fails_leaves_no_tracker_open(fakes, tmp_path):
    first, _ = fakes
    loggers = Loggers([Trackers], print)
    loggers.start(make_facts(tmp_path / "run", preset=Preset(log=["aim"])))
    loggers.close()
    loggers.close()
    assert [told[0] for told in first.told].count("finish") == 1


def test_unknown_and_missing_trackers_are_refused(monkeypatch):
    assert Preset(log="mlflow, aim").log == ["mlflow", "aim"]
    with pytest.raises(PresetError, match="Did you mean 'tensorboard'"):
        Preset(log=["tensorbord"])
    monkeypatch.setattr("zoo.settings.trackers.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"Comet and Aim are not installed\. Run: pip install comet-ml aim"):
        check_trackers(["comet_ml", "aim"])


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_reads_what_was_logged(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, preset = tmp_path / "run", Preset(epochs=2, log="tensorboard")
    follow(Trackers, run, make_records()[:1], preset=preset, status="interrupted")
    follow(Trackers, run, make_records(), done=1, preset=preset)
    found = EventAccumulator(str(run / "tensorboard"))
    found.Reload()
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [
        (1, pytest.approx(1.2)),
        (2, pytest.approx(0.6)),
    ]
    assert "lr/head" in found.Tags()["scalars"]
    assert found.Tags()["tensors"] == ["settings/text_summary"]
