import json
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional

import zoo
from coloured_folder import write_coloured
from image_files import write_tree
from stopping import StopAfter, equal
from zoo._model import ModelInterface, has_own_loss
from zoo.data import EpochSampler
from zoo.errors import InputError, Interrupted, PresetError
from zoo.settings.preset import Preset
from zoo.tasks.classification.balance import make_weighted_loss, weigh_classes, weigh_images
from zoo.tasks.classification.data import open_data
from zoo.tasks.classification.task import Classification

TASK = Classification()
TINY = {"lr": 0.1, "epochs": 3, "batch_size": 4, "image_size": 32, "num_workers": 0, "progress": False, "device": "cpu"}
NAME = "timm/test_resnet"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """2 images of `ant`, 6 of `bee`, 4 of `cat`, in this order."""
    counts = {"ant": 2, "bee": 6, "cat": 4}
    folder = tmp_path_factory.mktemp("unequal")
    return open_data(
        write_tree(folder, {f"{split}/{name}": n for split in ("train", "val") for name, n in counts.items()})
    )


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    """A set that can be learnt: 12 blue images, 12 green ones, 2 red ones."""
    folder = write_coloured(tmp_path_factory.mktemp("coloured"), train=12, val=3)
    for number in range(2, 12):
        (folder / f"train/red/{number:02}.png").unlink()
    return folder


def gradient(loss, logits, targets, **options):
    logits = logits.clone().requires_grad_()
    loss(logits, targets, **options).backward()
    return logits.grad


def test_balanced_weights_are_inverse_to_the_images_and_have_mean_1(data):
    weights = weigh_classes(data, Preset(class_weights="balanced"))
    assert list(weights) == ["ant", "bee", "cat"]
    inverse = torch.tensor([12 / (3 * 2), 12 / (3 * 6), 12 / (3 * 4)])
    assert list(weights.values()) == pytest.approx((inverse / inverse.mean()).tolist())
    assert weigh_classes(data, Preset()) == {}


def test_effective_weights_are_those_of_cui_et_al(data):
    weights = weigh_classes(data, Preset(class_weights="effective"))
    effective = torch.tensor([(1 - 0.9999) / (1 - 0.9999**count) for count in (2, 6, 4)], dtype=torch.float64)
    assert list(weights.values()) == pytest.approx((effective / effective.mean()).tolist())


def test_weights_by_name_are_relative_and_others_have_1(data):
    weights = weigh_classes(data, Preset(class_weights={"cat": 4, "ant": 1.0}))
    assert weights == pytest.approx({"ant": 0.5, "bee": 0.5, "cat": 2.0})


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_over_the_training_images_the_gradient_is_that_of_torchs_weighted_cross_entropy(data, smoothing):
    options = Preset(class_weights="balanced", label_smoothing=smoothing)
    loss = TASK.make_loss(nn.Identity(), data, options)
    torch.manual_seed(0)
    logits, targets = torch.randn(12, 3, dtype=torch.float64), torch.tensor(data.train.targets)
    weight = torch.tensor(list(weigh_classes(data, options).values()))

    def theirs(logits, targets):
        return functional.cross_entropy(logits, targets, weight=weight.to(logits), label_smoothing=smoothing)

    expected = gradient(theirs, logits, targets)
    assert torch.allclose(gradient(loss, logits, targets), expected, rtol=1e-6)
    parts = [gradient(loss, logits[part], targets[part]) * len(logits[part]) / 12 for part in (slice(5), slice(5, 12))]
    assert torch.allclose(torch.cat(parts), expected, rtol=1e-6)  # micro-batches add up to it
    plain = gradient(TASK.make_loss(nn.Identity(), data, Preset(label_smoothing=smoothing)), logits, targets)
    assert not torch.allclose(plain, expected, rtol=0.1)


def test_focal_loss_is_the_formula_and_a_sure_answer_has_no_gradient_that_is_not_a_number(data):
    torch.manual_seed(0)
    logits, targets = torch.randn(12, 3, dtype=torch.float64), torch.tensor(data.train.targets)
    loss = make_weighted_loss(data, Preset(focal_gamma=2), CPU)
    p = logits.softmax(1)[range(12), targets]
    assert torch.allclose(loss(logits, targets), (-((1 - p) ** 2) * p.log()).mean())
    sure = functional.one_hot(targets, 3) * 1e4
    for gamma in (0.5, 2):
        found = gradient(make_weighted_loss(data, Preset(focal_gamma=gamma), CPU), sure.float(), targets)
        assert found.isfinite().all()
    both = make_weighted_loss(data, Preset(focal_gamma=2, class_weights={"ant": 4}), CPU)
    weight = torch.tensor([4.0, 1, 1], dtype=torch.float64)[targets]
    assert torch.allclose(both(logits, targets), (-weight * (1 - p) ** 2 * p.log()).sum() / weight.sum())


