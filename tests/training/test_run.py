import json
import math
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import zoo
from stopping import StopAfter, equal
from zoo.errors import InputError, Interrupted, PlanError, TrainingError, ZooError
from zoo.files.safetensors import read_tensors

TINY = {"epochs": 2, "batch_size": 4, "image_size": 32, "num_workers": 0, "progress": False, "device": "cpu"}
NAME = "timm/resnet10t"


def test_loaders_train_and_evaluate(tmp_path):
    torch.manual_seed(0)
    targets = torch.arange(12) % 3
    plots = torch.nn.functional.one_hot(targets, 3)[:, :, None, None] + 0.1 * torch.randn(12, 3, 8, 8)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(plots, targets), batch_size=4)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    run = zoo.finetune(
        network, (loader, loader), lr={"default": 0.5}, optimizer="SGD", out=tmp_path / "run", **TINY | {"epochs": 20}
    )
    assert run.evaluation.top1 == 1
    assert run.evaluation.images == 12


def test_the_moving_average_is_what_is_scored_and_kept(images, tmp_path):
    options = {"lr": 0.1, "mode": "full", "optimizer": "SGD", **TINY}
    raw = zoo.finetune(zoo.get(NAME, num_classes=3), images, out=tmp_path / "raw", **options)
    slow = zoo.finetune(zoo.get(NAME, num_classes=3), images, out=tmp_path / "slow", ema_decay=0.999999, **options)
    start = zoo.get(NAME, num_classes=3).state_dict()["fc.weight"]
    assert torch.allclose(slow.model.state_dict()["fc.weight"], start, atol=1e-4)
    assert not torch.allclose(raw.model.state_dict()["fc.weight"], start, atol=1e-3)
    assert raw.metrics[-1]["loss"] == slow.metrics[-1]["loss"]


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_precision_and_accumulation_train(images, tmp_path, precision):
    run = zoo.finetune(
        zoo.get(NAME, num_classes=3), images, lr=0.05, out=tmp_path / "run", precision=precision, accumulate=2,
        clip_grad_norm=1.0, label_smoothing=0.1, augment="trivial", **TINY,
    )  # fmt: skip
    assert run.metrics[-1]["step"] == 2 * 3
    assert next(run.model.parameters()).dtype == torch.float32
    assert run.model(torch.randn(1, 3, 32, 32)).dtype == torch.float32


def test_norm_statistics_can_be_kept_in_a_full_fine_tune(images, tmp_path):
    model = zoo.get(NAME, num_classes=3)
    before = {name: value.clone() for name, value in model.named_buffers()}
    run = zoo.finetune(model, images, lr=0.05, mode="full", freeze_norm_stats=True, out=tmp_path / "run", **TINY)
    after = dict(run.model.named_buffers())
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_presets_size_and_crop_go_with_the_model(images, tmp_path):
    run = zoo.finetune(zoo.get(NAME, num_classes=3), images, lr=0.05, crop_pct=1.0, out=tmp_path / "run", **TINY)
    assert run.model.preprocess.image_size == 32
    assert zoo.load(run.folder).preprocess == run.model.preprocess
    assert run.model.preprocess.crop_pct == 1.0


def test_outputs_of_a_wrong_shape_are_told(images, tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 7))
    with pytest.raises(InputError, match=r"returns outputs of shape \((\d), 7\) for \1 images; expected \(\1, 3\)"):
        zoo.finetune(network, images, lr={"default": 0.1}, out=tmp_path / "run", **TINY)


def test_mixed_rates_show_each_group_once(images, tmp_path, capsys):
    zoo.finetune(
        zoo.get(NAME, num_classes=3), images, lr={"fc": 0.1, "layer4": 0.01, "default": 0}, out=tmp_path / "run",
        **TINY | {"progress": True, "epochs": 1},
    )  # fmt: skip
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch "))
    assert line.count("layer4") == line.count("fc") == 1
    assert "no decay" not in line


