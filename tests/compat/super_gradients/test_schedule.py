import json
import math
from typing import Any

import numpy as np
import pytest

from layered_recipe import FOLDER, make_net
from zoo.compat.super_gradients import Translation, translate
from zoo.errors import PresetError
from zoo.rates.plan import Plan
from zoo.settings.resolve import plan_rates

RECORDED = [
    case
    for file in ("sg_schedules.json", "sg_mapping_trajectories.json")
    for case in json.loads((FOLDER / file).read_text())["cases"]
]


def plan(batches: int, *, exact: bool = True, **values: Any) -> Plan:
    preset = translate({"initial_lr": 0.1, **values}, exact=exact).preset
    return plan_rates(make_net("tinynet"), preset, steps_per_epoch=batches // preset.accumulate)


def rates(batches: int, *, exact: bool = True, **values: Any) -> list[float]:
    made = plan(batches, exact=exact, **values)
    return [made.rates(step)["default"] for step in range(made.clock.steps)]


def near(values: list[float]) -> Any:
    return pytest.approx(values, abs=5e-7)


def course(*, exact: bool = True, **values: Any) -> Translation:
    return translate({"initial_lr": 0.1, "max_epochs": 10, **values}, exact=exact)


def remark(translation: Translation, key: str) -> str:
    return next(line.remark for line in translation.lines if line.key == key)


def complaint(**values: Any) -> str:
    with pytest.raises(PresetError) as caught:
        course(**values)
    first, *others = str(caught.value).splitlines()
    assert first == "training parameters of super-gradients: 1 error."
    return "\n".join(others).strip()


@pytest.mark.numbers
@pytest.mark.parametrize("case", RECORDED, ids=[case["label"] for case in RECORDED])
def test_recorded_runs(case: dict[str, Any]) -> None:
    preset = translate(case["training_params"] | {"max_epochs": case["epochs"]}).preset
    net = make_net(case["net"])
    if preset.mode == "head":  # a model that says which part is its head
        net.get_finetune_lr_dict = lambda lr: {"fc": lr, "default": 0}
    made = plan_rates(net, preset, steps_per_epoch=case["batches_per_epoch"])
    assert {name for group in made.groups if group.frozen for name in group.names} == set(case["frozen"])
    assert len(case["table"]) == made.clock.steps
    place = {name: group.name for group in made.groups for name in group.names}
    for row in case["table"]:
        found = made.rates(row["step"] - 1)
        for group, lr in zip(case["groups"], row["lr"], strict=True):
            for name in group["params"]:
                assert found[place[name]] == pytest.approx(lr, rel=1e-12)


def test_warm_up_steps_left_over() -> None:
    found = rates(4, max_epochs=4, lr_mode="cosine", lr_warmup_epochs=1, lr_warmup_steps=8)
    assert found[:4] == near([0.05] * 4)
    assert found[4:14] == near([0.1] * 10)  # without them it would fall from step 6 on
    assert found[14] < 0.0999
    translation = course(lr_mode="cosine", lr_warmup_epochs=1, lr_warmup_steps=8)
    assert (translation.preset.warmup_epochs, translation.preset.warmup_steps) == (1, 8)
    assert (
        remark(translation, "lr_warmup_steps")
        == "no warm-up by epoch; the cosine starts after all of them, as in super-gradients"
    )
    translation = course(lr_mode="cosine", lr_warmup_steps=5)
    assert translation.preset.schedule == {"kind": "cosine", "warmup": "epoch"}
    assert rates(4, max_epochs=3, lr_mode="cosine", lr_warmup_steps=5)[:7] == near([0.1] * 7)


def test_a_warm_up_by_batch_with_epochs_left_over() -> None:
    values = {"warmup_mode": "linear_batch_step", "lr_warmup_steps": 2, "lr_warmup_epochs": 1, "warmup_initial_lr": 0.0}
    translation = course(lr_mode="poly", **values)
    assert translation.preset.schedule == {"kind": "polynomial", "warmup": "batch", "warmup_start_lr": 0.0}
    found = rates(4, max_epochs=3, lr_mode="poly", **values)
    assert found[:6] == near([0.0, 0.1, 0.1, 0.1, 0.1, 0.1])  # poly begins with epoch 1, one step late
    assert found[6] == near(0.1 * (1 - 1 / 8) ** 0.9)


def test_poly_and_exponential() -> None:
    assert rates(4, max_epochs=2, lr_mode="PolyLRScheduler") == near(
        [0.1, *[0.1 * (1 - done / 8) ** 0.9 for done in range(7)]]
    )
    assert rates(4, max_epochs=2, lr_mode="exp", lr_decay_factor=0.5) == near(
        [0.1, *[0.1 * 0.5 ** (done / 4) for done in range(7)]]
    )
    assert course(exact=False).preset.warmup_epochs == 0.0
    by_batch = {"warmup_mode": "LinearBatchLRWarmup", "warmup_initial_lr": 0.01}
    assert course(exact=False, **by_batch).preset.warmup_epochs == 0.0
    assert rates(2, exact=False, max_epochs=2) == [0.1] * 4


def test_steps_at_milestones_arrays_or_a_distance() -> None:
    found = rates(2, max_epochs=4, lr_mode="StepLRScheduler", lr_updates=[1, 2], lr_decay_factor=0.1)
    assert found == near([0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert remark(course(lr_mode="step", lr_updates=[1], lr_decay_factor=0.1), "lr_mode").startswith("a milestone")
    translation = course(lr_mode="step", lr_updates=np.arange(2, 8, 3), lr_decay_factor=0.1)
    assert translation.preset.schedule["milestones"] == [2.0, 5.0]
    assert "- 2.0\n" in translation.preset.to_yaml()
    values = {"lr_mode": "step", "step_lr_update_freq": 1.5, "lr_decay_factor": 0.1, "lr_cooldown_epochs": 1}
    assert course(**values).preset.schedule == {"kind": "step", "gamma": 0.1, "every_epochs": 1.5}
    found = rates(1, max_epochs=6, **values)  # ceil(1.5 x) = 2, 3, (5 is cool-down)
    assert found == near([0.1, 0.1, 0.1, 0.01, 0.001, 0.001])
    values = {"initial_lr": 0.1, "lr_mode": "step", "lr_decay_factor": 0.1, "step_lr_update_freq": 99, "max_epochs": 9}
    with pytest.raises(PresetError, match=r"step_lr_update_freq is 99: no update within 9 epochs\. Lower it\."):
        translate(values, exact=False)


def test_a_function() -> None:
    asked = []

    def halve(initial_lr: float, epoch: int, iter: int, max_epoch: int, iters_per_epoch: int) -> float:
        asked.append((initial_lr, epoch, iter, max_epoch, iters_per_epoch))
        return initial_lr / 2

    for exact in (True, False):
        asked.clear()
        values = {"lr_mode": "FunctionLRScheduler", "lr_schedule_function": halve, "lr_warmup_epochs": 1}
        found = rates(2, exact=exact, max_epochs=3, **values)
        assert found[2:] == near([0.1, 0.05, 0.05, 0.05])
        assert (0.1, 0, 0, 2, 2) in asked
    translation = course(lr_mode="function", lr_schedule_function=halve)
    (line,) = (line for line in translation.lines if line.key == "lr_schedule_function")
    assert (line.field, line.ours) == ("schedule.function", "halve")


def test_no_schedule_or_other_parameters() -> None:
    assert rates(2, max_epochs=2, lr_mode=None) == [0.1] * 4
    assert course().preset.schedule == course(lr_mode=None).preset.schedule == "constant"
    assert rates(2, max_epochs=3, lr_warmup_epochs=1) == near([0.05, 0.05, 0.1, 0.1, 0.1, 0.1])
    found = rates(4, max_epochs=3, lr_mode="cosine", lr_cooldown_epochs=1)
    assert found[8:] == near([found[8]] * 4)
    assert found[8] < found[7]
    translation = course(lr_mode="cosine", lr_updates=[3], lr_decay_factor=0.1, step_lr_update_freq=2)
    for key in ("lr_updates", "lr_decay_factor", "step_lr_update_freq"):
        assert remark(translation, key) == "not read by lr_mode 'cosine'"


def test_schedulers_of_torch() -> None:
    mode = {"StepLR": {"step_size": 1, "gamma": 0.5, "phase": "TRAIN_EPOCH_END"}}
    schedule = {"kind": "torch", "scheduler": "StepLR", "step_size": 1, "gamma": 0.5, "phase": "TRAIN_EPOCH_END"}
    assert course(lr_mode=mode).preset.schedule == schedule
    assert rates(2, max_epochs=3, lr_mode=mode) == near([0.1, 0.1, 0.05, 0.05, 0.025, 0.025])
    meant = {key: value for key, value in schedule.items() if key != "phase"} | {"per": "epoch"}
    assert course(exact=False, lr_mode=mode).preset.schedule == meant
    assert rates(2, exact=False, max_epochs=3, lr_mode=mode) == near([0.1, 0.1, 0.05, 0.05, 0.025, 0.025])
    mode = {"LambdaLR": {"lr_lambda": lambda epoch: 1 / (1 + epoch), "phase": "TRAIN_EPOCH_END"}}
    assert rates(1, max_epochs=3, lr_mode=mode) == near([0.1, 0.05, 0.1 / 3])

    class Phase:
        name = "TRAIN_BATCH_END"

    mode = {"ExponentialLR": {"gamma": 0.5, "phase": Phase()}}
    assert course(lr_mode=mode).preset.schedule["phase"] == "TRAIN_BATCH_END"
    assert course(exact=False, lr_mode=mode).preset.schedule["per"] == "step"
    mode = {"ConstantLR": {"phase": "TRAIN_EPOCH_END"}, "LinearLR": {"phase": "TRAIN_EPOCH_END"}}
    assert course(lr_mode=mode).left_out == {"lr_mode.LinearLR": "super-gradients reads only the first scheduler"}


def test_a_plateau_is_never_exact() -> None:
    arguments = {
        "patience": 2,
        "factor": 0.5,
        "mode": "max",
        "phase": "VALIDATION_EPOCH_END",
        "metric_name": "Accuracy",
    }
    translation = course(lr_mode={"ReduceLROnPlateau": arguments}, lr_warmup_epochs=2)
    assert translation.preset.compat is None
    assert translation.preset.schedule == {"kind": "plateau", "metric": "top1", "patience": 2, "factor": 0.5}
    assert translation.preset.warmup_start == pytest.approx(1 / 3)
    assert translation.left_out == {
        "lr_mode.mode": "only its arguments factor, patience, threshold, cooldown are supported"
    }
    assert remark(translation, "lr_mode").startswith("'Accuracy' becomes top1; these learning rates")
    followed = course(lr_mode={"ReduceLROnPlateau": arguments | {"metric_name": "PPYoloELoss/loss"}})
    assert followed.preset.schedule["metric"] == "val_loss"


def test_one_start_for_all_lets_slow_groups_warm_downwards() -> None:
    values = {"initial_lr": {"conv": 0.01, "default": 0.1}, "lr_warmup_epochs": 2, "warmup_initial_lr": 0.05}
    translation = course(**values)
    assert translation.preset.warmup_start_lr == 0.05
    assert (
        remark(translation, "warmup_initial_lr")
        == "groups with a lower learning rate warm up downwards, as in super-gradients"
    )
    made = plan(1, max_epochs=4, **values)
    assert [made.rates(step)["conv"] for step in range(3)] == near([0.05, 0.03, 0.01])
    assert [made.rates(step)["default"] for step in range(3)] == near([0.05, 0.075, 0.1])


def test_one_start_for_all_without_exactness_is_a_proportion() -> None:
    values = {"initial_lr": {"conv": 0.01, "default": 0.1}, "lr_warmup_epochs": 2, "warmup_initial_lr": 0.05}
    assert "in the same proportion" in remark(course(exact=False, **values), "warmup_initial_lr")
    made = plan(1, exact=False, max_epochs=4, **values)
    assert [made.rates(step)["conv"] for step in range(3)] == near([0.005, 0.0075, 0.01])
    assert [made.rates(step)["default"] for step in range(3)] == near([0.05, 0.075, 0.1])


def test_a_start_for_every_group() -> None:
    values = {
        "initial_lr": {"conv": 0.01, "fc1": 0.0, "default": 0.1},
        "warmup_initial_lr": {"conv": 0.001, "fc1": 0.1, "default": 0.02},
        "lr_warmup_epochs": 2,
        "lr_mode": "cosine",
    }
    made = plan(1, max_epochs=4, **values)
    assert [made.rates(step)["conv"] for step in range(3)] == near([0.001, 0.0055, 0.01])
    assert [made.rates(step)["default"] for step in range(3)] == near([0.02, 0.06, 0.1])
    lr = course(exact=False, **values).preset.lr
    assert isinstance(lr, dict)
    assert lr["fc1"] == 0.0
    assert lr["conv"].schedule == {"kind": "cosine", "warmup_start": pytest.approx(0.1)}
    made = plan(1, exact=False, max_epochs=4, **values)
    assert [made.rates(step)["conv"] for step in range(3)] == near([0.001, 0.0055, 0.01])


def test_starts_of_the_warm_up() -> None:
    translation = course(lr_warmup_epochs=2, warmup_initial_lr={"default": 0.01, "fc": 0.1})
    assert translation.preset.warmup_start_lr == 0.01
    assert translation.left_out == {"warmup_initial_lr.fc": "initial_lr has no such key"}
    assert remark(course(warmup_initial_lr=0.01), "warmup_initial_lr") == "there is no warm-up"
    assert remark(course(lr_warmup_epochs=3), "warmup_initial_lr") == "lr / 4, as in super-gradients"
    assert course(exact=False, lr_warmup_epochs=3).preset.warmup_start == 0.25
    translation = course(exact=False, lr_warmup_epochs=2, warmup_initial_lr=0.5)
    assert (translation.preset.warmup_start, translation.preset.warmup_start_lr) == (1.0, None)
    assert rates(1, exact=False, max_epochs=3, lr_warmup_epochs=2, warmup_initial_lr=0.5) == near([0.1, 0.1, 0.1])


def test_meant_lengths() -> None:
    preset = course(exact=False, lr_warmup_epochs=3, lr_warmup_steps=9, lr_mode="cosine").preset
    assert (preset.compat, preset.schedule, preset.warmup_epochs, preset.warmup_steps) == (None, "cosine", 3.0, None)
    by_batch = {"warmup_mode": "LinearBatchLRWarmup", "warmup_initial_lr": 0.01, "lr_warmup_epochs": 3}
    translation = course(exact=False, lr_warmup_steps=9, batch_accumulate=4, **by_batch)
    assert (translation.preset.warmup_epochs, translation.preset.warmup_steps) == (None, 3)
    assert remark(translation, "lr_warmup_steps") == "steps of 4 batches"
    assert remark(translation, "lr_warmup_epochs") == "not read by warmup_mode 'LinearBatchLRWarmup'"


def test_meant_steps() -> None:
    values = {"lr_mode": "step", "lr_updates": [1, 2], "lr_decay_factor": 0.1}
    assert course(exact=False, **values).preset.schedule == {
        "kind": "multistep",
        "gamma": 0.1,
        "milestones": [1.0, 2.0],
    }
    assert rates(1, exact=False, max_epochs=4, **values) == near([0.1, 0.01, 0.001, 0.001])
    values = {"lr_mode": "step", "step_lr_update_freq": 1.5, "lr_decay_factor": 0.1, "lr_cooldown_epochs": 1}
    assert course(exact=False, **values).preset.schedule["milestones"] == [2.0, 3.0, 5.0, 6.0, 8.0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"lr_mode": "cosin"}, "unknown lr_mode 'cosin'. Did you mean 'cosine'?"),
        ({"lr_mode": 3}, "unknown lr_mode 3."),
        ({"lr_mode": {"StepLRR": {}}}, "unknown lr_mode 'StepLRR'. Did you mean 'StepLR'"),
        ({"lr_mode": {}}, "unknown lr_mode None."),
        ({"lr_mode": {"StepLR": 3}}, "lr_mode 'StepLR' is 3; expected a mapping of arguments and 'phase'."),
        ({"lr_mode": {"StepLR": {"step_size": 3}}}, "lr_mode 'StepLR': phase is None; expected one of"),
        ({"lr_mode": {"ReduceLROnPlateau": {"phase": "VALIDATION_EPOCH_END"}}}, "lr_mode 'ReduceLROnPlateau"),
        ({"lr_mode": "step", "lr_decay_factor": 0.1}, "needs exactly one of them."),
        (
            {"lr_mode": "step", "lr_decay_factor": 0.1, "lr_updates": [3], "step_lr_update_freq": 2},
            "needs exactly one of them.",
        ),
        ({"lr_mode": "step", "lr_updates": [3]}, "lr_decay_factor is None; expected a finite number, 0 or more."),
        ({"lr_mode": "step", "lr_updates": "3"}, "lr_updates is '3'; expected a list of epochs."),
        ({"lr_mode": "step", "lr_updates": ["x"], "lr_decay_factor": 0.1}, "lr_updates is 'x'; expected a finite"),
        ({"lr_mode": "exp"}, "lr_decay_factor is None"),
        (
            {"lr_mode": "function"},
            "lr_mode function needs a Python function, which cannot be saved to a file. Pass it in",
        ),
        ({"lr_mode": "function", "lr_schedule_function": "f"}, "lr_schedule_function is 'f';"),
        ({"warmup_mode": "warmup_linear_step"}, "unknown warmup_mode 'warmup_linear_step'."),
        (
            {"warmup_mode": "LinearBatchLRWarmup", "lr_warmup_steps": 9},
            "warmup_initial_lr is missing; expected a learning rate",
        ),
        ({"lr_warmup_epochs": 2.5}, "lr_warmup_epochs is 2.5; expected a whole number, 0 or more."),
        ({"lr_cooldown_epochs": -1}, "lr_cooldown_epochs is -1"),
        ({"cosine_final_lr_ratio": -1, "lr_mode": "cosine"}, "cosine_final_lr_ratio is -1"),
        ({"lr_warmup_epochs": 1, "warmup_initial_lr": "x"}, "warmup_initial_lr is 'x'"),
        ({"lr_warmup_epochs": 1, "warmup_initial_lr": {"fc": 0.1}}, "warmup_initial_lr has no default; expected every"),
        (
            {"lr_warmup_epochs": 1, "warmup_initial_lr": {"default": 0.1}, "finetune": True},
            "finetune the model sets the groups. Use a single learning rate.",
        ),
    ],
)
def test_what_is_wrong(values: dict[str, Any], expected: str) -> None:
    assert expected in complaint(**values)


def test_what_the_preset_refuses_is_told_too() -> None:
    with pytest.raises(
        PresetError,
        match=r"of super-gradients to a preset\. preset: 1 error\.\n  warmup_epochs is 10\.0; expected less than",
    ):
        course(lr_warmup_epochs=10)
    long = translate({"initial_lr": 0.1, "max_epochs": 30, "lr_warmup_epochs": 12})
    assert remark(long, "lr_warmup_epochs") == "super-gradients rejects more than 10"
    assert math.isclose(long.preset.warmup_epochs or 0, 12)