def test_balanced_sampling_draws_each_class_equally_often_of_1_to_20():
    targets = [0] * 200 + [1] * 10
    sampler = EpochSampler(210, shuffle=True, seed=5, draw_weights=[1 / 200] * 200 + [1 / 10] * 10)
    drawn = Counter()
    for epoch in range(50):
        sampler.set_epoch(epoch)
        places = list(sampler)
        assert len(places) == len(set(places)) == 210  # an image that comes again is changed anew
        drawn.update(targets[index] for index, _ in places)
    assert abs(drawn[0] / drawn.total() - 0.5) < 0.02  # five standard deviations of 10,500 draws


def test_the_order_is_that_of_the_seed_and_the_epoch_also_from_its_middle_on():
    weights = [1.0] * 20 + [9.0]
    one, other = (EpochSampler(21, shuffle=True, seed=seed, draw_weights=weights) for seed in (1, 2))
    whole = list(one)
    assert whole != list(other)
    one.set_epoch(1)
    assert [index for index, _ in one] != [index for index, _ in whole]
    one.set_epoch(0, start=8)
    assert list(one) == whole[8:]


def test_views_of_an_image_that_comes_again_are_taken_in_turn():
    sampler = EpochSampler(6, shuffle=True, views=4, draw_weights=[1.0] + [0.0] * 5)
    sampler.set_epoch(5)
    assert list(sampler) == [(0, view) for view in (1, 2, 3, 0, 1, 2)]


def test_the_weights_of_images_are_those_of_their_classes(data):
    assert weigh_images(data, Preset()) is None
    weights = torch.tensor(weigh_images(data, Preset(sampler="balanced")))
    assert torch.allclose(torch.zeros(3).index_add(0, torch.tensor(data.train.targets), weights), torch.ones(3))


BALANCED = [{"class_weights": "balanced", "focal_gamma": 1.5, "label_smoothing": 0.1}, {"sampler": "balanced"}]


