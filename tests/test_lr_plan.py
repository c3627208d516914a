import copy
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from zoo.errors import PlanError
from zoo.lr_plan import (
    TrainingParams,
    apply_plan,
    choose_rates,
    frozen_modules,
    frozen_tensors,
    keep_norm_statistics,
    plan_hook_groups,
    plan_lrs,
)


class Net(nn.Module):
    """Two convolutions with norms, dropouts, and a head of two layers whose names begin alike."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.bn1 = nn.BatchNorm2d(4)
        self.drop1 = nn.Dropout(0.5)
        self.conv2 = nn.Conv2d(4, 4, 3)
        self.bn2 = nn.BatchNorm2d(4, affine=False)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2))
        self.head2 = nn.Linear(4, 2)

    def forward(self, images):
        x = self.drop1(self.bn1(self.conv1(images)))
        x = self.bn2(self.conv2(x)).mean((2, 3))
        return self.head(x) + self.head2(x)

    def get_finetune_lr_dict(self, lr):
        return {"head": lr, "default": 0}


def groups_of(plan):
    return {group.name: group for group in plan.groups}


def owner(plan):
    return {name: group for group in plan.groups for name in group.names}


def test_every_parameter_is_in_exactly_one_group_in_the_models_order():
    model = Net()
    plan = plan_lrs(model, {"conv": 0.1, "head.": 0.2, "default": 0}, weight_decay=0.01)
    names = [name for group in plan.groups for name in group.names]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert len(names) == len(set(names))
    order = [name for name, _ in model.named_parameters()]
    assert [order.index(group.names[0]) for group in plan.groups] == sorted(
        order.index(group.names[0]) for group in plan.groups
    )


def test_keys_are_plain_prefixes_and_a_dot_ends_them():
    plan = plan_lrs(Net(), {"conv": 0.1, "head.": 0.2, "default": 0.3})
    rates = {name: group.lr for name, group in owner(plan).items()}
    assert rates["conv1.weight"] == rates["conv2.bias"] == 0.1
    assert rates["head.1.weight"] == 0.2
    assert rates["head2.weight"] == 0.3
    assert plan_lrs(Net(), {"head": 0.2, "default": 0.3}).groups[-1].names[-1] == "head2.bias"


def test_the_longest_prefix_wins_whatever_the_order_of_keys_and_rates():
    for keys in ({"conv": 0, "conv2": 0.5}, {"conv2": 0.5, "conv": 0}):
        group = owner(plan_lrs(Net(), {**keys, "default": 0.1}))
        assert group["conv1.weight"].frozen
        assert not group["conv2.weight"].frozen
        assert group["conv2.weight"].lr == 0.5
    inner_frozen = owner(plan_lrs(Net(), {"conv": 0.5, "conv2": 0, "default": 0.1}))
    assert inner_frozen["conv2.weight"].frozen
    assert inner_frozen["conv1.weight"].lr == 0.5


def test_the_documented_example_means_what_its_code_says():
    """`{"conv": 0.001, "default": 0.}` trains the convolutions and freezes the rest, not the other way round."""
    group = owner(plan_lrs(Net(), {"conv": 0.001, "default": 0.0}))
    assert not group["conv1.weight"].frozen
    assert group["head2.weight"].frozen


def test_no_decay_on_parameters_of_one_dimension():
    plan = plan_lrs(Net(), {"default": 0.1}, weight_decay=0.01)
    decays = {name: group.weight_decay for name, group in owner(plan).items()}
    assert decays["conv1.weight"] == 0.01
    assert decays["bn1.weight"] == decays["conv1.bias"] == 0
    assert set(groups_of(plan)) == {"default", "default (no decay)"}
    everything = plan_lrs(Net(), {"default": 0.1}, weight_decay=0.01, decay_norm_and_bias=True)
    assert [group.weight_decay for group in everything.groups] == [0.01]


def test_without_decay_there_is_nothing_to_split():
    assert [group.name for group in plan_lrs(Net(), {"default": 0.1}).groups] == ["default"]


@pytest.mark.parametrize("rate", [True, False, -0.1, math.nan, math.inf, "0.1", None, [0.1], np.bool_(True)])
def test_a_rate_that_is_no_finite_number_of_0_or_more_is_refused(rate):
    with pytest.raises(PlanError, match=r"'conv' is .*Expected a finite number, 0 or more"):
        plan_lrs(Net(), {"conv": rate, "default": 0.1})


def test_all_bad_rates_are_told_at_once():
    with pytest.raises(PlanError, match=r"'conv' is -1; 'head' is 'x' \(str\); 'default' is nan"):
        plan_lrs(Net(), {"conv": -1, "head": "x", "default": math.nan})


@pytest.mark.parametrize("rate", [1, 0.5, np.float32(0.5), np.int64(1)])
def test_any_real_number_is_a_rate(rate):
    assert plan_lrs(Net(), {"default": rate}).groups[0].lr == float(rate)


def test_a_prefix_that_matches_nothing_names_near_ones_and_the_top_level():
    with pytest.raises(PlanError, match=r"key 'heda' matches no parameter of Net\. Did you mean 'head'.*conv1, bn1"):
        plan_lrs(Net(), {"heda": 0.1, "default": 0})


def test_a_prefix_whose_parameters_longer_ones_take_is_an_error():
    with pytest.raises(PlanError, match=r"'conv' catches nothing, because longer keys take all.*'conv1', 'conv2'"):
        plan_lrs(Net(), {"conv": 0.1, "conv1": 0.2, "conv2": 0.3, "default": 0})


@pytest.mark.parametrize("key", ["", 3])
def test_a_key_that_is_no_text_is_refused(key):
    with pytest.raises(PlanError, match="not the beginning of a parameter name"):
        plan_lrs(Net(), {key: 0.1, "default": 0})


def test_default_is_required():
    with pytest.raises(PlanError, match=r"has no 'default'. Add one"):
        plan_lrs(Net(), {"head": 0.1})
    with pytest.raises(PlanError, match="has no 'default'"):
        plan_lrs(Net(), {})


def test_a_plan_in_which_nothing_learns_is_refused():
    with pytest.raises(PlanError, match="nothing would learn"):
        plan_lrs(Net(), {"head": 0, "default": 0})


def test_a_model_without_parameters_is_refused():
    with pytest.raises(PlanError, match="ReLU has no parameters"):
        plan_lrs(nn.ReLU(), {"default": 0.1})


def test_tied_parameters_are_counted_once_and_known_by_all_their_names():
    model = Net()
    model.head2.weight = model.head[1].weight
    plan = plan_lrs(model, {"head2": 0.5, "default": 0.1})
    group = owner(plan)
    assert group["head.1.weight"].lr == 0.5
    assert "head2.weight" not in group
    assert sum(group.parameters for group in plan.groups) == sum(p.numel() for p in model.parameters())


def test_choose_rates_by_mode():
    model = Net()
    assert choose_rates(model, 0.1) == choose_rates(model, 0.1, mode="head") == {"head": 0.1, "default": 0}
    assert choose_rates(model, 0.1, mode="low_lr", backbone_lr_factor=0.2) == {"head": 0.1, "default": 0.1 * 0.2}
    assert choose_rates(model, 0.1, mode="full") == {"default": 0.1}
    given = {"conv": 0.1, "default": 0}
    assert choose_rates(model, given) == given
    assert choose_rates(model, given) is not given


@pytest.mark.parametrize("mode", ["head", "low_lr", "full"])
def test_a_mapping_together_with_a_mode_is_an_error(mode):
    with pytest.raises(PlanError, match=f"lr is a mapping and mode is '{mode}'"):
        choose_rates(Net(), {"default": 0.1}, mode=mode)


def test_a_model_that_does_not_know_its_head_says_what_to_pass():
    with pytest.raises(PlanError, match=r"Sequential has no get_finetune_lr_dict.*lr=\{'0': 0.1, 'default': 0\}"):
        choose_rates(nn.Sequential(nn.Linear(2, 2)), 0.1)


def test_an_unknown_mode_is_told():
    with pytest.raises(PlanError, match="unknown mode 'heads'; expected 'head', 'low_lr' or 'full'"):
        choose_rates(Net(), 0.1, mode="heads")


def test_a_finetune_mapping_without_default_is_refused():
    model = Net()
    model.get_finetune_lr_dict = lambda lr: {}
    with pytest.raises(PlanError, match=r"returned \{\}; expected a mapping"):
        choose_rates(model, 0.1)


@pytest.mark.parametrize("lr", [True, math.nan, -1.0, "0.1", None])
def test_one_rate_is_checked_too(lr):
    with pytest.raises(PlanError, match="'lr' is"):
        choose_rates(Net(), lr)


def test_frozen_parts_have_no_gradient_and_stay_in_eval_through_train():
    model = Net()
    plan = plan_lrs(model, {"head": 0.1, "default": 0})
    apply_plan(model, plan)
    model.train()
    assert not any(model.get_submodule(name).training for name in ("conv1", "bn1", "drop1", "conv2", "bn2"))
    assert model.training
    assert model.head.training
    assert model.head[0].training
    before = {name: tensor.clone() for name, tensor in frozen_tensors(model, plan).items()}
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    assert model.conv1.weight.grad is None
    assert model.head2.weight.grad is not None
    assert {"bn1.running_mean", "bn2.running_var", "bn1.num_batches_tracked"} <= set(before)
    assert all(torch.equal(before[name], tensor) for name, tensor in frozen_tensors(model, plan).items())


def test_a_frozen_module_stays_in_eval_when_it_is_asked_alone():
    model = Net()
    apply_plan(model, plan_lrs(model, {"head": 0.1, "default": 0}))
    model.bn1.train()
    assert not model.bn1.training


def test_a_later_plan_undoes_an_earlier_one():
    model = Net()
    apply_plan(model, plan_lrs(model, {"head": 0.1, "default": 0}))
    apply_plan(model, plan_lrs(model, {"default": 0.1}))
    model.train()
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())


def test_a_copy_of_a_frozen_model_is_frozen_by_itself():
    model = Net()
    apply_plan(model, plan_lrs(model, {"head": 0.1, "default": 0}))
    twin = copy.deepcopy(model)
    apply_plan(model, plan_lrs(model, {"default": 0.1}))
    twin.train()
    model.train()
    assert not twin.bn1.training
    assert model.bn1.training


def test_dropout_between_parts_goes_by_the_keys():
    model = Net()
    names = frozen_modules(model, plan_lrs(model, {"conv": 0.1, "head": 0.1, "default": 0}))
    assert {"bn1", "drop1", "bn2"} <= names
    assert not {"", "conv1", "head", "head.0"} & names


def test_norm_statistics_can_be_kept_while_the_weights_learn():
    model = Net()
    apply_plan(model, plan_lrs(model, {"default": 0.1}))
    keep_norm_statistics(model)
    model.train()
    before = model.bn1.running_mean.clone()
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    assert torch.equal(model.bn1.running_mean, before)
    assert model.bn1.weight.grad is not None
    assert model.drop1.training


def test_groups_of_a_hook_become_a_plan():
    model = Net()
    named = dict(model.named_parameters())
    groups = [
        {"named_params": [("conv1.weight", named["conv1.weight"])], "lr": 0.01, "momentum": 0.5},
        {"named_params": [(n, p) for n, p in named.items() if n.startswith("head")], "name": "heads"},
    ]
    plan = plan_hook_groups(model, groups, lr=0.1, weight_decay=0.0, decay_norm_and_bias=False)
    by_name = groups_of(plan)
    assert by_name["group 0"].lr == 0.01
    assert by_name["group 0"].options == {"momentum": 0.5}
    assert by_name["heads"].lr == 0.1
    assert by_name["default"].frozen
    assert "conv1.bias" in by_name["default"].names


def test_hook_groups_that_a_mapping_could_say_are_that_mapping():
    model = Net()
    group = {"name": "head", "lr": 0.1, "named_params": [p for p in model.named_parameters() if "head" in p[0]]}
    plan = plan_hook_groups(model, [group], lr=0.1, weight_decay=0.01, decay_norm_and_bias=False)
    assert plan == plan_lrs(model, {"head": 0.1, "default": 0}, weight_decay=0.01)


@pytest.mark.parametrize(
    ("groups", "text"),
    [
        ([{"named_params": [], "name": "empty"}], "'empty' holds no parameters"),
        ([{"lr": 0.1}], "has no 'named_params'"),
        ([{"named_params": [("nose", None)]}], "names 'nose', which the model does not have"),
        ([{"named_params": [("conv1.bias", None)]}] * 2, "'conv1.bias' is in 'group 0' and in 'group 1'"),
        ([{"named_params": [("conv1.bias", None)], "lr": -1}], "'group 0' is -1"),
    ],
)
def test_wrong_hook_groups_are_told(groups, text):
    with pytest.raises(PlanError, match=text):
        plan_hook_groups(Net(), groups, lr=0.1, weight_decay=0.0, decay_norm_and_bias=False)


def test_training_params_are_read_both_ways():
    params = TrainingParams({"multiply_backbone_lr": 0.1})
    assert params["multiply_backbone_lr"] == params.multiply_backbone_lr == 0.1
    with pytest.raises(AttributeError, match=r"no training parameter 'multiply_backbone'. Did you mean 'multiply_back"):
        _ = params.multiply_backbone


def test_the_table_has_a_row_per_group_and_a_total():
    plan = plan_lrs(Net(), {"head": 0.01, "default": 0}, weight_decay=0.1)
    assert plan.rows()[0] == {
        "prefix": "default",
        "state": "frozen",
        "tensors": "6",
        "parameters": "268",
        "lr": "0",
        "weight decay": "-",
    }
    text = str(plan).splitlines()
    assert len(text) == len(plan.groups) + 2
    assert "0.01" in text[2]
    assert text[-1].split()[-1] == f"{sum(p.numel() for p in Net().parameters())}"


def test_the_plan_is_data():
    plan = plan_lrs(Net(), {"head": 0.01, "default": 0})
    data = json.loads(json.dumps(plan.to_dict()))
    assert data["rates"] == {"head": 0.01, "default": 0}
    assert data["groups"][0]["names"] == list(plan.groups[0].names)


def test_the_digest_is_the_same_in_every_process():
    code = (
        "import timm; from zoo.lr_plan import plan_lrs; m = timm.create_model('resnet10t');"
        "print(plan_lrs(m, {'layer4': .1, 'fc': .2, 'layer1': .3, 'default': 0}).digest)"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
    assert len(digests.pop().strip()) == 64
