"""What was changed after a network was built is told, whatever the shapes of its weights."""

import copy
import pickle

import pytest
import torch
from torch import nn

import zoo
from coloured_folder import write_coloured
from zoo.errors import WeightsError
from zoo.models.classifier import Classifier


def make():
    return zoo.get("timm/test_resnet", num_classes=3, seed=1)


def swap(model, kind, make_other):
    for name, module in list(model.named_modules()):
        if isinstance(module, kind):
            model.set_submodule(name, make_other(module))


class Doubled(Classifier):
    def forward(self, images):
        return 2 * super().forward(images)


def double(model, name):
    before = getattr(model, name)
    setattr(model, name, lambda inputs: 2 * before(inputs))


def set_eps(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.5


CHANGES = {
    "activation": lambda model: swap(model, nn.ReLU, lambda _: nn.SiLU()),
    "no activation": lambda model: swap(model, nn.ReLU, lambda _: nn.Identity()),
    "pool": lambda model: setattr(model.network, "global_pool", nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())),
    "norm": set_eps,
    "forward": lambda model: double(model, "forward"),
    "forward of a layer": lambda model: double(model.layer1, "forward"),
    "forward of the network": lambda model: double(model.network, "forward_features"),
    "backbone": lambda model: double(model, "run_backbone"),
    "class": lambda model: setattr(model, "__class__", Doubled),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_the_outputs_is_an_alteration(change):
    model = make()
    CHANGES[change](model)
    assert model.is_altered


def test_what_matters_in_training_only_is_none():
    model = make()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.01
    model.drop_rate = 0.5
    model.train().requires_grad_(False)
    assert not model.is_altered
    assert not copy.deepcopy(model).is_altered
    assert not pickle.loads(pickle.dumps(model)).is_altered
    assert not nn.SyncBatchNorm.convert_sync_batchnorm(model).is_altered


def test_a_run_of_a_network_with_other_activations_is_loaded_right_or_not_at_all(tmp_path):
    data = write_coloured(tmp_path / "data", train=2, val=1, size=16)
    model, fresh = make(), make()
    for one in (model, fresh):
        CHANGES["activation"](one)
    run = zoo.finetune(model, data, 0.1, epochs=1, image_size=32, out=tmp_path / "run", progress=False)
    with pytest.raises(WeightsError, match="pass it as model="):
        zoo.load(run.folder)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(zoo.load(run.folder, model=fresh).eval()(images), run.model.eval()(images))


def test_a_hook_is_told(tmp_path, capsys):
    data = write_coloured(tmp_path / "data", train=2, val=1, size=16)
    model = make()
    model.layer1.register_forward_hook(lambda module, inputs, outputs: outputs * 2)
    zoo.finetune(model, data, 0.1, epochs=1, image_size=32, out=tmp_path / "run")
    assert "layer1 has a forward hook, which is not saved" in " ".join(capsys.readouterr().out.split())