@pytest.mark.parametrize("fields", BALANCED)
def test_cached_features_are_learnt_from_as_the_images_are(coloured, tmp_path, fields):
    runs = [
        zoo.finetune(NAME, coloured, pretrained=False, cache=cache, out=tmp_path / cache, **TINY, **fields)
        for cache in ("memory", "off")
    ]
    assert [(run.folder / "features.json").exists() for run in runs] == [True, False]
    losses = [[record["loss"] for record in run.metrics] for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    plain = zoo.finetune(NAME, coloured, pretrained=False, out=tmp_path / "plain", **TINY)
    assert losses[0] != pytest.approx([record["loss"] for record in plain.metrics], rel=1e-2)
    confusion = torch.tensor(runs[0].evaluation.confusion)
    assert confusion.sum() == 9
    weight = runs[0].model.get_head().weight
    assert torch.allclose(weight, runs[1].model.get_head().weight, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("fields", BALANCED)
def test_a_resumed_run_is_the_same_run(coloured, tmp_path, fields):
    options = TINY | fields | {"pretrained": False, "mode": "full", "lr": 0.01}
    whole = zoo.finetune(NAME, coloured, out=tmp_path / "whole", **options)
    with pytest.raises(Interrupted):
        zoo.finetune(NAME, coloured, out=tmp_path / "cut", callbacks=StopAfter(9), **options)
    resumed = zoo.resume(tmp_path / "cut", progress=False)
    assert equal(whole.model.state_dict(), resumed.model.state_dict())
    assert [record["loss"] for record in whole.metrics] == [record["loss"] for record in resumed.metrics]


def test_the_validation_loss_is_the_plain_cross_entropy(coloured, tmp_path):
    run = zoo.finetune(NAME, coloured, pretrained=False, class_weights={"red": 50}, out=tmp_path / "run", **TINY)
    assert run.evaluation.loss == pytest.approx(zoo.evaluate(run.model, coloured).loss, rel=1e-4)
    assert any(record["val_loss"] == run.evaluation.loss for record in run.metrics)


def test_counts_and_weights_are_printed_and_kept(coloured, tmp_path, capsys):
    options = TINY | {"progress": True, "epochs": 1, "pretrained": False}
    zoo.finetune(NAME, coloured, class_weights="balanced", out=tmp_path / "run", **options)
    kept = json.loads((tmp_path / "run/data.json").read_text())
    assert kept["counts"]["train"] == {"blue": 12, "green": 12, "red": 2}
    assert kept["class_weights"] == pytest.approx({"blue": 0.375, "green": 0.375, "red": 2.25})
    said = capsys.readouterr().out
    assert "training images per class" in said
    assert ["red", "2", "2.250"] in [line.split() for line in said.splitlines()]
    zoo.finetune(NAME, coloured, sampler="balanced", out=tmp_path / "drawn", **options)
    assert ["red", "2", "33.3", "%"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    zoo.finetune(NAME, coloured, out=tmp_path / "plain", **options)
    assert "class_weights" not in json.loads((tmp_path / "plain/data.json").read_text())
    assert "training images per class" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"class_weights": {"rde": 2.0, "gren": 1}},
            r"names 'rde', 'gren', which the data does not have\. 'rde': Did you mean 'red'\? 'gren': Did you mean 'gr",
        ),
        ({"class_weights": {"zzzz": 2.0}}, r"The classes are 'blue', 'green', 'red'\."),
        ({"class_weights": {"red": 0}}, r"class_weights\.red is 0; expected a number, above 0"),
        ({"class_weights": "balance"}, r"class_weights is 'balance'; expected 'none', 'balanced' or 'effective', or a"),
        ({"focal_gamma": -1}, r"focal_gamma is -1; expected a number, above 0, or null"),
        ({"class_weights": "effective", "sampler": "balanced"}, r"would balance the classes twice"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(coloured, tmp_path, fields, text):
    with pytest.raises((InputError, PresetError), match=text):
        zoo.finetune(NAME, coloured, pretrained=False, out=tmp_path / "run", **TINY, **fields)
    assert not (tmp_path / "run").exists()


def test_a_class_without_images_cannot_be_balanced(data):
    empty = type(data)(data.train, data.val, None, (*data.classes, "dodo"), "nowhere")
    for fields in ({"class_weights": "balanced"}, {"class_weights": "effective"}, {"sampler": "balanced"}):
        with pytest.raises(InputError, match=r"needs images of every class; 'dodo' has none in train"):
            TASK.report(empty, Preset(**fields), None)
    assert weigh_classes(empty, Preset(class_weights={"dodo": 1}))["dodo"] == 1


def test_loaders_bring_their_own_order_and_take_weights_by_name(tmp_path):
    targets = torch.arange(12) % 3
    pairs = torch.utils.data.TensorDataset(torch.rand(12, 3, 8, 8), targets)
    loaders = (torch.utils.data.DataLoader(pairs, batch_size=4),) * 2
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    options = TINY | {"lr": {"default": 0.5}, "out": tmp_path / "run"}
    for fields in ({"class_weights": "balanced"}, {"sampler": "balanced"}):
        with pytest.raises(InputError, match=r"needs training images that can be counted, but the data are loaders"):
            zoo.finetune(network, loaders, **options, **fields)
        assert not (tmp_path / "run").exists()
    run = zoo.finetune(network, loaders, class_weights={"2": 3}, **options)
    assert json.loads((run.folder / "data.json").read_text())["class_weights"] == pytest.approx(
        {"0": 0.6, "1": 0.6, "2": 1.8}
    )


class OwnLoss(ModelInterface, nn.Linear):
    def loss(self, outputs, targets, *, label_smoothing=0.0):
        return outputs.square().mean()


def test_a_model_with_a_loss_of_its_own_is_refused(tmp_path):
    model = OwnLoss(3, 2)
    assert has_own_loss(model)
    assert not has_own_loss(zoo.get(NAME, num_classes=2))
    assert not has_own_loss(nn.Linear(3, 2))
    for fields in ({"class_weights": "balanced"}, {"focal_gamma": 2.0}):
        with pytest.raises(InputError, match=rf"{next(iter(fields))} has no effect: OwnLoss computes its own loss"):
            zoo.plan(model, lr={"default": 0.1}, **fields)
    replaced = zoo.get(NAME, num_classes=2)
    replaced.loss = model.loss
    assert has_own_loss(replaced)


def test_detectors_have_no_such_fields():
    for fields in ({"class_weights": "balanced"}, {"focal_gamma": 2.0}, {"sampler": "balanced"}):
        text = f"{next(iter(fields))} is .*, which does not apply to a detector"
        with pytest.raises((InputError, PresetError), match=text):
            zoo.plan("yolo_nas_s", lr=0.1, **fields)
