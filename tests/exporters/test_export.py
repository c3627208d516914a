import json
import resource
import subprocess
import sys
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import zoo
from box_network import SETTINGS, Boxes, make_boxes
from coloured_folder import write_coloured
from image_files import make_photo
from tools.cli import main
from zoo.data.letterbox import Letterbox
from zoo.data.transforms import Preprocess
from zoo.errors import InputError, StorageError
from zoo.exporters import _predict as apart
from zoo.exporters._graph import ExportGraph, trace
from zoo.exporters._parity import Example, compare, locate, prepare
from zoo.files import digest_file
from zoo.tasks.detection.postprocess import Postprocess, select_detections

pytest.importorskip("onnxruntime", reason="the extra export is not installed")
onnx = pytest.importorskip("onnx", reason="the extra export is not installed")
pytest.importorskip("onnxscript", reason="the extra export is not installed")
TINY = {"batch_size": 6, "image_size": 64, "num_workers": 0, "device": "cpu", "epochs": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    images = write_coloured(folder / "images", train=6, val=3)
    model = zoo.get("timm/test_resnet", num_classes=3, seed=3)
    return zoo.finetune(model, images, lr=0.05, out=folder / "run", progress=False, **TINY)


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    return zoo.export(run.folder, tmp_path_factory.mktemp("export") / "folder", progress=False)


def test_the_file_gives_the_answers_of_the_model_and_says_so(run, made):
    found = made.parity["onnx"]
    assert (found.images, found.agreement, found.metric) == (9, 1.0, "top-1")
    assert found.ours == found.theirs == pytest.approx(run.evaluation.top1)
    assert found.largest < 1e-5
    names = {path.name for path in made.folder.iterdir()}
    assert names == {"model.onnx", "config.json", "parity.json", "predict.py", "README.md", "SHA256SUMS"}
    assert json.loads((made.folder / "parity.json").read_text())["onnx"]["holds"] is True
    lineage = json.loads((made.folder / "config.json").read_text())["lineage"]
    assert lineage["run"] == {"sha256": digest_file(run.folder / "model.safetensors"), "epoch": "epoch 1, best top-1"}
    assert lineage["data"] == "images"
    assert str(run.folder.parent) not in "".join(path.read_text("utf8", "replace") for path in made.folder.iterdir())


def test_predict_needs_no_torch_and_reads_as_the_model_does(run, made, tmp_path):
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (70, 131, 4), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "clear.png")
    turned = Image.Exif()
    turned[274] = 6
    Image.fromarray(noise[..., :3]).save(tmp_path / "turned.jpg", exif=turned)
    Image.fromarray(generator.integers(0, 65536, (90, 60), dtype=np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(noise[..., 0]).convert("P").save(tmp_path / "palette.png")
    (tmp_path / "photo.jpg").write_bytes(make_photo(exif=turned))
    (tmp_path / "text.jpg").write_text("no image")
    block = "import sys; sys.modules['torch'] = sys.modules['zoo'] = None; sys.argv = sys.argv[1:]; import runpy; "
    block += "runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", block, str(made.folder / "predict.py"), str(tmp_path), "--top-k", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot read" in done.stderr
    assert "text.jpg" in done.stderr
    answers = {Path(row["source"]).name: row for row in map(json.loads, done.stdout.splitlines())}
    for ours in run.model.predict([tmp_path / name for name in sorted(answers)]):
        theirs = answers[Path(ours.source).name]
        assert theirs["names"] == list(ours.names)
        assert theirs["probabilities"] == pytest.approx(ours.probabilities, abs=1e-5)
    assert set(answers) == {"clear.png", "photo.jpg", "turned.jpg", "deep.png", "palette.png"}


@pytest.mark.parametrize(
    ("plant", "change", "where"),
    [
        ({"interpolation": "bicubic"}, lambda pixels: pixels, "preprocessing: pixels differ by up to"),
        ({"crop_pct": 0.5}, lambda pixels: pixels, "preprocessing: pixels differ by up to"),
        ({}, lambda pixels: pixels[..., ::-1], "preprocessing: pixels differ by up to"),
        ({}, lambda pixels: np.uint8(pixels * (1, 1, 0.99)), "preprocessing: pixels differ by up to [23] of 255"),
    ],
)
def test_a_planted_difference_is_caught_and_named_and_nothing_is_left(run, tmp_path, monkeypatch, plant, change, where):
    assert run.model.preprocess.interpolation == "bilinear"

    class Planted(apart.Predictor):
        def __init__(self, *args):
            super().__init__(*args)
            self.preprocess = self.preprocess | plant

        def prepare(self, source):
            pixels, place = super().prepare(source)
            return change(pixels), place

    monkeypatch.setattr("zoo.exporters._export.Predictor", Planted)
    monkeypatch.setattr("zoo.exporters._export.trace", lambda graph: kept_trace(graph))
    with pytest.raises(InputError, match=f"differ from the model's .*{where}"):
        zoo.export(run.folder, tmp_path / "out", progress=False)
    assert not list(tmp_path.iterdir())
    if "crop_pct" in plant:
        made = zoo.export(run.folder, tmp_path / "out", accept_difference=True, progress=False)
        assert not made.parity["onnx"].holds


@pytest.mark.parametrize(
    "how",
    [
        Preprocess(image_size=96, decode="fast"),
        Preprocess(image_size=96, crop_mode="squash", decode="fast"),
        Letterbox(decode="fast").resized(96),
        Letterbox(keep_ratio=False, position="top-left", decode="fast").resized(96),
        Letterbox().resized(96),
    ],
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_photo_is_decoded_as_the_model_does_it(how, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    photo = make_photo((1601, 1203), exif=exif)
    predictor = apart.Predictor.__new__(apart.Predictor)
    predictor.preprocess = how.to_dict()
    pixels, place = predictor.prepare(BytesIO(photo))
    assert np.array_equal(pixels, prepare(photo, how))
    size = (1601, 1203) if orientation == 1 else (1203, 1601)
    assert place is None or place[-1] == size
    assert (apart.read_image(BytesIO(photo), how.to_dict())[0].size == size) is (how.decode == "full")


def test_where_normalised_values_differ_it_is_the_preprocessing_that_is_named(run, made):
    predictor = apart.Predictor(made.folder)
    predictor.export = predictor.export | {"input": "float"}
    predictor.preprocess = predictor.preprocess | {"std": [0.5, 0.5, 0.505]}
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    found = locate(ExportGraph(run.model, takes_bytes=False), predictor, image)
    assert found.startswith("preprocessing: normalised values differ by up to 0.0")


def test_a_full_disk_ends_with_one_sentence_and_leaves_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.exporters._export.trace", lambda graph: kept_trace(graph))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for most in (1000, 100_000):  # bytes of a file: config.json, or the model
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
        try:
            with pytest.raises(StorageError, match=r"out cannot be written: File too large.* Nothing was written"):
                zoo.export(run.folder, tmp_path / "out", progress=False)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert not list(tmp_path.iterdir())


def test_where_the_network_differs_it_is_the_network_that_is_named(run, made):
    model = zoo.load(run.folder)
    model.fc.bias.data[0] += 0.01
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    predictor = apart.Predictor(made.folder)
    assert locate(ExportGraph(model), predictor, image).startswith("network: probabilities differ by up to 0.00")
    found = compare(model, predictor, [Example("one", image, 0)])
    assert (found.holds, found.first) == (False, "one")


def kept_trace(graph, known={}):  # noqa: B006
    """Trace once for all cases: the graph is the same."""
    if "program" not in known:
        known["program"] = trace(graph)
    return known["program"]


@pytest.mark.parametrize("settings", SETTINGS)
def test_suppression_in_the_graph_is_that_of_predict(settings):
    settings = Postprocess(**settings)
    boxes, scores = make_boxes(3)
    found = Boxes(settings)(boxes, scores)
    for image, expected in enumerate(select_detections(boxes, scores, settings)):
        count = len(expected.scores)
        assert count > 10
        assert torch.equal(found[1][image, :count], expected.scores)
        assert torch.equal(found[0][image, :count], expected.boxes)
        assert torch.equal(found[2][image, :count], expected.labels)
        assert not found[1][image, count:].any()


@pytest.mark.parametrize("settings", SETTINGS[1:3])
def test_suppression_of_onnx_is_that_of_torch(settings, tmp_path):
    import onnxruntime

    from zoo.exporters import onnx

    network, batch = Boxes(Postprocess(**settings)), torch.export.Dim("batch")
    program = torch.export.export(network, make_boxes(2), dynamic_shapes=({0: batch}, {0: batch}))
    onnx.write(program, ("boxes", "scores", "labels"), tmp_path / "model.onnx", {}, inputs=("given", "sure"))
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    for images in (1, 3):
        boxes, scores = make_boxes(images)
        found = session.run(None, {"given": boxes.numpy(), "sure": scores.numpy()})
        for ours, theirs in zip(network(boxes, scores), found, strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)


def test_the_canvas_of_a_detector_is_ours_byte_for_byte():
    from zoo.data import Letterbox, fit_image

    pixels = np.random.default_rng(0).integers(0, 256, (61, 97, 3), dtype=np.uint8)
    for letterbox in (Letterbox().resized(64), Letterbox(position="top-left", keep_ratio=False).resized(96)):
        canvas, place = fit_image(pixels, letterbox)
        found, (scale_x, scale_y, left, top, _) = apart.fit(Image.fromarray(pixels), letterbox.to_dict())
        assert np.array_equal(found, canvas.permute(1, 2, 0).numpy())
        assert (scale_x, scale_y, left, top) == (place.scale_x, place.scale_y, place.left, place.top)


def test_bytes_inside_the_graph_are_normalised_as_in_training():
    model = zoo.get("yolo_nas_s", num_classes=2).eval()
    model.preprocess = model.preprocess.resized(64).replace(channels="bgr", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    from zoo.data import normalize_canvas

    graph = ExportGraph(model)
    pixels = graph.sample(1)
    canvas = pixels.permute(0, 3, 1, 2).flip(1)
    assert torch.equal(graph.normalise(pixels), normalize_canvas(canvas, model.preprocess))


def test_the_command_shows_the_comparison_and_refuses_what_cannot_be(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("zoo.exporters._export.trace", lambda graph: kept_trace(graph))
    assert main(["export", str(run.folder), "-o", str(tmp_path / "out"), "--images", "4"]) == 0
    out = capsys.readouterr().out
    assert "100.00%" in out
    assert f"written to {tmp_path / 'out'}" in out
    for arguments, text in (
        (["-o", str(tmp_path / "out")], "already exists. Choose a new folder"),
        (
            ["-o", str(tmp_path / "new"), "--format", "onx"],
            "unknown format 'onx'; expected onnx or openvino or",
        ),
        (["-o", str(tmp_path / "new"), "--images", "0"], "images is 0; expected a whole number"),
        (["-o", str(tmp_path / "new"), "--data", "nowhere"], "there is no folder"),
        (["-o", str(tmp_path / "new"), "--input", "uint8"], "takes is 'uint8'; expected 'bytes' or 'float'"),
    ):
        assert main(["export", str(run.folder), *arguments]) == 2
        assert text in capsys.readouterr().err
    with pytest.raises(InputError, match="Linear has no preprocessing and no classes, so there are no answers"):
        zoo.export(nn.Linear(3, 2), tmp_path / "new", progress=False)
    assert not (tmp_path / "new").exists()


def test_the_command_benchmark_measures_a_run_beside_its_export(run, made, capsys, monkeypatch):
    monkeypatch.setattr("zoo.exporters._benchmark.TURN_SECONDS", 0.001)
    options = ["--no-compile", "--rounds", "1", "--batch", "2", "--threads", "1"]
    options = ["--images", str(run.folder / "pictures"), *options]
    assert main(["benchmark", str(run.folder), str(made.folder / "model.onnx"), *options]) == 0
    out = capsys.readouterr().out
    for text in (
        "torch eager, timm/test_resnet",
        "folder/model.onnx",
        "1.00",
        "threads of each: 1; turns of each: 1, on",
    ):
        assert text in out
    assert main(["benchmark", str(run.folder), *options[:-4], "--batch", "two"]) == 2
    assert "--batch is 'two'; expected numbers with commas" in capsys.readouterr().err


def test_the_program_beside_a_model_needs_nothing_of_this_package():
    text = Path(apart.__file__).read_text()
    assert "import zoo" not in text
    assert "\nimport torch" not in text


def test_precisions_stand_side_by_side_and_predict_runs_each(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("zoo.exporters._export.trace", lambda graph: kept_trace(graph))
    arguments = ["--precision", "int8,fp16", "--max-drop", "100"]
    assert main(["export", str(run.folder), "-o", str(tmp_path / "out"), *arguments]) == 0
    assert "0 of 16" in capsys.readouterr().out
    folder = tmp_path / "out"
    assert {path.name for path in folder.glob("model*")} == {"model.fp16.onnx", "model.int8.onnx"}
    config, rows = (json.loads((folder / name).read_text()) for name in ("config.json", "parity.json"))
    assert config["export"]["files"] == {"onnx-fp16": "model.fp16.onnx", "onnx-int8": "model.int8.onnx"}
    assert config["export"]["precision"]["onnx-int8"]["calibration_images"] == 18
    assert rows["onnx"]["size_mb"] > 1.8 * rows["onnx-fp16"]["size_mb"] > 2.5 * rows["onnx-int8"]["size_mb"]
    assert all(row["latency_ms"] > 0 and row["holds"] and row["drop"] is not None for row in rows.values())
    page = (folder / "README.md").read_text()
    assert "| onnx-int8 |" in page
    assert "Not in this folder: onnx." in page
    image = next((run.folder.parent / "images").rglob("*.png"))
    command = [sys.executable, str(folder / "predict.py"), "--model", "onnx-int8", str(image)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    expected = run.model.predict([image])[0].probabilities
    assert json.loads(done.stdout)["probabilities"] == pytest.approx(expected, abs=0.05)
    nodes = onnx.load(folder / "model.int8.onnx").graph.node
    quantised = {node.op_type for node in nodes if any("_DequantizeLinear_Output" in name for name in node.input[:1])}
    assert {"Conv", "Gemm", "Softmax"} <= quantised
    assert not {"Cast", "Div", "Sub", "Transpose"} & quantised, "normalisation stays as it is"


def test_precisions_that_cannot_be_are_refused_early(run, tmp_path, monkeypatch):
    export = partial(zoo.export, run.folder, tmp_path / "new", progress=False)
    for options, text in (
        ({"precision": "int4"}, "unknown precision 'int4'; expected fp32 or fp16 or int8. Did you mean 'int8'"),
        ({"precision": []}, "unknown precision ''"),
        ({"max_drop": -1}, "max_drop is -1; expected points of the metric, 0 to 100"),
        ({"max_drop": float("nan")}, "max_drop is nan"),
    ):
        with pytest.raises(InputError, match=text):
            export(**options)
    monkeypatch.setattr("zoo.exporters._export.trace", lambda graph: pytest.fail("traced before it was checked"))
    with pytest.raises(InputError, match="int8 files are kept for their score on labelled images, and there are none"):
        zoo.export(run.model, tmp_path / "new", precision="int8", progress=False)
    images = write_coloured(tmp_path / "only", train=0, val=2)
    with pytest.raises(InputError, match="int8 is calibrated on training images, and there are none"):
        zoo.export(run.model, tmp_path / "new", data=images, precision="int8", progress=False)
    assert not (tmp_path / "new").exists()
