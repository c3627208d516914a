import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

import zoo
from coloured_folder import write_coloured
from stopping import StopAfter, equal
from zoo.engine import recompute_norms
from zoo.errors import Interrupted, PresetError
from zoo.files.safetensors import read_tensors
from zoo.optim.freeze import apply_plan

TINY = {"batch_size": 6, "image_size": 32, "num_workers": 0, "progress": True, "device": "cpu", "mode": "full"}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_coloured(tmp_path_factory.mktemp("images"), train=6, val=2)


class Collects(StopAfter):
    """Keeps the weights after each epoch."""

    def __init__(self, **stop):
        super().__init__(**stop)
        self.weights = []

    def on_epoch_end(self, run):
        self.weights.append({name: value.clone() for name, value in run.model.state_dict().items()})
        super().on_epoch_end(run)


def train(images, out, callback, **options):
    model = zoo.get("timm/test_resnet", num_classes=3, seed=3)
    options = {"lr": 0.05, "epochs": 4, "swa_epochs": 3, "keep": "last"} | TINY | options
    return zoo.finetune(model, images, out=out, callbacks=[callback], **options)


def test_the_mean_is_that_of_the_last_epochs_also_after_a_resume(images, tmp_path, capsys):
    seen = Collects()
    run = train(images, tmp_path / "run", seen)
    for name, value in run.model.named_parameters():
        mean = torch.stack([weights[name].double() for weights in seen.weights[1:]]).mean(0)
        torch.testing.assert_close(value.double(), mean, atol=1e-6, rtol=1e-5)
    statistics = run.model.state_dict()["bn1.running_mean"]
    assert not torch.equal(statistics, seen.weights[-1]["bn1.running_mean"]), "they are those of the mean"
    said = capsys.readouterr().out
    assert "mean of epochs 2 to 4: top-1" in said
    assert "batch norms recomputed; it is kept" in said
    assert zoo.load(run.folder).config["origin"]["epoch"] == "mean of epochs 2 to 4"
    with pytest.raises(Interrupted):
        train(images, tmp_path / "cut", Collects(epoch=3))
    resumed = zoo.resume(tmp_path / "cut", progress=False).model.state_dict()
    assert equal(run.model.state_dict(), resumed)


def test_the_better_one_of_the_mean_and_the_best_epoch_is_kept(images, tmp_path, capsys):
    seen = Collects()
    run = train(images, tmp_path / "run", seen, keep="both", epochs=3, swa_epochs=2, monitor="val_loss", lr=1e-4)
    said = capsys.readouterr().out
    best = min(record["val_loss"] for record in run.metrics)
    is_kept = "it is kept" in said
    assert is_kept or "it is not kept" in said
    assert run.evaluation.loss < best if is_kept else run.evaluation.loss == best
    last = read_tensors(run.folder / "last.safetensors")
    assert equal(seen.weights[-1], last)
    assert zoo.load(run.folder / "last.safetensors").config["origin"]["epoch"] == "epoch 3, the last"


@pytest.mark.parametrize("options", [{"ema_decay": 0.9}, {"patience": 2}, {"swa_epochs": 5}])
def test_what_contradicts_a_mean_is_refused(options):
    with pytest.raises(PresetError, match="swa_epochs is"):
        zoo.Preset(**{"swa_epochs": 3, "epochs": 4} | options)


def test_statistics_are_those_of_torch_and_frozen_norms_keep_theirs():
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)).double()
    theirs = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)).double()
    theirs.load_state_dict(ours.state_dict())
    batches = [torch.randn(5, 3, 8, 8, dtype=torch.float64) for _ in range(3)]
    update_bn(batches, theirs)
    assert recompute_norms(ours, lambda: [ours(batch) for batch in batches]) == 2
    assert equal(ours.state_dict(), theirs.state_dict())
    assert [norm.momentum for norm in ours if isinstance(norm, nn.BatchNorm2d)] == [0.1, 0.1]
    apply_plan(ours, zoo.plan(ours, {"0.": 0, "1.": 0, "default": 0.1}), 0)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    assert recompute_norms(ours, lambda: [ours(2 * batch) for batch in batches]) == 1
    changed = {name for name, value in ours.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"3.running_mean", "3.running_var"}
