from types import SimpleNamespace

import pytest
import torch

import zoo
from coloured_folder import write_coloured
from zoo.data.user_loaders import UserLoader
from zoo.engine.accelerator import make_accelerator
from zoo.engine.frozen.policy import HeadOnly
from zoo.engine.frozen.shards import KeptFeatures
from zoo.engine.inputs import LoaderBatches, inputs_of_loaders, place_features
from zoo.errors import InputError
from zoo.optim.freeze import apply_plan
from zoo.progress import Progress
from zoo.settings.preset import Preset
from zoo.tasks.base import task_of
from zoo.training.inputs import make_inputs


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return zoo.open_data(write_coloured(tmp_path_factory.mktemp("images"), train=6, val=3))


def supply(data, mode="head", show=None, **fields):
    model = zoo.get("timm/test_resnet", num_classes=3)
    preset = Preset(lr=0.1, mode=mode, batch_size=4, num_workers=0, device="cpu", image_size=32, **fields)
    plan = zoo.plan(model, preset=preset)
    apply_plan(model, plan)
    show, folder = show or Progress(enabled=False), SimpleNamespace(draw=lambda name, draw: None)
    return model, make_inputs(task_of(model), model, data, preset, plan, make_accelerator("cpu"), show, folder)


def test_loaders_are_taken_as_they_come_and_started_anew_or_from_a_batch_on():
    batches = LoaderBatches([("a", 1), ("b", 2), ("c", 3)])
    assert len(batches) == 3
    assert list(batches.epoch(0)) == list(batches) == [("a", 1), ("b", 2), ("c", 3)]
    assert list(batches.epoch(1, start_batch=2)) == [("c", 3)]
    batches = LoaderBatches([("a", 1), ("b", 2)], prepare=lambda *facts: (facts, None))
    assert [facts for facts, _ in batches.epoch(7, start_batch=1)] == [("b", 2, 7, 1)]
    pairs = torch.utils.data.TensorDataset(torch.zeros(4, 3), torch.tensor([0, 1, 1, 0]))
    loader, model = torch.utils.data.DataLoader(pairs, batch_size=2), torch.nn.Linear(3, 1)
    made = inputs_of_loaders(model, {"train": UserLoader(loader, "train", ("a", "b"))}, make_accelerator("cpu"))
    assert (made.network, made.val, len(made.train)) == (model, None, 2)
    assert [targets.tolist() for _, targets in made.train] == [[0, 1], [1, 0]]
    assert made.wrap(model) is model
    swapped = UserLoader(loader, "train", ("b", "a"), ("a", "b"), {0: 1, 1: 0})
    turned = inputs_of_loaders(model, {"train": swapped}, make_accelerator("cpu"))
    assert [targets.tolist() for _, targets in turned.train] == [[1, 0], [0, 1]]


def test_a_frozen_backbone_gives_features_and_only_the_head_runs(data):
    model, made = supply(data)
    assert isinstance(made.network, HeadOnly)
    assert made.network.engine is None
    features, targets = next(made.train.epoch(0))
    assert features.shape == (4, model.num_features)
    assert len(made.train) == 5
    assert sum(len(labels) for _, labels in made.val) == 9
    assert len(targets) == 4
    assert made.to_inputs(torch.zeros(2, 3, 32, 32)).shape == (2, model.num_features)
    assert (made.features["where"], made.features["images"]) == ("disk", [18, 9])


