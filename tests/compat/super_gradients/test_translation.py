import json
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from layered_recipe import FOLDER, make_net
from zoo.compat.super_gradients import Translation, training_params, translate
from zoo.compat.super_gradients.parameters import KNOWN
from zoo.errors import PresetError
from zoo.settings.preset import Preset
from zoo.settings.resolve import plan_rates

RECORDED = json.loads((FOLDER / "sg_groups_and_errors.json").read_text())["cases"]
HOOKED = json.loads((FOLDER / "sg_hooks.json").read_text())["cases"]

DETECTOR: dict[str, Any] = {  # as people fine-tune a YOLO-NAS
    "max_epochs": 40,
    "initial_lr": 4e-4,
    "lr_mode": "cosine",
    "cosine_final_lr_ratio": 0.1,
    "lr_warmup_epochs": 2,
    "warmup_mode": "linear_epoch_step",
    "warmup_initial_lr": 1e-6,
    "optimizer": "Adam",
    "optimizer_params": {"weight_decay": 2e-4},
    "zero_weight_decay_on_bias_and_bn": True,
    "ema": True,
    "ema_params": {"decay": 0.99, "decay_type": "threshold"},
    "mixed_precision": True,
    "average_best_models": True,
    "loss": SimpleNamespace(),
    "silent_mode": True,
    "valid_metrics_list": [SimpleNamespace()],
    "metric_to_watch": "mAP@0.50",
    "sync_bn": True,
}
CLASSIFIER: dict[str, Any] = {  # as people train a ResNet on small images
    "max_epochs": 90,
    "initial_lr": {"conv1": 0, "linear": 0.5, "default": 0.05},
    "lr_mode": "StepLRScheduler",
    "lr_updates": [30, 60],
    "lr_decay_factor": 0.2,
    "optimizer": "sgd",
    "optimizer_params": {"nesterov": True},
    "loss": "CrossEntropyLoss",
    "criterion_params": {"smooth_eps": 0.1},
    "clip_grad_norm": 5,
    "batch_accumulate": 2,
    "run_validation_freq": 3,
    "seed": 7,
    "train_metrics_list": ["Accuracy", "Top5"],
    "valid_metrics_list": ["Accuracy"],
    "metric_to_watch": "Accuracy",
    "greater_metric_to_watch_is_better": True,
    "phase_callbacks": [],
    "save_ckpt_epoch_list": [10],
    "torch_compile": True,
}


def given(**values: Any) -> Translation:
    return translate({"initial_lr": 0.1, "max_epochs": 10, **values})


def remark(translation: Translation, key: str) -> str:
    return next(line.remark for line in translation.lines if line.key == key)


def complaints(**values: Any) -> list[str]:
    with pytest.raises(PresetError) as caught:
        given(**values)
    first, *others = (line.strip() for line in str(caught.value).splitlines())
    assert first == f"training parameters of super-gradients: {len(others)} error{'s' * (len(others) > 1)}."
    return others


def test_a_detector_is_fine_tuned() -> None:
    translation = translate(DETECTOR)
    assert translation.preset == Preset(
        compat="super-gradients",
        lr=4e-4,
        mode="full",
        optimizer="Adam",
        weight_decay=2e-4,
        epochs=40,
        schedule="cosine",
        final_lr_ratio=0.1,
        warmup_epochs=2.0,
        warmup_start_lr=1e-6,
        ema_decay=0.99,
        precision="fp16",
        seed=42,
    )
    assert list(translation.left_out) == ["loss", "metric_to_watch", "silent_mode", "valid_metrics_list", "sync_bn"]


