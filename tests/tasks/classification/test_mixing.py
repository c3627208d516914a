import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.transforms import v2

import zoo
from stopping import StopAfter, equal
from zoo._model import ModelInterface
from zoo.data import Preprocess, to_input
from zoo.errors import InputError, Interrupted, PresetError
from zoo.settings import Preset
from zoo.tasks.classification.augment import choose_augment
from zoo.tasks.classification.data import open_data
from zoo.tasks.classification.mixing import Mixing
from zoo.tasks.classification.task import Classification

TASK = Classification()
TINY = {
    "lr": 0.01,
    "epochs": 2,
    "batch_size": 4,
    "image_size": 32,
    "num_workers": 0,
    "progress": False,
    "device": "cpu",
}
NAME = "timm/test_resnet"
MIXED = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}


@pytest.fixture(scope="module")
def data(images):
    return open_data(images)


def make_source(data, **fields):
    model = nn.Identity()
    model.preprocess = Preprocess(image_size=32)
    return TASK.make_training_source(model, data, Preset(**fields), is_frozen=False)


@pytest.mark.parametrize("name", ["mixup_alpha", "cutmix_alpha"])
def test_shares_are_those_of_the_pixels(name):
    mix = Mixing(3, **({"mixup_alpha": 0.0, "cutmix_alpha": 0.0} | {name: 1.0}), seed=0)
    targets = torch.arange(4) % 3
    images = targets.float()[:, None, None, None].expand(4, 3, 16, 16)  # as bright as the number of the class
    found = []
    for batch in range(20):
        mixed, shares = mix(images, targets, 0, batch)
        assert torch.allclose(shares.sum(1), torch.ones(4))
        assert torch.allclose(mixed.mean((1, 2, 3)), (shares * torch.arange(3.0)).sum(1), atol=1e-5)
        if name == "cutmix_alpha":
            assert set(mixed.unique().tolist()) <= {0.0, 1.0, 2.0}
        found.append(shares[1].max().item())
        again = mix(images, targets, 0, batch)
        assert torch.equal(mixed, again[0])
    assert len(set(found)) > 10
    assert not torch.equal(mix(images, targets, 1, 0)[1], mix(images, targets, 0, 0)[1])


def test_of_both_each_batch_takes_one_and_draws_leave_other_numbers_alone():
    mix, targets = Mixing(2, 1.0, 1.0, 0), torch.tensor([0, 1])
    images = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
    state = torch.get_rng_state()
    blended = [
        bool(((mixed := mix(images, targets, 0, batch)[0]) > 0).logical_and(mixed < 1).any()) for batch in range(40)
    ]
    assert torch.equal(state, torch.get_rng_state())
    assert 8 < sum(blended) < 32


@pytest.mark.parametrize("fields", [{}, {"class_weights": {"red": 5.0}}, {"class_weights": "effective"}])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_shares_is_the_sum_of_the_losses_of_both_classes_by_their_shares(data, fields, smoothing):
    options = Preset(label_smoothing=smoothing, **fields, **MIXED)
    loss = TASK.make_loss(nn.Identity(), data, options)
    torch.manual_seed(0)
    logits, targets, share = torch.randn(8, 3, dtype=torch.float64), torch.arange(8) % 3, 0.3
    others = targets.roll(1)
    shares = share * functional.one_hot(targets, 3) + (1 - share) * functional.one_hot(others, 3)
    expected = share * loss(logits, targets) + (1 - share) * loss(logits, others)
    assert torch.allclose(loss(logits, shares), expected)
    assert torch.allclose(loss(logits, shares.float()), expected, rtol=1e-6)
    assert torch.allclose(loss(logits, functional.one_hot(targets, 3).double()), loss(logits, targets))


def test_several_labels_of_an_image_become_shares_too():
    labels = torch.tensor([[1.0, 1, 0], [0, 0, 1], [0, 0, 0]])
    images = labels[:, 0, None, None, None].expand(3, 3, 8, 8)
    mixed, shares = Mixing(3, 1.0, 0.0, seed=2)(images, labels, 0, 0)
    assert torch.allclose(mixed.mean((1, 2, 3)), shares[:, 0])
    assert torch.allclose(shares.sum(0), labels.sum(0))
    assert 0 < shares[1, 0] < 1


def test_training_batches_are_mixed_and_scored_ones_are_not(data):
    source, plain = make_source(data, **MIXED), make_source(data)
    samples = source.collate([source.samples[index, 0] for index in range(4)])
    inputs, shares = source.prepare(*samples, 0, 0)
    before, targets = plain.prepare(*samples, 0, 0)
    assert (shares.shape, targets.shape) == ((4, 3), (4,))
    assert not torch.equal(inputs, before)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert source.uncacheable_reason == "every batch is mixed anew (mixup or CutMix)"
    model = nn.Linear(1, 1)
    model.preprocess = Preprocess(image_size=32)
    scored = TASK.make_scoring_source(model, data.val)
    assert torch.equal(scored.prepare(*samples, 0, 0)[0], before)
    assert make_source(data, augment="none", **MIXED).prepare(*samples, 0, 0)[1].shape == (4,)  # all turned off


def test_auto_is_no_change_only_where_none_is_asked_for():
    chosen = [
        choose_augment(Preset(**fields), is_frozen=True)
        for fields in (
            {},
            {"views": 4},
            {"max_rotation": 5.0},
            MIXED,
            {"transform": compose()},
            {"augment": "none", "grayscale": 1.0},
        )
    ]
    assert chosen == ["none", *["crop-flip"] * 4, "none"]