class Parts(nn.Module):
    """Two convolutions with norms, and a head; `spare` is not used by forward()."""

    def __init__(self, spare=False):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.ReLU())
        self.head = nn.Linear(4, 3)
        if spare:
            self.haed = nn.Linear(4, 3)

    def forward(self, images):
        return self.head(self.second(self.first(images)).mean((2, 3)))

    def get_finetune_lr_dict(self, lr):
        return {"head": lr, "default": 0}


class Watch(zoo.Callback):
    """Keeps a copy of all tensors at the start of each epoch."""

    def __init__(self):
        self.states = {}

    def on_epoch_start(self, run):
        self.states[run.epoch] = {name: value.clone() for name, value in run.model.state_dict().items()}


GRADUAL = {"lr": 0.1, "unfreeze": {"1": "second", "2": "default"}, "epochs": 4, "backbone_lr_factor": 0.5}


def moved(before, after, prefix):
    names = [name for name in before if name.startswith(prefix)]
    return [name for name in names if not torch.equal(before[name], after[name])], names


def test_parts_begin_to_learn_when_their_epoch_comes_and_not_before(images, tmp_path):
    watch = Watch()
    run = zoo.finetune(Parts(), images, out=tmp_path / "run", callbacks=watch, **TINY | GRADUAL)
    states = [*watch.states.values(), run.model.state_dict()]
    assert moved(states[0], states[1], "second")[0] == moved(states[0], states[2], "first")[0] == []
    for before, after, prefix in ((1, 2, "second"), (2, 3, "first"), (0, 1, "head")):
        changed, names = moved(states[before], states[after], prefix)
        assert changed == names  # norm statistics too
    assert all(run.metrics[epoch]["lr"]["second"] > 0 for epoch in (1, 2, 3))
    assert run.metrics[0]["lr"]["second"] == 0
    whens = [moment["when"] for moment in run.proof["moments"]]
    assert "before epoch 2, which unfreezes 7 tensors" in whens
    assert run.proof["tensors"] == 0


def test_the_optimizer_knows_every_group_from_the_first_step(images, tmp_path):
    class Look(zoo.Callback):
        def on_step_end(self, run):
            assert set(run.rates) == {group.name for group in run.plan.groups}

    run = zoo.finetune(Parts(), images, out=tmp_path / "run", callbacks=Look(), **TINY | GRADUAL)
    rates = (run.folder / "rates.csv").read_text().splitlines()
    assert len(rates) == 1 + run.plan.clock.steps
    for step, line in enumerate(rates[1:]):
        planned = run.plan.rates(step)
        names = [name.strip('"') for name in rates[0].split(",")[1:]]
        assert [float(value) for value in line.split(",")[1:]] == [planned[name] for name in names]


def test_a_run_interrupted_around_an_unfreeze_point_is_the_same_run(images, tmp_path):
    options = TINY | GRADUAL | {"optimizer": "AdamW", "lr": 0.01, "augment": "none"}
    whole = zoo.finetune(Parts(), images, out=tmp_path / "whole", **options)
    assert whole.plan.clock.steps_per_epoch == 5
    for step in (3, 5, 7, 12):
        with pytest.raises(Interrupted):
            zoo.finetune(Parts(), images, out=tmp_path / f"{step}", callbacks=StopAfter(step), **options)
        resumed = zoo.resume(tmp_path / f"{step}", model=Parts(), progress=False)
        assert equal(whole.model.state_dict(), resumed.model.state_dict())
        assert (resumed.folder / "rates.csv").read_text() == (whole.folder / "rates.csv").read_text()


def test_parts_that_are_not_used_are_an_error_if_nothing_else_learns_and_else_named(images, tmp_path, capsys):
    with pytest.raises(TrainingError, match=r"the loss does not depend on any trainable parameter: haed.weight, haed"):
        zoo.finetune(Parts(spare=True), images, lr={"haed": 0.1, "default": 0}, out=tmp_path / "b", **TINY)
    zoo.finetune(Parts(spare=True), images, lr={"default": 0.1}, out=tmp_path / "a", **TINY | {"progress": True})
    assert "note: haed.bias, haed.weight received no gradient in the first step" in capsys.readouterr().out