def test_a_classifier_is_trained() -> None:
    translation = translate(CLASSIFIER)
    assert translation.preset == Preset(
        compat="super-gradients",
        lr={"conv1": 0.0, "linear": 0.5, "default": 0.05},
        optimizer_params={"momentum": 0.9, "nesterov": True},
        weight_decay=1e-4,
        decay_norm_and_bias=True,
        epochs=90,
        accumulate=2,
        schedule={"kind": "step", "gamma": 0.2, "milestones": [30.0, 60.0]},
        label_smoothing=0.1,
        clip_grad_norm=5.0,
        evaluate_every=3,
        seed=7,
        compile=True,
        keep="best",
    )
    assert translation.left_out == {"save_ckpt_epoch_list": "the weights of one epoch are saved, see keep"}


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("values", [DETECTOR, CLASSIFIER])
def test_nothing_is_dropped(values: dict[str, Any], exact: bool) -> None:
    translation = translate({**values, "head_lr": 3, "typo": "x", "none": None, 7: "seven"}, exact=exact)
    told = {line.key for line in translation.lines} | set(translation.left_out)
    assert {*values, "head_lr", "typo", "none", "7"} <= told
    assert all(line.value and line.field and line.ours for line in translation.lines)


@pytest.mark.parametrize("key", sorted(KNOWN - {"initial_lr", "max_epochs"}))
@pytest.mark.parametrize("value", [None, False, True, 3, "SGD", [], ["x"], {}, {"x": 1}, SimpleNamespace(), np.ones(2)])
def test_no_parameter_disappears_whatever_it_is(key: str, value: Any) -> None:
    assert key in _told_or_refused({"initial_lr": 0.1, key: value})


def _told_or_refused(values: dict[str, Any]) -> set[str]:
    try:
        translation = translate(values)
    except PresetError as error:
        return {word.strip(",:;.") for word in str(error).split()}
    return {line.key for line in translation.lines} | set(translation.left_out)


def test_what_they_take_for_granted_is_told() -> None:
    translation = translate({"initial_lr": 0.1})
    told = {line.key: (line.value, line.field, line.ours) for line in translation.lines}
    assert told == {
        "initial_lr": ("0.1", "lr", "0.1"),
        "finetune": ("False (default)", "mode", "'full'"),
        "optimizer_params": ("{} (default)", "optimizer_params, weight_decay", "{'momentum': 0.9}, 0.0001"),
        "zero_weight_decay_on_bias_and_bn": ("False (default)", "decay_norm_and_bias", "True"),
        "max_epochs": ("None (default)", "epochs", "10"),
        "lr_mode": ("None (default)", "schedule", "'constant'"),
        "seed": ("42 (default)", "seed", "42"),
    }
    assert translation.left_out == {}


def test_exactness_is_a_switch_and_the_preset_can_be_saved() -> None:
    assert translate({"initial_lr": 0.1}).preset.compat == "super-gradients"
    assert translate({"initial_lr": 0.1}, exact=False).preset.compat is None
    for values in (DETECTOR, CLASSIFIER):
        preset = translate(values).preset
        assert "compat: super-gradients\n" in preset.to_yaml()


def test_a_warning_lists_what_is_left_out_if_anything_is() -> None:
    with pytest.warns(UserWarning) as caught:  # noqa: PT030 - the whole text is compared
        preset = training_params({"initial_lr": 0.1, "sync_bn": True, "lr_warmup_epoch": 3})
    assert preset == translate({"initial_lr": 0.1}).preset
    assert [str(warning.message) for warning in caught] == [
        "ignored training parameters of super-gradients:\n  sync_bn: norm statistics are computed per "
        "process\n  lr_warmup_epoch: unknown to super-gradients. Did you mean 'lr_warmup_epochs' or "
        "'lr_warmup_steps'?"
    ]
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert training_params({"initial_lr": 0.1, "sync_bn": False, "max_epochs": 3}).epochs == 3


@pytest.mark.parametrize("rate", [0.1, 1, np.float32(0.5), np.float64(0.25), 0])
def test_one_rate(rate: Any) -> None:
    preset = given(initial_lr=rate).preset
    assert (preset.lr, preset.mode) == (float(rate), "full")


