import csv
import gc
import json
import signal
import weakref

import numpy as np
import pytest
from PIL import Image

import zoo
from image_files import write_image
from loopback import Answer, Loopback
from tools.cli import main
from zoo.data.letterbox import Letterbox
from zoo.data.video import read_frames, write_video
from zoo.training.run_claim import create_folder


@pytest.fixture(scope="module")
def detector(tmp_path_factory, small_detector):
    """A run's folder; the scores of its model begin at 0.01, so all of them are above a smaller threshold."""
    model = zoo.get("yolo_nas_s", classes=("cat", "dog"))
    model.preprocess = Letterbox().resized(64)
    folder = create_folder(tmp_path_factory.mktemp("runs") / "detector", "run")
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


def test_images_are_drawn_and_what_was_found_is_written_down(detector, photos, tmp_path, capsys):
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
        (["--top-k", "2"], "--top-k has no effect for a detector"),
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


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    model = zoo.get("timm/test_resnet", num_classes=2)
    folder = create_folder(tmp_path_factory.mktemp("runs") / "classifier", "run")
    folder.save_model(model, model.state_dict())
    return folder.path


def test_names_are_printed_written_down_and_drawn(classifier, photos, tmp_path, capsys):
    options = [str(classifier), str(photos), "--device", "cpu"]
    assert main(["predict", *options, "--top", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["predict", *options, "-o", str(tmp_path / "out")]) == 0
    records = json.loads((tmp_path / "out" / "predictions.json").read_text())
    answers = zoo.load(classifier).predict(photos, top_k=3)
    assert [(record["source"], *record["names"]) for record in records] == [(a.source, *a.names) for a in answers]
    with Image.open(tmp_path / "out" / "predictions.png") as sheet:
        assert min(sheet.size) > 300
    assert main(["predict", *options, "-o", str(tmp_path / "out")]) == 2
    assert "exists" in capsys.readouterr().err
    assert main(["predict", *options, "--conf", "0.5"]) == 2
    assert "--conf has no effect for a classifier" in capsys.readouterr().err


def test_names_as_a_table(classifier, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["predict", str(classifier), str(photos), "-o", str(out), "--save", "csv", "--device", "cpu"]) == 0
    assert [path.name for path in out.iterdir()] == ["predictions.csv"]
    assert f"written to {out}: predictions.csv" in capsys.readouterr().out
    rows = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    answers = zoo.load(classifier).predict(photos)
    expected = [(a.source, str(rank), name) for a in answers for rank, name in enumerate(a.names, 1)]
    assert [(row["source"], row["rank"], row["class"]) for row in rows] == expected
    assert [float(row["probability"]) for row in rows] == pytest.approx([p for a in answers for p in a.probabilities])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--save", "csv"], "--save needs a folder to write to. Add --out FOLDER"),
        (["-o", "out", "--save", "csv,yolo"], "'yolo' is not written for a classifier; expected images, json, csv"),
        (["--tiles", "640"], "--tiles has no effect for a classifier"),
        (["-o", "out", "--coco-ids", "x.json"], "--coco-ids has no effect for a classifier"),
    ],
)
def test_wrong_ways_to_save_are_told(classifier, photos, capsys, options, message):
    assert main(["predict", str(classifier), str(photos), *options, "--device", "cpu"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["classifier", "detector"])
def test_images_are_read_as_answers_are_asked_for_and_not_kept(kind, photos, request):
    """Of a long list little more than a batch is read ahead, and nothing that was handed out is held."""
    model, read, seen = zoo.load(request.getfixturevalue(kind)), [], []

    def paths():
        for number in range(1000):
            read.append(number)
            yield photos / f"{number % 2}.png"

    for answer in model.predict(paths(), stream=True, batch_size=4):
        seen.append(weakref.ref(answer))
        if len(seen) == 10:
            break
    del answer
    gc.collect()
    assert len(read) < 10 + 2 * 4 + 2 * 16
    assert sum(ref() is not None for ref in seen) <= 4


@pytest.fixture
def with_bad(photos):
    """Two good images around an empty file, and one that is no image."""
    (photos / "0b.png").write_bytes(b"")
    (photos / "notes.txt").write_text("no image")
    return photos


def test_what_was_found_before_a_bad_image_is_kept(detector, with_bad, tmp_path, capsys):
    out = tmp_path / "found"
    assert main(["predict", str(detector), str(with_bad), "-o", str(out), "--device", "cpu"]) == 2
    told = capsys.readouterr()
    assert told.out.splitlines() == [f"{with_bad / '0.png'}: nothing found"]
    assert told.err.splitlines() == [
        f"files passed over, as they are no images: 1, such as '{with_bad / 'notes.txt'}'",
        f"stopped early; 1 predictions are saved in {out / 'predictions.json'}",
        f"error: cannot read '{with_bad / '0b.png'}': empty file (0 bytes). --skip-bad leaves out what cannot be read.",
    ]
    assert {path.name for path in out.iterdir()} == {"0.png", "predictions.json"}
    (record,) = json.loads((out / "predictions.json").read_text())
    assert record["source"] == str(with_bad / "0.png")


def test_a_bad_image_is_left_out(detector, classifier, with_bad, tmp_path, capsys):
    out = tmp_path / "found"
    options = ["--skip-bad", "--device", "cpu"]
    assert main(["predict", str(detector), str(with_bad), "-o", str(out), *options]) == 0
    told = capsys.readouterr()
    assert f"left out 1 of 3:\n  cannot read '{with_bad / '0b.png'}': empty file (0 bytes)\n" in told.err
    records = json.loads((out / "predictions.json").read_text())
    assert [record["source"] for record in records] == [str(with_bad / "0.png"), str(with_bad / "1.png")]
    assert main(["predict", str(classifier), str(with_bad), *options, "--json"]) == 0
    told = capsys.readouterr()
    assert [record["source"] for record in json.loads(told.out)] == [str(with_bad / "0.png"), str(with_bad / "1.png")]
    assert "left out 1 of 3:" in told.err
    assert main(["predict", str(classifier), str(with_bad / "0b.png"), *options]) == 2
    assert "no image could be read" in capsys.readouterr().err


def test_strict_goes_on_and_fails_in_the_end(classifier, with_bad, capsys):
    options = [str(classifier), str(with_bad), "--device", "cpu", "--tta", "--workers", "2", "--batch-size", "1"]
    assert main(["predict", *options, "--strict"]) == 1
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 2
    assert "left out 1 of 3:" in told.err
    (with_bad / "0b.png").unlink()
    assert main(["predict", *options, "--strict"]) == 0


def test_a_signal_ends_with_what_was_done(classifier, photos, tmp_path, capsys, monkeypatch):
    def send(text, *args, **options):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("zoo.progress.Progress.log", send)
    options = [str(classifier), str(photos), "--device", "cpu", "-o", str(tmp_path / "out"), "--batch-size", "1"]
    assert main(["predict", *options]) == 130
    assert [record["source"] for record in json.loads((tmp_path / "out" / "predictions.json").read_text())] == [
        str(photos / "0.png")
    ]
    assert capsys.readouterr().err.splitlines()[-1] == "stopped"


def test_large_images_are_looked_at_in_tiles(detector, tmp_path, capsys):
    write_image(tmp_path / "large.png", (96, 64))
    options = [str(detector), str(tmp_path / "large.png"), "--conf", "0.001", "--device", "cpu", "--json"]
    assert main(["predict", *options, "--tiles", "64", "--overlap", "0.5"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    (result,) = zoo.load(detector).predict(tmp_path / "large.png", conf=0.001, tiles=64, overlap=0.5)
    assert record["detections"] == result.to_dict()["detections"]
    assert main(["predict", *options, "--overlap", "0.5"]) == 2
    assert "--overlap has no effect without --tiles" in capsys.readouterr().err


def test_a_stream_becomes_a_video_of_what_came(detector, tmp_path, capsys):
    frames = [Image.new("RGB", (64, 48), (40 * number, 0, 0)) for number in range(5)]
    video = write_video(tmp_path / "clip.mp4", ((frame, number / 10) for number, frame in enumerate(frames)))
    out, options = tmp_path / "out", ["--device", "cpu", "-o", str(tmp_path / "out")]
    with Loopback() as server:
        server.answers["/clip.mp4"] = Answer(video.read_bytes())
        assert main(["predict", str(detector), server.url("/clip.mp4"), *options]) == 0
        assert main(["predict", str(detector), server.url("/gone"), "--device", "cpu"]) == 2
    (written,) = out.glob("*.mp4")
    assert len(list(read_frames(written))) == 5
    assert [record["frame"] for record in json.loads((out / "predictions.json").read_text())] == [0, 1, 2, 3, 4]
    assert "error: cannot open 'http://127.0.0.1" in capsys.readouterr().err


def test_streams_have_no_end_and_no_names(detector, classifier):
    with pytest.raises(zoo.errors.InputError, match="pass stream=True"):
        zoo.load(detector).predict(0)
    with pytest.raises(zoo.errors.InputError, match="are for detectors"):
        zoo.load(classifier).predict("rtsp://camera/1", stream=True)


def test_a_classifier_keeps_its_answers_too(classifier, with_bad, capsys):
    assert main(["predict", str(classifier), str(with_bad), "--json", "--device", "cpu"]) == 2
    told = capsys.readouterr()
    assert [record["source"] for record in json.loads(told.out)] == [str(with_bad / "0.png")]
    assert "--skip-bad" in told.err


@pytest.mark.parametrize("kind", ["classifier", "detector"])
def test_bad_images_are_left_out_in_python(kind, with_bad, request):
    model = zoo.load(request.getfixturevalue(kind))
    with pytest.warns(UserWarning, match="skipped 1 unreadable images"):
        assert [found.source[-5:] for found in model.predict(with_bad, skip_bad=True)] == ["0.png", "1.png"]
    bad = []
    assert len(list(model.predict(with_bad, skip_bad=bad.append, stream=True))) == 2
    assert [str(error) for error in bad] == [f"cannot read '{with_bad / '0b.png'}': empty file (0 bytes)"]
    results = model.predict(with_bad, stream=True)
    assert next(results).source == str(with_bad / "0.png")
    with pytest.raises(zoo.errors.InputError, match="empty file"):
        next(results)


def test_nothing_is_written_over(detector, photos, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    argv = ["predict", str(detector), str(photos), "--device", "cpu", "-o"]
    assert main([*argv, str(tmp_path / "file")]) == 2
    assert f"cannot create the folder {tmp_path / 'file'}: it is a file" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.json").write_text("[]")
    assert main([*argv, str(tmp_path / "out")]) == 2
    assert "predictions.json already exists" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.json"]


def test_names_in_files_are_cleaned(tmp_path, photos, capsys):
    model = zoo.get("timm/test_resnet", classes=("cat\nerror: fake", "\x1b]0;title\x07dog"))
    folder = create_folder(tmp_path / "hostile", "run")
    folder.save_model(model, model.state_dict())
    (photos / "1.png").rename(photos / "\x1b[2J\n1.png")
    assert main(["predict", str(folder.path), str(photos), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 2
    assert "\x1b" not in out
    assert "cat error: fake" in out