def test_an_optimizer_that_is_brought_is_kept(images, tmp_path):
    model = Parts()
    groups = [{"params": model.head.parameters(), "lr": 0.1}, {"params": model.second.parameters(), "momentum": 0.5}]
    brought = torch.optim.SGD(groups, lr=0.01, momentum=0.9)
    run = zoo.finetune(model, images, optimizer=brought, out=tmp_path / "run", schedule="constant", **TINY)
    assert [(group.name, group.lr) for group in run.plan.trained] == [("group 1", 0.01), ("group 0", 0.1)]
    assert [group["momentum"] for group in brought.param_groups] == [0.9, 0.5]
    assert [len(group["params"]) for group in brought.param_groups] == [2, 4]
    first = Parts().state_dict()
    assert moved(first, run.model.state_dict(), "first")[0] == []
    changed, names = moved(first, run.model.state_dict(), "head")
    assert changed == names
    for clash in ({"lr": 0.1}, {"mode": "full"}, {"weight_decay": 0.1}):
        with pytest.raises(
            PlanError,
            match=f"the optimizer has its own groups and learning rates, so {next(iter(clash))} cannot be set",
        ):
            zoo.finetune(model, images, optimizer=brought, out=tmp_path / "no", **clash, **TINY)
    with pytest.raises(PlanError, match=r"'group 0' holds a parameter of shape \(3, 4\) that is not one of Parts's"):
        zoo.finetune(Parts(), images, optimizer=brought, out=tmp_path / "no", **TINY)


def test_an_optimizer_class_is_made_of_the_plan(images, tmp_path):
    taken = []  # tensors of each step

    class Steps(torch.optim.SGD):
        def step(self, closure=None):
            taken.append(sum(len(group["params"]) for group in self.param_groups))
            return super().step(closure)

    run = zoo.finetune(Parts(), images, lr=0.1, optimizer=Steps, out=tmp_path / "run", **TINY)
    learning = sum(len(group.names) for group in run.plan.trained)
    assert taken.count(learning) == run.plan.clock.steps
    assert taken.count(1) <= 2  # its arguments are tried on a tensor of its own, before the data is read and after
    assert run.preset.optimizer == "Steps"


def test_gradients_are_clipped_and_centralized_group_by_group(images, tmp_path):
    class Norms(zoo.Callback):
        def __init__(self):
            self.before = None

        def on_epoch_start(self, run):
            self.before = {name: value.clone() for name, value in run.model.named_parameters()}

        def on_step_end(self, run):
            if run.step == 1:
                self.after = {name: value.clone() for name, value in run.model.named_parameters()}

    norms = Norms()
    rates = {"first": {"lr": 1.0, "clip_grad_norm": 1e-3}, "second": {"lr": 1.0, "gradient_centralization": True}}
    options = {"schedule": "constant", "warmup_epochs": 0, "weight_decay": 0, "optimizer_params": {"momentum": 0}}
    zoo.finetune(
        Parts(),
        images,
        lr=rates | {"default": 1.0},
        out=tmp_path / "run",
        callbacks=norms,
        **options,
        **TINY | {"epochs": 1},
    )
    steps = {name: norms.before[name] - norms.after[name] for name in norms.before}
    length = torch.cat([step.flatten() for name, step in steps.items() if name.startswith("first")]).norm()
    assert length <= 1.01e-3
    assert steps["second.0.weight"].mean((1, 2, 3)).abs().max() < 1e-7
    assert steps["second.0.weight"].abs().max() > 1e-4
    assert steps["head.weight"].mean(1).abs().max() > 1e-4


