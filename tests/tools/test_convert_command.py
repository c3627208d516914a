import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner, Result

import zoo
from tools.convert_command import convert
from yolo_nas_fill import fill
from zoo.data.letterbox import Letterbox
from zoo.errors import InputError, WeightsError, ZooError
from zoo.files.safetensors import sha256_file
from zoo.models import registry
from zoo.models.catalog import find_entry
from zoo.tasks.detection.postprocess import Postprocess

STEPS = [
    "ReverseImageChannels",
    {"DetectionLongestMaxSizeRescale": {"output_shape": [320, 320]}},
    {"DetectionBottomRightPadding": {"output_shape": [320, 320], "pad_value": 114}},
    "StandardizeImage",
    {"ImagePermute": {"permutation": [2, 0, 1]}},
]
PROCESSING = {
    "class_names": ["ant", "bee", "cow"],
    "conf": 0.5,
    "iou": 0.65,
    "image_processor": {"ComposeProcessing": {"processings": STEPS}},
}

pytestmark = pytest.mark.usefixtures("small_detector")

app = typer.Typer()
app.command()(convert)


@functools.cache
def state() -> dict[str, torch.Tensor]:
    with torch.inference_mode(False):
        return dict(fill(zoo.get("yolo_nas_s", num_classes=3)).state_dict())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ckpt_best.pth"
    torch.save({"ema_net": state(), "processing_params": PROCESSING}, path)
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def output(*arguments: str | Path) -> list[str]:
    result = run(*arguments)
    assert result.exit_code == 0, result.output or result.exception
    return result.stdout.splitlines()


def error(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert isinstance(result.exception, ZooError), result.output
    return str(result.exception)


def same(network: Any) -> bool:
    tensors = network.state_dict()
    return list(tensors) == list(state()) and all(torch.equal(tensors[name], state()[name]) for name in tensors)


def test_the_folder_is_a_model_as_any_other(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    lines = output(file, "-o", folder)
    digest = sha256_file(file)
    assert lines == [
        f"921 tensors from {file}, sha256 {digest[:12]}, not pinned",
        "licence: not stated",
        "note: weights taken from ema_net",
        "classes: 3 (ant, bee, cow)",
        "images: BGR, fitted into 320 x 320 of 320 x 320 px, top-left, padded with 114",
        "boxes: confidence 0.5, IoU 0.65",
        f"wrote {folder}. Use it: zoo finetune yolo_nas_s DATA --weights {folder}",
    ]
    assert sorted(path.name for path in folder.iterdir()) == ["SHA256SUMS", "config.json", "model.safetensors"]
    for network in (zoo.load(folder), zoo.get("yolo_nas_s", pretrained=folder)):
        assert same(network)
        assert network.classes == ("ant", "bee", "cow")
        assert network.preprocess == Letterbox(
            canvas_size=(320, 320), content_size=(320, 320), position="top-left", channels="bgr"
        )
        assert network.postprocess == Postprocess(conf=0.5, iou=0.65)
        assert network.licence.weights == "unknown"
    assert json.loads((folder / "config.json").read_text())["origin"]["sha256"] == digest
    assert zoo.load(folder).config["origin"]["sha256"] == sha256_file(folder / "model.safetensors")


def test_names_and_licence_may_be_given(file: Path, tmp_path: Path) -> None:
    options = ["--classes", "x, y,z", "--licence", "Apache-2.0", "--model", "yolo-nas-s"]
    lines = output(file, "-o", tmp_path / "out", *options)
    assert "classes: 3 (x, y, z)" in lines
    assert "licence: apache-2.0" in lines
    network = zoo.get("yolo_nas_s", pretrained=tmp_path / "out", commercial=True)
    assert same(network)
    assert network.classes == ("x", "y", "z")


def test_a_checkpoint_whose_steps_are_unknown_gives_its_weights_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.pth"
    torch.save({"net": state(), "processing_params": PROCESSING | {"image_processor": "Strange"}}, file)
    text = error(file, "-o", tmp_path / "out")
    assert "processing_params: unsupported step Strange" in text
    assert text.endswith(f"zoo convert {file} -o FOLDER --weights-only.")
    assert not (tmp_path / "out").exists()
    assert "classes: 3 (0, 1, 2)" in output(file, "-o", tmp_path / "out", "--weights-only")
    assert zoo.load(tmp_path / "out").preprocess == Letterbox()


def test_nothing_is_written_over(file: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_bytes(b"")
    assert "exists and is not empty" in error(file, "-o", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--classes", "a,b"], "--classes has 2 names; expected 3 different ones, with commas between"),
        (["--classes", "a,b,a"], "--classes has 3 names; expected 3 different ones"),
        (["--classes", "a,b,"], "--classes has 3 names; expected 3 different ones"),
        (["--model", "resnet18"], "resnet18 takes no checkpoints of super-gradients. Expected a YOLO-NAS."),
        (["--model", "yolo_nas_m"], "these weights are for yolo_nas_s, not for yolo_nas_m"),
        (["--model", "yolo_nas_x"], "unknown model 'yolo_nas_x'"),
    ],
)
def test_wrong_options(file: Path, tmp_path: Path, options: list[str], text: str) -> None:
    assert text in error(file, "-o", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_wrong_files(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "missing.pth is not there; expected " in error(tmp_path / "missing.pth", "-o", out)
    assert not out.exists()
    torch.save({"net": {"fc.weight": torch.zeros(2, 2)}}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"is no YOLO-NAS of a known size: its 1 tensors have other names or shapes"):
        raise run(tmp_path / "a.pth", "-o", out).exception or AssertionError
    (tmp_path / "a.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.safetensors is safetensors already\. Use it as it is: zoo finetune"):
        raise run(tmp_path / "a.safetensors", "-o", out).exception or AssertionError


def test_the_published_file_keeps_its_licence(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = find_entry("yolo_nas_s")
    weights = replace(entry.weights, sha256=sha256_file(file))  # type: ignore[type-var]
    monkeypatch.setitem(registry._ENTRIES, "yolo_nas_s", replace(entry, weights=weights))  # type: ignore[arg-type]
    assert "whose licence is licenseref-yolo-nas-non-commercial" in error(
        file, "-o", tmp_path / "out", "--licence", "mit"
    )
    output(file, "-o", tmp_path / "out")
    assert zoo.load(tmp_path / "out").licence.weights == "licenseref-yolo-nas-non-commercial"
