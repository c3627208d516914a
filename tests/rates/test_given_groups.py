import copy
import pickle

import pytest
import timm
import torch
from timm.optim import create_optimizer_v2
from torch import nn

from plan_nets import Net, groups_of, make_context, make_large, owners, plan_lrs, rates_of
from zoo.errors import PlanError
from zoo.rates.given_groups import (
    TrainingParams,
    plan_hook_groups,
    plan_optimizer_groups,
    with_update_hook,
)
from zoo.rates.schedules.parse import Clock, parse_schedule


def named(model, *prefixes):
    return [pair for pair in model.named_parameters() if pair[0].startswith(prefixes)]


def hook_plan(model, groups, *, lr=0.1, params=None, **common):
    return plan_hook_groups(model, groups, make_context(**common), lr=lr, params=TrainingParams(params or {}))


def test_training_params_are_read_both_ways():
    params = TrainingParams({"multiply_backbone_lr": 0.1})
    assert params["multiply_backbone_lr"] == params.multiply_backbone_lr == 0.1
    assert params.get("nose", 3) == 3
    assert not hasattr(params, "nose")
    assert copy.deepcopy(params) == pickle.loads(pickle.dumps(params)) == params


@pytest.mark.parametrize("kind", [PlanError, AttributeError, KeyError])
def test_a_training_parameter_that_nobody_gave_is_told(kind):
    params = TrainingParams({"multiply_backbone_lr": 0.1})
    text = (
        r"^no training parameter 'multiply_backbone'\. Did you mean 'multiply_backbone_lr'\? Pass it as "
        r"training_params=\{'multiply_backbone': \.\.\.\}\. Known: multiply_backbone_lr\.$"
    )
    with pytest.raises(kind, match=text):
        _ = params.multiply_backbone
    with pytest.raises(kind, match=text):
        _ = params["multiply_backbone"]


def test_groups_of_a_hook_become_a_plan():
    model = Net()
    parameters = dict(model.named_parameters())
    groups = [
        {"named_params": [("conv1.weight", parameters["conv1.weight"])], "lr": 0.01, "momentum": 0.5},
        {"named_params": named(model, "head"), "name": "heads", "weight_decay": 0.5},
    ]
    plan = hook_plan(model, groups, weight_decay=0.1, schedule="cosine", gradient_centralization=True)
    by_name = groups_of(plan)
    assert [group.name for group in plan.groups] == ["group 0", "default", "heads", "heads (no decay)"]
    assert by_name["group 0"].lr == 0.01
    assert by_name["group 0"].weight_decay == 0.1
    assert by_name["group 0"].options == {"momentum": 0.5}
    assert (by_name["heads"].lr, by_name["heads"].weight_decay) == (0.1, 0.5)
    assert by_name["heads"].schedule == parse_schedule("cosine")
    assert by_name["heads"].gradient_centralization
    assert by_name["default"].frozen
    assert "conv1.bias" in by_name["default"].names
    assert plan.starts == {}  # a prefix `heads` would say something else
    model = Net()
    plan = hook_plan(model, [{"name": "default", "named_params": named(model, "head")}])
    assert [(group.name, group.frozen) for group in plan.groups] == [("the rest", True), ("default", False)]
    assert plan.starts == {}


def test_parameters_count_not_what_a_part_calls_them():
    """`backbone.named_parameters()` has no prefix, and is an iterator that can be read once."""
    model = nn.Module()
    model.backbone, model.decoder = Net(), nn.Linear(2, 2)
    groups = [
        {"named_params": model.backbone.named_parameters(), "lr": 0.01},
        {"named_params": dict(model.decoder.named_parameters())},
    ]
    rates = rates_of(hook_plan(model, iter(groups)))
    assert rates.pop("decoder.weight") == rates.pop("decoder.bias") == 0.1
    assert set(rates.values()) == {0.01}
    bare = [{"params": model.backbone.parameters(), "lr": 0.01}, {"params": list(model.decoder.parameters())}]
    assert rates_of(hook_plan(model, bare)) == rates_of(plan_lrs(model, {"backbone": 0.01, "default": 0.1}))


def test_hook_groups_that_a_mapping_could_say_are_that_mapping():
    model = Net()
    groups = [{"name": "head", "lr": 0.1, "named_params": named(model, "head")}]
    plan = hook_plan(model, groups, weight_decay=0.01)
    assert plan == plan_lrs(model, {"head": 0.1, "default": 0}, weight_decay=0.01)
    assert plan.digest == plan_lrs(model, {"head": 0.1, "default": 0}, weight_decay=0.01).digest


