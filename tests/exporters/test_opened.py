import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import zoo
from boxed_folder import write_boxed
from coloured_folder import write_coloured
from tools.cli import main
from zoo.data import Letterbox
from zoo.errors import InputError, LicenceError
from zoo.models import Detector
from zoo.tasks.detection import Postprocess, Predictions

onnx = pytest.importorskip("onnx", reason="the extra export is not installed")
pytest.importorskip("onnxruntime", reason="the extra export is not installed")
pytest.importorskip("onnxscript", reason="the extra export is not installed")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_coloured(tmp_path_factory.mktemp("data") / "images", train=2, val=4)


@pytest.fixture(scope="module")
def model():
    made = zoo.get("timm/test_resnet", classes=["blue", "green", "red"], seed=3)
    made.preprocess = made.preprocess.replace(image_size=64)
    made.fc.weight.data *= 50  # so that not all images are of one class
    return made


@pytest.fixture(scope="module")
def folder(model, data):
    return zoo.export(model, data.parent / "export", data=str(data), progress=False).folder


class Blobs(Detector):
    """Has one box for each cell of a grid, and overlapping ones suppress each other."""

    num_classes = 2

    def __init__(self):
        super().__init__()
        self.scores = nn.Conv2d(3, 2, 16, stride=16)
        self.preprocess = Letterbox().resized(64).replace(channels="bgr", mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
        self.postprocess = Postprocess(conf=0.45, iou=0.3, max_predictions=9)
        self.classes = ("blue", "red")
        steps = 16.0 * torch.arange(4)
        corners = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1).view(16, 2)
        self.register_buffer("boxes", torch.cat([corners - 8, corners + 24], 1))

    def forward(self, images):
        return self.scores(images).flatten(2).transpose(1, 2).sigmoid()

    def decode(self, outputs):
        return Predictions(self.boxes.expand(len(outputs), -1, -1), outputs)

    def loss(self, outputs, rows):
        return outputs.mean()


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """Return a detector, its export, and the data that it was compared on."""
    place = tmp_path_factory.mktemp("boxes")
    torch.manual_seed(0)
    model, data = Blobs().eval(), str(write_boxed(place / "boxes", train=1, val=3))
    return model, zoo.export(model, place / "export", data=data, progress=False), data


def test_an_export_comes_back_as_the_model_that_it_was(model, folder, data):
    files = sorted((data / "val").rglob("*.png"))
    for place in (folder, folder / "model.onnx"):
        for back in (zoo.get(str(place)), zoo.load(place)):
            assert (back.classes, back.preprocess, back.task) == (model.classes, model.preprocess, model.task)
            assert (back.licence, back.num_classes, back.training) == (model.licence, 3, False)
    for options in ({}, {"tta": True}, {"top_k": 1}):
        for ours, theirs in zip(model.predict(files, **options), back.predict(files, **options), strict=True):
            assert (theirs.source, theirs.names) == (ours.source, ours.names)
            assert theirs.probabilities == pytest.approx(ours.probabilities, abs=1e-4)
    ours, theirs = (zoo.evaluate(one, str(data), progress=False) for one in (model, folder))
    assert (theirs.confusion, theirs.rows()) == (ours.confusion, ours.rows())
    assert theirs.loss == pytest.approx(ours.loss, abs=1e-4)
    assert theirs.top1 == pytest.approx(json.loads((folder / "parity.json").read_text())["onnx"]["theirs"])


def test_a_detector_comes_back_and_scores_as_when_it_was_compared(detector):
    model, made, data = detector
    back = zoo.load(made.files["onnx"])
    photos = [Image.fromarray(np.random.default_rng(n).integers(0, 256, (70, 120, 3), np.uint8)) for n in range(3)]
    for options in ({}, {"conf": 0.5}, {"tiles": 48}, {"max_predictions": 3}, {"batch_size": 2}):
        for ours, theirs in zip(model.predict(photos, **options), back.predict(photos, **options), strict=True):
            assert len(ours.scores) > 2
            assert np.array_equal(ours.labels, theirs.labels)
            np.testing.assert_allclose(theirs.scores, ours.scores, atol=1e-4)
            np.testing.assert_allclose(theirs.boxes, ours.boxes, atol=1e-2)
    scores = zoo.evaluate(back, data, progress=False)
    assert scores.map == made.parity["onnx"].theirs
    assert (scores.loss, scores.settings.conf) == (None, 0.45)
    for options, text in (
        ({"conf": 0.1}, "leaves out boxes with a confidence below 0.45, and conf is 0.1"),
        ({"tta": True}, "tta needs a third of the confidence threshold"),
        ({"iou": 0.5}, "suppresses boxes by an IoU of 0.3 inside, and iou is 0.5"),
        ({"max_predictions": 10}, "gives 9 boxes per image at most"),
        ({"image_size": 128}, "takes images of 64 pixels, and image_size is 128"),
        ({"device": "cuda"}, "runs on the CPU"),
    ):
        with pytest.raises(InputError, match=text):
            back.predict(photos, **options)
    with pytest.raises(InputError, match="takes 8-bit images, and these are not"):
        back(torch.rand(1, 3, 64, 64))


