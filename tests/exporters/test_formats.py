import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import zoo
from box_network import SETTINGS, Boxes, make_boxes
from zoo.data.transforms import Preprocess
from zoo.errors import InputError
from zoo.exporters import _predict as apart
from zoo.exporters import torch as programs
from zoo.exporters._graph import ExportGraph
from zoo.exporters._parity import prepare
from zoo.models import registry
from zoo.models.custom import make_entry
from zoo.tasks.detection.postprocess import Postprocess, select_detections

pytest.importorskip("onnxruntime", reason="the extra export is not installed")
pytest.importorskip("onnxscript", reason="the extra export is not installed")


class Plain(nn.Module):
    """A module of the user's without `predict`, whose code asks a tensor for its length."""

    def __init__(self, num_classes):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 5, 4), nn.Linear(8, num_classes)
        self.extra = nn.Sequential(nn.Identity(), nn.Identity())

    def forward(self, images):
        found = self.first(images).relu()
        return self.last(self.extra(found).reshape(len(images), 8, -1).mean(2))


@pytest.fixture
def plain(monkeypatch):
    entry = make_entry(
        Plain, "plain", preprocess=Preprocess(image_size=32, crop_pct=1.0), code_licence="MIT", summary=None
    )
    monkeypatch.setitem(registry._ENTRIES, "plain", entry)
    torch.manual_seed(0)
    return zoo.get("plain", classes=["a", "b", "c"])


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    path = tmp_path_factory.mktemp("noise") / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(path)
    return path


def export(model, folder, *formats, **options):
    return zoo.export(model, folder, formats=formats, images=3, progress=False, **options)


def test_a_program_of_torch_runs_without_this_package_and_only_if_it_is_the_one_that_was_written(
    plain, noise, tmp_path
):
    made = export(plain, tmp_path / "made", "torch")
    assert made.parity["torch"].holds
    script = f"import sys; sys.modules['zoo'] = None; sys.argv[0] = '{made.folder}/predict.py'; import runpy; "
    script += "runpy.run_path(sys.argv[0], run_name='__main__')"
    config = json.loads((made.folder / "config.json").read_text())
    done = subprocess.run([sys.executable, "-c", script, str(noise)], capture_output=True, text=True, check=True)
    pixels = torch.tensor(prepare(noise, plain.preprocess))[None]
    expected = ExportGraph(plain)(pixels)[0][0].sort(descending=True)
    answer = json.loads(done.stdout)
    assert answer["probabilities"] == pytest.approx(expected.values.tolist(), abs=1e-6)
    assert answer["names"] == ["abc"[number] for number in expected.indices]
    graph = programs.open_file(made.files["torch"])
    assert graph.run(np.zeros((5, 32, 32, 3), np.uint8))[0].shape == (5, 3)
    assert json.loads(graph.facts["classes"]) == ["a", "b", "c"]
    assert config["lineage"]["weights"] is None
    assert "Weights: random weights." in (made.folder / "README.md").read_text()
    with made.files["torch"].open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ValueError, match=r"model\.pt2 is not the file that was exported"):
        apart.Predictor(made.folder)


def test_raw_gives_logits_and_the_program_makes_probabilities_of_them(plain, noise, tmp_path):
    made = export(plain, tmp_path / "raw", "onnx", raw=True)
    predictor = apart.Predictor(made.folder)
    logits = predictor.run(predictor.prepare(noise)[0][None])["logits"]
    assert abs(float(logits.sum()) - 1) > 0.01
    expected = torch.from_numpy(logits).softmax(-1)[0].sort(descending=True).values
    assert predictor.predict(noise)["probabilities"] == pytest.approx(expected.tolist(), abs=1e-6)
    assert made.parity["onnx"].largest < 1e-5


@pytest.mark.parametrize("settings", SETTINGS)
def test_thresholds_and_suppression_in_numpy_are_those_of_predict(settings):
    boxes, scores = make_boxes(1)
    how = Postprocess(**settings)
    found = apart.select(boxes[0].numpy(), scores[0].numpy(), vars(how))
    (expected,) = select_detections(boxes, scores, how)
    assert len(expected.scores) > 10
    for ours, theirs in zip((expected.boxes, expected.scores, expected.labels), found, strict=True):
        assert np.array_equal(ours.numpy(), theirs)


def test_suppression_of_a_program_is_that_of_torchvision_and_needs_no_operator_of_ours(tmp_path):
    network, batch = Boxes(Postprocess(**SETTINGS[2])), torch.export.Dim("batch")
    program = torch.export.export(network, make_boxes(2), dynamic_shapes=({0: batch}, {0: batch}))
    programs.write(program, ("boxes", "scores", "labels"), tmp_path / "model.pt2", {})
    loaded = torch.export.load(tmp_path / "model.pt2")
    assert "zoo" not in str(loaded.graph)
    assert b"export.py" not in (tmp_path / "model.pt2").read_bytes(), "nor the folders of this machine"
    for images in (1, 3):
        for ours, theirs in zip(network(*make_boxes(images)), loaded.module()(*make_boxes(images)), strict=True):
            assert torch.equal(ours, theirs)
            assert ours.any()


class Turning(nn.Module):
    def forward(self, images):
        if images.mean() > 0:
            return -images
        return images


class Spectrum(nn.Module):
    def forward(self, images):
        return images + torch.linalg.svdvals(images.mean(1))[:, :1, None, None]


def test_what_cannot_be_exported_is_refused_with_the_layer_and_the_operator(plain, tmp_path, capfd):
    plain.extra[1] = Turning()
    with pytest.raises(InputError, match=r"layer extra\.1 \(Turning\) has 'if images\.mean\(\) > 0:': what it does"):
        export(plain, tmp_path / "out", "onnx")
    plain.extra[1] = Spectrum()
    with pytest.raises(InputError, match=r"written as onnx: layer extra\.1 \(Spectrum\) uses aten\._linalg_svd"):
        export(plain, tmp_path / "out", "onnx")
    assert not list(tmp_path.iterdir())
    assert "def forward" not in capfd.readouterr().err, "torch prints the whole graph"


def test_openvino_gives_the_answers_of_the_model(plain, tmp_path):
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    made = export(plain, tmp_path / "made", "openvino")
    assert made.parity["openvino"].holds
    found = apart.Predictor(made.folder).run(np.full((3, 32, 32, 3), 7, np.uint8))["probabilities"]
    expected = ExportGraph(plain)(torch.full((3, 32, 32, 3), 7, dtype=torch.uint8))[0]
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-5)