def test_settings_of_a_plan_work_in_a_hooks_groups_too():
    model = Net()
    group = {
        "named_params": named(model, "head"),
        "lr_scale": 0.5,
        "clip_grad_norm": 1.0,
        "unfreeze_at": 0,
        "eps": 1e-6,
    }
    group |= {"schedule": {"kind": "step", "every_steps": 1, "gamma": 0.5}}
    plan = hook_plan(model, [group], clock=Clock(1, 4), schedule="cosine")
    made = groups_of(plan)["group 0"]
    assert (made.full_lr, made.clip_grad_norm, made.options) == (0.05, 1.0, {"eps": 1e-6})
    assert plan.rates(1)["group 0"] == 0.025


def test_a_warm_up_from_an_absolute_rate_is_one_ratio_for_a_hooks_groups():
    model = Net()
    groups = [{"named_params": named(model, "conv"), "lr": 0.01}, {"named_params": named(model, "head")}]
    defaults = {"warmup_start_lr": 0.05, "warmup_steps": 4}
    plan = hook_plan(model, groups, clock=Clock(1, 8), schedule="constant", schedule_defaults=defaults)
    assert plan.rates(0) == {"group 0": 0.005, "default": 0.0, "group 1": 0.05}


def test_parts_of_a_hooks_plan_can_be_unfrozen_later():
    model = Net()
    groups = [{"name": "head", "named_params": named(model, "head")}]
    plan = hook_plan(model, groups, unfreeze={1: ["conv2"], 2: ["default"]}, unfrozen_lr=0.01)
    points = {name: (group.unfreeze_at, group.lr) for name, group in owners(plan).items()}
    assert points["conv2.weight"] == (1, 0.01)
    assert points["conv1.weight"] == points["bn1.bias"] == (2, 0.01)
    assert points["head.1.weight"] == (0, 0.1)
    assert plan == plan_lrs(
        model, {"head": 0.1, "default": 0}, unfreeze={1: ["conv2"], 2: ["default"]}, unfrozen_lr=0.01
    )


@pytest.mark.parametrize(
    ("groups", "text"),
    [
        (None, r"^initialize_param_groups returned None\. Expected a list of dictionaries with 'named_params'"),
        ({"named_params": []}, r"^initialize_param_groups returned \{'named_params': \[\]\}\. Expected a list"),
        ([3], "'group 0' has no 'named_params'"),
        ([{"lr": 0.1}], r"'group 0' has no 'named_params' \(pairs of name and parameter\)\. Add them"),
        ([{"named_params": 3, "name": "a"}], "'a' has no 'named_params'"),
        ([{"named_params": [], "name": "empty"}], r"'empty' holds no parameters\. Remove it or fill it"),
        ([{"named_params": [("conv1.wieght", None)]}], r"names 'conv1\.wieght', which Net does not have\. Did you"),
        ([{"named_params": [("conv1.bias", None)]}] * 2, r"'conv1\.bias' is in 'group 0' and in 'group 1'\. Name it"),
        ([{"named_params": [("conv1.bias", None)] * 2}], r"'conv1\.bias' is twice in 'group 0'"),
        ([{"named_params": [("conv1.bias", None)], "lr": -1}], r"'group 0': lr is -1; expected a number, 0 or more"),
        ([{"named_params": [("conv1.bias", None)], "lr_scale": "x"}], r"'group 0': lr_scale is 'x'"),
        (
            [
                {"named_params": [("conv1.bias", None)], "name": "a"},
                {"named_params": [("bn1.bias", None)], "name": "a"},
            ],
            r"two groups are called 'a'\. Use unique names",
        ),
        (
            [{"named_params": [("bn1.bias", None)], "name": "a (no decay)"}],
            "ends like the name of a group without weight decay",
        ),
        ([{"named_params": [("bn1.bias", None)], "lr": 0}], "nothing would be trained"),
    ],
)
def test_wrong_hook_groups_are_told(groups, text):
    with pytest.raises(PlanError, match=text):
        hook_plan(Net(), groups)


def test_all_wrong_hook_groups_are_told_at_once_with_tied_parameters():
    groups = [{"named_params": [("nose", None)], "lr": -1}, {"named_params": [], "name": "b"}]
    with pytest.raises(PlanError) as caught:
        hook_plan(Net(), groups)
    assert [line.split(" ")[2] for line in str(caught.value).splitlines()] == ["errors.", "'group", "'group", "'b'"]
    model = Net()
    model.head2.weight = model.head[1].weight
    groups = [{"named_params": [(name, None)]} for name in ("head.1.weight", "head2.weight")]
    with pytest.raises(PlanError, match=r"'head2\.weight' is in 'group 0' and in 'group 1'"):
        hook_plan(model, groups)


