"""Recorded runs of three other systems, run again by `finetune` itself: every rate and every weight has to agree."""

import json
import math

import numpy as np
import pytest
import torch

import zoo
from layered_recipe import (
    FOLDER,
    NORM_TOLERANCE,
    RECORDED_STEPS,
    SAMPLE_TOLERANCE,
    STEPS,
    differences,
    make_batch,
    make_net,
    prescribe_gradients,
    snapshot,
)
from zoo.compat.super_gradients import training_params

pytestmark = pytest.mark.numbers

KINDS = {"conv": "@conv", "bn": "@norm", "dense": "@linear", "other": "default"}
BARE = {"schedule": "constant", "warmup_epochs": 0, "decay_norm_and_bias": True}  # what the others do unless told


class Batches:
    """The recorded batches of a network, the same ones in every epoch."""

    def __init__(self, name, count):
        self.batches = [make_batch(name, step) for step in range(1, count + 1)]

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


class Recorder(zoo.Callback):
    """Keeps the rates of every step and the weights at recorded steps, and writes rates that a recording assigns."""

    def __init__(self, assign=None):
        self.rates, self.weights, self.assign = [], {}, assign or {}

    def on_start(self, run):
        self._assign(run)

    def on_step_end(self, run):
        self.rates.append(dict(run.rates))
        if run.step in RECORDED_STEPS:
            self.weights[run.step] = snapshot(run.model)
        self._assign(run)

    def _assign(self, run):
        for name, lr in self.assign.get(run.step + 1, {}).items():
            run.set_lr(name, lr)


