import json
import math
from dataclasses import replace

import pytest
import torch

import zoo
from coloured_folder import write_coloured
from stopping import StopAfter, equal
from zoo.errors import InputError, Interrupted, WeightsError
from zoo.files.safetensors import read_tensors
from zoo.training.early_stopping import Monitor

TINY = {"batch_size": 6, "image_size": 32, "num_workers": 0, "progress": False, "device": "cpu", "cache": "off"}


def records(values, key="top1"):
    return [{"epoch": epoch, "loss": 1.0} | ({} if v is None else {key: v}) for epoch, v in enumerate(values, start=1)]


@pytest.mark.parametrize(
    ("values", "options", "epoch", "best"),
    [
        ([0.1, 0.3, 0.2, 0.3], {}, 4, "0.3 in epoch 2"),
        ([0.1, 0.3, 0.2, 0.31, 0.2], {}, None, None),
        ([0.1, 0.3, 0.2, 0.31], {"min_delta": 0.05}, 4, "0.3 in epoch 2"),
        ([0.5, 0.4, 0.4, 0.4, 0.4], {"first_epoch": 3}, 5, "0.5 in epoch 1"),
        ([0.5, None, 0.4, None, 0.4], {}, 5, "0.5 in epoch 1"),
        ([math.nan, math.nan], {}, 2, "none"),
        ([2.0, 1.0, 1.5, 1.2], {"key": "val_loss"}, 4, "1 in epoch 2"),
        ([2.0, 1.0, 1.5, 0.9], {"key": "val_loss"}, None, None),
    ],
)
def test_training_stops_when_the_metric_has_not_improved_for_long_enough(values, options, epoch, best):
    monitor = Monitor(**{"key": "top1", "patience": 2} | options)
    seen = records(values, monitor.key)
    reasons = [monitor.find_stop(seen[:count]) for count in range(len(seen) + 1)]
    first = next((place for place, reason in enumerate(reasons) if reason), None)
    assert first == epoch
    if epoch is not None:
        assert reasons[epoch].startswith(f"stopped early after epoch {epoch}: {monitor.key} has not improved for 2 ")
        assert reasons[epoch].endswith(f"(best: {best})")


def test_without_patience_nothing_stops():
    assert Monitor("top1").find_stop(records([0.5] * 50)) is None


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_coloured(tmp_path_factory.mktemp("images"), train=6, val=2)


def train(images, out, **options):
    model = zoo.get("timm/test_resnet", num_classes=3, seed=3)
    return zoo.finetune(
        model, images, lr=1e-9, out=out, **TINY | {"epochs": 9, "patience": 2, "min_delta": 1.0} | options
    )


def test_a_run_stops_early_says_why_and_is_the_same_after_a_resume(images, tmp_path):
    run = train(images, tmp_path / "run")
    assert [record["epoch"] for record in run.metrics] == [1, 2, 3]
    said = json.loads((run.folder / "run.json").read_text())
    assert said["status"] == "finished"
    assert said["stopped_early"].startswith("stopped early after epoch 3: top1 has not improved for 2 evaluations")
    assert run.plan.clock.epochs == 9
    for epoch in (1, 2):
        with pytest.raises(Interrupted):
            train(images, tmp_path / f"{epoch}", callbacks=[StopAfter(epoch=epoch)])
        resumed = zoo.resume(tmp_path / f"{epoch}", images, progress=False)
        assert [record["epoch"] for record in resumed.metrics] == [1, 2, 3]
        ours, whole = (read_tensors(folder / "model.safetensors") for folder in (resumed.folder, run.folder))
        assert equal(ours, whole)


def test_waiting_begins_when_the_last_layers_are_unfrozen_and_the_warm_up_is_over(images, tmp_path):
    late = train(images, tmp_path / "late", unfreeze={3: "layer4"})
    assert len(late.metrics) == 5
    warm = train(images, tmp_path / "warm", mode="full", warmup_epochs=4.0)
    assert len(warm.metrics) == 6


def test_both_weights_are_kept_the_best_by_the_monitor_and_the_last(images, tmp_path):
    options = {"patience": None, "epochs": 3, "mode": "full", "monitor": "loss"}
    model = zoo.get("timm/test_resnet", num_classes=3, seed=3)

    def rise(step, clock):
        return 1.0 if step < clock.steps_per_epoch else 3e4

    settings = {"lr": 0.01, "schedule": rise, "warmup_epochs": 0, **TINY, **options}
    run = zoo.finetune(model, images, out=tmp_path / "both", keep="both", **settings)
    best, last = (read_tensors(run.folder / f"{name}.safetensors") for name in ("model", "last"))
    assert best.keys() == last.keys()
    assert not torch.equal(best["fc.weight"], last["fc.weight"])
    assert "last.safetensors" in (run.folder / "SHA256SUMS").read_text()
    plain = zoo.finetune(
        zoo.get("timm/test_resnet", num_classes=3, seed=3), images, out=tmp_path / "last", keep="last", **settings
    )
    whole = read_tensors(plain.folder / "model.safetensors")
    assert equal(last, whole)
    assert not (plain.folder / "last.safetensors").exists()
    reopened = zoo.get("timm/test_resnet", pretrained=run.folder / "last.safetensors", num_classes=3)
    assert torch.equal(reopened.fc.weight, last["fc.weight"])


def test_the_score_of_one_class_can_choose_the_best_epoch(images, tmp_path):
    run = train(images, tmp_path / "run", monitor="recall:red", patience=None, epochs=2, mode="full")
    assert all(0 <= record["recall:red"] <= 1 for record in run.metrics)
    with pytest.raises(InputError, match=r"the data has no class 'rad'; it has blue, green, red. Did you mean 'red'"):
        train(images, tmp_path / "a", monitor="recall:rad")
    with pytest.raises(InputError, match=r"monitor is 'ap:red'; expected one of top1, .*recall:CLASS"):
        train(images, tmp_path / "a", monitor="ap:red")


def test_of_equal_scores_the_lower_loss_is_the_best(images, tmp_path):
    run = train(images, tmp_path / "run", patience=None, epochs=3, mode="full", monitor="top5", image_size=64)
    assert {record["top5"] for record in run.metrics} == {1.0}, "there are three classes"
    assert run.evaluation.loss == min(record["val_loss"] for record in run.metrics)


def test_the_weights_of_the_last_epoch_are_loaded_by_their_file(images, tmp_path):
    run = train(images, tmp_path / "run", patience=None, epochs=2, mode="full", keep="best")
    assert zoo.load(run.folder / "model.safetensors").config["origin"]["epoch"].endswith("best top-1")
    with pytest.raises(WeightsError, match=r"has no last.safetensors: runs write it with keep=both"):
        zoo.load(run.folder / "last.safetensors")


def test_what_cannot_be_monitored_is_refused(images, tmp_path):
    with pytest.raises(InputError, match=r"monitor is 'macro_f2'; expected one of top1, .* Did you mean 'macro_f1'"):
        train(images, tmp_path / "a", monitor="macro_f2")
    with pytest.raises(InputError, match=r"patience is 2, and .* has no images for validation"):
        train(replace(zoo.open_data(images), val=None), tmp_path / "b")
    assert not (tmp_path / "b").exists()
