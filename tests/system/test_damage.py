"""One flipped bit anywhere in what a run or the cache keeps: it is refused or computed anew, or changes nothing."""

import os
import random
from pathlib import Path

import pytest
import torch

import zoo
import zoo.training.run_folder
from coloured_folder import write_coloured
from zoo.errors import InputError, Interrupted, ZooError
from zoo.files.safetensors import read_tensors
from zoo.training.run import TrainingRun

NAME = "timm/test_resnet"
TINY = {"epochs": 2, "batch_size": 6, "image_size": 32, "num_workers": 0, "progress": False, "device": "cpu"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A finished run, one that was stopped after a step, and the cache of a third whose backbone is frozen."""
    place = tmp_path_factory.mktemp("damage")
    images = write_coloured(place / "images", train=2, val=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        zoo.finetune(make(), images, lr=0.05, mode="full", out=place / "finished", **TINY)
        zoo.finetune(make(), images, lr=0.05, mode="head", cache="disk", out=place / "head", **TINY)
        after = TrainingRun._after_step

        def stop(self, vote, position, loss):
            vote.request.asked = True
            return after(self, vote, position, loss)

        patch.setattr(TrainingRun, "_after_step", stop)
        with pytest.raises(Interrupted):
            zoo.finetune(make(), images, lr=0.05, mode="full", out=place / "stopped", **TINY)
    return place


def make():
    return zoo.get(NAME, num_classes=3)


def flips(folder, seed, count):
    """Flip one bit of a file, `count` times for each file of a folder, and put the file back afterwards."""
    numbers = random.Random(seed)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        for _ in range(count if whole else 0):
            damaged = bytearray(whole)
            damaged[numbers.randrange(len(whole))] ^= 1 << numbers.randrange(8)
            path.write_bytes(damaged)
            yield path
        path.write_bytes(whole)


def test_a_finished_run_gives_its_model_or_nothing(place):
    batch = torch.randn(2, 3, 32, 32)
    expected, refused = zoo.load(place / "finished")(batch), set()
    for path in flips(place / "finished", 0, 2):
        try:
            loaded = zoo.load(place / "finished")
        except ZooError:
            refused.add(path.name)
            continue
        assert torch.equal(loaded(batch), expected), path
        assert loaded.classes == ("blue", "green", "red")
    assert refused >= {"model.safetensors", "config.json"}


def test_an_interrupted_run_goes_on_as_itself_or_not_at_all(place):
    state = zoo.training.run_folder.RunFolder(place / "stopped").load_state()
    refused = set()
    for path in flips(place / "stopped", 1, 3):
        folder = zoo.training.run_folder.RunFolder(place / "stopped")
        try:
            folder.load_preset()
            found = folder.load_state()
            folder.read_json("data.json")
        except InputError:
            refused.add(path.name)
            continue
        assert path.name != "state.pt"
        assert all(torch.equal(value, found["model"][name]) for name, value in state["model"].items())
        assert folder.load_preset().seed == 0
    assert refused >= {"state.pt", "preset.yaml", "config.json", "data.json"}


def test_damaged_features_are_computed_anew(place, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    expected = read_tensors(place / "head" / "model.safetensors")
    for number, path in enumerate(flips(place / "cache" / "zoo" / "features", 2, 1)):
        options = TINY | {"progress": True}
        run = zoo.finetune(make(), place / "images", lr=0.05, mode="head", cache="disk", out=tmp_path / str(number),
                           **options)  # fmt: skip
        found = read_tensors(run.folder / "model.safetensors")
        assert all(torch.equal(value, found[name]) for name, value in expected.items()), path
        told = "1 of 1 cached feature files" in capsys.readouterr().out
        assert told is (path.suffix == ".safetensors")


def test_the_digests_are_those_of_sha256sum(place):
    lines = (Path(place) / "finished" / "SHA256SUMS").read_text().splitlines()
    assert [line[66:] for line in lines] == ["config.json", "last.safetensors", "model.safetensors"]
    assert "state.pt" not in os.listdir(place / "finished")