def test_a_function_as_schedule_is_kept_as_the_list_of_its_factors(images, tmp_path):
    options = TINY | {"epochs": 3, "lr": {"head": 0.1, "default": {"lr": 0.01, "schedule": lambda step: 0.9**step}}}
    options |= {"schedule": lambda step, clock: 1 - step / clock.steps}
    whole = zoo.finetune(Parts(), images, out=tmp_path / "whole", **options)
    with pytest.raises(Interrupted):
        zoo.finetune(Parts(), images, out=tmp_path / "cut", callbacks=StopAfter(7), **options)
    resumed = zoo.resume(tmp_path / "cut", model=Parts(), progress=False)
    assert equal(whole.model.state_dict(), resumed.model.state_dict())
    again = zoo.finetune(
        Parts(), images, out=tmp_path / "again", progress=False, preset=str(whole.folder / "preset.yaml")
    )
    assert (again.folder / "rates.csv").read_text() == (whole.folder / "rates.csv").read_text()
    assert again.plan.digest == whole.plan.digest


def test_a_plateau_waits_for_the_epochs_that_are_scored(images, tmp_path):
    plateau = {"kind": "plateau", "patience": 0, "threshold": 0.99, "metric": "val_loss"}
    options = TINY | {"epochs": 6, "evaluate_every": 2, "warmup_steps": 0, "schedule": plateau}
    run = zoo.finetune(Parts(), images, lr={"head": 0.1, "default": 0}, out=tmp_path / "run", **options)
    assert [round(record["lr"]["head"], 6) for record in run.metrics] == [0.1, 0.1, 0.1, 0.1, 0.01, 0.01]


class Drawing:
    """A data set whose images are noise, drawn from `random`, `np.random` and torch."""

    classes = ("dark", "grey", "light")

    def __len__(self):
        return 9

    def __getitem__(self, index):
        level = 60 * (index % 3) + random.randrange(40) + int(np.random.randint(40)) + int(torch.randint(40, ()))
        return Image.new("RGB", (32, 32), (level, level, level)), index % 3


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_set_that_draws_is_resumed_as_the_same_run(tmp_path, workers):
    options = TINY | {"lr": {"default": 0.1}, "epochs": 2, "batch_size": 2, "num_workers": workers}
    data = (Drawing(), Drawing())
    whole = zoo.finetune(Parts(), data, out=tmp_path / "whole", **options)
    random.seed(5), np.random.seed(6), torch.manual_seed(7)
    with pytest.raises(Interrupted):
        zoo.finetune(Parts(), data, out=tmp_path / "cut", callbacks=StopAfter(3), **options)
    resumed = zoo.resume(tmp_path / "cut", data, model=Parts(), progress=False)
    assert equal(whole.model.state_dict(), resumed.model.state_dict())
    assert [record["val_loss"] for record in resumed.metrics] == [record["val_loss"] for record in whole.metrics]


def test_features_of_a_data_set_that_draws_are_not_kept(tmp_path, capsys):
    model = zoo.get("timm/test_resnet", num_classes=3)
    options = TINY | {"epochs": 4, "progress": True}
    run = zoo.finetune(model, (Drawing(), Drawing()), lr=0.01, out=tmp_path / "run", **options)
    assert not (run.folder / "features.json").exists()
    said = " ".join("".join(capsys.readouterr()).split())
    assert "feature cache off: the data set transforms its images randomly (train[0] differs between two reads)" in said
    for wish in ({"cache": "memory"}, {"image_cache": "memory"}):
        with pytest.raises(InputError, match="is not possible: the data set transforms its images randomly"):
            zoo.finetune(model, (Drawing(), Drawing()), lr=0.01, out=tmp_path / "other", **TINY | wish)


