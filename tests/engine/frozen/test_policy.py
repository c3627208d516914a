import copy
import re

import pytest
import torch
from torch import nn

import zoo
from coloured_folder import write_coloured
from fake_device import fake_device
from feeds import Small, make_feed
from zoo.data.loader import lay_channels_last, order_batches
from zoo.engine.frozen.backbone import BackboneEngine
from zoo.engine.frozen.policy import (
    HeadOnly,
    KeptSamples,
    Passes,
    as_they_are,
    backbone_trains_reason,
    choose_cache,
    choose_residence,
    format_bytes,
)
from zoo.engine.frozen.shards import KeptFeatures, Rows, send
from zoo.errors import InputError
from zoo.tasks.detection.task import _join_rows

GB = 10**9
LOADING = {"batch_size": 4, "num_workers": 0, "pin_memory": False}


def test_the_head_alone_gives_what_the_model_gives():
    model, images = Small().eval(), lay_channels_last(torch.randn(4, 3, 16, 16))
    head, whole = HeadOnly(model), HeadOnly(model, BackboneEngine(model, device="cpu", fuse=False))
    assert torch.equal(head(model.trunk(images)), model(images))
    assert torch.equal(whole(images), model(images))
    assert head.train().model.training
    assert model.training


def test_only_the_head_gets_a_gradient_and_the_backbone_stays_in_eval_mode():
    model = Small().train()
    network = HeadOnly(model, BackboneEngine(model, device="cpu"))
    first, second = network(torch.ones(2, 3, 16, 16)), network(torch.ones(2, 3, 16, 16))
    assert torch.equal(first, second)  # no dropout in the backbone
    first.sum().backward()
    assert {name for name, value in model.named_parameters() if value.grad is not None} == {"last.weight", "last.bias"}
    assert float(model.norm.num_batches_tracked) == 0


def kept_of(count, views=1):
    """Kept features that tell which sample they are of, and classes that tell their image."""
    rows = torch.arange(float(views * count))[:, None].expand(-1, 5).contiguous()
    classes = torch.arange(count).repeat(views)[:, None, None]
    return KeptSamples(KeptFeatures.in_memory((rows,), list(classes)), make_feed(count))


@pytest.mark.parametrize("count", [12, 10, 9, 1])  # 9: a single image is left over
@pytest.mark.parametrize("seed", [0, 3])
def test_features_come_in_the_order_of_their_images(count, seed):
    options = LOADING | {"shuffle": True, "seed": seed}
    kept = order_batches(kept_of(count), count, as_they_are, **options)
    images = order_batches(make_feed(count).samples, count, make_feed(count).collate, **options)
    for epoch in (0, 1, 5):
        kept.epoch_sampler.set_epoch(epoch)
        images.epoch_sampler.set_epoch(epoch)
        expected = [targets.tolist() for _, targets in images]
        assert [targets.tolist() for _, targets in kept] == expected
        assert [parts[0][:, 2].tolist() for parts, _ in kept] == expected
    assert len(kept) == len(images)