def test_what_identifies_cached_features_is_what_it_was_before_there_were_these_changes(data):
    facts = {"preprocess": Preprocess(image_size=32).to_dict(), "resizer": "pillow"}
    assert make_source(data, augment="none", views=2).cache_key == facts
    changed = {"augment": "crop-flip", "crop_scale_min": 0.35, "flip": 0.5}
    assert make_source(data, views=2).cache_key == facts | {"changed": changed, "seed": 0}
    more = make_source(data, views=2, augment="rand", grayscale=0.5).cache_key
    assert more["changed"] == changed | {"augment": "rand", "grayscale": 0.5}


def compose(degrees=30):
    return v2.Compose([v2.RandomRotation(degrees), v2.ColorJitter(0.4)])


def test_a_mixed_run_with_a_transform_of_the_users_is_resumed_exactly_and_with_that_transform_only(images, tmp_path):
    fields = {"augment": "rand", "max_rotation": 10.0, "random_erasing": 0.3, "class_weights": "balanced"}
    options = TINY | MIXED | fields | {"pretrained": False, "mode": "full"}
    whole = zoo.finetune(NAME, images, transform=compose(), out=tmp_path / "whole", **options)
    assert (tmp_path / "whole/pictures/first_batch.png").exists()
    cut = tmp_path / "cut"
    with pytest.raises(Interrupted):
        zoo.finetune(NAME, images, transform=compose(), out=cut, callbacks=StopAfter(2), **options)
    assert "transform: <Compose>\n" in (cut / "preset.yaml").read_text()
    for given, text in (
        (None, r"the transform <Compose> was a Python object, which is not saved\. Pass it again: zoo\.resume"),
        (compose(31), r"the transform <Compose> has changed since the run in .* started"),
        (v2.RandomRotation(30), r"began with the transform <Compose>, not with <RandomRotation>"),
    ):
        with pytest.raises(InputError, match=text):
            zoo.resume(cut, transform=given, progress=False)
    resumed = zoo.resume(cut, transform=compose(), progress=False)
    assert equal(whole.model.state_dict(), resumed.model.state_dict())
    assert [record["loss"] for record in whole.metrics] == [record["loss"] for record in resumed.metrics]


def test_the_drawing_names_both_classes_with_their_shares(data, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr("zoo.tasks.classification.mixing.draw_batch", lambda *arguments: seen.append(arguments))
    source = make_source(data, mixup_alpha=1.0)
    images, targets = source.collate([source.samples[index, 0] for index in (0, 7, 13)])
    source.draw(images, targets, tmp_path / "x.png")
    pixels, names, _ = seen[0]
    inputs, _ = source.prepare(images, targets, 0, 0)
    assert torch.allclose(to_input(pixels, Preprocess()), inputs, atol=0.02)  # rounded to bytes
    assert [set(shares) for shares in names] == [{"blue", "red"}, {"blue", "green"}, {"green", "red"}]
    assert all(sum(shares.values()) == pytest.approx(1) and len(shares) == 2 for shares in names)


class OwnLoss(ModelInterface, nn.Linear):
    def loss(self, outputs, targets, *, label_smoothing=0.0):
        return outputs.square().mean()


@pytest.mark.parametrize(
    ("model", "fields", "text"),
    [
        (NAME, {"mixup_alpha": 0.2, "focal_gamma": 2.0}, r"mixup_alpha with focal_gamma is not defined"),
        (NAME, {"cutmix_alpha": 1.0, "cache": "disk"}, r"cache=disk is not possible with cutmix_alpha"),
        (OwnLoss(3, 2), {"mixup_alpha": 0.2}, r"mixup_alpha is not possible: OwnLoss computes its own loss"),
        (NAME, {"mixup": 0.5}, r"mixup is 0\.5, which does not apply to a classifier\. Use mixup_alpha instead"),
        (NAME, {"augment": "radn"}, r"augment is 'radn'; expected .*\. Did you mean 'rand'\?"),
        (NAME, {"augment": "rand", "augment_magnitude": 31}, r"augment_magnitude is 31; expected an integer, 0 to 30"),
        (NAME, {"rand_ops": 2}, r"rand_ops is 2, but augment is 'auto'"),
        ("yolo_nas_s", {"mixup_alpha": 0.2}, r"mixup_alpha is 0\.2, which does not apply to a detector\. Use mixup"),
        ("yolo_nas_s", {"random_erasing": 0.2}, r"random_erasing is 0\.2, which does not apply to a detector"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_read(model, fields, text):
    with pytest.raises((InputError, PresetError), match=text):
        zoo.plan(model, lr={"default": 0.1}, **fields)


def test_loaders_bring_their_own_augmentation(tmp_path):
    pairs = torch.utils.data.TensorDataset(torch.rand(8, 3, 8, 8), torch.arange(8) % 2)
    loaders = (torch.utils.data.DataLoader(pairs, batch_size=4),) * 2
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    for fields in ({"cutmix_alpha": 1.0}, {"grayscale": 0.5}, {"augment": "rand"}, {"transform": compose()}):
        with pytest.raises(InputError, match=rf"{next(iter(fields))} is .*, but the data are loaders"):
            zoo.finetune(network, loaders, **TINY | {"lr": {"default": 0.1}, "out": tmp_path / "run"}, **fields)
        assert not (tmp_path / "run").exists()