class Hooked(Net):
    """Rates by index, as super-gradients' own text has them; the multiplier is read in both ways."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def initialize_param_groups(self, lr, training_params):
        return [
            {"named_params": named(self, "conv", "bn"), "lr": lr * training_params["multiply_backbone_lr"]},
            {"named_params": named(self, "head"), "lr": lr},
        ]

    def update_param_groups(self, param_groups, lr, epoch, iter, training_params, total_batch):
        self.calls.append((lr, epoch, iter, total_batch))
        param_groups[0]["lr"] = lr * training_params.multiply_backbone_lr
        param_groups[1]["lr"] = lr * (0.5 if epoch else 1)
        return param_groups


def hooked(model, **common):
    params = TrainingParams({"multiply_backbone_lr": 0.1})
    options = {"clock": Clock(2, 2, accumulate=2), "schedule": "cosine", "weight_decay": 0.1} | common
    groups = model.initialize_param_groups(0.1, params)
    return plan_hook_groups(model, groups, make_context(**options), lr=0.1, params=params)


def test_hooks_that_count_groups_work_beside_the_half_without_decay():
    model = Hooked()
    plan = hooked(model)
    assert [group.name for group in plan.groups] == ["group 0", "group 0 (no decay)", "group 1", "group 1 (no decay)"]
    for step in range(4):
        base = parse_schedule("cosine").rate(step, plan.clock, 0.1)
        head = base * (0.5 if step >= 2 else 1)
        assert plan.rates(step) == pytest.approx(
            {"group 0": base * 0.1, "group 0 (no decay)": base * 0.1, "group 1": head, "group 1 (no decay)": head},
            rel=1e-15,
        )
    assert [call[1:] for call in model.calls] == [(0, 0, 4), (0, 2, 4), (1, 0, 4), (1, 2, 4)]
    assert model.calls[0][0] == 0.1


def test_a_hook_sees_the_groups_as_an_optimizer_has_them():
    model = Hooked()
    seen = []
    model.update_param_groups = lambda groups, *rest: seen.append([dict(group) for group in groups]) or groups
    plan = hooked(model)
    assert plan.rates(3)["group 1"] == parse_schedule("cosine").rate(3, plan.clock, 0.1)
    backbone, head = seen[0]
    assert (backbone["name"], head["name"]) == ("group 0", "group 1")
    assert backbone["initial_lr"] == pytest.approx(0.01)
    assert backbone["lr"] == parse_schedule("cosine").rate(3, plan.clock, backbone["initial_lr"])
    assert backbone["weight_decay"] == 0.1
    assert [id(p) for p in head["params"]] == [id(p) for _, p in named(model, "head")]


def test_what_a_hook_returns_is_matched_by_name_and_explained():
    model = Hooked()
    model.update_param_groups = lambda groups, lr, *rest: [group | {"lr": i} for i, group in enumerate(groups)][::-1]
    rates = hooked(model).rates(0)
    assert (rates["group 0"], rates["group 1"]) == (0, 1)
    plan = hooked(Hooked())
    assert plan.explain(0)["group 1"] == "0.1 = 0.1 × cosine 0/3 (1)"
    assert plan.explain(2)["group 1"] == "0.01288, set by update_param_groups"
    assert plan.records()[2]["last_rate"] == plan.rates(3)["group 1"]


def test_only_the_second_hook_sees_the_groups_of_the_plan():
    class Second(Net):
        def update_param_groups(self, param_groups, lr, epoch, iter, training_params, total_batch):
            return [group | {"lr": group["lr"] * training_params.factor} for group in param_groups]

    model = Second()
    common = make_context(weight_decay=0.1, clock=Clock(1, 4))
    plan = plan_lrs(model, {"conv": 0.1, "bn": 0, "default": 0.2}, weight_decay=0.1, clock=Clock(1, 4))
    plan = with_update_hook(model, plan, common, lr=0.2, params=TrainingParams({"factor": 0.5}))
    assert plan.rates(0) == {
        "conv": 0.05, "conv (no decay)": 0.05, "bn": 0, "default": 0.1, "default (no decay)": 0.1
    }  # fmt: skip
    assert with_update_hook(Net(), plan, common, lr=0.2, params={}) is plan


def test_a_hook_does_not_wake_what_is_unfrozen_later():
    model = Hooked()
    plan = hooked(model, unfreeze={1: ["conv1"]})
    first, later = plan.rates(1), plan.rates(2)
    assert first["group 0 from epoch 1"] == first["group 0 from epoch 1 (no decay)"] == 0
    assert first["group 0"] > 0
    assert later["group 0 from epoch 1"] == later["group 0"] > 0


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            lambda groups: groups[:1],
            r"update_param_groups returned 1 groups of 2\. Expected all groups that were passed in",
        ),
        (lambda groups: None, r"update_param_groups returned NoneType of 2\."),
        (lambda groups: [groups[0], groups[0]], r"returned 'group 0' as one of its groups\. Expected each of group 0"),
        (lambda groups: [groups[0], {**groups[1], "name": "nose"}], r"returned 'nose' as one of its groups\."),
        (lambda groups: [groups[0], 3], r"returned None as one of its groups"),
        (
            lambda groups: [groups[0], {**groups[1], "lr": -1}],
            r"the learning rate of 'group 1' is -1\. Expected a finite",
        ),
        (lambda groups: [groups[0], {**groups[1], "lr": True}], "the learning rate of 'group 1' is True"),
        (lambda groups: [groups[0], {"name": "group 1"}], r"changed initial_lr, weight_decay of 'group 1'"),
        (lambda groups: [groups[0], {**groups[1], "weight_decay": 3}], "changed weight_decay of 'group 1'; it can"),
    ],
)
def test_wrong_answers_of_a_hook_are_told_before_the_run(answer, text):
    model = Hooked()
    model.update_param_groups = lambda groups, *rest: answer(groups)
    plan = hooked(model)
    with pytest.raises(PlanError, match=text):
        plan.at(Clock(2, 2))


def test_a_hook_cannot_wake_what_began_frozen():
    model = Hooked()
    params = TrainingParams({"multiply_backbone_lr": 0.1})
    backbone, head = model.initialize_param_groups(0.1, params)
    plan = plan_hook_groups(model, [backbone | {"lr": 0}, head], make_context(), lr=0.1, params=params)
    with pytest.raises(PlanError, match=r"rate of 'group 0' to 0\.01, but it started at 0 and is frozen\. Start with"):
        plan.rates(0)


def test_groups_of_an_optimizer_are_the_plan_as_they_are():
    model = Net()
    optimizer = torch.optim.SGD(
        [
            {"params": model.head2.parameters(), "lr": 0.01, "name": "second"},
            {"params": [model.conv1.weight, model.conv1.bias], "weight_decay": 0.25},
        ],
        lr=0.1,
        momentum=0.9,
        weight_decay=0.5,
    )
    plan = plan_optimizer_groups(model, optimizer, make_context(weight_decay=9.0, schedule="cosine"))
    by_name = groups_of(plan)
    assert set(by_name) == {"second", "group 1", "default"}
    assert by_name["second"].names == ("head2.weight", "head2.bias")  # not halved
    assert (by_name["second"].lr, by_name["second"].weight_decay) == (0.01, 0.5)
    assert (by_name["group 1"].lr, by_name["group 1"].weight_decay) == (0.1, 0.25)
    assert by_name["group 1"].options["momentum"] == 0.9
    assert by_name["group 1"].schedule == parse_schedule("cosine")
    assert by_name["default"].frozen
    model = nn.Linear(2, 2)
    (group,) = plan_optimizer_groups(model, torch.optim.Rprop(model.parameters(), lr=0.1), make_context()).groups
    assert (group.lr, group.weight_decay) == (0.1, 0.0)


def test_the_scale_of_timms_own_layer_decay_is_a_scale():
    model = timm.create_model("test_resnet")
    optimizer = create_optimizer_v2(model, opt="sgd", lr=0.1, weight_decay=0.05, layer_decay=0.5)
    plan = plan_optimizer_groups(model, optimizer, make_context())
    assert owners(plan)["fc.weight"].full_lr == 0.1
    assert owners(plan)["layer4.0.conv1.weight"].full_lr == 0.05
    assert not any(group.frozen for group in plan.groups)


def test_an_optimizer_of_something_else_is_refused():
    optimizer = torch.optim.SGD(nn.Linear(3, 5).parameters(), lr=0.1)
    with pytest.raises(
        PlanError, match=r"optimizer: 'group 0' holds a parameter of shape \(5, 3\) that is not one of Net"
    ):
        plan_optimizer_groups(Net(), optimizer, make_context())


def test_2000_groups_of_20_000_parameters_are_planned_in_no_time():
    model = make_large()
    groups = [{"params": getattr(model, f"b{index:05d}").parameters(), "lr": 1 + index} for index in range(2000)]
    plan = plan_optimizer_groups(model, torch.optim.SGD(groups, lr=0.1), make_context())
    assert len(plan.groups) == 2001
    assert owners(plan)["b01999.conv.weight"].lr == 2000