@pytest.mark.parametrize("rate", [1, 0.1])
def test_finetune(rate: float) -> None:
    translation = given(initial_lr=rate, finetune=True)
    assert (translation.preset.lr, translation.preset.mode) == (float(rate), "head")
    assert "in super-gradients they drift" in remark(translation, "finetune")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"initial_lr": None},
            "initial_lr: it is None; expected a learning rate, or a mapping of prefixes to learning rates with",
        ),
        ({"initial_lr": True}, "initial_lr is True; expected a finite number, 0 or more."),
        ({"initial_lr": "0.1"}, "initial_lr is '0.1'; expected a finite number, 0 or more."),
        ({"initial_lr": -0.1}, "initial_lr is -0.1; expected a finite number, 0 or more."),
        ({"initial_lr": float("nan")}, "initial_lr is nan; expected"),
        (
            {"initial_lr": {}},
            "initial_lr has no 'default', the learning rate of all other parameters. Add it; 0 freezes.",
        ),
        ({"initial_lr": {"fc": 0.1}}, "initial_lr has no 'default'"),
        ({"initial_lr": {"fc": "x", "default": 0}}, "initial_lr of 'fc' is 'x'; expected a finite number, 0 or more."),
        ({"initial_lr": {"default": None}}, "initial_lr of 'default' is None; expected"),
        ({"initial_lr": {"fc": -0.1, "default": 0}}, "initial_lr of 'fc' is -0.1"),
        (
            {"initial_lr": {"@norm": 0.1, "default": 0}},
            "initial_lr: '@norm' is not a prefix; expected only letters, digits",
        ),
        ({"initial_lr": {"": 0.1, "default": 0}}, "initial_lr: '' is not a prefix"),
        ({"initial_lr": {3: 0.1, "default": 0}}, "initial_lr: 3 is not a prefix"),
        ({"initial_lr": {"default": 0.1}, "finetune": True}, "finetune is true, but initial_lr is a mapping; expected"),
        ({"finetune": 1}, "finetune is 1; expected true or false."),
    ],
)
def test_rates_that_are_refused(values: dict[str, Any], expected: str) -> None:
    (found,) = complaints(**values)
    assert found.startswith(expected)


def test_a_missing_rate() -> None:
    with pytest.raises(PresetError, match="initial_lr: it is missing; expected a learning rate"):
        translate({"max_epochs": 3})


@pytest.mark.parametrize("case", RECORDED, ids=[case["label"] for case in RECORDED])
def test_recorded_groups(case: dict[str, Any]) -> None:
    values = {"initial_lr": case["initial_lr"], **case["training_params"]}
    if "error" in case and case["label"] != "overlap, both trained":  # there the longest prefix counts here
        with pytest.raises(PresetError):
            translate(values)
        return
    net = make_net("tinybn" if "norm" in case["label"] else "tinynet")
    made = plan_rates(net, translate(values).preset)
    if "error" in case:
        assert "the longest wins" in remark(translate(values), "initial_lr")
        return
    expected = {
        (name, group["lr"], group["weight_decay"])
        for group in case["groups"]
        for name in group["params"]
        if name not in case["frozen"]
    }
    assert {(name, group.lr, group.weight_decay) for group in made.trained for name in group.names} == expected


def test_prefixes_that_freeze() -> None:
    values = {"initial_lr": {"conv": 0, "conv1": 0.2, "default": 0.1}}
    exact, meant = translate(values), translate(values, exact=False)
    assert exact.preset.lr == {"conv": 0.0, "conv1": 0.0, "default": 0.1}
    assert remark(exact, "initial_lr").startswith(
        "conv1: 0 as in super-gradients, where a shorter prefix with rate 0 wins;"
    )
    assert meant.preset.lr == {"conv": 0.0, "conv1": 0.2, "default": 0.1}
    assert remark(meant, "initial_lr").startswith("of overlapping prefixes the longest wins;")
    translation = given(initial_lr={"def": 0, "default": 0.1})
    assert translation.preset.lr == {"def": 0.0, "default": 0.1}


