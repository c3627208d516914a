"""What the first steps and the saving need is found out before anything runs, in one sentence, and changes nothing."""

import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import zoo
from coloured_folder import write_coloured
from zoo.errors import InputError
from zoo.files.safetensors import why_not_saved

OPTIONS = {"epochs": 1, "image_size": 16, "num_workers": 0, "progress": False, "batch_size": 4}


class Net(nn.Module):
    """A network of somebody else's, with statistics and draws."""

    def __init__(self, channels=3):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.norm, self.last = nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        features = self.norm(self.body(images)).relu().mean((2, 3))
        return self.last(nn.functional.dropout(features, 0.2, self.training))


@dataclass
class ModelOutput:
    logits: torch.Tensor


class Gives(Net):
    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, images):
        return self.change(super().forward(images))


def loaders(dtype=torch.float32, channels=3, count=8, batch=4, **options):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, channels, 8, 8, generator=generator).to(dtype)
    data = TensorDataset(images, torch.arange(count) % 3)
    data.classes = ["a", "b", "c"]
    return DataLoader(data, batch, shuffle=True, **options), DataLoader(data, batch)


def run(model, data, tmp_path, **options):
    return zoo.finetune(model, data, {"last": 0.1, "default": 0.1}, out=tmp_path / "run", **(OPTIONS | options))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: (x, x), r"returns a tuple of 2; expected one tensor of logits.*aux_logits=False"),
        (lambda x: {"out": x}, r"returns a dict with the keys out; expected one tensor of logits"),
        (ModelOutput, r"returns a ModelOutput; .* forward returns model\(images\)\.logits\."),
        (lambda x: x[:, :2], r"outputs of shape \(4, 2\) for 4 images; expected \(4, 3\)"),
        (lambda x: x[:, :, None], r"outputs of shape \(4, 3, 1\) for 4 images"),
    ],
)
def test_outputs_of_another_form(change, words, tmp_path):
    with pytest.raises(InputError, match=words):
        run(Gives(change), loaders(), tmp_path)
    assert not (tmp_path / "run").exists()


def test_images_of_another_type_are_cast(tmp_path):
    double = run(Net(), loaders(torch.float64), tmp_path / "64").model
    single = run(Net(), loaders(torch.float32), tmp_path / "32").model
    assert torch.equal(double.last.weight, single.last.weight)
    assert double.last.weight.dtype == torch.float32
    exact = run(Net().double(), loaders(torch.float32), tmp_path / "exact").model
    assert exact.last.weight.dtype == torch.float64
    assert torch.allclose(exact.last.weight.float(), single.last.weight, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("mode", ["head", "full"])
def test_models_of_another_type_are_refused_for_folders(dtype, mode, tmp_path):
    folder = write_coloured(tmp_path / "data", train=2, val=1, size=16)
    model = zoo.get("timm/test_resnet", num_classes=3).to(dtype)
    with pytest.raises(InputError, match=rf"weights are {str(dtype)[6:]}, but images are float32\. Call model"):
        zoo.finetune(model, folder, 0.1, mode=mode, out=tmp_path / "run", **OPTIONS)
    if mode == "head":  # what was refused can still be used
        model.eval().preprocess = model.preprocess.replace(image_size=32)
        assert len(model.predict(folder / "val")) == 3
        assert zoo.evaluate(model, folder, progress=False).images == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_of_which_a_part_is_of_another_type_is_refused(dtype, tmp_path):
    folder = write_coloured(tmp_path / "data", train=2, val=1, size=16)
    model = zoo.get("timm/test_resnet", num_classes=3)
    model.fc.to(dtype)
    with pytest.raises(InputError, match=rf"the weights of 'fc\.\w+' are {str(dtype)[6:]}, but images are"):
        zoo.finetune(model, folder, 0.1, out=tmp_path / "run", **OPTIONS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_models_in_half_precision_are_refused_for_loaders(dtype, tmp_path):
    with pytest.raises(
        InputError, match=r", but small optimizer steps are lost in that precision\. Call model\.float\(\)"
    ):
        run(Net().to(dtype), loaders(), tmp_path)


@pytest.mark.parametrize(
    ("model", "data", "words"),
    [
        (
            Net(),
            loaders(channels=1),
            r"Net fails on the first training batch: RuntimeError: .*images are float32",
        ),
        (Net(channels=1), None, r"Net fails on the first training batch: RuntimeError: .*weights float32"),
    ],
)
def test_another_number_of_channels(model, data, words, tmp_path):
    data = data or write_coloured(tmp_path / "data", train=2, val=1, size=16)
    with pytest.raises(InputError, match=words):
        run(model, data, tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_failure_in_eval_mode_alone(tmp_path):
    class Late(Net):
        def forward(self, images):
            if not self.training:
                raise KeyError("nothing\nmore")
            return super().forward(images)

    with pytest.raises(InputError, match=r"Late fails on the first training batch: KeyError: 'nothing"):
        run(Late(), loaders(), tmp_path)


def test_a_batch_of_one_image(tmp_path):
    class Flat(Net):
        def __init__(self):
            super().__init__()
            self.flat = nn.BatchNorm1d(4)

        def forward(self, images):
            return self.last(self.flat(self.body(images).mean((2, 3))))

    words = (
        r"a norm layer of Flat cannot be trained on a batch of 1 image: each channel has a single value\. Use "
        r"a larger batch_size, or set freeze_norm_stats=true\."
    )
    with pytest.raises(InputError, match=words):
        run(Flat(), loaders(batch=1), tmp_path)
    folder = write_coloured(tmp_path / "data", train=2, val=1, size=16)
    with pytest.raises(InputError, match=words):
        run(Flat(), folder, tmp_path, batch_size=1)
    run(Flat(), folder, tmp_path, batch_size=1, freeze_norm_stats=True)


class Extra(Net):
    def get_extra_state(self):
        return {"scale": 1.0}

    def set_extra_state(self, state):
        pass


def with_buffer(value):
    net = Net()
    net.register_buffer("odd", value)
    return net


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Extra(), "could not be saved: '_extra_state' in the model's state_dict is a dict; expected a tensor"),
        (
            with_buffer(torch.ones(2, dtype=torch.complex128)),
            "'odd' in the model's state_dict is a tensor of type complex128",
        ),
        (with_buffer(torch.eye(2).to_sparse()), r"'odd' .* is a sparse tensor"),
        (with_buffer(torch.ones(2, device="meta")), r"'odd' .* is a tensor on the meta device"),
    ],
)
def test_what_could_not_be_saved_is_found_before_the_first_step(model, words, tmp_path):
    with pytest.raises(InputError, match=words):
        run(model, loaders(), tmp_path)
    assert not (tmp_path / "run").exists()


