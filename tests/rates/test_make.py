import pytest
import torch
from torch import nn

import zoo
from plan_nets import groups_of, owners, rates_of
from zoo.errors import InputError, PlanError
from zoo.optim.build import build_optimizer
from zoo.rates.make import ASSUMED_STEPS, make_plan, training_params
from zoo.rates.options import RateOptions
from zoo.rates.schedules.parse import Clock
from zoo.settings.preset import Preset
from zoo.settings.resolve import plan_rates


def plan(model, lr=0.1, *, steps_per_epoch=None, optimizer=None, **fields):
    return plan_rates(model, Preset(lr=lr, **fields), steps_per_epoch=steps_per_epoch, optimizer=optimizer)


@pytest.fixture(scope="module")
def resnet():
    return zoo.get("timm/test_resnet", num_classes=3)


class Plain(nn.Module):
    """A module without a mapping and without hooks."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)


def test_one_rate_is_that_of_the_head_or_of_all_in_a_module_of_ones_own(resnet):
    one = plan(resnet)
    assert one == plan(resnet, mode="head")
    assert {name for name, group in owners(one).items() if not group.frozen} == {"fc.weight", "fc.bias"}
    assert one.digest == plan(resnet, mode="head").digest
    assert set(rates_of(plan(Plain())).values()) == {0.1}
    assert plan(Plain()) == plan(Plain(), mode="full")


def test_low_lr_says_where_the_slower_rate_comes_from(resnet):
    groups = groups_of(plan(resnet, mode="low_lr", backbone_lr_factor=0.5))
    assert (groups["default"].lr, groups["fc"].lr) == (0.05, 0.1)
    assert groups["default"].reason == "0.1 × 0.5 (backbone)"
    assert groups["fc"].reason == ""


def test_rates_fall_through_the_whole_model_or_its_slower_part(resnet):
    falling = groups_of(plan(resnet, layer_decay=0.5))
    assert falling == groups_of(plan(resnet, layer_decay=0.5, mode="full"))
    assert falling["fc"].full_lr == 0.1
    assert falling["layer4"].full_lr == 0.05
    assert falling["conv1 to bn1"].full_lr == 0.1 * 0.5**5
    slower = groups_of(plan(resnet, layer_decay=0.5, mode="low_lr"))
    assert slower["fc"].full_lr == 0.1
    assert slower["layer4"].full_lr == pytest.approx(0.005)
    assert slower["layer4"].reason == "0.01 × 0.5^1, layer 5 of 6"
    first = groups_of(plan(resnet, first_lr=1e-4))
    assert first["conv1 to bn1"].full_lr == pytest.approx(1e-4)
    assert first["layer2"].full_lr == pytest.approx(0.1 * 1000 ** (-3 / 5))


@pytest.mark.parametrize("mode", [None, "head"])
def test_what_the_head_leaves_frozen_is_unfrozen_at_the_rate_of_a_backbone(resnet, mode):
    unfreeze = {"2": "layer4", "4": ["layer3", "default"]}
    made = plan(resnet, mode=mode, unfreeze=unfreeze)
    points = {name: (group.unfreeze_at, group.lr) for name, group in owners(made).items()}
    assert points["fc.weight"] == (0, 0.1)
    assert points["layer4.0.conv1.weight"] == (2, 0.1 * 0.1)
    assert points["layer3.0.conv1.weight"] == points["conv1.0.weight"] == (4, 0.1 * 0.1)
    assert groups_of(made)["layer4"].reason == "0.1 × 0.1 (backbone)"
    assert made == plan(resnet, unfreeze=unfreeze)
    assert made.unfreeze_epochs == (2, 4)


def test_all_groups_are_in_the_optimizer_from_the_first_step(resnet):
    made = plan(resnet, unfreeze={"2": "layer4", "4": "default"})
    optimizer = build_optimizer(resnet, made, optimizer="SGD")
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in resnet.parameters()}


@pytest.mark.parametrize("fields", [{"mode": "low_lr"}, {"mode": "full"}, {"layer_decay": 0.5}, {"first_lr": 0.001}])
def test_unfreezing_leaves_the_rates_of_every_other_mode(resnet, fields):
    before, after = plan(resnet, **fields), plan(resnet, unfreeze={"3": ["layer4", "conv1"]}, **fields)
    assert rates_of(after) == rates_of(before)
    points = {name: group.unfreeze_at for name, group in owners(after).items()}
    assert {name for name, epoch in points.items() if epoch == 3} == {
        name for name in points if name.startswith(("layer4", "conv1"))
    }


def test_unfreezing_with_a_mapping(resnet):
    made = plan(resnet, {"fc": 0.1, "layer4": 0.02, "default": 0.01}, unfreeze={"1": "layer4", "2": "default"})
    points = {group.name: (group.unfreeze_at, group.lr) for group in made.groups if group.name == group.key}
    assert points == {"default": (2, 0.01), "layer4": (1, 0.02), "fc": (0, 0.1)}
    with pytest.raises(
        PlanError, match=r"'layer4' is unfrozen, but 'default' has learning rate 0 there\. Set its learning rate"
    ):
        plan(resnet, {"fc": 0.1, "default": 0}, unfreeze={"1": "layer4"})


def test_what_would_never_learn_is_told(resnet):
    with pytest.raises(PlanError, match=r"in a run of 5 epochs 'layer4' \(after 5\) would never be trained\. Unfreeze"):
        plan(resnet, unfreeze={"5": "layer4"}, epochs=5)
    with pytest.raises(PlanError, match=r"in a run of 10 epochs 'fc' \(after 20\) would never be trained"):
        plan(resnet, {"fc": {"lr": 0.1, "unfreeze_at": 20}, "default": 0.1})


def test_the_warm_up_of_the_preset_holds_for_all_groups_and_is_half_an_epoch_unless_told():
    made = plan(Plain(), {"fc": 0.1, "default": 0.01}, steps_per_epoch=10, warmup_epochs=1.0, warmup_start=0.5)
    assert made.rates(0) == pytest.approx(
        {"default": 0.005, "default (no decay)": 0.005, "fc": 0.05, "fc (no decay)": 0.05}
    )
    absolute = plan(Plain(), {"fc": 0.1, "default": 0.01}, steps_per_epoch=10, warmup_epochs=1.0, warmup_start_lr=0.05)
    assert absolute.rates(0) == pytest.approx(made.rates(0))  # no group warms downwards
    assert plan(Plain(), steps_per_epoch=10).explain(0)["default"] == "0.01 = 0.1 × warm-up 0/5 (0.1)"
    assert plan(Plain(), steps_per_epoch=10, warmup_epochs=0.0).rates(0)["default"] == 0.1
    assert plan(Plain(), steps_per_epoch=10, warmup_steps=2).explain(0)["default"] == "0.01 = 0.1 × warm-up 0/2 (0.1)"
    assert plan(Plain(), steps_per_epoch=10, schedule="one_cycle").rates(0)["default"] == pytest.approx(0.1 / 25)
    assert plan(Plain(), steps_per_epoch=10, compat="super-gradients").rates(0)["default"] == 0.1


def test_a_run_of_unknown_length_is_taken_to_be_of_100_steps_per_epoch():
    made = plan(Plain(), epochs=3, accumulate=2)
    assert made.clock == Clock(3, ASSUMED_STEPS, 2)
    assert not made.steps_are_known
    assert plan(Plain(), steps_per_epoch=7, epochs=3).clock == Clock(3, 7)
    assert plan(Plain(), steps_per_epoch=7).steps_are_known
    with pytest.raises(InputError, match=r"steps_per_epoch is 0; expected 1 or more"):
        plan(Plain(), steps_per_epoch=0)


def test_a_list_of_rates_has_to_last_for_a_run_of_known_length():
    rates = {"fc": {"lr": [0.1] * 20}, "default": 0.1}
    assert not plan(Plain(), rates).steps_are_known
    assert plan(Plain(), rates, epochs=2, steps_per_epoch=10).rates(19)["fc"] == 0.1
    with pytest.raises(PlanError, match=r"lr plan: schedule 'rates' has 20 values|'fc': schedule 'rates' has 20"):
        plan(Plain(), rates, epochs=2, steps_per_epoch=11)


def test_order_and_unmatched_and_centralization_reach_the_plan():
    order = [name for name, _ in Plain().named_parameters()][::-1]
    made = plan(Plain(), order=order, gradient_centralization=True)
    assert made.groups[0].names[0] == "fc.bias"
    assert all(group.gradient_centralization for group in made.groups)
    with pytest.raises(PlanError, match=r"order leaves out 'conv.weight'"):
        plan(Plain(), order=order[:-1])
    assert set(rates_of(plan(Plain(), {"nose": 1, "default": 0.1}, unmatched="ignore")).values()) == {0.1}


class Hooked(Plain):
    """super-gradients' hooks: rates by a multiplier of the training parameters, groups by index."""

    def initialize_param_groups(self, lr, training_params):
        slow = [*self.conv.named_parameters(), *self.bn.named_parameters()]
        return [
            {"named_params": slow, "lr": lr * training_params.multiply_backbone_lr},
            {"named_params": self.fc.named_parameters(), "lr": lr},
        ]

    def update_param_groups(self, param_groups, lr, epoch, iter, training_params, total_batch):
        param_groups[0]["lr"] = lr * training_params["multiply_backbone_lr"] * training_params.epochs
        param_groups[1]["lr"] = lr
        return param_groups


