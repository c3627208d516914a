import json

import numpy as np
import pytest
import torch
from torch import nn

from zoo.exporters._job import Job
from zoo.progress import Progress
from zoo.tasks import Parity

onnx = pytest.importorskip("onnx", reason="the extra export is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra export is not installed")


class Wrapped(nn.Module):
    """A network in which one channel is a thousand times larger than the others between two layers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        first, second, third = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)
        self.network = nn.Sequential(
            first,
            nn.ReLU(),
            second,
            nn.ReLU(),
            third,
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 5),
        )
        with torch.no_grad():
            second.weight[0] *= 1000
            second.bias[0] *= 1000
            third.weight[:, 0] /= 1000
            logits = self.network(make_images())
            self.network[-1].bias -= logits.mean(0)

    def forward(self, images):
        return (self.network(images).softmax(-1),)


def make_images(count=60):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, 1, 1, generator=generator) + 0.2 * torch.rand(count, 3, 12, 12, generator=generator)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    from zoo.exporters import onnx as exporter

    folder, network = tmp_path_factory.mktemp("planted"), Wrapped().eval()
    program = torch.export.export(network, (make_images(2),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    exporter.write(program, ("probabilities",), folder / "model.onnx", {"zoo.task": "1"})
    return folder, network(make_images())[0].argmax(1).numpy()


def answers(path, level="ORT_ENABLE_ALL"):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    session = onnxruntime.InferenceSession(path, options)
    return np.concatenate([session.run(None, {"images": image[None].numpy()})[0] for image in make_images()])


def make_job(planted, **options):
    folder, labels = planted
    target = folder / "model.int8.onnx"

    def score(run, places):
        return Parity(60, 0.0, 0.0, 1.0, "top-1", 1.0, float(np.mean(answers(target).argmax(1) == labels)))

    return Job(
        source=folder / "model.onnx", target=target, program=None, images=60, examples=60, score=score,
        batch=lambda place: make_images()[place][None].numpy(), show=Progress(enabled=False),
        **{"max_drop": 5.0, "keeps_any": False} | options,
    )  # fmt: skip


def test_the_layers_that_hurt_stay_in_float_until_the_metric_holds(planted):
    from zoo.exporters._onnx_smaller import quantise

    job = make_job(planted)
    found = quantise(job)
    assert found.curve[0][0] == 0
    assert found.curve[0][1] > 20
    assert found.curve[-1][1] <= 5
    assert set(found.left_in_float) == {"2", "4"}, "the layers on both sides of the large channel"
    made = onnx.load(job.target)
    kept = {node.name: node for node in made.graph.node if node.op_type in ("Conv", "Gemm")}
    weights = [node.input[1] for node in kept.values()]
    assert sum(name.endswith("_DequantizeLinear_Output") for name in weights) == 2
    facts = {entry.key: entry.value for entry in made.metadata_props}
    assert facts["zoo.task"] == "1"
    assert json.loads(facts["zoo.precision"])["left_in_float"] == list(found.left_in_float)
    np.testing.assert_allclose(answers(job.target), answers(job.target, "ORT_DISABLE_ALL"), atol=0.02)


def test_a_search_that_finds_nothing_ends_at_half_of_the_layers_and_tells_its_curve(planted):
    from zoo.exporters._onnx_smaller import quantise
    from zoo.exporters._precision import _tell_drop

    worse = lambda run, places: Parity(60, 0.0, 0.0, 1.0, "top-1", 0.9, 0.7, max_drop=0.5)  # noqa: E731
    job = make_job(planted, max_drop=0.5)
    found = quantise(Job(**vars(job) | {"score": worse}))
    assert [left for left, _ in found.curve] == [0, 1, 2]
    text = _tell_drop("onnx-int8", worse(None, None), found)
    assert "loses 20.00 points of top-1 on 60 images (90.00% and 70.00%)" in text
    assert "Points lost by layers left in float32: 0: 20.00; 1: 20.00; 2: 20.00." in text
    kept = quantise(Job(**vars(job) | {"score": worse, "keeps_any": True}))
    assert (kept.left_in_float, len(kept.curve)) == ((), 1)