class ScheduleFree(torch.optim.Optimizer):
    """SGD that learns at one point and keeps the average of another, as schedulefree's does."""

    def __init__(self, params, lr=0.1, beta=0.9):
        super().__init__(params, {"lr": lr, "beta": beta, "train_mode": False, "k": 0})

    @torch.no_grad()
    def _move(self, learn, weight):
        for group in self.param_groups:
            if group["train_mode"] != learn:
                for parameter in group["params"]:
                    if "z" in self.state[parameter]:
                        parameter.lerp_(self.state[parameter]["z"], weight(group["beta"]))
                group["train_mode"] = learn

    def train(self):
        self._move(True, lambda beta: 1 - beta)

    def eval(self):
        self._move(False, lambda beta: 1 - 1 / beta)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            if not group["train_mode"]:
                raise RuntimeError("Optimizer was not in train mode when step is called.")
            share, beta = 1 / (group["k"] + 1), group["beta"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                z = self.state[parameter].setdefault("z", parameter.clone())
                parameter.lerp_(z, share)
                parameter.sub_(parameter.grad, alpha=group["lr"] * (1 - beta * (1 - share)))
                z.sub_(parameter.grad, alpha=group["lr"])
            group["k"] += 1


class Learning(zoo.Callback):
    """Keeps the weights that the last step has learnt."""

    def on_step_end(self, run):
        self.learning = {name: value.clone() for name, value in run.model.named_parameters()}


FREE = {"lr": {"default": 0.05}, "schedule": "constant", "warmup_epochs": 0.0, "augment": "none", "weight_decay": 0.0}


@pytest.mark.parametrize("as_instance", [False, True])
def test_a_schedule_free_optimizer_is_scored_and_saved_at_its_average(images, tmp_path, as_instance):
    network = Parts()
    optimizer = ScheduleFree(network.parameters(), lr=0.05) if as_instance else ScheduleFree
    options = dict(TINY | FREE)
    if as_instance:
        del options["lr"], options["weight_decay"]
    watch = Learning()
    made = []
    original = ScheduleFree.step

    class Spied(ScheduleFree):
        def step(self, closure=None):
            made[:] = [self]
            return original(self, closure)

    if as_instance:
        optimizer.__class__ = Spied
    run = zoo.finetune(network, images, out=tmp_path / "run", optimizer=optimizer if as_instance else Spied,
                       callbacks=watch, **options)  # fmt: skip
    saved = read_tensors(run.folder / "model.safetensors")
    beta = 0.9
    for name, parameter in network.named_parameters():
        average = watch.learning[name] + (made[0].state[parameter]["z"] - watch.learning[name]) * (1 - 1 / beta)
        assert torch.allclose(saved[name], average, atol=1e-6)
        assert torch.equal(saved[name], parameter)
    assert not torch.allclose(saved["head.weight"], watch.learning["head.weight"], atol=1e-6)
    assert run.metrics[-1]["val_loss"] == run.evaluation.loss


@pytest.mark.parametrize("more", [{}, {"ema_decay": 0.5}, {"keep": "best"}])
def test_a_schedule_free_run_is_resumed_as_the_same_run(images, tmp_path, more):
    options = TINY | FREE | {"optimizer": ScheduleFree} | more
    whole = zoo.finetune(Parts(), images, out=tmp_path / "whole", **options)
    with pytest.raises(Interrupted):
        zoo.finetune(Parts(), images, out=tmp_path / "cut", callbacks=StopAfter(7), **options)
    resumed = zoo.resume(tmp_path / "cut", model=Parts(), optimizer=ScheduleFree, progress=False)
    assert equal(whole.model.state_dict(), resumed.model.state_dict())


class NeedsClosure(torch.optim.SGD):
    def step(self, closure):
        return super().step(closure)


class Sharpness(torch.optim.SGD):
    def step(self, closure=None):
        assert closure is not None, "Sharpness Aware Minimization requires closure"


@pytest.mark.parametrize("kind", [NeedsClosure, Sharpness, torch.optim.LBFGS])
def test_an_optimizer_that_needs_a_closure_is_refused(images, tmp_path, kind):
    text = f"optimizer {kind.__name__} needs a closure"
    with pytest.raises(InputError, match=text):
        zoo.finetune(Parts(), images, out=tmp_path / "run", optimizer=kind, **TINY | FREE)
    network = Parts()
    options = {name: value for name, value in (TINY | FREE).items() if name not in ("lr", "weight_decay")}
    with pytest.raises(ZooError, match=text):
        zoo.finetune(network, images, out=tmp_path / "run", optimizer=kind(network.parameters(), lr=0.1), **options)
    assert not (tmp_path / "run").exists()


class Sick(Parts):
    """Gives outputs that are not numbers for some images, in eval mode."""

    def forward(self, images):
        outputs = super().forward(images)
        if not self.training:
            outputs = outputs.clone()
            outputs[:2] = math.nan
        return outputs


def test_outputs_that_are_not_numbers_are_told_and_count_as_wrong(images, tmp_path, capsys):
    options = TINY | {"lr": {"default": 0.05}, "progress": True, "keep": "best"}
    run = zoo.finetune(Sick(), images, out=tmp_path / "run", **options)
    bad = sum(run.evaluation.unanswered)
    assert bad == 2 + 2 + 1  # of batches of 4, 4 and 1
    assert run.evaluation.top1 <= 1 - bad / run.evaluation.images
    said = " ".join("".join(capsys.readouterr()).split())
    assert f"epoch 1: {bad} of {run.evaluation.images} images gave NaN or infinite outputs" in said
    assert f"warning: {bad} of" in said
    for name in ("run.json", "evaluation.json"):
        json.loads((run.folder / name).read_text(), parse_constant=pytest.fail)
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line, parse_constant=pytest.fail)["val_loss"] for line in lines] == [None, None]
    assert json.loads((run.folder / "run.json").read_text())["warnings"] == [run.evaluation.warning]


