import copy
from dataclasses import replace

import pytest
import timm.optim
import torch
from accelerate import Accelerator
from torch import nn
from torch._dynamo.testing import CompileCounter

from plan_nets import plan_lrs
from zoo.errors import InputError
from zoo.optim import build as optim
from zoo.optim.build import (
    build_optimizer,
    load_optimizer_state,
    merge_groups,
    set_rates,
    takes_fused,
    tensor_rate_problem,
)
from zoo.optim.gradients import clip_groups
from zoo.rates.groups import Group
from zoo.rates.plan import Clock, Plan

pytestmark = pytest.mark.numbers

NAMES = ("a", "b", "c", "d")


class Net(nn.Module):
    """Four dense layers, so that there are parts to name."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c, self.d = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, values):
        return self.d(self.c(self.b(self.a(values).tanh()).tanh()).tanh())


def layers(rates=(0.1, 0.1, 0.1, 0.1), **settings):
    """A plan of one group per layer, equal ones not merged."""
    groups = [
        Group(name=name, names=(f"{name}.weight", f"{name}.bias"), lr=rate, parameters=9)
        for name, rate in zip(NAMES, rates, strict=True)
    ]
    return Plan(tuple(replace(group, **settings) for group in groups))


def make(optimizer="SGD", rates=(0.1, 0.1, 0.1, 0.1), model=None, *, params=None, tensor_rates=False, **settings):
    model = model or Net()
    plan = layers(rates, **settings)
    return model, build_optimizer(model, plan, optimizer=optimizer, params=params, tensor_rates=tensor_rates)


def train(model, optimizer, steps=1, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 3, generator=generator)).square().mean().backward()
        optimizer.step()


def weights(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def numbers(optimizer, key="lr"):
    return [(group["name"], float(group[key])) for group in optimizer.param_groups]


def test_groups_follow_the_plan():
    model = Net()
    plan = plan_lrs(model, {"d": {"lr": 0.1, "lr_scale": 0.5}, "default": 0}, weight_decay=0.5)
    weight, bias = build_optimizer(model, plan, optimizer="SGD").param_groups
    assert [weight["name"], bias["name"]] == ["d", "d (no decay)"]
    assert (weight["lr"], weight["initial_lr"], weight["weight_decay"]) == (0.05, 0.05, 0.5)
    assert (bias["weight_decay"], weight["momentum"]) == (0, 0.9)
    assert weight["params"] == [model.d.weight]
    assert weight["members"] == [["d", 1]]


def test_equal_groups_become_one_however_they_are_written():
    model, optimizer = make(rates=(0.1, 0.2, 0.1, 0.2))
    first, second = optimizer.param_groups
    assert first["members"] == [["a", 2], ["c", 2]]
    assert second["members"] == [["b", 2], ["d", 2]]
    assert first["params"] == [model.a.weight, model.a.bias, model.c.weight, model.c.bias]
    assert (first["name"], first["lr"], second["lr"]) == ("a", 0.1, 0.2)
    groups = layers().groups
    other = replace(groups[1], reason="the head", lr=0.2, lr_scale=0.5)
    assert merge_groups([groups[0], other]) == [[groups[0], other]]
    model = Net()
    rates = {name: {"lr": 0.1, "schedule": {"kind": "cosine", "warmup_steps": 2}} for name in NAMES[:3]}
    plan = plan_lrs(model, rates | {"default": 0.2}, clock=Clock(epochs=2, steps_per_epoch=5))
    plan.groups[0].schedule.rate(3, plan.clock, 0.1)
    optimizer = build_optimizer(model, plan, optimizer="SGD")
    assert [len(group["members"]) for group in optimizer.param_groups] == [3, 1]


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 0.2},
        {"lr_scale": 0.5},
        {"weight_decay": 0.1},
        {"gradient_centralization": True},
        {"clip_grad_norm": 1.0},
        {"unfreeze_at": 1},
        {"options": {"momentum": 0.5}},
        {"schedule": plan_lrs(nn.Linear(1, 1), {"default": 1}, schedule="cosine").groups[0].schedule},
    ],
    ids=str,
)
def test_groups_that_differ_in_anything_that_counts_stay_apart(change):
    groups = layers().groups
    changed = replace(groups[1], **change)
    assert merge_groups([groups[0], changed, groups[2]]) == [[groups[0], groups[2]], [changed]]


@pytest.mark.parametrize("name", ["sgd", "AdamW", "rms-prop", "lamb", "MindSporeAdam", torch.optim.NAdam])
def test_merging_changes_no_weight(name, monkeypatch):
    ends = []
    for merge in (optim.merge_groups, lambda groups: [[group] for group in groups]):
        monkeypatch.setattr(optim, "merge_groups", merge)
        model, optimizer = make(name, weight_decay=0.01)
        train(model, optimizer, 3)
        ends.append(weights(model))
    assert all(torch.allclose(value, ends[1][name], atol=1e-7) for name, value in ends[0].items())


def test_a_step_moves_each_group_by_its_own_rate():
    model, optimizer = make(rates=(0.1, 0.2, 0.1, 0.2), params={"momentum": 0.0})
    before = weights(model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    rates = {"a": 0.01, "b": 0.02, "c": 0.03, "d": 0.0}
    set_rates(optimizer, rates)
    optimizer.step()
    for name, value in weights(model).items():
        assert before[name] - value == pytest.approx(torch.full_like(value, rates[name[0]]), abs=1e-6)


def test_options_of_a_group_reach_the_optimizer_and_decay_is_relative():
    _, optimizer = make(options={"momentum": 0.5, "kind": "of the user's own"})
    group = optimizer.param_groups[0]
    assert (group["momentum"], group["kind"]) == (0.5, "of the user's own")
    _, optimizer = make("lionc", rates=(0.1, 0.2, 0.1, 0.2))
    kept = [group.get("max_lr_snapshot", optimizer.defaults["lr"]) for group in optimizer.param_groups]
    assert kept in ([0.1, 0.2], [0.2, 0.2])  # the second for releases of timm that have one for all groups
    model, optimizer = make("Rprop")
    train(model, optimizer, 2)
    assert len(optimizer.state) == 8


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"options": {"momentum": -1.0}}, r"SGD rejects \{'momentum': -1\.0\}: Invalid momentum"),
        ({"optimizer": "Rprop", "weight_decay": 0.1}, r"Rprop has no weight decay, but group 'a' has 0.1"),
        ({"tensor_rates": True, "params": {"fused": True}}, r"fused=True cannot be combined with a compiled step"),
    ],
)
def test_what_cannot_be_built_is_told(settings, text):
    with pytest.raises(InputError, match=text):
        make(**settings)


def test_centralization_knows_whether_decay_is_coupled():
    for name, coupled in (("SGD", True), ("AdamW", False)):
        _, optimizer = make(name, gradient_centralization=True, weight_decay=0.1)
        group = optimizer.param_groups[0]
        assert (group["gradient_centralization"], group["coupled_decay"]) == (True, coupled)
    assert "gradient_centralization" not in make()[1].param_groups[0]
    _, optimizer = make("NAdam", gradient_centralization=True, options={"decoupled_weight_decay": True})
    assert optimizer.param_groups[0]["coupled_decay"] is False


def test_clipping_counts_the_plans_groups_one_by_one():
    model, optimizer = make(clip_grad_norm=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert len(optimizer.param_groups) == 1
    norms = clip_groups(optimizer)
    assert {name: float(norm) for name, norm in norms.items()} == pytest.approx(
        {"a": 16**0.5, "b": 20**0.5, "c": 20**0.5, "d": 10**0.5}
    )
    assert float(model.d.weight.grad[0, 0]) == pytest.approx(0.5 / 10**0.5, rel=1e-5)


def test_rates_are_written_by_the_plans_names_and_none_is_missing():
    _, optimizer = make(rates=(0.1, 0.2, 0.1, 0.2))
    set_rates(optimizer, {"a": 0.5, "b": 0.25, "c": 0.5, "d": 0.25, "frozen": 0.0})
    assert numbers(optimizer) == [("a", 0.5), ("b", 0.25)]
    set_rates(optimizer, dict.fromkeys(NAMES, 0.1), dict.fromkeys(NAMES, 0.3))
    assert numbers(optimizer) == [("a", 0.1), ("b", 0.1)]
    assert numbers(optimizer, "weight_decay") == [("a", 0.3), ("b", 0.3)]
    assert [group["initial_lr"] for group in optimizer.param_groups] == [0.1, 0.2]
    _, optimizer = make()
    with pytest.raises(
        InputError, match=r"group 'c' of the optimizer has no learning rate or weight decay. Set for: a, b, d"
    ):
        set_rates(optimizer, {"a": 1, "b": 1, "d": 1})


@pytest.mark.parametrize("tensor_rates", [False, True])
@pytest.mark.parametrize("name", ["SGD", "AdamW", "lamb"])
def test_members_whose_rates_part_are_split_and_keep_what_was_learned(name, tensor_rates):
    rates = {"a": 0.1, "b": 0.02, "c": 0.1, "d": 0.03}
    ends = []
    for planned in ((0.1, 0.1, 0.1, 0.1), (0.1, 0.2, 0.3, 0.4)):
        model, optimizer = make(name, planned, tensor_rates=tensor_rates)
        set_rates(optimizer, dict.fromkeys(NAMES, 0.1))
        train(model, optimizer, 2)
        set_rates(optimizer, rates)
        train(model, optimizer, 2)
        ends.append(weights(model))
    assert all(torch.allclose(value, ends[1][key], atol=1e-6) for key, value in ends[0].items())
    _, split = make(name, tensor_rates=tensor_rates)
    set_rates(split, rates)
    assert [group["members"] for group in split.param_groups] == [[["a", 2], ["c", 2]], [["b", 2]], [["d", 2]]]
    assert numbers(split) == [("a", pytest.approx(0.1)), ("b", pytest.approx(0.02)), ("d", pytest.approx(0.03))]


def test_decays_split_too_and_share_nothing_that_can_be_changed():
    _, optimizer = make(weight_decay=0.1)
    set_rates(optimizer, dict.fromkeys(NAMES, 0.1), {"a": 0.1, "b": 0.1, "c": 0.2, "d": 0.2})
    assert numbers(optimizer, "weight_decay") == [("a", 0.1), ("c", 0.2)]
    assert [len(group["params"]) for group in optimizer.param_groups] == [4, 4]
    model, optimizer = make("lamb")
    train(model, optimizer)
    set_rates(optimizer, {"a": 0.1, "b": 0.1, "c": 0.2, "d": 0.2})
    first, second = optimizer.param_groups
    assert first["members"] is not second["members"]
    assert all(first[key] is not second[key] for key, value in first.items() if isinstance(value, torch.Tensor))


def test_a_ready_optimizer_is_kept_as_it_is():
    model = Net()
    parts = [{"params": model.a.parameters(), "lr": 0.5}, {"params": model.b.parameters(), "name": "mine"}]
    ready = torch.optim.SGD(parts, lr=0.1, momentum=0.3)
    before = copy.deepcopy(ready.state_dict())
    held = [list(group["params"]) for group in ready.param_groups]
    assert build_optimizer(model, layers(), optimizer=ready, tensor_rates=True) is ready
    after = ready.state_dict()
    assert [group.pop("initial_lr") for group in after["param_groups"]] == [0.5, 0.1]
    assert [after["param_groups"][0].pop("name"), before["param_groups"][1]["name"]] == ["a", "mine"]
    assert after == before
    assert [group["params"] for group in ready.param_groups] == held
    set_rates(ready, {"a": 0.25, "mine": 0.125})
    assert numbers(ready) == [("a", 0.25), ("mine", 0.125)]


def test_groups_of_a_ready_optimizer_that_the_plan_does_not_know_are_numbered():
    model = Net()
    halves = list(model.parameters())
    ready = torch.optim.SGD([{"params": halves[:3]}, {"params": halves[3:]}], lr=0.1)
    build_optimizer(model, layers(), optimizer=ready)
    assert [group["name"] for group in ready.param_groups] == ["group 0", "group 1"]


def test_ready_optimizers_that_are_refused():
    model = Net()
    with pytest.raises(InputError, match=r"the Adam holds 8 parameters in its group 0 that are not the model's"):
        build_optimizer(model, layers(), optimizer=torch.optim.Adam(Net().parameters()))
    ready = torch.optim.SGD(model.parameters())
    with pytest.raises(InputError, match=r"\{'momentum': 0\.5\} have no effect: the SGD already exists\. Pass"):
        build_optimizer(model, layers(), optimizer=ready, params={"momentum": 0.5})


@pytest.mark.parametrize("name", ["SGD", "AdamW", "RMSprop", "MindSporeAdam", "AdamWeightDecay", "OneFlowSGD", "lion"])
def test_tensor_rates_are_filled_and_never_replaced(name):
    ends = []
    for tensor_rates in (False, True):
        model, optimizer = make(name, (0.1, 0.2, 0.1, 0.2), tensor_rates=tensor_rates)
        before = [group["lr"] for group in optimizer.param_groups]
        for step in range(1, 4):
            set_rates(optimizer, dict(zip(NAMES, [0.01 * step, 0.02] * 2, strict=True)))
            train(model, optimizer)
        if tensor_rates:
            assert all(isinstance(rate, torch.Tensor) and rate.shape == () for rate in before)
            assert all(group["lr"] is rate for group, rate in zip(optimizer.param_groups, before, strict=True))
        ends.append(weights(model))
    assert all(torch.allclose(value, ends[1][key], rtol=1e-5, atol=1e-6) for key, value in ends[0].items())


@pytest.mark.parametrize("name", ["SGD", "AdamW", "RMSprop", "MindSporeAdam", "AdamWeightDecay", "OneFlowSGD"])
def test_a_compiled_step_is_not_compiled_anew_for_new_rates(name):
    model, optimizer = make(name, (0.1, 0.2, 0.1, 0.2), tensor_rates=True)
    other, reference = make(name, (0.1, 0.2, 0.1, 0.2))
    torch._dynamo.reset()
    graphs = CompileCounter()
    compiled, counts = torch.compile(optimizer.step, backend=graphs), []
    for step in range(1, 13):
        rates = dict(zip(NAMES, [0.01 * step, 0.02] * 2, strict=True))
        for net, made, take_step in ((model, optimizer, compiled), (other, reference, reference.step)):
            set_rates(made, rates)
            for parameter in net.parameters():
                parameter.grad = torch.full_like(parameter, step * 0.01)
            take_step()
        counts.append(graphs.frame_count)
    assert 0 < counts[1] < 4
    assert counts[-1] == counts[1]
    theirs = weights(other)
    assert all(torch.allclose(value, theirs[key], atol=1e-5) for key, value in weights(model).items())


def test_why_a_rate_cannot_be_a_tensor():
    assert tensor_rate_problem("SGD") is None
    assert "Tensor is not supported" in tensor_rate_problem("AdamW", {"foreach": True})

    class Halving(torch.optim.SGD):
        def step(self):
            for group in self.param_groups:
                rate = group["lr"]
                rate *= 0.5  # in place if it is a tensor, and for this step only if it is a number
            super().step()

    assert tensor_rate_problem(Halving) == "Halving gives different weights if its learning rate is a tensor"
    _, optimizer = make(Halving, tensor_rates=True)
    assert isinstance(optimizer.param_groups[0]["lr"], float)


@pytest.mark.parametrize("tensor_rates", [False, True])
@pytest.mark.parametrize("name", ["SGD", "Adam", "lamb", "MindSporeAdam"])
def test_a_run_with_split_groups_goes_on_where_it_stopped(name, tensor_rates):
    rates = {"a": 0.1, "b": 0.02, "c": 0.1, "d": 0.03}
    model, optimizer = make(name, tensor_rates=tensor_rates)
    train(model, optimizer, 2)
    set_rates(optimizer, rates)
    train(model, optimizer, 1)
    saved, start = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(model)
    train(model, optimizer, 2, seed=5)

    again, fresh = make(name, model=start, tensor_rates=tensor_rates)
    assert len(fresh.param_groups) == 1
    load_optimizer_state(fresh, saved)
    assert numbers(fresh) == numbers(optimizer)
    kinds = {isinstance(group["lr"], torch.Tensor) for group in fresh.param_groups}
    assert kinds == {tensor_rates}
    assert len({id(group["lr"]) for group in fresh.param_groups}) == 3
    train(again, fresh, 2, seed=5)
    assert same(weights(again), weights(model))


def test_a_state_of_merged_groups_is_loaded_into_split_ones():
    model, optimizer = make()
    train(model, optimizer, 2)
    saved, start = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(model)
    train(model, optimizer, 2, seed=5)
    again, other = make(model=start)
    set_rates(other, {"a": 0.1, "b": 0.02, "c": 0.1, "d": 0.03})
    load_optimizer_state(other, saved)
    assert [group["members"] for group in other.param_groups] == [[[name, 2] for name in NAMES]]
    train(again, other, 2, seed=5)
    assert same(weights(again), weights(model))


def test_states_are_matched_by_name_not_by_place():
    model = Net()
    forwards, backwards = Plan(layers((1, 2, 3, 4)).groups), Plan(layers((1, 2, 3, 4)).groups[::-1])
    optimizer = build_optimizer(model, forwards, optimizer="SGD")
    train(model, optimizer)
    other = build_optimizer(model, backwards, optimizer="SGD")
    load_optimizer_state(other, optimizer.state_dict())
    for parameter in model.parameters():
        assert torch.equal(other.state[parameter]["momentum_buffer"], optimizer.state[parameter]["momentum_buffer"])
    assert numbers(other) == numbers(optimizer)


def test_tensor_rates_stay_the_same_tensors_when_numbers_are_loaded_and_the_other_way():
    _, optimizer = make()
    set_rates(optimizer, dict.fromkeys(NAMES, 0.5))
    _, other = make(tensor_rates=True)
    rate = other.param_groups[0]["lr"]
    load_optimizer_state(other, optimizer.state_dict())
    assert other.param_groups[0]["lr"] is rate
    assert float(rate) == 0.5
    load_optimizer_state(optimizer, other.state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert isinstance(optimizer.param_groups[0]["lr"], float)


def test_states_of_other_groups_are_refused():
    model, optimizer = make()
    saved = optimizer.state_dict()
    plan = Plan((*layers().groups[:3], replace(layers().groups[3], name="head")))
    other = build_optimizer(model, plan, optimizer="SGD")
    with pytest.raises(InputError, match=r"only in the state: \['d'\]; only in this run: \['head'\]"):
        load_optimizer_state(other, saved)
    plan = Plan((*layers().groups[:3], replace(layers().groups[3], names=("d.weight",))))
    other = build_optimizer(model, plan, optimizer="SGD")
    with pytest.raises(InputError, match="group 'd' has 2 tensors in the optimizer state but 1 in this run"):
        load_optimizer_state(other, saved)


def test_wrapped_by_accelerate():
    model, optimizer = make("AdamW")
    network, wrapped = Accelerator(cpu=True).prepare(model, optimizer)
    set_rates(wrapped, {"a": 0.1, "b": 0.02, "c": 0.1, "d": 0.03})
    assert len(optimizer.param_groups) == 3
    train(network, wrapped, 2)
    saved, start = copy.deepcopy(wrapped.state_dict()), copy.deepcopy(model)
    train(network, wrapped, 1, seed=5)
    again, fresh = make("AdamW", model=start)
    again, fresh = Accelerator(cpu=True).prepare(again, fresh)
    load_optimizer_state(fresh, saved)
    train(again, fresh, 1, seed=5)
    assert same(weights(again), weights(model))


def test_torchs_own_and_timms_classes_may_be_passed():
    _, optimizer = make(timm.optim.Lion)
    assert type(optimizer) is timm.optim.Lion
    assert not takes_fused(type("Own", (torch.optim.SGD,), {"__module__": "mine"}), {}, {"cuda"})


@pytest.mark.parametrize(
    ("expected", "kind", "settings", "devices"),
    [
        (True, torch.optim.SGD, {"momentum": 0.9}, {"cuda"}),
        (True, torch.optim.AdamW, {}, {"cuda"}),
        (False, torch.optim.AdamW, {}, {"cpu"}),
        (False, torch.optim.AdamW, {}, {"cuda", "cpu"}),
        (False, torch.optim.AdamW, {"fused": False}, {"cuda"}),
        (False, torch.optim.AdamW, {"foreach": True}, {"cuda"}),
        (False, torch.optim.Rprop, {}, {"cuda"}),  # torch has no fused one
    ],
)
def test_one_kernel_updates_all_tensors_where_torch_has_one(expected, kind, settings, devices):
    assert takes_fused(kind, settings, devices) is expected
