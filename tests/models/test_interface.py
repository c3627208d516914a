"""A model of this package is a plain `nn.Module`, in a loop of the user's own and in the tools that take modules."""

import copy
import pickle

import pytest
import torch
from torch import nn

import zoo
from zoo.models import Model

BOTH = [("timm/test_resnet", 32), ("yolo_nas_s", 64)]


def build(name):
    return zoo.get(name, num_classes=3)


def tensors(outputs):
    """Return all tensors of nested outputs."""
    return [outputs] if isinstance(outputs, torch.Tensor) else [one for part in outputs for one in tensors(part)]


def equal(first, second, images):
    with torch.inference_mode():
        pairs = zip(tensors(first(images)), tensors(second(images)), strict=True)
        return all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize(("name", "size"), BOTH)
def test_a_copy_and_a_pickled_model_compute_the_same(name, size):
    model, images = build(name), torch.rand(2, 3, size, size)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert isinstance(twin, Model)
        assert equal(model, twin, images)
        assert (twin.classes, twin.config, twin.preprocess) == (model.classes, model.config, model.preprocess)
        next(twin.parameters()).data.add_(1)
        assert not equal(model, twin, images)


@pytest.mark.parametrize("name", [name for name, _ in BOTH])
def test_models_come_in_eval_mode_and_a_loop_that_asks_for_training_trains_them_whole(name):
    model = build(name)
    assert not any(module.training for module in model.modules())
    model.train()
    assert all(module.training for module in model.modules())


def test_a_loop_by_hand_learns_and_moves_the_norms_statistics():
    torch.manual_seed(0)
    model, images, targets = build("timm/test_resnet"), torch.rand(8, 3, 32, 32), torch.arange(8) % 3
    before, optimizer, losses = model.bn1.running_mean.clone(), torch.optim.Adam(model.parameters(), lr=0.01), []
    model.train()
    for _ in range(5):
        loss = nn.functional.cross_entropy(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert not torch.equal(model.bn1.running_mean, before)
    assert len(model.eval().predict(images, image_size=32)) == 8


@pytest.mark.filterwarnings("ignore")  # which Lightning gives of itself and of torch
def test_lightning_trains_a_model(tmp_path):
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")

    class Fit(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = build("timm/test_resnet").train()

        def training_step(self, batch, _):
            return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    module, data = Fit(), torch.utils.data.TensorDataset(torch.rand(4, 3, 32, 32), torch.arange(4) % 3)
    before = copy.deepcopy(module.model.state_dict())
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = lightning.Trainer(max_steps=1, default_root_dir=tmp_path, enable_model_summary=False, **quiet)
    trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=4))
    moved = {name for name, value in module.model.state_dict().items() if not torch.equal(before[name], value)}
    assert {"fc.weight", "bn1.running_mean"} <= moved


def test_a_compiled_model_computes_the_same():
    model, images = build("timm/test_resnet"), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(torch.compile(model, backend="eager", fullgraph=True)(images), model(images), atol=1e-5)


@pytest.mark.parametrize(("name", "size"), BOTH)
def test_predict_moves_the_model_to_the_device_that_it_is_told(name, size, monkeypatch):
    model, images, moved = build(name), [torch.zeros(3, size, size, dtype=torch.uint8)], []
    monkeypatch.setattr(type(model), "to", lambda self, *args, **options: moved.append(args) or self)
    assert len(model.predict(images, device="cpu", image_size=size)) == 1
    assert moved[0] == (torch.device("cpu"),)
    with pytest.raises(zoo.ZooError, match="device 'gpu' is not available"):
        model.predict(images, device="gpu")
