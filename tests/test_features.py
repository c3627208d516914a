import copy
import re

import pytest
import torch
from torch import nn

import zoo
from coloured_folder import write_coloured
from image_files import make_picture
from zoo.errors import InputError
from zoo.features import FeatureBatches, HeadOnly, compute_features, why_not_cached
from zoo.loader import EpochSampler, make_loader
from zoo.preprocess import Preprocess, eval_transform

TRANSFORM = eval_transform(Preprocess(image_size=16))


class Pictures:
    """Pictures in memory; the target of each is its place."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def read(self, index, /):
        return make_picture((16, 16), seed=index), index


class Small(nn.Module):
    """A trunk with what differs between train and eval mode, and a head."""

    head_prefixes = ("last.",)
    num_features = 4

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.drop, self.last = nn.Dropout(0.5), nn.Linear(4, 3)

    def trunk(self, images):
        return self.drop(self.norm(self.conv(images))).mean((2, 3))

    def head(self, features):
        return self.last(features)

    def forward(self, images):
        return self.head(self.trunk(images))


def loader_of(count, **options):
    return make_loader(Pictures(count), TRANSFORM, batch_size=4, **options)


def batches_of(count, seed=0):
    """Kept features that tell which image they are of."""
    sampler = loader_of(count, shuffle=True, seed=seed).epoch_sampler
    rows = torch.arange(float(count))[:, None].expand(count, 5)
    return FeatureBatches(rows, torch.arange(count), sampler, 4)


@pytest.mark.parametrize("count", [12, 10, 9, 1])  # 9: a single image is left over
@pytest.mark.parametrize("seed", [0, 3])
def test_features_come_in_the_order_of_their_images(count, seed):
    loader, kept = loader_of(count, shuffle=True, seed=seed), batches_of(count, seed)
    sizes = set()
    for epoch in (0, 1, 5):
        loader.epoch_sampler.set_epoch(epoch)
        expected = [targets.tolist() for _, targets in loader]
        assert [targets.tolist() for _, targets in kept.epoch(epoch)] == expected
        assert [features[:, 2].tolist() for features, _ in kept.epoch(epoch)] == expected
        sizes.add(len(expected))
    assert sizes == {len(kept)} == {len(loader)}


def test_the_single_image_at_the_end_is_left_out_as_the_loader_does():
    kept = batches_of(9)
    assert [len(targets) for _, targets in kept.epoch(0)] == [4, 4]
    assert len({*range(9)} - {target for _, targets in kept.epoch(0) for target in targets.tolist()}) == 1


@pytest.mark.parametrize("start", [0, 1, 2])
def test_an_epoch_may_start_at_any_batch(start):
    kept = batches_of(10)
    whole = [targets.tolist() for _, targets in kept.epoch(2)]
    assert [targets.tolist() for _, targets in kept.epoch(2, start)] == whole[start:]
    assert len(kept) == 3


def test_without_an_epoch_it_is_the_first():
    kept = FeatureBatches(torch.randn(5, 2), torch.arange(5), EpochSampler(5), 4)
    assert [targets.tolist() for _, targets in kept] == [[0, 1, 2, 3], [4]]


def test_features_are_the_trunks_in_eval_mode_and_in_order():
    model, done = Small().train(), []
    model.norm.running_mean += 1.0
    loader = loader_of(10)
    features, targets = compute_features(model, loader, on_batch=done.append)
    assert targets.tolist() == list(range(10))
    assert (features.shape, features.dtype, features.requires_grad) == ((10, 4), torch.float32, False)
    assert done == [4, 8, 10]
    assert float(model.norm.num_batches_tracked) == 0
    with torch.no_grad():
        expected = torch.cat([model.eval().trunk(images) for images, _ in loader])
    torch.testing.assert_close(features, expected)


def test_half_precision_is_kept_as_float32():
    model = Small()
    with torch.autocast("cpu", torch.bfloat16):
        features, _ = compute_features(model, loader_of(4))
    assert features.dtype == torch.float32
    with torch.no_grad():
        assert not torch.equal(features, compute_features(model, loader_of(4))[0])


def test_the_head_alone_gives_what_the_model_gives():
    model = Small().eval()
    head = HeadOnly(model)
    images = torch.randn(4, 3, 16, 16)
    assert torch.equal(head(model.trunk(images)), model(images))
    assert head.train().model.training
    assert model.training


def check(model=None, rates=None, **changes):
    model = model or Small()
    options = {"augmented": False, "epochs": 2, "images": 10, "processes": 1} | changes
    return why_not_cached(model, zoo.plan(model, rates or {"last.": 0.1, "default": 0.0}), **options)


@pytest.mark.parametrize(
    ("reason", "arguments"),
    [
        ("the model has no trunk and head", {"model": nn.Linear(2, 2), "rates": {"default": 0.1}}),
        (r"the trunk learns \(conv.weight\)", {"rates": {"default": 0.1}}),
        (r"the trunk learns \(norm.weight\)", {"rates": {"norm": 0.1, "last": 0.1, "default": 0.0}}),
        ("the images are augmented anew in each epoch", {"augmented": True}),
        ("several processes train", {"processes": 2}),
        ("there is one epoch only", {"epochs": 1}),
        (r"the features need [\d.]+ GiB of memory", {"images": 10**13}),
    ],
)
def test_why_features_cannot_be_kept(reason, arguments):
    assert check() is None
    found = check(**arguments)
    assert found
    assert re.fullmatch(reason, found)


def test_a_share_of_the_free_memory_is_enough(monkeypatch):
    for free, fits in ((1 << 20, True), (1 << 16, False)):  # 2,000 images of 4 features: 32 kB
        monkeypatch.setattr("zoo.features._free_memory", lambda free=free: free)
        assert (check(images=2000) is None) == fits


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_coloured(tmp_path_factory.mktemp("data"), train=7, val=4)


def finetune(data, out, cache, **options):
    model = zoo.get("timm/test_resnet", num_classes=3, drop_rate=0.2, seed=1)
    fixed = {"augment": "none", "image_size": 32, "batch_size": 4, "epochs": 3, "device": "cpu", "progress": False}
    return zoo.finetune(model, data, 0.01, cache=cache, out=out, **fixed | options)


@pytest.fixture
def computed(monkeypatch):
    """How many images each call of `compute_features` was for."""
    counts = []

    def compute(*arguments, **options):
        features, targets = compute_features(*arguments, **options)
        counts.append(len(features))
        return features, targets

    monkeypatch.setattr("zoo.batches.compute_features", compute)
    return counts


def test_a_head_trained_on_kept_features_is_the_head_trained_on_images(data, tmp_path, computed):
    kept, plain = finetune(data, tmp_path / "kept", "memory"), finetune(data, tmp_path / "plain", "off")
    assert computed == [21, 12]  # train and val, of the first run alone
    begin = zoo.get("timm/test_resnet", num_classes=3, seed=1)
    weights, expected = dict(kept.model.named_parameters()), dict(plain.model.named_parameters())
    assert float((weights["fc.weight"] - begin.fc.weight).detach().abs().max()) > 0.01
    for name, value in weights.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-5)
    assert [record["step"] for record in kept.metrics] == [record["step"] for record in plain.metrics] == [5, 10, 15]
    for one, other in zip(kept.metrics, plain.metrics, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)
        assert one["val_loss"] == pytest.approx(other["val_loss"], abs=1e-5)
    assert kept.evaluation.confusion == plain.evaluation.confusion


@pytest.mark.parametrize(("epochs", "counts"), [(1, []), (2, [21, 12])])
def test_features_are_kept_by_themselves_where_it_pays(data, tmp_path, computed, epochs, counts):
    run = finetune(data, tmp_path, "auto", epochs=epochs)
    assert computed == counts
    image = data / "val" / "red" / "00.png"  # the model is whole afterwards, and can be copied
    assert copy.deepcopy(run.model).predict(image)[0].probabilities == run.predict(image)[0].probabilities


def test_what_cannot_be_kept_is_refused_where_it_was_asked_for(data, tmp_path):
    refusal = r"cache='memory' is not possible: the trunk learns .* Use cache='auto' or 'off'"
    with pytest.raises(InputError, match=refusal):
        finetune(data, tmp_path, "memory", mode="full")
    with pytest.raises(InputError, match="the images are augmented"):
        finetune(data, tmp_path, "memory", augment="crop-flip")
