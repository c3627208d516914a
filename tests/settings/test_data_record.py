import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import zoo
from coloured_folder import write_coloured
from tools.cli import main
from zoo.files.safetensors import read_tensors
from zoo.settings.data_record import contradictions, opening_options, record_data
from zoo.settings.files import load_preset
from zoo.settings.preset import Preset
from zoo.tasks import task_of

NAME = "timm/test_resnet"
OPTIONS: dict[str, Any] = {"lr": 0.05, "epochs": 1, "batch_size": 8, "image_size": 32, "cache": "off", "num_workers": 0}
OPTIONS |= {"optimizer": "SGD", "device": "cpu", "warmup_epochs": 0.0}


def opened(**options: Any) -> Any:
    return SimpleNamespace(options=options, classes=("b", "a"))


def test_a_preset_says_how_data_was_opened() -> None:
    data = opened(val_fraction=0.5, split_seed=3, skip_bad=True)
    preset = record_data(Preset(seed=1), data, by_name=False)
    assert (preset.val_fraction, preset.split_seed, preset.skip_bad, preset.classes) == (0.5, 3, True, [])
    assert opening_options(preset, task_of("detection")) == {"val_fraction": 0.5, "seed": 3, "skip_bad": True}
    assert record_data(Preset(seed=3), data, by_name=False).split_seed is None
    assert opening_options(Preset(seed=3), task_of("classification")) == {
        "val_fraction": 0.2,
        "seed": 3,
        "skip_bad": False,
        "image_root": None,
        "exclude": None,
    }
    named = record_data(Preset(), opened(classes=["b", "a"]), by_name=False)
    assert (named.classes, named.match_outputs) == (["b", "a"], False)
    assert record_data(Preset(), opened(), by_name=True).classes == ["b", "a"]


def test_what_the_preset_says_otherwise_is_told() -> None:
    data = opened(val_fraction=0.3, split_seed=0, skip_bad=False)
    assert list(contradictions(Preset(), data)) == []
    told = list(contradictions(Preset(val_fraction=0.5, skip_bad=True, classes=["a", "b"]), data))
    assert told[0] == "the preset's val_fraction (0.5) is ignored: the data was opened with 0.3"
    assert told[1].startswith("the preset's skip_bad (True) is ignored: the data was")
    assert told[2].startswith("the preset's class order")
    assert list(contradictions(Preset(val_fraction=0.5), opened())) == []  # the data has a val of its own


def train(model: Any, data: Any, out: Path, **options: Any) -> Any:
    return zoo.finetune(model, data, out=out, progress=False, **OPTIONS | options)


def repeat(run: Any, data: Path, out: Path) -> None:
    """Run the preset of a run from the command line, and compare all weights bit for bit."""
    assert main(["finetune", str(data), "--preset", str(run.folder / "preset.yaml"), "-o", str(out)]) == 0
    first, second = (dict(read_tensors(folder / "model.safetensors")) for folder in (run.folder, out))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert zoo.load(out).classes == run.model.classes


def test_every_way_to_make_a_model_is_repeated_from_the_command_line(tmp_path: Path, monkeypatch: Any) -> None:
    data = write_coloured(tmp_path / "data", train=4, val=2)
    monkeypatch.chdir(tmp_path)
    first = train(zoo.get(NAME, num_classes=3, seed=5), data, tmp_path / "first")
    ways = {
        "random": (first, False),
        "loaded": (train(zoo.load("first"), data, tmp_path / "loaded"), str(tmp_path / "first")),
        "trained": (train(first.model, data, tmp_path / "trained"), str(tmp_path / "first")),
        "folder": (train(zoo.get("./first"), data, tmp_path / "folder"), str(tmp_path / "first")),
        "pretrained": (
            train(zoo.get(NAME, pretrained="first"), data, tmp_path / "pretrained"),
            str(tmp_path / "first"),
        ),
        "in order": (train(zoo.get(NAME, classes=["red", "blue", "green"]), data, tmp_path / "ordered"), False),
    }
    for name, (run, source) in ways.items():
        preset = load_preset(run.folder / "preset.yaml")
        assert preset.pretrained == source, name
        assert (preset.pretrained_sha256 is not None) == isinstance(source, str)
        repeat(run, data, tmp_path / f"{name} again")


def test_a_run_that_begins_with_some_outputs_is_repeated(tmp_path: Path) -> None:
    data = write_coloured(tmp_path / "data", train=4, val=2)
    first = train(zoo.get(NAME, num_classes=3), data, tmp_path / "first")
    for split in ("train", "val"):
        shutil.move(data / split / "red", data / split / "amber")
    run = train(zoo.load(first.folder), data, tmp_path / "second")
    assert run.model.classes == ("blue", "green", "amber")
    repeat(run, data, tmp_path / "again")


def test_other_weights_at_the_same_place_are_refused(tmp_path: Path, capsys: Any) -> None:
    data = write_coloured(tmp_path / "data", train=4, val=2)
    first = train(zoo.get(NAME, num_classes=3), data, tmp_path / "first")
    run = train(zoo.load(first.folder), data, tmp_path / "second")
    shutil.rmtree(first.folder)
    train(zoo.get(NAME, num_classes=3, seed=1), data, first.folder)
    arguments = ["finetune", str(data), "--preset", str(run.folder / "preset.yaml"), "-o", str(tmp_path / "third")]
    assert main(arguments) == 2
    assert "differ from those of the preset: their SHA-256 is" in capsys.readouterr().err
    assert not (tmp_path / "third").exists()


def test_a_split_of_ones_own_is_repeated_and_resumed(tmp_path: Path) -> None:
    data = write_coloured(tmp_path / "data", train=6) / "train"
    run = train(zoo.get(NAME, num_classes=3), zoo.open_data(data, val_fraction=0.5, seed=3), tmp_path / "run")
    assert (run.preset.val_fraction, run.preset.split_seed, run.preset.seed) == (0.5, 3, 0)
    repeat(run, data, tmp_path / "again")

    class Stop(zoo.Callback):
        def on_step_end(self, run: Any) -> None:
            raise KeyboardInterrupt

    opened = zoo.open_data(data, val_fraction=0.5, seed=3)
    with pytest.raises(KeyboardInterrupt):
        train(zoo.get(NAME, num_classes=3), opened, tmp_path / "stopped", callbacks=Stop())
    resumed = zoo.resume(tmp_path / "stopped", progress=False)
    assert resumed.evaluation.images == run.evaluation.images == 9