@pytest.mark.parametrize("fields", [{"augment": "crop-flip"}, {"cache": "off"}, {"epochs": 1}])
def test_a_frozen_backbone_is_run_by_an_engine_where_features_are_not_kept(data, fields, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # where no other test has kept any
    model, made = supply(data, **{"warmup_epochs": 0.0} | fields)
    assert isinstance(made.network, HeadOnly)
    assert made.network.engine is made.wrap(model).engine is not None
    assert made.features == {}
    images, _ = next(made.train.epoch(0))
    assert images.shape == (4, 3, 32, 32)
    assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("mode", ["full", "low_lr"])
def test_a_backbone_that_learns_is_the_network(data, mode):
    model, made = supply(data, mode=mode)
    assert made.network is made.wrap(model) is model
    images, _ = next(made.train.epoch(0))
    assert (images.shape, images.dtype) == ((4, 3, 32, 32), torch.float32)
    assert made.to_inputs(images) is images


def test_it_says_why_features_are_not_kept(data, capsys):
    supply(data, show=Progress(), augment="crop-flip")
    assert "feature cache off: augmentation changes the images every epoch (views=4 would" in capsys.readouterr().out


def test_auto_augments_what_learns_and_views_and_nothing_else(data):
    _, full = supply(data, mode="full")
    first, second = (next(full.train.epoch(epoch))[0] for epoch in (0, 0))
    assert torch.equal(first, second)
    sharp = next(supply(data, mode="full", augment="none")[1].train.epoch(0))[0]
    assert not torch.equal(first, sharp)
    plain = next(supply(data, cache="off")[1].train.epoch(0))[0]
    assert torch.equal(plain, sharp)
    assert torch.equal(next(supply(data, cache="off", views=2)[1].train.epoch(0))[0], first)


def test_views_come_again(data):
    (_, made), (_, fresh) = supply(data, mode="full", views=2), supply(data, mode="full")

    def seen(supply, epoch):
        """Each image of an epoch as bytes: the orders of the epochs differ."""
        return {image.numpy().tobytes() for images, _ in supply.train.epoch(epoch) for image in images}

    assert seen(made, 0) == seen(made, 2) == seen(fresh, 0)
    assert not seen(made, 0) & seen(made, 1)
    assert not seen(fresh, 0) & seen(fresh, 2)


def test_features_that_cannot_be_kept_are_refused_when_asked_for(data):
    with pytest.raises(InputError, match=r"cache=memory is not possible: the backbone is trained \(conv1"):
        supply(data, mode="full", cache="memory")
    with pytest.raises(InputError, match="cache=disk is not possible: augmentation changes the images every"):
        supply(data, augment="crop-flip", cache="disk")


@pytest.mark.parametrize(
    ("free", "line"),
    [
        (10**6, "cached features are held on the GPU: 1.6 kB (1.0 MB free)"),
        (3000, "in main memory and copied to the GPU per batch: they need 1.6 kB; the GPU has 3.0 kB free"),
    ],
)
def test_features_go_to_the_gpu_if_they_fit(free, line, capsys, monkeypatch):
    """`load` to the CPU stands for that to a GPU; what is said and what is taken are those of a run."""
    parts, rows = (torch.arange(140.0).view(20, 7),), [torch.full((1, 1), float(n)) for n in range(20)]
    splits = [KeptFeatures.in_memory(parts, rows), KeptFeatures.in_memory(parts, rows)]
    needed, load = sum(kept.nbytes for kept in splits), KeptFeatures.load
    assert needed == 2 * 20 * (7 * 4 + 4 + 8)
    asked = []
    monkeypatch.setattr(KeptFeatures, "load", lambda kept, device: asked.append(device) or load(kept, "cpu"))
    monkeypatch.setattr("zoo.engine.inputs.measure_free_memory", lambda device: free)
    placed = place_features(splits, torch.device("cuda"), Progress())
    assert capsys.readouterr().out.replace("\n", " ").strip().endswith(line)
    assert asked == [torch.device("cuda")] * (2 if free > 2 * needed else 0)
    for before, after in zip(splits, placed, strict=True):
        (one,), one_rows = before.take([3, 3, 19])
        (other,), other_rows = after.take([3, 3, 19])
        assert torch.equal(one, other)
        assert torch.equal(one_rows.values, other_rows.values)


def test_features_stay_where_they_are_if_the_gpu_is_full_after_all(capsys, monkeypatch):
    def fail(kept, device):
        raise torch.OutOfMemoryError("CUDA out of memory")

    kept = [KeptFeatures.in_memory((torch.zeros(2, 3),), [torch.zeros(1, 1)] * 2)]
    monkeypatch.setattr(KeptFeatures, "load", fail)
    monkeypatch.setattr("zoo.engine.inputs.measure_free_memory", lambda device: 10**9)
    assert place_features(kept, torch.device("cuda"), Progress()) == kept
    assert "another process took the GPU memory" in capsys.readouterr().out.replace("\n", " ")


def test_on_the_cpu_features_are_left_alone(monkeypatch):
    kept = [KeptFeatures.in_memory((torch.zeros(2, 3),), [torch.zeros(1, 1)] * 2)]
    monkeypatch.setattr("zoo.engine.inputs.measure_free_memory", lambda device: pytest.fail("nothing is to be asked"))
    assert place_features(kept, torch.device("cpu"), Progress()) == kept
