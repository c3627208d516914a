import copy

import pytest
import torch
from torch import nn

from plan_nets import Net, backward, make_context, plan_lrs
from zoo.errors import TrainingError
from zoo.optim.freeze import (
    apply_plan,
    check_reached,
    frozen_modules,
    frozen_tensors,
    keep_norm_statistics,
)
from zoo.rates.given_groups import plan_hook_groups
from zoo.rates.groups import Group
from zoo.rates.plan import Plan

HEAD = {"head": 0.1, "default": 0}


def learning(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_frozen_parts_have_no_gradient_and_stay_in_eval_however_they_are_asked():
    model = Net()
    plan = plan_lrs(model, HEAD)
    apply_plan(model, plan)
    model.train()
    assert not any(model.get_submodule(name).training for name in ("conv1", "bn1", "drop1", "conv2", "bn2"))
    assert model.training
    assert model.head.training
    assert model.head[0].training
    before = {name: tensor.clone() for name, tensor in frozen_tensors(model, plan).items()}
    backward(model)
    assert model.conv1.weight.grad is None
    assert model.head2.weight.grad is not None
    assert {"bn1.running_mean", "bn2.running_var", "bn1.num_batches_tracked"} <= set(before)
    assert all(torch.equal(before[name], tensor) for name, tensor in frozen_tensors(model, plan).items())
    model = Net()
    backward(model)
    apply_plan(model, plan_lrs(model, HEAD))
    assert model.conv1.weight.grad is None
    assert model.head2.weight.grad is not None
    model = Net()
    apply_plan(model, plan_lrs(model, HEAD))
    assert model.bn1.train() is model.bn1
    assert not model.bn1.training


def test_a_later_plan_undoes_an_earlier_one():
    model = Net()
    model.conv1.weight.requires_grad_(False)  # whoever did that, the plan says what learns
    apply_plan(model, plan_lrs(model, HEAD))
    apply_plan(model, plan_lrs(model, {"default": 0.1}))
    model.train()
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    assert not any("train" in vars(module) for module in model.modules())


def test_a_train_method_of_somebody_elses_is_left_alone():
    model = Net()
    model.conv1.train = model.head.train = own = lambda mode=True: None
    apply_plan(model, plan_lrs(model, HEAD))
    assert model.head.train is own
    apply_plan(model, plan_lrs(model, {"default": 0.1}))
    assert "train" not in vars(model.conv1)


def test_a_copy_of_a_frozen_model_is_frozen_by_itself():
    model = Net()
    apply_plan(model, plan_lrs(model, HEAD))
    twin = copy.deepcopy(model)
    apply_plan(model, plan_lrs(model, {"default": 0.1}))
    twin.train()
    model.train()
    assert not twin.bn1.training
    assert model.bn1.training


def test_dropout_between_parts_goes_by_the_keys_else_with_its_parent():
    model = Net()
    names = frozen_modules(model, plan_lrs(model, {"conv": 0.1, "head": 0.1, "default": 0}))
    assert {"bn1", "drop1", "bn2"} <= names
    assert not {"", "conv1", "head", "head.0"} & names
    names = frozen_modules(model, plan_lrs(model, {"head": 0.1, "drop": 0.1, "default": 0}, unmatched="ignore"))
    assert "drop1" not in names
    names = frozen_modules(model, plan_lrs(model, {"conv": {"lr": 0.1, "lr_scale": 0.0}, "default": 0.1}))
    assert names == {"conv1", "conv2"}
    model = Net()
    groups = [{"named_params": [("head2.weight", model.head2.weight)]}]
    plan = plan_hook_groups(model, groups, make_context(), lr=0.1, params={})
    assert plan.starts == {}
    assert frozen_modules(model, plan) == {"conv1", "bn1", "conv2", "head", "head.0", "head.1"}  # not drop1: Net learns


def test_parts_learn_from_their_epoch_on_with_their_dropout():
    model = Net()
    plan = plan_lrs(model, {"head": 0.1, "default": 0.1}, unfreeze={1: ["conv2"], 2: ["default"]})
    seen = []
    for epoch in range(3):
        apply_plan(model, plan, epoch)
        model.train()
        seen.append((sorted(learning(model)), model.drop1.training, model.head[0].training))
        assert set(frozen_tensors(model, plan, epoch)) & {"conv1.weight"} == ({"conv1.weight"} if epoch < 2 else set())
    heads = ["head.1.bias", "head.1.weight", "head2.bias", "head2.weight"]
    assert seen == [
        (heads, False, True),
        (["conv2.bias", "conv2.weight", *heads], False, True),
        (sorted(name for name, _ in model.named_parameters()), True, True),
    ]
    apply_plan(model, plan, 0)  # and back
    assert sorted(learning(model)) == heads


def test_dropout_inside_what_is_unfrozen_with_a_broader_prefix_waits_too():
    model = Net()
    plan = plan_lrs(model, {"head.": 0.1, "default": 0.1}, unfreeze={1: ["head"]})
    assert {"head", "head.0", "head.1", "head2"} == frozen_modules(model, plan, 0)
    assert frozen_modules(model, plan, 1) == frozenset()


def test_a_tied_parameter_learns_in_all_its_modules():
    model = Net()
    model.head2.weight = model.head[1].weight
    plan = plan_lrs(model, {"head.": 0.1, "default": 0})
    assert "head2" not in frozen_modules(model, plan)
    assert "conv1" in frozen_modules(model, plan)


def test_norm_statistics_can_be_kept_while_the_weights_learn():
    model = Net()
    apply_plan(model, plan_lrs(model, {"default": 0.1}))
    keep_norm_statistics(model)
    model.train()
    before = model.bn1.running_mean.clone()
    backward(model)
    assert torch.equal(model.bn1.running_mean, before)
    assert model.bn1.weight.grad is not None
    assert model.drop1.training
    apply_plan(model, plan_lrs(model, {"default": 0.1}))
    assert model.train().bn1.training


def test_whole_numbers_are_frozen_and_not_asked_for_a_gradient():
    model = Net()
    model.places = nn.Parameter(torch.arange(3), requires_grad=False)
    apply_plan(model, plan_lrs(model, {"default": 0.1}))
    assert not model.places.requires_grad


def reach(model, rates, epoch=0, **options):
    """Apply a plan, take a backward pass, and return what `check_reached` says."""
    plan, said = plan_lrs(model, rates, **options), []
    apply_plan(model, plan, epoch)
    backward(model)
    check_reached(model, plan, said.append, epoch)
    return said


def test_a_new_head_on_a_misspelt_attribute_is_found():
    """OneFlow's tutorial assigns it to `classifer`: it is registered, never called, and the old head learns."""
    model = Net()
    model.haed = nn.Linear(4, 2)
    with pytest.raises(TrainingError, match=r"'haed' should be trained, but none of its parameters \(haed\.weight"):
        reach(model, {"haed": 0.1, "head": 0.1, "default": 0}, weight_decay=0.1)
    assert reach(Net(), HEAD) == []
    assert reach(Net(), {"default": 0.1}) == []


def test_all_parts_that_are_not_used_are_told_at_once():
    model = Net()
    model.first, model.second = nn.Linear(4, 2), nn.Linear(4, 2)
    text = (
        r"'first' should be trained, but none of its parameters \(first\.weight, first\.bias\) received a "
        r"gradient in the first step, nor any of 'second' \(second\.weight, second\.bias\): forward\(\) does "
        r"not use them\. Assign a new layer"
    )
    with pytest.raises(TrainingError, match=text):
        reach(model, {"first": 0.1, "second": 0.1, "default": 0.1})


def test_single_tensors_that_are_not_used_are_noted():
    model = Net()
    model.haed = nn.Sequential(nn.Linear(4, 2), nn.Linear(4, 2))
    assert reach(model, {"default": 0.1}) == [
        "note: haed.0.bias, haed.0.weight, haed.1.bias and 1 more received no gradient in the first step; "
        "forward() does not use them"
    ]


def test_what_is_frozen_or_unfrozen_later_is_not_asked():
    model = Net()
    model.haed = nn.Linear(4, 2)
    assert reach(model, HEAD) == []
    later = {"unfreeze": {2: ["haed"]}}
    assert reach(model, {"default": 0.1}, **later) == []
    with pytest.raises(
        TrainingError,
        match=r"'haed' should be trained, but none of its parameters \(haed\.weight, haed\.bias\) received a "
        r"gradient in the first step: forward\(\) does not use them\. Assign a new layer to the attribute",
    ):
        reach(model, {"default": 0.1}, epoch=2, **later)


def test_a_plan_made_by_hand_can_be_applied():
    model = nn.Linear(2, 2)
    groups = (
        Group(name="w", names=("weight",), lr=0.1, parameters=4),
        Group(name="b", names=("bias",), lr=0.0, parameters=2),
    )
    apply_plan(model, Plan(groups))
    assert learning(model) == {"weight"}
    assert set(frozen_tensors(model, Plan(groups))) == {"bias"}
