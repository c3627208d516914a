import json

import numpy as np
import pytest
from PIL import Image

import zoo
from tools.cli import main
from zoo.checkpoint import RunFolder
from zoo.frames import read_frames, write_video
from zoo.letterbox import Letterbox


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A run's folder; the scores of its model begin at 0.01, so all of them are above a smaller threshold."""
    model = zoo.get("yolo_nas_s", classes=("cat", "dog"))
    model.preprocess = Letterbox().resized(64)
    folder = RunFolder.create(tmp_path_factory.mktemp("runs") / "detector", "run")
    folder.save_model(model, model.state_dict())
    return folder.path


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def test_pictures_are_drawn_and_what_was_found_is_written_down(detector, photos, tmp_path, capsys):
    out = tmp_path / "found"
    assert main(["predict", str(detector), str(photos), "-o", str(out), "--conf", "0.001", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[:2]] == [str(photos / "0.png"), str(photos / "1.png")]
    assert {path.name for path in out.iterdir()} == {"0.png", "1.png", "predictions.json"}
    records = json.loads((out / "predictions.json").read_text())
    results = zoo.load(detector).predict(photos, conf=0.001)
    assert [record["detections"] for record in records] == [result.to_dict()["detections"] for result in results]
    assert len(records[0]["detections"]) > 0
    drawn, plain = (Image.open(folder / "0.png").convert("RGB").tobytes() for folder in (out, photos))
    assert drawn != plain


def test_the_answers_as_data(detector, photos, capsys):
    assert main(["predict", str(detector), str(photos / "1.png"), "--json", "--conf", "0.9", "--device", "cpu"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record == {"source": str(photos / "1.png"), "height": 40, "width": 60, "detections": []}


def test_a_video_becomes_a_video(detector, tmp_path, capsys):
    frames = [Image.new("RGB", (64, 48), (40 * number, 0, 0)) for number in range(5)]
    video = write_video(tmp_path / "clip.mp4", ((frame, number / 10) for number, frame in enumerate(frames)))
    assert main(["predict", str(detector), str(video), "-o", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert len(list(read_frames(tmp_path / "out" / "clip.mp4"))) == 5
    records = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [record["frame"] for record in records] == [0, 1, 2, 3, 4]
    assert "frame 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--top", "2"], "--top has no meaning for a model of detection"),
        (["--conf", "2"], "conf is 2.0; expected a number from 0 to 1"),
        (["--image-size", "100"], "32"),
    ],
)
def test_wrong_options_are_told(detector, photos, capsys, options, message):
    assert main(["predict", str(detector), str(photos), *options, "--device", "cpu"]) == 2
    assert message in capsys.readouterr().err


def test_a_file_of_weights_is_not_a_model_yet(tmp_path, capsys):
    (tmp_path / "x.pth").write_bytes(b"")
    assert main(["predict", str(tmp_path / "x.pth"), "photo.jpg"]) == 2
    assert "zoo convert" in capsys.readouterr().err


def test_a_classifier_draws_no_boxes(tmp_path, photos, capsys):
    model = zoo.get("timm/test_resnet", num_classes=2)
    folder = RunFolder.create(tmp_path / "classifier", "run")
    folder.save_model(model, model.state_dict())
    assert main(["predict", str(folder.path), str(photos), "--top", "1", "--device", "cpu"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["predict", str(folder.path), str(photos), "-o", str(tmp_path / "out")]) == 2
    assert "--out has no meaning for a model of classification" in capsys.readouterr().err
