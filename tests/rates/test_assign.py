import itertools
import math
import time
import warnings

import numpy as np
import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from plan_nets import Net, Stack, groups_of, make_context, make_large, owners, plan_lrs, rates_of
from zoo.errors import PlanError
from zoo.rates.assign import choose_rates, plan_layers
from zoo.rates.schedules.parse import Clock
from zoo.rates.spec import MOST_LISTED, GroupSettings

RESNET50 = timm.create_model("resnet50", num_classes=10)

# Prefixes


def test_every_parameter_is_in_exactly_one_group_in_the_models_order():
    model = Net()
    plan = plan_lrs(model, {"conv": 0.1, "head.": 0.2, "default": 0}, weight_decay=0.01)
    names = [name for group in plan.groups for name in group.names]
    order = [name for name, _ in model.named_parameters()]
    assert sorted(names) == sorted(order)
    assert len(names) == len(set(names))
    first = [order.index(group.names[0]) for group in plan.groups]
    assert first == sorted(first)
    assert all(
        [order.index(name) for name in g.names] == sorted(order.index(name) for name in g.names) for g in plan.groups
    )


def test_keys_are_plain_prefixes_in_any_order():
    rates = rates_of(plan_lrs(Net(), {"conv": 0.1, "head.": 0.2, "default": 0.3}))
    assert rates["conv1.weight"] == rates["conv2.bias"] == 0.1
    assert rates["head.1.weight"] == 0.2
    assert rates["head2.weight"] == 0.3
    assert plan_lrs(Net(), {"head": 0.2, "default": 0.3}).groups[-1].names[-1] == "head2.bias"
    rates = {"conv": 0.1, "conv2": 0.2, "@norm": {"weight_decay": 0.1}, "head2@bias": 0.3, "default": 0.01}
    plan = plan_lrs(Net(), rates, weight_decay=0.5)
    other = plan_lrs(Net(), dict(reversed(rates.items())), weight_decay=0.5)
    assert other == plan
    assert other.digest == plan.digest
    for keys in ({"conv": 0, "conv2": 0.5}, {"conv2": 0.5, "conv": 0}):
        group = owners(plan_lrs(Net(), {**keys, "default": 0.1}))
        assert group["conv1.weight"].frozen
        assert not group["conv2.weight"].frozen
        assert group["conv2.weight"].lr == 0.5
    inner_frozen = owners(plan_lrs(Net(), {"conv": 0.5, "conv2": 0, "default": 0.1}))
    assert inner_frozen["conv2.weight"].frozen
    assert inner_frozen["conv1.weight"].lr == 0.5


def test_tied_parameters_are_counted_once_and_known_by_all_their_names():
    model = Net()
    model.head2.weight = model.head[1].weight
    plan = plan_lrs(model, {"head2": 0.5, "default": 0.1})
    group = owners(plan)
    assert group["head.1.weight"].lr == 0.5
    assert "head2.weight" not in group
    assert sum(group.parameters for group in plan.groups) == sum(p.numel() for p in model.parameters())


def test_the_model_is_not_changed():
    model = Net()
    model.conv1.weight.requires_grad = False
    plan_lrs(model, {"head": 0.1, "default": 0})
    assert [name for name, parameter in model.named_parameters() if not parameter.requires_grad] == ["conv1.weight"]


def test_a_prefix_whose_parameters_longer_ones_take_is_an_error():
    with pytest.raises(PlanError, match=r"'conv' has no effect: longer keys match all.*'conv1', 'conv2'\."):
        plan_lrs(Net(), {"conv": 0.1, "conv1": 0.2, "conv2": 0.3, "default": 0})
    with pytest.raises(PlanError, match=r"'bn@norm' has no effect: longer keys match all.*: 'bn1@norm'\."):
        plan_lrs(Net(), {"bn@norm": 0.1, "bn1@norm": 0.2, "default": 0})


def test_a_kind_that_is_not_there_is_told():
    with pytest.raises(PlanError, match=r"key 'head@norm' matches no parameter: there is no norm under 'head'\."):
        plan_lrs(Net(), {"head@norm": 0.1, "default": 0.1})
    with pytest.raises(PlanError, match=r"key '@conv' matches no parameter: there is no conv in Linear\."):
        plan_lrs(nn.Linear(2, 2), {"@conv": 0.1, "default": 0.1})