def test_what_can_be_saved_comes_back(tmp_path):
    first = with_buffer(torch.arange(6.0).reshape(2, 3).T)
    run(first, loaders(), tmp_path)
    second = with_buffer(torch.zeros(3, 2))
    zoo.load(tmp_path / "run", second)
    assert torch.equal(second.odd, first.odd)
    assert why_not_saved(torch.ones(2, dtype=torch.complex64)) is None


def test_the_trial_leaves_everything_as_it_was(tmp_path):
    """The run with a trial is the run without, bit for bit, and so are the draws of everybody else."""
    model, data = Net(), loaders(generator=torch.Generator().manual_seed(5))
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zoo.api.try_batches", lambda *_: None)
        run(model, data, tmp_path / "without")
    drawn = torch.rand(1), random.random(), np.random.rand()
    other, data = Net(), loaders(generator=torch.Generator().manual_seed(5))
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    run(other, data, tmp_path / "with")
    assert (torch.rand(1), random.random(), np.random.rand()) == drawn
    assert other.calls == model.calls
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_models_of_this_package_are_not_tried_on_folders(tmp_path, monkeypatch):
    folder = write_coloured(tmp_path / "data", train=2, val=1, size=16)
    monkeypatch.setattr("zoo.training.trial._try_batch", lambda *_, **__: pytest.fail("it was tried"))
    zoo.finetune(zoo.get("timm/test_resnet", num_classes=3), folder, 0.1, out=tmp_path / "run", **OPTIONS)


def test_a_head_of_ones_own_is_trained_and_loaded_again(tmp_path, capsys):
    def make():
        model = zoo.get("timm/test_resnet", num_classes=3)
        model.fc = nn.Sequential(nn.Dropout(0.1), nn.Linear(model.num_features, 3))
        return model

    folder = write_coloured(tmp_path / "data", train=2, val=1, size=16)
    model = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    done = zoo.finetune(model, folder, 0.1, out=tmp_path / "run", **(OPTIONS | {"progress": True}))
    assert "pass it as model=" in " ".join(capsys.readouterr().out.split())
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"fc.1.weight", "fc.1.bias"}
    with pytest.raises(zoo.ZooError, match=r"pass it as\s+model="):
        zoo.load(done.folder)
    loaded = zoo.load(done.folder, make())
    assert loaded.classes == ("blue", "green", "red")
    assert [one.names for one in loaded.predict(folder)] == [one.names for one in done.predict(folder)]


@pytest.mark.parametrize("layer", [nn.LazyLinear(3), nn.LazyBatchNorm1d()])
def test_a_layer_without_a_size_yet_is_told(layer, tmp_path):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3), layer)
    with pytest.raises(
        InputError,
        match=r"'3\.\w+' of the Sequential is a lazy parameter without a shape\. Run one batch through the model,",
    ):
        run(model, loaders(), tmp_path)
