import os
from pathlib import Path

import pytest

from zoo.errors import WeightsError
from zoo.weights.find import find_file, names_pickle


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


def test_a_file_means_itself(tmp_path: Path) -> None:
    path = fill(tmp_path, "mine.safetensors", "model.safetensors") / "mine.safetensors"
    assert find_file(path, model="tiny") == path


def test_in_a_folder_the_usual_name_comes_first(tmp_path: Path) -> None:
    fill(tmp_path, "a.safetensors", "model.safetensors", "pytorch_model.bin")
    assert find_file(tmp_path, model="tiny") == tmp_path / "model.safetensors"


def test_in_a_folder_a_single_file_needs_no_usual_name(tmp_path: Path) -> None:
    fill(tmp_path, "mine.safetensors", "config.json", "pytorch_model.bin")
    assert find_file(tmp_path, model="tiny") == tmp_path / "mine.safetensors"


def test_two_files_are_not_guessed_between(tmp_path: Path) -> None:
    fill(tmp_path, "b.safetensors", "a.safetensors")
    with pytest.raises(WeightsError, match=r"tiny.* 2 safetensors files: a\.safetensors, b\.safetensors\. .* the"):
        find_file(tmp_path, model="tiny")


def test_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"no safetensors file\. Expected model\.safetensors, or a single safetensors file\."
    ):
        find_file(tmp_path, model="tiny")
    fill(tmp_path, "pytorch_model.bin")
    with pytest.raises(
        WeightsError, match=r"pytorch_model\.bin is a pickle, which can run arbitrary code, and is not read"
    ):
        find_file(tmp_path, model="tiny")


@pytest.mark.parametrize("name", ["a.pth", "a.PT", "a.bin", "a.pkl", "a.pth.tar", "a.ckpt"])
def test_a_pickle_is_refused_with_a_way_to_convert_it(tmp_path: Path, name: str) -> None:
    assert names_pickle(name)
    with pytest.raises(WeightsError, match=r"can run arbitrary code.* safetensors\.torch\.save_file\(torch\.load\("):
        find_file(fill(tmp_path, name) / name, model="tiny")


def test_a_reader_of_foreign_files_gets_the_one_that_is_named(tmp_path: Path) -> None:
    fill(tmp_path, "ckpt_best.pth", "ckpt_latest.pth", "a.bin")
    assert find_file(tmp_path / "ckpt_best.pth", model="tiny", foreign=True) == tmp_path / "ckpt_best.pth"
    with pytest.raises(
        WeightsError, match=r"It contains ckpt_best\.pth, ckpt_latest\.pth: pass the path of one of them"
    ):
        find_file(tmp_path, model="tiny", foreign=True)
    with pytest.raises(
        WeightsError, match=r"a\.bin is not accepted; expected a \.safetensors or \.pt or \.pth file\. Loading a"
    ):
        find_file(tmp_path / "a.bin", model="tiny", foreign=True)
    fill(tmp_path, "model.safetensors")
    assert find_file(tmp_path, model="tiny", foreign=True) == tmp_path / "model.safetensors"


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    assert not names_pickle("a.onnx")
    with pytest.raises(WeightsError, match=r"a\.onnx is not accepted; expected a \.safetensors file\.$"):
        find_file(fill(tmp_path, "a.onnx") / "a.onnx", model="tiny")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="is not a file"):
        find_file(tmp_path / "a.safetensors", model="tiny")