def test_the_commands_take_a_file_and_a_folder(model, folder, data, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["predict", str(folder / "model.onnx"), str(data / "val"), "-o", str(out), "--save", "csv,json"]) == 0
    rows = json.loads((out / "predictions.json").read_text())
    ours = {answer.source: answer.name for answer in model.predict(data / "val")}
    assert {row["source"]: row["names"][0] for row in rows} == ours
    capsys.readouterr()
    assert main(["evaluate", str(folder), str(data), "--split", "train", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 6
    for words, text in (
        (["predict", str(folder), str(data), "--device", "cuda"], "runs on the CPU. Leave out --device cuda"),
        (["predict", str(folder), str(data), "--image-size", "32"], "takes images of 64 pixels"),
        (["evaluate", str(data), str(folder)], "the run comes first"),
        (["finetune", str(folder / "model.onnx"), str(data)], "cannot be trained: use the run"),
        (["finetune", str(folder), str(data)], "is an exported model: it predicts"),
        (["export", str(folder), "-o", str(tmp_path / "again")], "is an exported model"),
    ):
        assert main(words) == 2, words
        assert text in capsys.readouterr().err


def test_what_has_no_weights_is_not_trained(folder, data):
    back = zoo.load(folder)
    for call in (
        lambda: zoo.finetune(back, str(data), progress=False),
        lambda: zoo.plan(back),
        lambda: zoo.plan(str(folder)),
        lambda: zoo.get(str(folder), num_classes=5),
        lambda: zoo.export(back, data.parent / "again", progress=False),
    ):
        with pytest.raises(InputError, match="is an exported model: it predicts"):
            call()


def test_a_licence_binds_an_export_too(folder, monkeypatch):
    monkeypatch.setenv("ZOO_COMMERCIAL_ONLY", "1")
    with pytest.raises(LicenceError):
        zoo.load(folder)


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_an_export_goes_to_the_hub_with_its_parity_and_comes_back(hub, folder, model, tmp_path):
    lines = []
    sent = zoo.push(folder, "org/file", private=False, token="hf_writer", log=lines.append)
    assert {name for name, _ in sent.files} == {path.name for path in folder.iterdir()}
    page = hub.store.resolve("org/file", "main")[1]["README.md"].local.read_text()
    assert "| onnx | 12 |" in page
    assert 'zoo.get("org/file")' in page
    back = zoo.get("org/file", cache_dir=tmp_path / "hub")
    photo = np.full((70, 90, 3), 120, np.uint8)
    assert back.predict(photo)[0].names == model.predict(photo)[0].names
    assert zoo.load(f"org/file@{sent.commit}", cache_dir=tmp_path / "hub").classes == model.classes
    with pytest.raises(InputError, match="is an exported model"):
        zoo.plan("org/file")


def test_what_of_an_export_may_not_go_does_not(folder, tmp_path):
    for name, text in (("parity.json", "has no parity.json"), ("model.onnx", "cannot be read: No such file")):
        place = shutil.copytree(folder, tmp_path / name)
        (place / name).unlink()
        with pytest.raises(InputError, match=text):
            zoo.push(place, "org/file", dry_run=True)
    place = shutil.copytree(folder, tmp_path / "bound")
    write_facts(place, licence="licenseref-yolo-nas-non-commercial")
    with pytest.raises(LicenceError, match="cannot be uploaded, not even to a private repository"):
        zoo.push(place, "org/file", dry_run=True)
    write_facts(place, licence=None, lineage={"weights": "/home/somebody/secret"})
    with pytest.raises(InputError, match="'/home/somebody/secret', which looks like a local path"):
        zoo.push(place, "org/file", dry_run=True)


def write_facts(place, **values):
    """Change what an export says of itself, in both places."""
    file, config = onnx.load(place / "model.onnx"), json.loads((place / "config.json").read_text())
    for entry in file.metadata_props:
        if (key := entry.key.removeprefix("zoo.")) in values:
            entry.value = json.dumps(values[key])
    onnx.save(file, place / "model.onnx")
    (place / "config.json").write_text(json.dumps(config | values))
    (place / "SHA256SUMS").unlink(missing_ok=True)