def test_views_are_taken_in_turn():
    loader = order_batches(kept_of(5, views=3), 5, as_they_are, shuffle=True, seed=1, views=3, **LOADING)
    for epoch in range(7):
        loader.epoch_sampler.set_epoch(epoch)
        samples = [int(row) for parts, _ in loader for row in parts[0][:, 0]]
        targets = [target for _, batch in loader for target in batch.tolist()]
        assert [sample // 5 for sample in samples] == [epoch % 3] * len(samples)
        assert [sample % 5 for sample in samples] == targets

    class Taking(Small):
        def head(self, features, targets):
            return features.sum() + targets

    assert float(HeadOnly(Taking())(torch.ones(1, 4), torch.tensor(2.0))) == 6.0


@pytest.mark.parametrize(
    ("device", "needed", "free", "expected"),
    [
        ("cuda", 4 * GB, 8 * GB, (True, "4.0 GB (8.0 GB free)")),
        ("cuda", 4 * GB + 1, 8 * GB, (False, "they need 4.0 GB; the GPU has 8.0 GB free")),
        ("cuda", 1, 0, (False, "they need 0.0 kB; the GPU has 0.0 kB free")),
        ("cpu", 1, 8 * GB, (False, "cpu shares the machine's memory")),
        ("mps", 1, 8 * GB, (False, "mps shares the machine's memory")),
    ],
)
def test_features_go_to_a_gpu_as_a_whole_if_they_take_half_of_what_is_free_at_most(device, needed, free, expected):
    assert choose_residence(device, needed, free) == expected


def test_features_on_a_gpu_are_taken_there():
    """On one that is not there: the loader gives tensors of it, so nothing is left to be copied."""
    with fake_device() as device:
        counts = torch.tensor([2, 0, 1, 1], device=device)
        kept = KeptFeatures([(torch.zeros(4, 7, device=device),)], Rows(torch.zeros(4, 5, device=device), counts), 4)
        parts, rows = kept.take([3, 0])
        targets = _join_rows(rows.values, rows.counts, send(torch.tensor([3, 0]), kept.device))
        for tensor in (*parts, *rows, *targets):
            assert tensor.device.type == "cuda"
        assert parts[0].shape == (2, 7)


@pytest.mark.parametrize(
    ("reason", "model", "rates"),
    [
        ("the model does not separate backbone and head", nn.Linear(2, 2), {"default": 0.1}),
        ("the backbone is trained (conv.weight)", Small(), {"default": 0.1}),
        ("the backbone is trained (norm.weight)", Small(), {"norm": 0.1, "last": 0.1, "default": 0.0}),
        (None, Small(), {"last.": 0.1, "default": 0.0}),
    ],
)
def test_why_a_backbone_is_not_frozen(reason, model, rates):
    assert backbone_trains_reason(model, zoo.plan(model, rates)) == reason


@pytest.mark.parametrize(
    ("passes", "without", "once"),
    [
        (Passes(epochs=20, views=1, train=1000, val=200, evaluations=20), 24_000, 1200),
        (Passes(epochs=20, views=4, train=1000, val=200, evaluations=5), 21_000, 4200),
        (Passes(epochs=2, views=8, train=10, val=0, evaluations=2), 20, 20),  # the other views never come
    ],
)
def test_passes_are_counted(passes, without, once):
    assert (passes.without, passes.once) == (without, once)


def choose(wish="auto", epochs=10, views=1, sample_bytes=1000, **facts):
    facts = {"processes": 1, "free_memory": 8 * GB, "free_disk": 100 * GB, "found": False} | facts
    passes = Passes(epochs=epochs, views=views, train=1000, val=100, evaluations=epochs)
    return choose_cache(wish, passes, sample_bytes, **facts)


@pytest.mark.parametrize(
    ("where", "why", "arguments"),
    [
        ("disk", "1,100 backbone passes instead of 11,000; 1.1 MB on disk (100.0 GB free)", {}),
        ("off", "it would save less than a tenth of the backbone passes", {"epochs": 1}),
        ("off", "it would save less than a tenth of the backbone passes", {"epochs": 4, "views": 4}),
        ("disk", "reused from an earlier run; 1.1 MB", {"epochs": 1, "found": True}),
        ("memory", "in memory (8.0 GB free)", {"free_disk": 10**6}),
        ("disk", "on disk (3.0 GB free)", {"sample_bytes": 10**6, "free_disk": 3 * GB, "free_memory": GB}),
        ("disk", "on disk (3.0 GB free)", {"sample_bytes": 10**6, "free_disk": 3 * GB, "processes": 2}),
        ("off", "features need 1.1 GB; free: 1.0 GB of memory, 1.5 GB on disk", {
            "sample_bytes": 10**6, "free_disk": 1.5 * GB, "free_memory": GB}),
        ("memory", "1.1 MB in memory", {"wish": "memory"}),
        ("disk", "1.1 MB on disk", {"wish": "disk", "epochs": 1}),
    ],
)  # fmt: skip
def test_where_features_are_kept(where, why, arguments):
    choice = choose(**arguments)
    assert choice.where == where
    assert choice.why.endswith(why)


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("works with one process only. Use cache=disk", {"wish": "memory", "processes": 2}),
        (
            "needs 1.1 MB, but only 1.0 MB are free. Use cache=disk or cache=off",
            {"wish": "memory", "free_memory": 10**6},
        ),
        ("needs 1.1 MB, but only 1.0 MB are free. Free some space", {"wish": "disk", "free_disk": 10**6}),
    ],
)
def test_what_is_not_possible_is_refused(text, arguments):
    with pytest.raises(InputError, match=re.escape(text)):
        choose(**arguments)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0.0 kB"), (1500, "1.5 kB"), (2_500_000, "2.5 MB"), (12_345 * 10**8, "1,234.5 GB")]
)
def test_bytes_as_people_read_them(count, text):
    assert format_bytes(count) == text


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_coloured(tmp_path_factory.mktemp("data"), train=7, val=4)


def finetune(data, out, cache, **options):
    model = zoo.get("timm/test_resnet", num_classes=3, drop_rate=0.2, seed=1)
    fixed = {"augment": "none", "image_size": 32, "batch_size": 4, "epochs": 3, "device": "cpu", "progress": False}
    fixed["keep"] = "last"
    return zoo.finetune(model, data, 0.01, cache=cache, out=out, **fixed | options)


def test_a_head_learns_the_same_on_kept_features_on_computed_ones_and_on_images(data, tmp_path):
    """In float32: without fusing bit for bit, however often features are computed; with it within 1e-6."""
    plain = finetune(data, tmp_path / "plain", "off", fuse_backbone=False)
    begin, expected = zoo.get("timm/test_resnet", num_classes=3, seed=1), plain.model.state_dict()
    assert float((expected["fc.weight"] - begin.fc.weight).detach().abs().max()) > 0.01
    for cache, fused in (("memory", False), ("disk", False), ("off", True), ("disk", True)):
        run = finetune(data, tmp_path / f"{cache}-{fused}", cache, fuse_backbone=fused)
        tolerance = 1e-6 if fused else 0.0
        for name, value in run.model.state_dict().items():
            torch.testing.assert_close(value, expected[name], rtol=0, atol=tolerance)
        for one, other in zip(run.metrics, plain.metrics, strict=True):
            assert one["step"] == other["step"]
            assert one["loss"] == pytest.approx(other["loss"], abs=1e-6)
            assert one["val_loss"] == pytest.approx(other["val_loss"], abs=1e-6)
        assert run.evaluation.confusion == plain.evaluation.confusion


def test_views_are_the_same_images_kept_or_not(data, tmp_path):
    runs = [finetune(data, tmp_path / cache, cache, augment="auto", views=2) for cache in ("disk", "off")]
    plain = finetune(data, tmp_path / "plain", "off")
    weights = [run.model.fc.weight for run in (*runs, plain)]
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=1e-6)
    assert not torch.equal(weights[0], weights[2])


def test_a_run_on_kept_features_leaves_a_whole_model(data, tmp_path):
    run = finetune(data, tmp_path, "auto", epochs=2)
    image = data / "val" / "red" / "00.png"
    assert copy.deepcopy(run.model).predict(image)[0].probabilities == run.predict(image)[0].probabilities
    assert zoo.load(run.folder).predict(image)[0].probabilities == run.predict(image)[0].probabilities
