"""Batches of one image, of which a norm can learn nothing, are told before anything is learnt."""

import random

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import zoo
from coloured_folder import write_coloured
from zoo.errors import InputError
from zoo.training.single_image import check_single, holds_single, take_image

TINY = {"epochs": 1, "image_size": 32, "num_workers": 0, "progress": False, "device": "cpu", "lr": {"default": 0.01}}


class Flat(nn.Module):
    """A norm over vectors, which has one value per channel of a single image."""

    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(3), nn.Linear(3, 3)

    def forward(self, images):
        return self.head(self.norm(images.mean((2, 3))))


class Samples:
    classes = ("blue", "green", "red")

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        random.random()
        return torch.full((3, 8, 8), float(index)), index % 3


@pytest.mark.parametrize(
    ("count", "options", "single"),
    [
        (9, {"batch_size": 4}, True),
        (9, {"batch_size": 4, "drop_last": True}, False),
        (8, {"batch_size": 4}, False),
        (8, {"batch_size": 1}, True),
        (1, {"batch_size": 4}, True),
        (9, {"batch_size": None}, False),
    ],
)
def test_a_single_image_is_counted(count, options, single):
    assert holds_single(DataLoader(Samples(count), **options)) == single
    assert not holds_single([1, 2])


def test_the_model_and_the_random_numbers_stay():
    model = Flat()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random.seed(3)
    state = random.getstate()
    loader = DataLoader(Samples(9), batch_size=4)
    with pytest.raises(InputError, match=r"a batch of one image, .* a larger batch_size \(a loader: drop_last"):
        check_single(model, model, lambda: take_image(loader, torch.device("cpu")))
    assert random.getstate() == state
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    spatial = nn.Sequential(nn.BatchNorm2d(3))
    check_single(spatial, spatial, lambda: take_image(loader, torch.device("cpu")))
    check_single(model, model, lambda: 1 / torch.zeros(1, dtype=torch.int64).double().view(2))  # not its business


def test_a_run_is_refused_before_its_first_epoch(tmp_path):
    images = write_coloured(tmp_path / "images", train=3, val=2)
    network = Flat()
    before = network.head.weight.clone()
    for data, options in (
        (images, {"batch_size": 1}),
        ((DataLoader(Samples(9), batch_size=4), DataLoader(Samples(4), batch_size=4)), {}),
    ):
        with pytest.raises(InputError, match=r"a batch of (one|1) image"):
            zoo.finetune(network, data, out=tmp_path / "run", **TINY | options)
        assert torch.equal(network.head.weight, before)
        assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="a batch of one image"):  # its last maps have one value per channel
        zoo.finetune(zoo.get("resnet18", num_classes=3), images, out=tmp_path / "run", batch_size=1, **TINY)
    zoo.finetune(network, images, out=tmp_path / "one", batch_size=1, freeze_norm_stats=True, **TINY)
    zoo.finetune(network, images, out=tmp_path / "two", batch_size=4, **TINY)  # 9 images: the last one is left out