def test_all_keys_that_catch_nothing_are_told_at_once():
    rates = {"heda": 0.1, "drop1": 0.1, "head@norm": 1, "head.": 0.1, "head.1": 0.2, "default": 0}
    with pytest.raises(PlanError) as caught:
        plan_lrs(Net(), rates)
    lines = str(caught.value).splitlines()
    assert lines[0] == "lr plan: 4 errors."
    assert [line.split("'")[1] for line in lines[1:]] == ["head.", "heda", "drop1", "head@norm"]


def test_unmatched_keys_can_be_ignored_or_warned_of():
    rates = {"heda": 0.1, "nose@norm": {"weight_decay": 1.0}, "head": 0.2, "default": 0}
    expected = rates_of(plan_lrs(Net(), {"head": 0.2, "default": 0}))
    with pytest.warns(UserWarning, match=r"lr plan: no parameter matches 'heda', 'nose@norm'; ignored\."):
        assert rates_of(plan_lrs(Net(), rates, unmatched="warn")) == expected
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rates_of(plan_lrs(Net(), rates, unmatched="ignore")) == expected
    with pytest.raises(PlanError, match=r"'conv' has no effect: longer keys"):  # is a contradiction
        plan_lrs(Net(), {"conv": 0.1, "conv1": 0.2, "conv2": 0.3, "default": 0}, unmatched="ignore")


def test_the_rate_of_an_unmatched_key_is_not_the_largest():
    options = {"schedule": "constant", "schedule_defaults": {"warmup_start_lr": 0.1, "warmup_steps": 4}}
    plan = plan_lrs(Net(), {"nose": 8, "default": 0.2}, unmatched="ignore", clock=Clock(1, 8), **options)
    assert plan.rates(0) == {"default": 0.1}


def test_settings_of_a_key_are_those_of_its_group():
    said = {
        "lr": 0.1,
        "lr_scale": 0.5,
        "weight_decay": 0.2,
        "schedule": {"kind": "step", "every_steps": 2, "gamma": 0.5},
        "decay_every": {"steps": 3, "factor": 0.1},
        "weight_decay_schedule": {"kind": "step", "every_steps": 1, "gamma": 0.5},
        "gradient_centralization": True,
        "clip_grad_norm": 2.0,
        "unfreeze_at": 0,
        "optimizer_params": {"momentum": 0.5},
    }
    for settings in (said, GroupSettings(**said)):
        plan = plan_lrs(Net(), {"head2": settings, "default": 0.01}, decay_norm_and_bias=True, clock=Clock(2, 4))
        group = groups_of(plan)["head2"]
        assert (group.lr, group.lr_scale, group.full_lr, group.weight_decay) == (0.1, 0.5, 0.05, 0.2)
        assert (group.clip_grad_norm, group.gradient_centralization, group.options) == (2.0, True, {"momentum": 0.5})
        assert [plan.rates(step)["head2"] for step in range(4)] == pytest.approx([0.05, 0.05, 0.025, 0.0025], rel=1e-15)
        assert [plan.weight_decays(step)["head2"] for step in range(3)] == [0.2, 0.1, 0.05]
        other = groups_of(plan)["default"]
        assert (other.lr_scale, other.weight_decay, other.clip_grad_norm, other.options) == (1.0, 0.0, None, {})


def test_a_key_without_a_rate_has_that_of_default():
    plan = plan_lrs(Net(), {"head": {"lr_scale": 0.5}, "default": {"lr": 0.2, "weight_decay": 0.1}})
    assert owners(plan)["head.1.weight"].full_lr == 0.1
    assert owners(plan)["head.1.weight"].weight_decay == 0  # of default it takes the rate alone
    assert owners(plan)["conv1.weight"].weight_decay == 0.1


def test_a_key_without_any_rate_is_told():
    with pytest.raises(PlanError) as caught:
        plan_lrs(Net(), {"head": {"weight_decay": 0.5}, "conv": {"lr_scale": 2.0}, "default": 0})
    assert str(caught.value).splitlines() == [
        "lr plan: 2 errors.",
        "  'conv' sets no lr, and 'default' is frozen. Add lr; 0 freezes.",
        "  'head' sets no lr, and 'default' is frozen. Add lr; 0 freezes.",
    ]
    with pytest.raises(PlanError, match=r"'head' sets no lr and neither does 'default'\. Add lr; 0"):
        plan_lrs(Net(), {"head": {"weight_decay": 0.5}, "default": {"weight_decay": 0.5}})
    with pytest.raises(PlanError, match=r"'default' sets no lr\. Add lr; 0 freezes\."):
        plan_lrs(Net(), {"default": {"weight_decay": 0.5}})


