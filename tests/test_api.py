import json
import os
import signal

import pytest
import torch
from torch import nn

import zoo
from coloured_folder import write_coloured
from stopping import StopAfter, equal
from zoo.compat.super_gradients import training_params
from zoo.errors import FrozenError, InputError, Interrupted, PlanError, PresetError, TrainingError, WeightsError
from zoo.files.safetensors import read_tensors
from zoo.models import registry

TINY = {"epochs": 2, "batch_size": 4, "image_size": 32, "num_workers": 0, "progress": False, "device": "cpu"}
NAME = "timm/test_resnet"


@pytest.fixture
def model():
    return zoo.get(NAME, num_classes=3)


def weights(run):
    return read_tensors(run.folder / "model.safetensors")


@pytest.mark.plots
def test_a_run_has_all_its_files_and_says_what_it_did(model, images, tmp_path):
    run = zoo.finetune(model, images, lr=0.05, out=tmp_path / "run", **TINY)
    names = {path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*") if path.is_file()}
    assert names == {
        "model.safetensors", "last.safetensors", "config.json", "preset.yaml", "plan.json", "data.json",
        "environment.json", "run.json",
        "metrics.jsonl", "rates.csv", "evaluation.json", "answers.safetensors", "proof.json",
        "features.json", "report.html",
        "SHA256SUMS", "pictures/curves.png", "pictures/rates.png", "pictures/confusion.png", "pictures/mistakes.png",
        "pictures/first_batch.png",
    }  # fmt: skip
    assert json.loads((run.folder / "run.json").read_text())["status"] == "finished"
    assert json.loads((run.folder / "data.json").read_text())["classes"] == ["blue", "green", "red"]
    assert len((run.folder / "metrics.jsonl").read_text().splitlines()) == 2
    assert len((run.folder / "rates.csv").read_text().splitlines()) == 1 + 2 * 5
    assert run.evaluation.top1 == max(record["top1"] for record in run.metrics)
    assert run.evaluation.images == 9
    assert json.loads((run.folder / "plan.json").read_text())["digest"] == run.plan.digest


def test_what_is_shown_in_a_notebook_is_one_line(model, images, tmp_path):
    data, plan = zoo.open_data(images), zoo.plan(model)
    assert repr(data) == f"<Data {images}: 3 classes, images: 18 train, 9 val>"
    assert repr(data.train) == "<Images: 18>"
    assert repr(plan).startswith("<Plan: 2 of 3 groups trained, ")
    assert repr(zoo.Preset(epochs=3)) == "Preset(epochs=3)"
    assert {"mosaic", "label_smoothing", "epochs"} <= set(dir(zoo.Preset()))
    run = zoo.finetune(model, data, out=tmp_path / "run", **TINY)
    assert repr(run) == f"<Run {run.folder}: timm/test_resnet, 2 epochs, {run.evaluation}>"
    assert repr(run.evaluation).startswith("Evaluation(top1=")
    assert len(repr(run.evaluation)) < 120


def test_a_plan_of_a_name_is_that_of_its_model():
    assert zoo.plan(NAME, 0.05, steps_per_epoch=7) == zoo.plan(zoo.get(NAME), 0.05, steps_per_epoch=7)
    with pytest.raises(InputError, match="3 errors") as caught:
        zoo.plan("resnet18", {"fcc": 0.1, "default": 0}, optimizer="SDG", mosaic=1.0)
    assert "key 'fcc' matches no parameter" in str(caught.value)


def test_only_the_head_learns_and_the_proof_says_so(model, images, tmp_path):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    run = zoo.finetune(model, images, lr=0.05, out=tmp_path / "run", augment="crop-flip", **TINY)
    moved = {name for name, tensor in weights(run).items() if not torch.equal(before[name], tensor)}
    assert moved == {"fc.weight", "fc.bias"}
    proof = json.loads((run.folder / "proof.json").read_text())
    whens = [moment["when"] for moment in proof["moments"]]
    assert whens == [
        "before the first step",
        "after the first step",
        "after epoch 1",
        "after epoch 2",
        "in model.safetensors",
    ]
    assert len({moment["sha256"] for moment in proof["moments"]}) == 1
    assert set(proof["digests"]) == set(before) - {"fc.weight", "fc.bias"}


def test_something_that_writes_to_a_frozen_tensor_stops_the_run(model, images, tmp_path):
    def nudge(module, *_):
        module[0].conv1.weight.data.add_(1e-3)

    model.layer1.register_forward_hook(nudge)
    with pytest.raises(FrozenError, match=r"changed after the first step: layer1\.0\.conv1\.weight"):
        zoo.finetune(model, images, lr={"fc": 0.05, "layer4": 0.01, "default": 0.0}, out=tmp_path / "run", **TINY)


@pytest.mark.parametrize(
    ("options", "learning"),
    [
        ({"lr": 0.01, "mode": "low_lr"}, {"fc": 0.01, "default": 0.001}),
        ({"lr": 0.01, "mode": "full"}, {"default": 0.01}),
        ({"lr": {"fc": 0.01, "layer4": 0.002, "default": 0}}, {"fc": 0.01, "layer4": 0.002}),
    ],
)
def test_rates_by_mode_and_by_mapping(model, images, tmp_path, options, learning):
    run = zoo.finetune(model, images, out=tmp_path / "run", schedule="constant", warmup_epochs=0.0, **options, **TINY)
    rates = {name: rate for name, rate in run.metrics[-1]["lr"].items() if rate and "decay" not in name}
    assert rates == pytest.approx(learning)


def test_load_gives_the_same_logits_bit_for_bit(model, images, tmp_path):
    run = zoo.finetune(model, images, lr=0.05, mode="full", out=tmp_path / "run", ema_decay=0.9, **TINY)
    batch = torch.randn(3, 3, 32, 32)
    loaded = zoo.load(run.folder)
    assert torch.equal(loaded(batch), run.model(batch))
    assert loaded.classes == ("blue", "green", "red")
    assert loaded.preprocess.image_size == 32
    again = zoo.evaluate(run.folder, images, device="cpu", progress=False, batch_size=TINY["batch_size"])
    assert again.confusion == run.evaluation.confusion
    assert again.loss == pytest.approx(run.evaluation.loss, rel=1e-5)  # there the images lay channels last


def test_the_same_call_gives_the_same_weights_whatever_the_number_of_workers(images, tmp_path):
    runs = [
        zoo.finetune(
            zoo.get(NAME, num_classes=3), images, lr=0.05, mode="full", out=tmp_path / str(workers),
            **TINY | {"num_workers": workers},
        )
        for workers in (0, 2)
    ]  # fmt: skip
    assert equal(*map(weights, runs))


def test_a_preset_exported_from_a_run_repeats_it_bit_for_bit(images, tmp_path):
    first = zoo.finetune(
        zoo.get(NAME, num_classes=3, seed=5), images, lr=0.05, mode="low_lr", out=tmp_path / "a", seed=7, **TINY
    )
    preset = zoo.load_preset(first.folder / "preset.yaml")
    model = zoo.get(preset.model, pretrained=preset.pretrained, num_classes=3, seed=preset.init_seed)
    second = zoo.finetune(model, images, preset=preset, out=tmp_path / "b", progress=False)
    assert equal(weights(first), weights(second))
    assert (second.folder / "preset.yaml").read_bytes() == (first.folder / "preset.yaml").read_bytes()
    other = zoo.finetune(zoo.get(NAME, num_classes=3, seed=5), images, preset=preset, seed=8, out=tmp_path / "c",
                         progress=False)  # fmt: skip
    assert not equal(weights(first), weights(other))


LONGER = TINY | {"epochs": 3, "mode": "full", "lr": 0.05, "ema_decay": 0.9, "keep": "best"}


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """A run that nothing stopped."""
    model = zoo.get(NAME, num_classes=3, drop_rate=0.3)
    return zoo.finetune(model, images, out=tmp_path_factory.mktemp("runs") / "whole", **LONGER)


@pytest.mark.parametrize(("step", "name"), [(3, signal.SIGINT), (5, signal.SIGTERM), (8, signal.SIGINT)])
def test_a_run_that_was_stopped_goes_on_as_the_same_run(images, whole, tmp_path, step, name):
    out = tmp_path / "stopped"
    with pytest.raises(Interrupted, match=r"everything is saved\. Resume with: zoo finetune --resume"):
        zoo.finetune(
            zoo.get(NAME, num_classes=3, drop_rate=0.3),
            images,
            out=out,
            callbacks=StopAfter(step, number=name),
            **LONGER,
        )
    assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
    assert json.loads((out / "run.json").read_text())["step"] == step
    assert zoo.load(out).num_classes == 3
    resumed = zoo.resume(out, progress=False)
    assert equal(weights(whole), weights(resumed))
    assert (out / "rates.csv").read_text() == (whole.folder / "rates.csv").read_text()
    keys = ("epoch", "step", "val_loss", "top1", "lr")
    assert [[r[k] for k in keys] for r in resumed.metrics] == [[r[k] for k in keys] for r in whole.metrics]


def test_a_run_with_a_function_of_super_gradients_is_resumed_and_repeated(images, tmp_path):
    def course(initial_lr, epoch, iter, max_epoch, iters_per_epoch):
        return 0.001 + initial_lr * (1 - (epoch * iters_per_epoch + iter) / (max_epoch * iters_per_epoch)) ** 2

    params = {"initial_lr": 0.05, "max_epochs": 3, "lr_mode": "FunctionLRScheduler", "lr_schedule_function": course}
    params |= {"loss": "CrossEntropyLoss", "lr_warmup_epochs": 1}
    options = {key: value for key, value in TINY.items() if key not in ("epochs", "progress")}
    preset = training_params(params).replace(**options)

    def train(out, **options):
        return zoo.finetune(zoo.get(NAME, num_classes=3), images, out=tmp_path / out, **options)

    whole = train("whole", preset=preset, mode="low_lr", progress=False)
    rates = (whole.folder / "rates.csv").read_text()
    assert len(set(rates.splitlines())) > 4
    repeated = train("repeated", preset=whole.folder / "preset.yaml", progress=False)
    with pytest.raises(Interrupted):
        train("stopped", preset=preset, mode="low_lr", callbacks=StopAfter(3), progress=False)
    for run in (repeated, zoo.resume(tmp_path / "stopped", progress=False)):
        assert equal(weights(whole), weights(run))
        assert (run.folder / "rates.csv").read_text() == rates


def test_a_finished_run_and_changed_data_are_not_resumed(model, whole, tmp_path):
    with pytest.raises(InputError, match=r"has no state.pt: the run is finished"):
        zoo.resume(whole.folder)
    images, out = write_coloured(tmp_path / "images", train=6, val=3), tmp_path / "stopped"
    with pytest.raises(Interrupted):
        zoo.finetune(model, images, lr=0.05, out=out, callbacks=StopAfter(3), **TINY)
    os.remove(images / "train" / "red" / "00.png")
    with pytest.raises(InputError, match="the data has changed since the run"):
        zoo.resume(out, progress=False)


def test_a_run_is_never_written_over(model, images, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and is not empty; runs are never overwritten"):
        zoo.finetune(model, images, lr=0.05, out=tmp_path / "run", **TINY)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine.txt"]


class Hooked(nn.Module):
    """A module of somebody's own, with hooks that read a parameter of their own in both ways."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.linear = nn.Linear(4, 3)

    def forward(self, images):
        return self.linear(self.backbone(images).flatten(1))

    def initialize_param_groups(self, lr, training_params):
        return [
            {"named_params": list(self.backbone.named_parameters("backbone")), "name": "backbone",
             "lr": lr * training_params.multiply_backbone_lr},
            {"named_params": list(self.linear.named_parameters("linear")), "name": "linear"},
        ]  # fmt: skip

    def update_param_groups(self, param_groups, lr, epoch, iter, training_params, total_batch):
        for group in param_groups:
            factor = training_params["multiply_backbone_lr"] if group["name"].startswith("backbone") else 1
            group["lr"] = lr * factor * (0.5 if epoch else 1)
        return param_groups


def test_the_hooks_of_a_module_of_ones_own_live(images, tmp_path):
    run = zoo.finetune(
        Hooked(), images, lr=0.1, out=tmp_path / "run", schedule="constant", warmup_epochs=0.0,
        training_params={"multiply_backbone_lr": 0.2}, **TINY,
    )  # fmt: skip
    first, second = (record["lr"] for record in run.metrics)
    assert first["backbone"] == pytest.approx(0.02)
    assert first["linear"] == pytest.approx(0.1)
    assert second["backbone"] == pytest.approx(0.01)
    with pytest.raises(OSError, match="class is not registered"):
        zoo.load(run.folder)
    loaded = zoo.load(run.folder, model=Hooked())
    assert equal(dict(loaded.state_dict()), dict(run.model.state_dict()))


def test_a_module_that_does_not_know_its_head_learns_at_one_rate_and_it_is_said(images, tmp_path, capsys):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))
    with pytest.raises(PlanError, match="Sequential has no get_finetune_lr_dict"):
        zoo.finetune(network, images, lr=0.1, mode="head", out=tmp_path / "run", **TINY)
    assert not (tmp_path / "run").exists()
    zoo.finetune(network, images, lr=0.01, out=tmp_path / "uniform", **TINY | {"progress": True})
    assert "note: Sequential does not define its head, so all of it is trained" in capsys.readouterr().out
    run = zoo.finetune(network, images, lr={"default": 0.01}, out=tmp_path / "run", **TINY)
    assert run.evaluation.images == 9


def test_a_rate_that_is_too_high_stops_the_run(model, images, tmp_path):
    with pytest.raises(TrainingError, match="The learning rate is probably too high"):
        zoo.finetune(model, images, lr=1e30, mode="full", optimizer="SGD", out=tmp_path / "run", **TINY)


def test_keep_best_and_evaluate_every(model, images, tmp_path):
    options = TINY | {"epochs": 4}
    run = zoo.finetune(model, images, lr=0.05, out=tmp_path / "run", evaluate_every=3, keep="best", **options)
    assert [record["epoch"] for record in run.metrics if "top1" in record] == [3, 4]
    assert run.evaluation.top1 == max(record.get("top1", 0) for record in run.metrics)


def test_the_plan_is_shown_before_training(model, images, tmp_path, capsys):
    zoo.finetune(model, images, lr=0.05, out=tmp_path / "run", **TINY | {"progress": True, "epochs": 1})
    out = capsys.readouterr().out
    assert out.index("lr plan of timm/test_resnet") < out.index("epoch 1/1")
    assert "frozen tensors unchanged, checksums compared 4 times" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"epochs": 0}, PresetError, "epochs is 0; expected an integer, 1 or more"),
        ({"epoch": 3}, PresetError, "unknown key 'epoch'. Did you mean 'epochs'"),
        ({"lr": {"fc": 0.1}}, PresetError, "default"),
        ({"lr": {"fc": 0.1, "default": 0}, "mode": "head"}, PresetError, "mode"),
        ({"preset": "classify-head"}, PresetError, "Did you mean 'classify-heads'"),
        ({"optimizer": "AdmaW"}, InputError, r"unknown optimizer 'AdmaW'. Did you mean .*'AdamW'"),
        ({"device": "cuda"}, InputError, "device 'cuda' is not available"),
        ({"cache": "memory", "mode": "full"}, InputError, "cache=memory is not possible: the backbone is trained"),
    ],
)
def test_wrong_options_write_nothing(model, images, tmp_path, options, error, text):
    if options.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(error, match=text):
        zoo.finetune(model, images, out=tmp_path / "run", **TINY | options)
    assert not list(tmp_path.iterdir())


def test_a_head_of_another_size_is_told(images, tmp_path):
    with pytest.raises(
        InputError, match=r"the data has 3 classes, but the model has 5 outputs\. Create the model with zoo\.get"
    ):
        zoo.finetune(zoo.get(NAME, num_classes=5), images, out=tmp_path / "run", **TINY)


def test_a_model_that_is_named_is_made_for_the_classes_of_the_data(images, tmp_path, capsys):
    given = zoo.finetune(zoo.get(NAME, num_classes=3, seed=4), images, lr=0.05, out=tmp_path / "given", **TINY)
    options = TINY | {"pretrained": False, "init_seed": 4, "progress": True}
    named = zoo.finetune(NAME, images, lr=0.05, out=tmp_path / "named", **options)
    assert equal(weights(given), weights(named))
    assert (named.preset.model, named.model.classes) == (NAME, ("blue", "green", "red"))
    assert "weights: " not in capsys.readouterr().out
    again = zoo.finetune(named.folder, images, lr=0.05, out=tmp_path / "again", **TINY | {"progress": True})
    assert "weights: 92 tensors" in capsys.readouterr().out
    assert equal({n: t for n, t in weights(again).items() if "fc" not in n}, {
        n: t for n, t in weights(named).items() if "fc" not in n
    })  # fmt: skip


def test_a_model_that_is_named_has_its_known_weights(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    zoo.list_models()
    monkeypatch.setattr(registry, "_ENTRIES", registry.entries())
    zoo.register_model("my_net")(lambda num_classes: nn.Sequential(nn.Flatten(), nn.Linear(3072, num_classes)))
    with pytest.raises(WeightsError, match=r"no pretrained weights are published for my_net\. Use random weights"):
        zoo.finetune("my_net", images, mode="full", **TINY)
    assert list(tmp_path.iterdir()) == []
    run = zoo.finetune("my_net", images, mode="full", pretrained=False, **TINY)
    assert run.folder.parent.name == "runs"
    assert run.folder.name.startswith("my_net-images")


def test_weights_that_cannot_be_had_are_told_before_the_images_are_read(images, tmp_path, hub, capsys):
    with pytest.raises(WeightsError, match="resnet18"):
        zoo.finetune("resnet18", images, out=tmp_path / "run", **TINY | {"progress": True})
    assert "checking images" not in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_a_named_model_takes_no_optimizer_of_other_parameters(model, images, tmp_path):
    own = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(InputError, match="the SGD belongs to another model: 'timm/test_resnet'"):
        zoo.finetune(NAME, images, optimizer=own, out=tmp_path / "run", **TINY)


def test_all_that_is_known_is_checked_before_the_data_and_told_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        zoo.finetune("resnet81", "nowhere", optimizer="SDG", device="cpu", epochs=2, unfreeze={2: "fc"})
    keys = ("4 errors", "'resnet81'", "'SDG'", "'fc' (after 2) would never be trained", "nowhere'")
    assert all(key in str(caught.value) for key in keys)
    assert list(tmp_path.iterdir()) == []


def test_a_warm_up_that_has_no_room_is_shortened_with_a_note(model, images, tmp_path, capsys):
    preset = {"warmup_epochs": 1.0, "epochs": 5}
    run = zoo.finetune(model, images, preset=preset, out=tmp_path / "run", **TINY | {"epochs": 1, "progress": True})
    assert run.preset.warmup_epochs == 0.5
    assert "note: warmup_epochs is 0.5 instead of the preset's 1" in capsys.readouterr().out


@pytest.mark.parametrize(("mode", "cache"), [("head", "disk"), ("full", "off")])
def test_what_was_chosen_is_in_the_runs_preset(model, images, tmp_path, mode, cache):
    run = zoo.finetune(model, images, lr=0.05, mode=mode, out=tmp_path / "run", **TINY)
    assert run.preset.cache == "auto"
    assert zoo.load_preset(run.folder / "preset.yaml").cache == cache


def test_hooks_that_are_not_asked_are_named(images, tmp_path, capsys):
    options = TINY | {"progress": True, "training_params": {"multiply_backbone_lr": 0.2}}
    zoo.finetune(Hooked(), images, lr=0.1, mode="full", out=tmp_path / "run", **options)
    assert "note: the parameter-group hooks of Hooked are ignored" in capsys.readouterr().out


def test_a_run_that_took_no_step_leaves_no_folder(images, tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))
    network.haed = nn.Linear(2, 2)
    network.forward = lambda images: network[1](network[0](images))
    with pytest.raises(
        TrainingError,
        match=r"'haed' should be trained, but none of its parameters \(haed\.weight, haed\.bias\) received a "
        r"gradient in the first step: forward\(\) does not use them\. Assign a new layer to the attribute",
    ):
        zoo.finetune(network, images, lr={"haed": 0.1, "default": 0.01}, out=tmp_path / "run", **TINY)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("is_open", [True, False])
def test_data_that_was_opened_before_is_not_checked_again(model, images, tmp_path, capsys, is_open):
    data = zoo.open_data(images) if is_open else images
    zoo.finetune(model, data, lr=0.05, out=tmp_path / "run", **TINY | {"progress": True, "epochs": 1})
    assert capsys.readouterr().out.count("checking images") == (0 if is_open else 1)