class Hooked(nn.Module):
    """A module that divides its parameters itself, as the documents show."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = nn.Linear(2, 2), nn.Linear(2, 2)

    def initialize_param_groups(self, lr: float, training_params: Any) -> list[dict[str, Any]]:
        multiplier = training_params.multiply_backbone_lr
        return [
            {"named_params": list(self.backbone.named_parameters("backbone")), "lr": lr * multiplier},
            {"named_params": list(self.head.named_parameters("head")), "lr": lr},
        ]

    def update_param_groups(
        self, param_groups: Any, lr: float, epoch: int, iter: int, training_params: Any, total_batch: int
    ) -> Any:
        param_groups[0]["lr"] = lr * training_params["multiply_backbone_lr"]
        param_groups[1]["lr"] = lr
        return param_groups


@pytest.mark.parametrize("case", HOOKED, ids=[case["label"] for case in HOOKED])
def test_hooks_read_their_own_parameters(case: dict[str, Any]) -> None:
    multiplier = case["training_params"]["multiply_backbone_lr"]
    translation = translate(case["training_params"] | {"max_epochs": case["epochs"]})
    assert (translation.preset.mode, translation.preset.training_params) == (None, {"multiply_backbone_lr": multiplier})
    assert translation.left_out == {}
    assert remark(translation, "multiply_backbone_lr") == "passed to the model's hooks"
    assert "set mode to 'full'" in remark(translation, "finetune")
    made = plan_rates(Hooked(), translation.preset, steps_per_epoch=case["batches_per_epoch"])
    backbone, head = (group["lr_at_build"] for group in case["groups"])
    assert [group.lr for group in made.trained] == pytest.approx([backbone, head], rel=1e-12)


def test_numbers_alone_are_handed_to_hooks() -> None:
    translation = given(freeze_layers=3, use_it=True, mode_of_mine="x", multiply=float("nan"), shares=[0.1])
    assert translation.preset.training_params == {"freeze_layers": 3, "use_it": True}
    assert set(translation.left_out) == {"mode_of_mine", "multiply", "shares"}
    assert translation.left_out["shares"] == "unknown to super-gradients."
    translation = given(warmup_epochs=3, lr=0.1)
    assert translation.left_out["warmup_epochs"] == (
        "a preset field, unknown to super-gradients. Did you mean 'lr_warmup_epochs' or 'lr_warmup_steps'?"
    )
    assert "lr" in translation.left_out
    assert translation.preset.warmup_epochs is None


@pytest.mark.parametrize(
    ("key", "meant"),
    [("lr_warmup_epoch", "lr_warmup_epochs"), ("max_epoch", "max_epochs"), ("initial_lrs", "initial_lr")],
)
def test_a_misspelt_number_is_not_handed_to_hooks(key: str, meant: str) -> None:
    translation = given(**{key: 3})
    assert translation.preset.training_params == {}
    assert translation.left_out[key].startswith(f"unknown to super-gradients. Did you mean {meant!r}")


@pytest.mark.parametrize(
    ("name", "params", "decay"),
    [
        ("SGD", {"momentum": 0.9}, 1e-4),
        ("Adam", {}, 1e-4),
        ("RMSprop", {"momentum": 0.9}, 1e-4),
        ("RMSpropTF", {"momentum": 0.9}, 1e-4),
        ("AdamW", {}, None),
        ("Lamb", {}, None),
        ("Lion", {}, None),
    ],
)
def test_hidden_arguments(name: str, params: dict[str, float], decay: float | None) -> None:
    ours = "SuperGradientsRMSpropTF" if name == "RMSpropTF" else name
    for written in (name, name.lower(), f"{name[:3]}-{name[3:]}"):
        preset = given(optimizer=written).preset
        assert (preset.optimizer, preset.optimizer_params, preset.weight_decay) == (ours, params, decay)
    preset = given(optimizer=name, optimizer_params={"weight_decay": 0.5, "momentum": 0.8, "eps": 1e-3}).preset
    assert (preset.optimizer_params, preset.weight_decay) == ({"momentum": 0.8, "eps": 1e-3}, 0.5)


@pytest.mark.parametrize(
    ("name", "own"), [("AdamW", "0.01"), ("Lamb", "0.01"), ("Lion", "0"), ("mine", "of its class")]
)
def test_the_flag_that_loses_the_default_decay(name: str, own: str) -> None:
    values = {"initial_lr": 0.1, "optimizer": name, "zero_weight_decay_on_bias_and_bn": True}
    exact, meant = translate(values), translate(values, exact=False)
    assert (exact.preset.weight_decay, exact.preset.decay_norm_and_bias) == (0.0, False)
    assert (meant.preset.weight_decay, meant.preset.decay_norm_and_bias) == (None, False)
    told = f"in super-gradients this flag turns the optimizer's default decay, {own}, into 0; "
    assert remark(exact, "optimizer_params") == told + "kept, to reproduce the run; null uses that default"
    assert remark(meant, "optimizer_params") == told + "not in zoo"
    assert translate(values | {"optimizer_params": {"weight_decay": 0.1}}).preset.weight_decay == 0.1


def test_names_of_optimizers_are_taken_as_they_are() -> None:
    assert given(optimizer=torch.optim.Adam).preset.weight_decay == 1e-4
    assert given(optimizer=torch.optim.NAdam).preset.optimizer == "NAdam"
    assert given(optimizer=type("Lamb", (), {})).preset.optimizer == "Lamb"
    translation = given(optimizer="Adagrad")
    assert (translation.preset.optimizer, translation.preset.weight_decay) == ("Adagrad", None)
    assert remark(translation, "optimizer").startswith("not one of super-gradients' optimizers.")
    assert "Did you mean 'AdamW' or 'Adam'?" in remark(given(optimizer="AdamWW"), "optimizer")


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ("torch.optim.Adadelta", "optimizer is 'torch.optim.Adadelta'; presets import no code. Write only the name"),
        ({"SGD": {}}, "optimizer is {'SGD': {}}; expected a name. Its arguments belong in optimizer_params."),
        (torch.optim.SGD([torch.zeros(1)], lr=0.1), "optimizer is an existing SGD object; expected a name."),
        (type("Mine", (), {}), "optimizer is the class Mine; a preset needs a name. Register it with"),
        (3, "optimizer is an existing int object; expected a name."),
    ],
)
def test_optimizers_that_no_preset_holds(optimizer: Any, expected: str) -> None:
    (found,) = complaints(optimizer=optimizer)
    assert found.startswith(expected)


def test_accumulation_and_rates_among_arguments_are_explained() -> None:
    assert remark(given(batch_accumulate=4), "batch_accumulate") == (
        "super-gradients sums the gradients of 4 batches, zoo averages them: for the same steps SGD needs lr "
        "× 4, weight_decay / 4 and clip_grad_norm / 4"
    )
    assert remark(given(batch_accumulate=1), "batch_accumulate") == ""
    translation = given(optimizer_params={"lr": 3, "momentum": 0.5})
    assert translation.preset.optimizer_params == {"momentum": 0.5}
    assert translation.left_out == {
        "optimizer_params.lr": "no effect in super-gradients either: every group has its own learning rate"
    }
    translation = given(initial_lr={"default": 0, "b": 1, "a.": np.float32(0.5)}, finetune=False)
    assert translation.preset.lr == {"default": 0.0, "b": 1.0, "a.": 0.5}
    assert list(translation.preset.lr) == ["default", "b", "a."]
    assert translation.preset.mode is None
    assert remark(translation, "finetune") == "initial_lr decides what is trained"


@pytest.mark.parametrize(
    ("params", "decay", "told"),
    [
        ({}, 0.9999, "decay × (1 - exp(-15 × step / steps)) in super-gradients; constant in zoo"),
        ({"decay": 0.9, "beta": 3}, 0.9, "decay × (1 - exp(-3 × step / steps)) in super-gradients; constant in zoo"),
        (
            {"decay": 0.9, "decay_type": "threshold"},
            0.9,
            "min(decay, (1 + step) / (10 + step)) in super-gradients; constant in zoo",
        ),
        ({"decay": 0.9, "decay_type": "constant"}, 0.9, ""),
        ({"decay": 0.9, "exp_activation": False}, 0.9, ""),
        (
            {"decay": 0.9, "exp_activation": True},
            0.9,
            "decay × (1 - exp(-15 × step / steps)) in super-gradients; constant in zoo",
        ),
    ],
)
def test_ema(params: dict[str, Any], decay: float, told: str) -> None:
    translation = given(ema=True, ema_params=params)
    assert translation.preset.ema_decay == decay
    assert remark(translation, "ema") == told


def test_ema_that_is_off() -> None:
    translation = given(ema_params={"decay": 0.9})
    assert translation.preset.ema_decay is None
    assert remark(translation, "ema_params") == "no effect with the others"


def test_precision_compile_clipping_and_metrics() -> None:
    assert given(mixed_precision=False).preset.precision == "no"
    translation = given(mixed_precision=True, torch_compile="on")
    assert (translation.preset.precision, translation.preset.compile) == ("fp16", True)
    assert "needs a GPU" in remark(translation, "mixed_precision")
    assert given(clip_grad_norm=2).preset.clip_grad_norm == 2.0
    assert complaints(clip_grad_norm=0) == ["clip_grad_norm is 0; expected a number above 0, or null for no limit."]
    assert complaints(clip_grad_norm=-1) == ["clip_grad_norm is -1; expected a finite number, 0 or more."]
    translation = given(train_metrics_list=["Accuracy", "Top5"], valid_metrics_list=[{"DetectionMetrics": {}}])
    assert remark(translation, "train_metrics_list").startswith("runs report loss, top-1, top-5")
    assert set(translation.left_out) == {"valid_metrics_list"}


@pytest.mark.parametrize(
    ("values", "smoothing", "left_out"),
    [
        ({"loss": "cross_entropy", "criterion_params": {"smooth_eps": 0.1}}, 0.1, set()),
        ({"loss": "LabelSmoothingCrossEntropyLoss", "criterion_params": {"smooth_eps": 0.2}}, 0.2, set()),
        ({"loss": {"CrossEntropyLoss": {"smooth_eps": 0.1, "weight": [1]}}}, 0.1, {"loss.CrossEntropyLoss.weight"}),
        ({"loss": {"CrossEntropyLoss": None}}, 0.0, set()),
        ({"loss": "CrossEntropyLoss", "criterion_params": {"ignore_index": 3}}, 0.0, {"criterion_params.ignore_index"}),
        ({"loss": "CrossEntropyLoss", "criterion_params": {"smooth_dist": None}}, 0.0, set()),
        ({"loss": nn.CrossEntropyLoss(label_smoothing=0.3)}, 0.3, set()),
        ({"loss": "PPYoloELoss", "criterion_params": {"reg_max": 16}}, 0.0, {"loss", "criterion_params"}),
        ({"loss": {"DiceLoss": {"a": 1}}}, 0.0, {"loss"}),
        ({"loss": nn.MSELoss()}, 0.0, {"loss"}),
    ],
)
def test_loss(values: dict[str, Any], smoothing: float, left_out: set[str]) -> None:
    translation = given(**values)
    assert translation.preset.label_smoothing == smoothing
    assert set(translation.left_out) == left_out


@pytest.mark.parametrize(
    ("values", "keep"),
    [
        ({}, "both"),
        ({"metric_to_watch": "Accuracy"}, "best"),
        ({"metric_to_watch": "accuracy", "greater_metric_to_watch_is_better": True}, "best"),
        ({"metric_to_watch": "Accuracy", "greater_metric_to_watch_is_better": False}, "both"),
        ({"metric_to_watch": "mAP@0.50"}, "both"),
    ],
)
def test_which_weights_are_kept(values: dict[str, Any], keep: str) -> None:
    translation = given(**values)
    assert translation.preset.keep == keep
    assert ("metric_to_watch" in translation.left_out) == ("metric_to_watch" in values and keep == "both")


def test_values_that_are_not_there_yet_are_left_out() -> None:
    translation = given(
        lr_warmup_epochs="${warmup}",
        optimizer_params={"weight_decay": "${decay}", "momentum": 0.8},
        max_epochs="???",
        lr_schedule_function={"_target_": "some.function"},
    )
    assert translation.left_out == {
        "lr_warmup_epochs": "'${warmup}' is a hydra interpolation that was not resolved",
        "optimizer_params.weight_decay": "'${decay}' is a hydra interpolation that was not resolved",
        "max_epochs": "'???' is a hydra interpolation that was not resolved",
        "lr_schedule_function": "it is created by code, 'some.function', which is not run",
    }
    assert translation.preset.optimizer_params == {"momentum": 0.8}
    assert translation.preset.weight_decay == 1e-4


def test_a_rate_that_is_not_there_yet() -> None:
    assert complaints(initial_lr={"default": "${lr}"}) == [
        "initial_lr: '${lr}' is a hydra interpolation that was not resolved; expected a learning rate, or a "
        "mapping of prefixes to learning rates with 'default'."
    ]


@pytest.mark.parametrize(
    ("updates", "made"),
    [
        ({"_target_": "numpy.arange", "start": 2, "stop": 9, "step": 3}, [2.0, 5.0, 8.0]),
        ({"_target_": "numpy.arange", "stop": 3}, [0.0, 1.0, 2.0]),
        ({"_target_": "numpy.arange", "start": 2.4, "stop": 12, "step": 2.4}, np.arange(2.4, 12, 2.4).tolist()),
    ],
)
def test_lists_that_their_recipes_make_by_numpy(updates: dict[str, Any], made: list[float]) -> None:
    preset = given(lr_mode="step", lr_decay_factor=0.1, lr_updates=updates).preset
    assert preset.schedule["milestones"] == made


@pytest.mark.parametrize(
    "updates",
    [
        {"_target_": "os.system", "stop": 3},
        {"_target_": "numpy.arange", "stop": "3"},
        {"_target_": "numpy.arange", "stop": 3, "step": 0},
        {"_target_": "numpy.arange", "stop": 1e12},
    ],
)
def test_no_code_is_run(updates: dict[str, Any]) -> None:
    translation = given(lr_updates=updates)
    assert translation.left_out["lr_updates"].endswith("which is not run")


def test_their_empty_list() -> None:
    translation = given(lr_updates={"_target_": "super_gradients.training.utils.utils.empty_list"})
    assert remark(translation, "lr_updates") == "not read by lr_mode None"


def test_all_errors_at_once() -> None:
    found = complaints(initial_lr="x", optimizer=3, batch_accumulate=0, lr_mode="z", ema="x", seed=-1)
    assert [text.split()[0] for text in found] == [
        "initial_lr",
        "optimizer",
        "batch_accumulate",
        "unknown",
        "ema",
        "seed",
    ]


@pytest.mark.parametrize("values", [None, [], "initial_lr", 3])
def test_parameters_are_a_mapping(values: Any) -> None:
    with pytest.raises(PresetError, match=r"^training parameters are .*; expected a mapping of names to values\.$"):
        translate(values)


def test_the_caller_s_mapping_is_not_touched() -> None:
    values = {
        "initial_lr": {"a": 0, "ab": 1, "default": 1},
        "optimizer_params": {"lr": 3},
        "criterion_params": {"a": 1},
    }
    before = json.dumps(values)
    translate(values | {"loss": "cross_entropy"})
    assert json.dumps(values) == before