def test_weights_and_images_that_are_not_numbers_are_told(images, tmp_path):
    network = Parts()
    network.head.weight.data[0, 0] = math.nan
    with pytest.raises(
        TrainingError,
        match=r"nan at optimizer step 1, epoch 1: the model's weights contain NaN or infinite values before the "
        r"first update: head\.weight",
    ):
        zoo.finetune(network, images, out=tmp_path / "run", **TINY | {"lr": {"default": 0.05}})
    batches = [(torch.full((4, 3, 32, 32), math.nan), torch.tensor([0, 1, 2, 0]))]
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    with pytest.raises(TrainingError, match=" this batch contains "):
        zoo.finetune(Parts(), (loader, loader), out=tmp_path / "run", **TINY | {"lr": {"default": 0.05}})


def test_after_a_run_all_modules_follow_train_again(images, tmp_path):
    model = zoo.get("timm/test_resnet", num_classes=3)
    run = zoo.finetune(model, images, lr=0.01, out=tmp_path / "run", **TINY)
    assert all(module.training for module in run.model.train().modules())
    assert not any("train" in vars(module) for module in run.model.modules())

    class Fail(zoo.Callback):
        def on_epoch_end(self, run):
            raise KeyError("mine")

    with pytest.raises(KeyError):
        zoo.finetune(model, images, lr=0.01, out=tmp_path / "other", callbacks=Fail(), **TINY)
    assert all(module.training for module in model.train().modules())
    with pytest.raises(InputError):
        zoo.finetune(model, images, lr=0.01, out=tmp_path / "third", schedule="plateau", optimizer=NeedsClosure, **TINY)
    assert all(module.training for module in model.train().modules())


def test_a_model_that_was_made_without_gradients_is_refused(images, tmp_path):
    with torch.inference_mode():
        network = Parts()
    with pytest.raises(InputError, match=r"was created inside torch.inference_mode\(\)"):
        zoo.finetune(network, images, out=tmp_path / "never", **TINY | {"lr": {"default": 0.05}})


def test_a_run_is_resumed_inside_of_no_grad_too(images, tmp_path):
    options = TINY | FREE
    whole = zoo.finetune(Parts(), images, out=tmp_path / "whole", **options)
    with pytest.raises(Interrupted):
        zoo.finetune(Parts(), images, out=tmp_path / "cut", callbacks=StopAfter(7), **options)
    with torch.no_grad():
        resumed = zoo.resume(tmp_path / "cut", model=Parts(), progress=False)
    assert equal(whole.model.state_dict(), resumed.model.state_dict())