def test_hooks_of_a_model_are_used_for_one_rate_and_of_our_own_change_nothing(resnet):
    fields = {"training_params": {"multiply_backbone_lr": 0.5}, "schedule": "constant", "warmup_steps": 0, "epochs": 3}
    made = plan(Hooked(), steps_per_epoch=4, **fields)
    assert [group.name for group in made.groups] == ["group 0", "group 0 (no decay)", "group 1", "group 1 (no decay)"]
    assert [group.lr for group in made.groups] == [0.05, 0.05, 0.1, 0.1]
    rates = {"group 0": 0.1 * 0.5 * 3, "group 0 (no decay)": 0.1 * 0.5 * 3, "group 1": 0.1, "group 1 (no decay)": 0.1}
    assert made.rates(0) == pytest.approx(rates)
    assert set(rates_of(plan(Hooked(), mode="full", **fields)).values()) == {0.1}
    assert plan(Hooked(), mode="full", **fields).hook is None
    made = plan(resnet, steps_per_epoch=10)
    assert made.hook is not None
    assert [made.rates(step) for step in range(0, 100, 7)] == [
        plan(resnet, mode="head", steps_per_epoch=10).rates(step) for step in range(0, 100, 7)
    ]


def test_rates_alone_are_enough_for_a_plan():
    made = make_plan(Plain(), RateOptions(lr=0.1), default_decay=0.25)
    assert {group.name: group.weight_decay for group in made.groups} == {"default": 0.25, "default (no decay)": 0.0}
    assert (
        owners(make_plan(Plain(), RateOptions(weight_decay=0.5), default_decay=0.25))["fc.weight"].weight_decay == 0.5
    )


def test_training_params_are_the_presets_and_the_users():
    params = training_params(Preset(epochs=7, training_params={"multiply_backbone_lr": 0.1, "epochs": 8}))
    assert (params.epochs, params["multiply_backbone_lr"], params.batch_size) == (8, 0.1, 32)


def test_the_groups_of_an_optimizer_are_the_plan():
    model = Plain()
    optimizer = torch.optim.SGD(model.fc.parameters(), lr=0.25)
    made = plan(model, optimizer=optimizer, steps_per_epoch=4, schedule="constant", warmup_steps=0)
    assert rates_of(made) | {"fc.weight": 0.25, "fc.bias": 0.25} == rates_of(made)
    assert made.rates(0) == {"default": 0.0, "group 0": 0.25}
    assert build_optimizer(model, made, optimizer=optimizer) is optimizer


@pytest.mark.parametrize("name", ["initialize_param_groups", "update_param_groups", "get_finetune_lr_dict"])
def test_a_method_of_a_hooks_name_with_other_arguments_is_refused(name):
    class Other(Plain):
        pass

    setattr(Other, name, lambda self: {"default": 0.1})
    with pytest.raises(PlanError, match=rf"cannot be called as {name}\(.*Change its arguments, or rename it"):
        plan(Other())
