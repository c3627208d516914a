import json

import pytest
import torch
from torch import nn

from zoo.errors import InputError
from zoo.settings.preset import Preset
from zoo.training.run_claim import claimed, create_folder
from zoo.training.run_folder import RunFolder
from zoo.training.run_stage import RECORD, START, find_stage
from zoo.training.run_start import load_start, write_preset, write_start

DATA = {"source": "/data", "classes": ["a", "b"], "digest": "0"}


def net(seed):
    torch.manual_seed(seed)
    return nn.Linear(2, 2)


@pytest.fixture
def folder(tmp_path):
    made = create_folder(tmp_path / "run", "unused")
    with claimed(made, print, is_new=True):
        yield made


def test_a_run_can_be_begun_again_from_what_was_written(folder):
    model, other = net(0), net(1)
    assert find_stage(folder.path) == "claimed"
    write_start(folder, model, Preset(epochs=3), DATA)
    assert find_stage(folder.path) == "begun"
    load_start(folder, other)
    assert torch.equal(other.weight, model.weight)
    assert folder.load_preset() == Preset(epochs=3)
    assert folder.read_json("data.json") == DATA


@pytest.mark.parametrize("written", ["preset.yaml", "config.json", "data.json"])
def test_whenever_it_is_killed_while_it_is_written_anew(folder, monkeypatch, written):
    write_start(folder, net(0), Preset(epochs=3), DATA)
    write = RunFolder.write_text

    def die(self, name, text):
        write(self, name, text)
        if name == written:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "write_text", die)
    with pytest.raises(KeyboardInterrupt):
        write_preset(folder, net(0), Preset(epochs=3, cache="off"), DATA)
    load_start(folder, net(1))
    assert folder.load_preset().epochs == 3


@pytest.mark.parametrize("name", ["preset.yaml", "config.json", "data.json", START])
def test_what_has_changed_since_is_not_begun(folder, name):
    write_start(folder, net(0), Preset(epochs=3), DATA)
    content = bytearray(folder.file(name).read_bytes())
    content[-3] ^= 1
    folder.file(name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name} has changed since the run started.*the same finetune command again"):
        load_start(folder, net(1))


def test_a_record_without_digests_begins_nothing(folder):
    write_start(folder, net(0), Preset(), DATA)
    folder.file(RECORD).write_text(json.dumps({"status": "beginning"}))
    with pytest.raises(InputError, match="has changed since the run started"):
        load_start(folder, net(1))


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": lambda step: 0.5},
        {"lr": {"fc": {"lr": 0.1, "schedule": lambda step: 0.5}, "default": 0.0}},
    ],
)
def test_a_schedule_that_is_a_function_is_written_when_its_steps_are_known(folder, options):
    preset = Preset(**options)
    write_start(folder, net(0), preset, DATA)
    assert find_stage(folder.path) == "claimed"
