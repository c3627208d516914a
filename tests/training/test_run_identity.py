import json
from pathlib import Path

import pytest

from zoo.errors import InputError
from zoo.settings.preset import Preset
from zoo.training.run_identity import check_identity, read_identity, tell_versions

CONFIG = {"classes": ["ant", "bee"], "preprocess": {"mean": [0.5, 0.25]}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "preset.yaml").write_text(Preset(seed=3, batch_size=8).to_yaml(full=True))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "data.json").write_text(json.dumps({"digest": "d", "classes": ["ant", "bee"], "files": {"a": "1"}}))
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))


def test_a_folder_that_is_as_it_was(folder: Path) -> None:
    identity = read_identity(folder)
    check_identity(folder, identity)
    edit(folder / "preset.yaml", "seed: 3\n", "seed: 3  # mine\n")
    edit(folder / "preset.yaml", "num_workers: null", "num_workers: 7")
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=3))
    edit(folder / "data.json", '"1"', '"2"')
    check_identity(folder, identity)


@pytest.mark.parametrize(
    ("name", "old", "new", "text"),
    [
        ("preset.yaml", "seed: 3", "seed: 4", "preset.yaml: seed was 3 and is now 4"),
        ("preset.yaml", "batch_size: 8\n", "", "preset.yaml: batch_size was 8 and is now 32"),
        ("preset.yaml", "label_smoothing: 0.0", "label_smoothing: 0.5", "label_smoothing was 0.0 and is now 0.5"),
        ("preset.yaml", "ema_decay: null", "ema_decay: 0.9", "ema_decay was null and is now 0.9"),
        ("config.json", "0.25", "0.75", r"config.json: preprocess.mean\[1\] was 0.25 and is now 0.75"),
        ("config.json", '"bee"', '"wasp"', r'classes\[1\] was "bee" and is now "wasp"'),
        ("config.json", '"bee"]', '"bee", "cat"]', r'classes was \["ant", "bee"\] and is now \["ant", "bee", "cat"\]'),
        ("data.json", '"d"', '"e"', 'data.json: digest was "d" and is now "e"'),
        ("data.json", '"digest": "d", ', "", r'digest was "d" and is now missing\nUndo the'),
        ("config.json", "0.25", "true", r"mean\[1\] was 0.25 and is now true"),
    ],
)
def test_what_was_edited_is_told_field_by_field(folder: Path, name: str, old: str, new: str, text: str) -> None:
    identity = read_identity(folder)
    edit(folder / name, old, new)
    with pytest.raises(InputError, match=text) as caught:
        check_identity(folder, identity)
    assert "Undo the changes and resume; or start a new run." in str(caught.value)
    (folder / "model.safetensors").touch()
    with pytest.raises(InputError, match="or start a new run from its weights: --weights"):
        check_identity(folder, identity)


def test_a_field_that_is_younger_than_the_run_has_its_default(folder: Path) -> None:
    identity = read_identity(folder)
    del identity["files"]["preset.yaml"]["class_weights"]
    check_identity(folder, identity)
    edit(folder / "preset.yaml", "class_weights: none", "class_weights: balanced")
    with pytest.raises(InputError, match='class_weights was "none" and is now "balanced"'):
        check_identity(folder, identity)


@pytest.mark.parametrize("text", ["[]", "null", "{", "", '{"a": 1, "a": 2}', "[" * 100_000])
def test_a_file_that_cannot_be_read_is_told(folder: Path, text: str) -> None:
    identity = read_identity(folder)
    (folder / "data.json").write_text(text)
    with pytest.raises(InputError, match=r"data\.json cannot be read: "):
        check_identity(folder, identity)


@pytest.mark.parametrize("identity", [None, {}, {"files": 1}, {"files": {"preset.yaml": 3}}])
def test_a_state_that_does_not_say_what_it_belongs_to(folder: Path, identity: object) -> None:
    with pytest.raises(InputError, match="does not record which run it belongs to"):
        check_identity(folder, identity)


def test_other_versions_are_noted(folder: Path) -> None:
    identity = read_identity(folder)
    assert tell_versions(identity) is None
    identity["versions"]["torch"] = "1.0"
    assert "the run started with torch 1.0 (now" in str(tell_versions(identity))
    assert tell_versions({}) is None