def test_a_list_of_rates_is_followed_and_has_to_last():
    rates = {"head": {"lr": [0.1, 0.2, 0.3, 0.4]}, "default": 0.5}
    plan = plan_lrs(Net(), rates, clock=Clock(2, 2), schedule="cosine")
    assert [plan.rates(step)["head"] for step in range(4)] == [0.1, 0.2, 0.3, 0.4]
    assert plan.rates(3)["default"] == pytest.approx(0.005)
    assert plan.at(Clock(2, 2)) == plan
    with pytest.raises(PlanError, match=r"^lr plan: 'head': schedule 'rates' has 4 values; the run has 6 optimizer"):
        plan.at(Clock(2, 3))


def test_wrong_schedules_of_several_keys_are_told_at_once():
    rates = {"conv": {"lr": 1, "schedule": "cosin"}, "head": {"lr": 1, "schedule": {"kind": "step"}}, "default": 0}
    with pytest.raises(PlanError, match=r"(?s)lr plan: 2 errors.*'conv': unknown schedule 'cosin'.*'head': schedule"):
        plan_lrs(Net(), rates)


class Kinds(nn.Module):
    """One layer of each kind, in two parts."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 4))
        for name in ("a", "b"):
            part = nn.Module()
            part.conv, part.norm, part.fc = nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Linear(4, 4)
            self.add_module(name, part)
        self.mha = nn.MultiheadAttention(4, 2)


def test_kinds_catch_layers_anywhere():
    rates = {"@conv": 1, "@norm": 2, "@linear": 3, "@bias": 4, "default": 5}
    assert rates_of(plan_lrs(Kinds(), rates)) == {
        "token": 5,
        "a.conv.weight": 1,
        "a.conv.bias": 4,
        "a.norm.weight": 2,
        "a.norm.bias": 2,  # of a norm, not a bias
        "a.fc.weight": 3,
        "a.fc.bias": 4,
        "b.conv.weight": 1,
        "b.conv.bias": 4,
        "b.norm.weight": 2,
        "b.norm.bias": 2,
        "b.fc.weight": 3,
        "b.fc.bias": 4,
        "mha.in_proj_weight": 3,
        "mha.in_proj_bias": 4,
        "mha.out_proj.weight": 3,
        "mha.out_proj.bias": 4,
    }


def test_a_kind_within_a_prefix_is_closer_than_both():
    rates = {"a": 1, "a@norm": 2, "@bias": 3, "a@bias": 4, "default": 5}
    plan = plan_lrs(Kinds(), rates)
    assert rates_of(plan) | {"token": 0} == {
        **dict.fromkeys([name for name, _ in Kinds().named_parameters()], 5),
        "token": 0,
        "a.conv.weight": 1,
        "a.fc.weight": 1,
        "a.norm.weight": 2,
        "a.norm.bias": 2,
        "a.conv.bias": 4,
        "a.fc.bias": 4,
        "b.conv.bias": 3,
        "b.fc.bias": 3,
        "mha.in_proj_bias": 3,
        "mha.out_proj.bias": 3,
    }
    assert set(groups_of(plan)) == {"a", "a@norm", "@bias", "a@bias", "default"}


def test_a_prefix_and_a_kind_may_differ_or_agree():
    plan = plan_lrs(Kinds(), {"a": 0.1, "@norm": {"weight_decay": 0.3, "clip_grad_norm": 1.0}, "default": 0.2})
    group = owners(plan)["a.norm.weight"]
    assert (group.name, group.lr, group.weight_decay, group.clip_grad_norm) == ("a@norm", 0.1, 0.3, 1.0)
    assert owners(plan)["b.norm.weight"].name == "@norm"
    assert owners(plan)["b.norm.weight"].lr == 0.2
    assert owners(plan_lrs(Kinds(), {"a": 0.1, "@norm": 0.1, "default": 0}))["a.norm.weight"].lr == 0.1


@pytest.mark.parametrize("frozen", [0, 0.1])
def test_a_prefix_and_a_kind_that_contradict_each_other_are_an_error(frozen):
    rates = {"a": {"lr": frozen, "weight_decay": 0.5}, "@norm": {"lr": 0.2, "weight_decay": 0.1}, "default": 0.3}
    with pytest.raises(PlanError, match="keys 'a' and '@norm' both set lr and weight_decay for the same parameters"):
        plan_lrs(Kinds(), rates)
    decided = plan_lrs(Kinds(), rates | {"a@norm": 0.7})
    assert owners(decided)["a.norm.weight"].lr == 0.7


def test_all_contradictions_are_told_at_once():
    with pytest.raises(PlanError) as caught:
        plan_lrs(Kinds(), {"a": 0.1, "b": 0.2, "@norm": 0.3, "@bias": 0.1, "default": 0})
    lines = str(caught.value).splitlines()
    assert lines[0] == "lr plan: 3 errors."
    assert [line.split("Add a key ")[1] for line in lines[1:]] == [
        "'a@norm' to decide.",
        "'b@bias' to decide.",
        "'b@norm' to decide.",
    ]


def test_a_frozen_place_is_one_group_whatever_its_kinds_have_besides():
    plan = plan_lrs(Kinds(), {"a": 0.1, "@norm": {"weight_decay": 0.3}, "default": 0})
    assert [(group.name, group.frozen) for group in plan.groups] == [("default", True), ("a", False), ("a@norm", False)]
    frozen_norms = plan_lrs(Kinds(), {"@norm": 0, "default": 0.1})
    assert groups_of(frozen_norms)["@norm"].frozen


def test_a_decay_that_is_said_beats_the_switch():
    plan = plan_lrs(Kinds(), {"@norm": {"weight_decay": 0.3}, "default": 0.1}, weight_decay=0.5)
    decays = {name: group.weight_decay for name, group in owners(plan).items()}
    assert decays["a.norm.weight"] == decays["a.norm.bias"] == 0.3
    assert (decays["a.conv.weight"], decays["a.conv.bias"]) == (0.5, 0)
    rates = {"a.norm": {"weight_decay": 0.3}, "a.fc": {"weight_decay": 0.4}, "default": 0.1}
    decays = {name: group.weight_decay for name, group in owners(plan_lrs(Kinds(), rates)).items()}
    assert decays["a.norm.weight"] == decays["a.norm.bias"] == 0.3
    assert (decays["a.fc.weight"], decays["a.fc.bias"]) == (0.4, 0)


def test_a_tied_parameter_has_the_kind_of_its_first_layer():
    model = nn.Sequential(nn.Linear(2, 2), nn.Bilinear(2, 2, 2), nn.Embedding(2, 2))
    model[2].weight = model[0].weight
    assert rates_of(plan_lrs(model, {"@linear": 1, "default": 2}))["0.weight"] == 1


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
    with pytest.raises(PlanError, match=rf"lr is a mapping and mode is '{mode}'"):
        choose_rates(Net(), {"default": 0.1}, mode=mode)


@pytest.mark.parametrize("mode", ["head", "low_lr"])
def test_a_model_that_does_not_know_its_head_says_what_to_pass(mode):
    with pytest.raises(PlanError, match=r"Sequential has no get_finetune_lr_dict.*lr=\{'0': 0.1, 'default': 0\}"):
        choose_rates(nn.Sequential(nn.Linear(2, 2)), 0.1, mode=mode)


def test_an_unknown_mode_is_told():
    with pytest.raises(PlanError, match=r"unknown mode 'heads'; expected 'head', 'low_lr' or 'full'"):
        choose_rates(Net(), 0.1, mode="heads")


@pytest.mark.parametrize("returned", [{}, {"head": 0.1}, None])
def test_a_finetune_mapping_without_default_is_refused(returned):
    model = Net()
    model.get_finetune_lr_dict = lambda lr: returned
    with pytest.raises(PlanError, match=r"get_finetune_lr_dict of Net returned .*; expected a mapping"):
        choose_rates(model, 0.1)


@pytest.mark.parametrize("lr", [True, math.nan, -1.0, "0.1", None, [0.1], np.bool_(True), GroupSettings(lr=0.1)])
def test_one_rate_is_checked_too(lr):
    with pytest.raises(PlanError, match=r"'lr' is .*\. Expected a finite number, 0 or more"):
        choose_rates(Net(), lr)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "convnext_atto", "mobilenetv2_100"])
def test_rates_fall_as_timms_own_groups_have_them(name):
    model = timm.create_model(name)
    plan = plan_layers(model, {"default": 0.1}, make_context(weight_decay=0.05), layer_decay=0.75)
    ours = {inner: (group.lr_scale, group.weight_decay) for group in plan.groups for inner in group.names}
    called = {id(parameter): inner for inner, parameter in model.named_parameters()}
    groups = param_groups_layer_decay(model, weight_decay=0.05, layer_decay=0.75)
    theirs = {called[id(p)]: (group["lr_scale"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert ours == theirs
    assert {group.lr for group in plan.groups} == {0.1}
    assert len(plan.groups) == len(groups)


def test_rates_between_the_first_and_the_last_layer_are_geometric():
    plan = plan_layers(timm.create_model("resnet18"), {"default": 0.1}, make_context(), first_lr=1e-4)
    rates = [group.full_lr for group in plan.groups]
    assert len(rates) == 10
    assert rates[0] == pytest.approx(1e-4, rel=1e-15)
    assert rates[-1] == 0.1
    ratios = [after / before for before, after in itertools.pairwise(rates)]
    assert ratios == pytest.approx([1000 ** (1 / 9)] * 9, rel=1e-12)
    with pytest.raises(PlanError, match="need more than one trained layer"):
        plan_layers(timm.create_model("resnet18"), {"fc": 0.1, "default": 0}, make_context(), layer_decay=0.5)
    plan = plan_layers(timm.create_model("resnet18"), {"fc": 0.1, "default": 0.01}, make_context(), layer_decay=0.5)
    groups = groups_of(plan)
    assert groups["layer4.1"].reason == "0.01 × 0.5^1, layer 9 of 10"
    assert groups["conv1 to bn1"].reason == "0.01 × 0.5^9, layer 1 of 10"
    assert groups["fc"].reason == ""
    assert groups["layer4.1"].full_lr == 0.005
    first = plan_layers(timm.create_model("resnet18"), {"default": 0.1}, make_context(), first_lr=0.001)
    assert groups_of(first)["layer4.1"].reason == "0.1 × (0.001 / 0.1)^(1/9), layer 9 of 10"


def test_frozen_layers_stay_frozen_and_keep_their_depth():
    rates = {"conv1": 0, "bn1": 0, "default": 0.1}
    plan = plan_layers(timm.create_model("resnet18"), rates, make_context(), layer_decay=0.5)
    assert [group.name for group in plan.groups if group.frozen] == ["conv1", "bn1"]
    assert groups_of(plan)["layer1.0"].full_lr == 0.1 * 0.5**8
    assert plan.starts == {"conv1": None, "bn1": None, "default": 0}


def test_a_network_of_161_tensors_is_two_groups_or_as_many_as_are_asked_for():
    names = [name for name, _ in RESNET50.named_parameters()]
    assert len(names) == 161
    assert [len(group.names) for group in plan_lrs(RESNET50, {"default": 0.1}, weight_decay=0.1).groups] == [54, 107]
    alike = plan_lrs(RESNET50, {"layer": 0.1, "default": 0.2}, weight_decay=0.1)
    assert len(alike.groups) == 4
    rates = {name: 0.1 + index / 1000 for index, name in enumerate(names[:-1])} | {"default": 0.1}
    own = plan_lrs(RESNET50, rates)
    assert [group.names for group in own.groups] == [(name,) for name in names]
    assert [group.lr for group in own.groups] == list(rates.values())


@pytest.mark.parametrize("keys", [3, 2000])
def test_20_000_parameters_are_planned_in_no_time(keys):
    model = make_large()
    rates = {f"b{index:05d}.": 0.1 + index for index in range(keys - 1)} | {"default": 0.01}
    began = time.process_time()
    plan = plan_lrs(model, rates, weight_decay=0.1, schedule="cosine")
    assert time.process_time() - began < 5  # 0.5 s where it was written; quadratic would be minutes
    assert len(plan.groups) == 2 * keys
    assert owners(plan)["b00001.conv.weight"].lr == 1.1


def test_many_wrong_keys_are_told_in_no_time():
    began = time.process_time()
    with pytest.raises(PlanError, match=rf"(?s)lr plan: 2000 errors.*and {2000 - MOST_LISTED} more\."):
        plan_lrs(Stack(50), {f"c{index:05d}.": 0.1 for index in range(2000)} | {"default": 0.01})
    assert time.process_time() - began < 5