def replay(net, name, out, *, assign=None, epochs=1, **options):
    recorder = Recorder(assign)
    data = (Batches(name, STEPS // epochs), Batches(name, 1))
    settings = {"epochs": epochs, "callbacks": [recorder], "out": out, "progress": False, "device": "cpu"} | options
    zoo.finetune(net, data, **settings)
    return recorder


def worst(recorder, records):
    """Largest difference of samples, absolute, and of norms, relative, over all recorded steps."""
    pairs = [differences(recorder.weights[int(step)], records[step]) for step in records if int(step) > 0]
    return tuple(max(values) for values in zip(*pairs, strict=True))


def assert_agrees(recorder, records, record_property):
    """Compare weights with a recording, within its tolerances, and note by how much they differ."""
    samples, norms = worst(recorder, records)
    record_property("max_abs_diff", samples)
    assert len(recorder.rates) == STEPS
    assert samples <= SAMPLE_TOLERANCE, f"a sample differs by {samples:g}"
    assert norms <= NORM_TOLERANCE, f"a norm differs by {norms:g} of itself"


def cases(pattern):
    return [
        pytest.param(json.loads(path.read_text("utf8")), id=path.stem)
        for path in sorted(FOLDER.glob(f"{pattern}.json"))
    ]


def sg_cases(stem):
    found = json.loads((FOLDER / f"{stem}.json").read_text("utf8"))["cases"]
    return [pytest.param(case, id=f"{stem}: {case['label']}") for case in found]


def feed_gradients(net, name):
    """Give a network a loss whose gradient is the recorded one, whatever the batch: the sum of weight × gradient."""
    twin, count = make_net(name), iter(range(1, STEPS + 1))

    def loss(outputs, targets, *, label_smoothing):
        prescribe_gradients(name, twin, next(count))
        return sum((mine * other.grad).sum() for mine, other in zip(net.parameters(), twin.parameters(), strict=True))

    net.loss = loss


# MindSpore

MS_OPTIMIZERS = {"Momentum": "SGD", "Adam": "MindSporeAdam", "AdamWeightDecay": "AdamWeightDecay"}


def ms_static(lr, mixed):
    """MindSpore adds 1 to a number and takes it off again, in float32, if another group has a list or a schedule."""
    return float(np.float32(np.float32(lr) + np.float32(1)) - np.float32(1)) if mixed else lr


def ms_settings(group, mixed):
    """Return a recorded group's settings as ours: a rate, a list function or a schedule object, and the decay."""
    said = {"weight_decay": group["weight_decay"]} if "weight_decay" in group else {}
    rate = group.get("lr")
    if not isinstance(rate, dict):
        return said | ({} if rate is None else {"lr": ms_static(rate, mixed)})
    if "list" in rate:
        assert rate["list"]["fn"] == "cosine_decay_lr"
        low, high, total, per_epoch, decay_epochs = rate["list"]["args"]
        curve = [
            low + 0.5 * (high - low) * (1 + math.cos(math.pi * min(step // per_epoch, decay_epochs) / decay_epochs))
            for step in range(total)
        ]
        return said | {"lr": curve}
    kind, arguments = rate["schedule"]["class"], rate["schedule"]["args"]
    if kind == "WarmUpLR":
        lr, steps = arguments
        return said | {"lr": lr, "schedule": {"kind": "constant", "warmup_steps": steps, "warmup_start": 0.0}}
    low, high, steps = arguments
    return said | {"lr": high, "schedule": {"kind": "cosine", "steps": steps, "final_ratio": low / high}}


@pytest.mark.parametrize("case", cases("ms_*"))
def test_mindspore(case, tmp_path, record_property):
    net, name = make_net(case["net"]), case["net"]
    if case["grads"] == "prescribed":
        feed_gradients(net, name)
    mixed = any(isinstance(group.get("lr"), dict) for group in case["groups"])
    rates = {KINDS[group["name"]]: ms_settings(group, mixed) for group in case["groups"] if group["name"] != "other"}
    default = case["default"]
    rates |= {"default": {"lr": ms_static(default["lr"], mixed), "weight_decay": default["weight_decay"]}}
    if "note" in case:  # without groups, its decay leaves out the norms
        rates |= {"@norm": {"weight_decay": 0.0}}
    assign = {
        int(step): {KINDS.get(group, "default"): lr for group, lr in written.items()}
        for step, written in case.get("assign", {}).items()
    }
    if "note" in case:
        assign = {step: {**written, "@norm": written["default"]} for step, written in assign.items()}
    optimizer = MS_OPTIMIZERS[case["optimizer"]["name"]]
    arguments = {"beta1": "betas", "beta2": "betas"}
    given = case["optimizer"]["args"]
    params = {key: value for key, value in given.items() if key not in arguments}
    if "beta1" in given:
        params["betas"] = [given["beta1"], given["beta2"]]
    options = BARE | {"lr": rates, "optimizer": optimizer, "optimizer_params": params}
    recorder = replay(net, name, tmp_path / "run", assign=assign, **options)
    for group, recorded in case["lr_used"].items():
        ours = [rates[KINDS.get(group, "default")] for rates in recorder.rates]
        assert ours == pytest.approx(recorded, abs=1e-7), group
    assert_agrees(recorder, case["records"], record_property)


# OneFlow


@pytest.mark.parametrize("case", cases("of_*"))
def test_oneflow(case, tmp_path, record_property):
    net, args = make_net(case["net"]), dict(case["optimizer"]["args"])
    common_decay = args.pop("weight_decay", 0.0)
    rates = {"default": case["default"]["lr"]}
    for group in case["groups"]:
        scale, said = group["lr_scale"], {key: group[key] for key in ("lr", "weight_decay") if key in group}
        if case["mode"] == "eager":
            said["decay_every"] = {"steps": case["adjust_every"], "factor": scale, "start": 1}
        else:
            said["lr_scale"] = scale
        rates[group["name"]] = said
    schedule = "constant"
    if "scheduler" in case:
        steps, alpha = case["scheduler"]["cosine"]
        start, length, shape = case["scheduler"]["warmup"]
        schedule = {
            "kind": "cosine",
            "steps": steps,
            "final_ratio": alpha,
            "warmup_steps": length,
            "warmup_start": start,
            "warmup": shape,
            "warmup_over": True,
        }
    options = BARE | {"lr": rates, "schedule": schedule, "optimizer_params": {"momentum": 0.0} | args}
    options |= {"weight_decay": common_decay, "unmatched": "ignore"}  # the part without parameters
    if "scheduler" in case:
        del options["warmup_epochs"]
    recorder = replay(net, case["net"], tmp_path / "run", **options)
    for group, recorded in case["lr_used"].items():
        if group != "pool":
            assert [rates[group] for rates in recorder.rates] == pytest.approx(recorded, rel=1e-12), group
    assert_agrees(recorder, case["records"], record_property)


# super-gradients


def sg_preset(case):
    return training_params(case["training_params"] | {"max_epochs": case["epochs"], "loss": "CrossEntropyLoss"})


@pytest.mark.parametrize("case", [*sg_cases("sg_mapping_trajectories"), *sg_cases("sg_schedules")])
def test_super_gradients(case, tmp_path, record_property):
    net = make_net(case["net"])
    net.get_finetune_lr_dict = lambda lr: {"fc": lr, "default": 0}
    recorder = replay(net, case["net"], tmp_path / "run", epochs=case["epochs"], preset=sg_preset(case))
    names = [group["name"] for group in case["groups"]]
    for row, rates in zip(case["table"], recorder.rates, strict=True):
        ours = {name.removesuffix(" (no decay)"): rate for name, rate in rates.items() if rate}
        recorded = {name: rate for name, rate in zip(names, row["lr"], strict=True)}
        assert ours == pytest.approx(recorded, rel=1e-12), row
    assert_agrees(recorder, case["records"], record_property)
    before = dict(make_net(case["net"]).named_parameters())
    assert all(torch.equal(dict(net.named_parameters())[name], before[name]) for name in case["frozen"])


@pytest.mark.parametrize("case", sg_cases("sg_hooks"))
def test_super_gradients_hooks(case, tmp_path, record_property):
    """The hooks use indices and read the multiplier both ways, as its own text and its own code have them."""
    net = make_net(case["net"])

    def initialize(lr, params):
        backbone = [pair for pair in net.named_parameters() if pair[0].startswith("conv")]
        decoder = [pair for pair in net.named_parameters() if pair[0].startswith("fc")]
        return [
            {"named_params": backbone, "lr": lr * params["multiply_backbone_lr"]},
            {"named_params": decoder, "lr": lr},
        ]

    def update(param_groups, lr, epoch, iter, training_params, total_batch):
        param_groups[0]["lr"] = lr * training_params.multiply_backbone_lr
        param_groups[1]["lr"] = lr
        return param_groups

    net.initialize_param_groups, net.update_param_groups = initialize, update
    preset = sg_preset(case).replace(mode=None)
    recorder = replay(net, case["net"], tmp_path / "run", epochs=case["epochs"], preset=preset)
    for row, rates in zip(case["table"], recorder.rates, strict=True):
        ours = [rates["group 0"], rates["group 1"]]
        assert ours == pytest.approx(row["lr"], rel=1e-12), row
    assert_agrees(recorder, case["records"], record_property)


@pytest.mark.parametrize("case", sg_cases("sg_optimizers_prescribed"))
def test_super_gradients_optimizers(case, tmp_path, record_property):
    net = make_net(case["net"])
    feed_gradients(net, case["net"])
    rates = {group["name"]: {"lr": group["lr"], "weight_decay": group["weight_decay"]} for group in case["groups"]}
    rates["default"] = 0.0
    options = BARE | {"lr": rates, "optimizer": case["optimizer"], "optimizer_params": case["args"]}
    recorder = replay(net, case["net"], tmp_path / "run", **options)
    assert_agrees(recorder, case["records"], record_property)
