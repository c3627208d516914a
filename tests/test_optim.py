import math

import pytest
import torch
from torch import nn

from zoo.errors import InputError
from zoo.lr_plan import plan_hook_groups, plan_lrs
from zoo.optim import build_optimizer, build_schedule, set_rates


def make(name="SGD", params=None, rates=None, **decay):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    plan = plan_lrs(model, rates or {"1": 0.1, "default": 0.01}, **decay)
    return model, build_optimizer(model, plan, name=name, params=params or {})


def test_groups_follow_the_plan():
    model, optimizer = make(weight_decay=0.5, rates={"1": 0.1, "default": 0})
    names = [group["name"] for group in optimizer.param_groups]
    assert names == ["1", "1 (no decay)"]
    weight, bias = optimizer.param_groups
    assert (weight["lr"], weight["initial_lr"], weight["weight_decay"]) == (0.1, 0.1, 0.5)
    assert bias["weight_decay"] == 0
    assert weight["params"] == [model[1].weight]


@pytest.mark.parametrize("name", ["sgd", "SGD", "AdamW", "adamw", "Adam", "RMSprop"])
def test_names_are_those_of_torch_in_any_case(name):
    _, optimizer = make(name)
    assert type(optimizer).__name__.lower() == name.lower()


def test_sgd_has_momentum_unless_told():
    assert make("SGD")[1].param_groups[0]["momentum"] == 0.9
    assert make("SGD", {"momentum": 0.0})[1].param_groups[0]["momentum"] == 0


@pytest.mark.parametrize(
    ("name", "params", "text"),
    [
        ("AdmW", {}, "unknown optimizer 'AdmW'. Did you mean 'AdamW'"),
        ("LBFGS", {}, "unknown optimizer 'LBFGS'"),
        ("SGD", {"momentun": 0.9}, "SGD has no argument 'momentun'. Did you mean 'momentum'"),
        ("SGD", {"lr": 0.9}, "'lr' is set by the preset's own field"),
        ("AdamW", {"betas": [2, 3]}, "AdamW refuses"),
    ],
)
def test_wrong_optimizers_are_told(name, params, text):
    with pytest.raises(InputError, match=text):
        make(name, params)


def test_options_of_a_hook_reach_their_group():
    model = nn.Linear(3, 2)
    groups = [{"named_params": list(model.named_parameters()), "momentum": 0.5}]
    plan = plan_hook_groups(model, groups, lr=0.1, weight_decay=0.0, decay_norm_and_bias=True)
    assert build_optimizer(model, plan, name="SGD", params={}).param_groups[0]["momentum"] == 0.5


def test_the_schedule_multiplies_each_groups_own_rate():
    _, optimizer = make()
    for factor in (0.5, 0.1, 1.0):
        set_rates(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == [0.01 * factor, 0.1 * factor]


def test_cosine_with_warmup():
    factor = build_schedule("cosine", steps=11, warmup_steps=2, warmup_start=0.2, final_lr_ratio=0.1)
    values = [factor(step) for step in range(11)]
    assert values[:3] == pytest.approx([0.2, 0.6, 1.0])
    assert values[-1] == pytest.approx(0.1)
    assert values[6] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 0.5)))
    assert values[2:] == sorted(values[2:], reverse=True)
    assert factor(100) == pytest.approx(0.1)


def test_constant_without_warmup_is_one():
    factor = build_schedule("constant", steps=5)
    assert {factor(step) for step in range(5)} == {1.0}


def test_a_run_of_one_step_has_the_full_rate():
    assert build_schedule("cosine", steps=1)(0) == 1.0


def test_a_step_moves_each_group_by_its_own_rate():
    model, optimizer = make("SGD", {"momentum": 0.0})
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    set_rates(optimizer, 0.5)
    optimizer.step()
    moved = [float((old - new.detach()).mean()) for old, new in zip(before, model.parameters(), strict=True)]
    assert moved == pytest.approx([0.005, 0.005, 0.05, 0.05], abs=1e-6)
