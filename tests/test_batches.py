import pytest
import torch

import zoo
from coloured_folder import write_coloured
from zoo.batches import LoaderBatches, make_supply
from zoo.engine import make_accelerator
from zoo.errors import InputError
from zoo.features import FeatureBatches, HeadOnly
from zoo.freezing import apply_plan
from zoo.preset import Preset
from zoo.progress import Progress


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return zoo.open_data(write_coloured(tmp_path_factory.mktemp("images"), train=6, val=3))


def supply(data, mode="head", **fields):
    model = zoo.get("timm/test_resnet", num_classes=3)
    preset = Preset(lr=0.1, mode=mode, batch_size=4, num_workers=0, device="cpu", image_size=32, **fields)
    plan = zoo.plan(model, preset=preset)
    apply_plan(model, plan)
    preprocess = model.preprocess.replace(image_size=32)
    return model, make_supply(model, data, preset, plan, preprocess, make_accelerator("cpu"), Progress(enabled=False))


def test_a_loader_of_the_users_own_is_started_anew_or_from_a_batch_on():
    batches = LoaderBatches([("a", 1), ("b", 2), ("c", 3)], None, 1)
    assert len(batches) == 3
    assert list(batches.epoch(0)) == [("a", 1), ("b", 2), ("c", 3)]
    assert list(batches.epoch(1, start_batch=2)) == [("c", 3)]


def test_a_frozen_trunk_gives_features_and_only_the_head_runs(data):
    model, made = supply(data)
    assert isinstance(made.network, HeadOnly)
    assert isinstance(made.train, FeatureBatches)
    features, targets = next(made.train.epoch(0))
    assert features.shape == (4, model.num_features)
    assert len(made.train) == 5
    assert sum(len(labels) for _, labels in made.val) == 9
    assert len(targets) == 4


@pytest.mark.parametrize(
    "fields", [{"mode": "full"}, {"mode": "low_lr"}, {"augment": "crop-flip"}, {"cache": "off"}, {"epochs": 1}]
)
def test_otherwise_images_are_loaded(data, fields):
    model, made = supply(data, **{"warmup_epochs": 0.0} | fields)
    assert made.network is model
    images, _ = next(made.train.epoch(0))
    assert images.shape == (4, 3, 32, 32)


def test_auto_augments_what_learns_and_nothing_else(data):
    _, full = supply(data, mode="full")
    first, second = (next(full.train.epoch(epoch))[0] for epoch in (0, 0))
    assert torch.equal(first, second)
    sharp = next(supply(data, mode="full", augment="none")[1].train.epoch(0))[0]
    assert not torch.equal(first, sharp)
    plain = next(supply(data, cache="off")[1].train.epoch(0))[0]
    assert torch.equal(plain, sharp)


def test_features_that_cannot_be_kept_are_refused_when_asked_for(data):
    with pytest.raises(InputError, match=r"cache='memory' is not possible: the trunk learns \(conv1"):
        supply(data, mode="full", cache="memory")
