"""What a GPU computes, beside what the CPU does: steps, boxes, runs, kept features, optimizers."""

import signal

import pytest
import torch

import zoo
from coloured_folder import write_coloured
from stopping import StopAfter
from zoo.engine.frozen.shards import KeptFeatures
from zoo.engine.inputs import place_features
from zoo.errors import Interrupted
from zoo.optim.build import build_optimizer
from zoo.optim.freeze import apply_plan
from zoo.progress import Progress
from zoo.tasks.detection.postprocess import VALIDATION, select_detections

CUDA = torch.device("cuda")
ROWS = torch.tensor([[0, 1, 32.0, 32, 20, 20], [1, 0, 40, 30, 10, 30]])
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(autouse=True)
def _exact():
    """Convolutions without TF32, and without a choice of algorithms by speed; products have no TF32 by themselves."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_coloured(tmp_path_factory.mktemp("data"), train=8, val=4)


def build(name, device):
    """Return a model and images, the same on every device."""
    generator = torch.Generator().manual_seed(1)
    size = 128 if name.startswith("yolo") else 64
    return zoo.get(name, num_classes=3, seed=0).to(device), torch.rand(2, 3, size, size, generator=generator).to(device)


def step(name, device, targets):
    """Return the loss and all gradients of one training step."""
    model, images = build(name, device)
    loss = model.loss(model.train()(images), targets.to(device))
    loss.backward()
    gradients = {key: value.grad.cpu() for key, value in model.named_parameters() if value.grad is not None}
    return float(loss.detach()), gradients


@pytest.mark.parametrize(("name", "targets"), [("resnet50", torch.tensor([0, 2])), ("yolo_nas_s", ROWS)])
def test_a_step_is_that_of_the_cpu(name, targets):
    loss, gradients = step(name, "cpu", targets)
    found, others = step(name, "cuda", targets)
    assert found == pytest.approx(loss, rel=1e-3)
    assert set(others) == set(gradients)
    whole = torch.cat([value.flatten() for value in gradients.values()]).norm()
    apart = torch.cat([(others[key] - value).flatten() for key, value in gradients.items()]).norm()
    assert float(apart / whole) < 1e-2


@torch.no_grad()
def test_boxes_are_those_of_the_cpu():
    (model, images), (other, there) = (build("yolo_nas_s", device) for device in ("cpu", "cuda"))
    boxes, scores = model.decode(model.eval()(images))
    for one, found in zip((boxes, scores), other.decode(other.eval()(there)), strict=True):
        torch.testing.assert_close(found.cpu(), one, rtol=1e-3, atol=1e-3)
    scores = torch.rand(scores.shape, generator=torch.Generator().manual_seed(2))  # a random network finds nothing
    expected = select_detections(boxes, scores, VALIDATION)
    for one, found in zip(expected, select_detections(boxes.to(CUDA), scores.to(CUDA), VALIDATION), strict=True):
        assert len(one.boxes) > 0
        torch.testing.assert_close(found.boxes.cpu(), one.boxes)
        torch.testing.assert_close(found.scores.cpu(), one.scores)
        assert torch.equal(found.labels.cpu(), one.labels)


def train(data, out, **options):
    fixed = {"augment": "none", "image_size": 32, "batch_size": 4, "epochs": 3, "progress": False, "num_workers": 0}
    model = zoo.get("timm/test_resnet", num_classes=3, seed=1)
    return zoo.finetune(model, data, 0.01, out=out, **{"device": "cuda", "mode": "head"} | fixed | options)


def largest(one, other):
    states = one.model.state_dict(), other.model.state_dict()
    return max(float((value.cpu() - states[1][key].cpu()).abs().max()) for key, value in states[0].items())


def test_a_head_learns_what_it_learns_on_the_cpu(data, tmp_path):
    runs = [train(data, tmp_path / name, device=name, cache="off") for name in ("cpu", "cuda")]
    assert largest(*runs) < 1e-3


def test_an_interrupted_run_goes_on(data, tmp_path):
    whole = train(data, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(data, tmp_path / "stopped", callbacks=StopAfter(8, number=signal.SIGINT))
    resumed = zoo.resume(tmp_path / "stopped", data, progress=False)
    assert len(resumed.metrics) == 3
    assert largest(whole, resumed) < 1e-4


def test_kept_features_on_the_gpu_are_those_of_the_cpu(tmp_path, data):
    parts, rows = (torch.randn(20, 7), torch.randn(20, 2, 3, 3)), [torch.rand(n % 3, 5) for n in range(20)]
    kept = KeptFeatures.in_memory(parts, rows)
    (placed,) = place_features([kept], CUDA, Progress(enabled=False))
    assert placed.device.type == "cuda"
    for numbers in ([3], [3, 3, 19], torch.randperm(20)):
        expected, found = kept.take(numbers), placed.take(numbers)
        for one, other in zip([*expected[0], *expected[1]], [*found[0], *found[1]], strict=True):
            assert torch.equal(one, other.cpu())
    runs = [train(data, tmp_path / cache, cache=cache) for cache in ("off", "memory")]
    assert largest(*runs) < 1e-3


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_fused_optimizers(name):
    states = []
    for fused in (False, True):
        model = zoo.get("timm/test_resnet", num_classes=3, seed=1).to(CUDA)
        plan = zoo.plan(model, {"default": 0.01})
        apply_plan(model, plan)
        optimizer = build_optimizer(model, plan, optimizer=name, params={"fused": fused})
        for _ in range(3):
            model(torch.ones(4, 3, 32, 32, device=CUDA)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        states.append(model.state_dict())
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=1e-3, atol=1e-4)


def test_bf16_learns(data, tmp_path):
    run = train(data, tmp_path / "run", mode="full", precision="bf16", epochs=8)
    assert run.metrics[-1]["loss"] < run.metrics[0]["loss"]
    assert {value.dtype for value in run.model.parameters()} == {torch.float32}
