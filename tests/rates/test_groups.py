import pytest
import torch
from torch import nn

from plan_nets import Net, groups_of, make_context, owners, plan_lrs
from zoo._model import ModelInterface
from zoo.errors import PlanError
from zoo.rates.collect import build_plan
from zoo.rates.groups import CONSTANT, Assignment
from zoo.rates.names import name_parameters, no_match, top_level
from zoo.rates.schedules.parse import Clock, parse_schedule
from zoo.rates.spec import peak_lr


def given(label, lr, weight_decay=0.0, **values):
    return Assignment(label=label, lr=lr, weight_decay=weight_decay, **values)


def share_all(model, **shares):
    """Give every parameter the share of the longest prefix in `shares`, dots written as `__`."""
    prefixes = {prefix.replace("__", "."): share for prefix, share in shares.items()}
    return {
        name: prefixes[max((prefix for prefix in prefixes if name.startswith(prefix)), key=len, default="rest")]
        for name, _ in model.named_parameters()
    }


def build(model, common=None, starts=(), **shares):
    return build_plan(model, share_all(model, **shares), common or make_context(), dict(starts))


def test_what_settings_do_not_say_is_common():
    common = make_context(weight_decay=0.3, schedule="cosine", reasons={"a": "why"})
    share = common.assign("a", {"lr": 0.1}, key="a")
    assert share == given("a", 0.1, 0.3, schedule=parse_schedule("cosine"), reason="why")
    assert common.assign("a", {"lr": 0.1, "gradient_centralization": False}) == given(
        "a", 0.1, 0.3, schedule=parse_schedule("cosine")
    )


@pytest.mark.parametrize("said", [{"lr": 0.0}, {"lr": 0.1, "lr_scale": 0.0}, {"lr": [0.0, 0.0]}])
def test_rate_0_or_scale_0_is_frozen_and_nothing_else_matters(said):
    share = make_context(schedule="cosine").assign("a", {**said, "weight_decay": 0.1, "unfreeze_at": 2}, key="a")
    assert share.frozen
    assert share == given("a", 0.0)


def test_a_list_of_rates_is_a_schedule_of_its_own():
    share = make_context(schedule="cosine", compat="super-gradients").assign("a", {"lr": [0.1, 0.3, 0.2]})
    clock = Clock(1, 3)
    assert [share.schedule.rate(step, clock, share.lr) for step in range(3)] == [0.1, 0.3, 0.2]
    assert share.lr == peak_lr({"lr": [0.1, 0.3, 0.2]}) == 0.3
    assert share.reason == "0.3, highest of 3 rates"
    scaled = make_context().assign("a", {"lr": [0.1, 0.3, 0.2], "lr_scale": 0.5})
    assert [scaled.schedule.rate(step, clock, 0.15) for step in range(3)] == [0.05, 0.15, 0.1]
    assert scaled.lr * scaled.lr_scale == 0.15
    with pytest.raises(PlanError, match=r"'a': lr is a list of rates, which already is a schedule\. Remove lr"):
        make_context().assign("a", {"lr": [0.1], "schedule": "cosine"})


def test_a_schedule_of_a_key_takes_the_warm_up_of_the_run_except_where_it_rises_itself():
    common = make_context(
        schedule="cosine", schedule_defaults={"warmup_steps": 10, "warmup_start": 0.5, "cooldown_epochs": 1}
    )
    assert common.parse({"kind": "step", "every_epochs": 1}).to_dict()["warmup_steps"] == 10
    one_cycle = common.parse("one_cycle").to_dict()
    assert one_cycle["warmup_steps"] == 0
    assert one_cycle["cooldown_epochs"] == 1


def test_equal_shares_are_one_group_and_groups_follow_the_model():
    model = Net()
    shares = {name: given("all", 0.1, key=name) for name, _ in model.named_parameters()}
    (group,) = build_plan(model, shares, make_context(), {}).groups
    assert group.names == tuple(name for name, _ in model.named_parameters())
    assert group.parameters == sum(parameter.numel() for parameter in model.parameters())
    model = Net()
    plan = build(model, conv=given("b", 0.1), head=given("a", 0.2), bn=given("b", 0.1), rest=given("c", 0.3))
    assert [group.name for group in plan.groups] == ["b", "a"]
    assert plan.groups[0].names[:3] == ("conv1.weight", "conv1.bias", "bn1.weight")


def test_norms_and_biases_are_the_half_without_decay():
    plan = build(Net(), rest=given("all", 0.1, 0.2))
    whole, half = groups_of(plan)["all"], groups_of(plan)["all (no decay)"]
    assert whole.names == ("conv1.weight", "conv2.weight", "head.1.weight", "head2.weight")
    assert half.names == ("conv1.bias", "bn1.weight", "bn1.bias", "conv2.bias", "head.1.bias", "head2.bias")
    assert (whole.weight_decay, half.weight_decay, half.key) == (0.2, 0.0, "all")
    assert [
        group.name for group in build(Net(), make_context(decay_norm_and_bias=True), rest=given("all", 0.1, 0.2)).groups
    ] == ["all"]
    assert [group.name for group in build(Net(), rest=given("all", 0.1)).groups] == ["all"]
    assert [group.name for group in build(Net(), rest=given("all", 0.1, 0.2, decays_surely=True)).groups] == ["all"]


def test_a_scheduled_decay_does_not_come_back_to_the_half_without():
    decays = parse_schedule({"kind": "rates", "values": [0.5, 0.25]})
    plan = build(Net(), make_context(clock=Clock(1, 2)), rest=given("all", 0.1, 0.0, weight_decay_schedule=decays))
    assert [plan.weight_decays(step) for step in (0, 1)] == [
        {"all": 0.5, "all (no decay)": 0.0},
        {"all": 0.25, "all (no decay)": 0.0},
    ]


def test_super_gradients_exempts_by_module_and_name():
    """There the bias of any layer and all of a norm do not decay, and every other parameter of one dimension does."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.scale = nn.LayerNorm((2, 2)), nn.Parameter(torch.ones(3))

    ours = build(Scaled(), rest=given("all", 0.1, 0.2))
    theirs = build(Scaled(), make_context(compat="super-gradients"), rest=given("all", 0.1, 0.2))
    assert groups_of(ours)["all"].names == ("norm.weight", "norm.bias")
    assert groups_of(theirs)["all"].names == ("scale",)


def test_shares_of_one_label_get_labels_of_their_own():
    plan = build(
        Net(),
        conv1=given("a", 0.1, 0.5),
        bn1=given("a", 0.1, unfreeze_at=2),
        conv2=given("a", 0.1, 0.5, lr_scale=0.25),
        head__1=given("a", 0.1, 0.5, clip_grad_norm=1.0),
        head2=given("a", 0.1, 0.5, clip_grad_norm=2.0),
    )
    assert [group.name for group in plan.groups] == [
        "a",
        "a (no decay)",
        "a from epoch 2",
        "a at 0.025",
        "a at 0.025 (no decay)",
        "a+",
        "a+ (no decay)",
        "a++",
        "a++ (no decay)",
    ]
    assert [group.key for group in plan.groups if group.key != group.name] == ["a", "a at 0.025", "a+", "a++"]
    plan = build(Net(), conv1=given("a", 0.1, 0.5), rest=given("a (no decay)", 0.2))
    names = [group.name for group in plan.groups]
    assert len(names) == len(set(names)) == 3
    assert owners(plan)["conv1.bias"].lr == 0.1
    assert owners(plan)["bn1.weight"].lr == 0.2


def test_frozen_groups_say_nothing_but_that():
    group = groups_of(build(Net(), conv=make_context(schedule="cosine").assign("a", {"lr": 0}), rest=given("b", 0.1)))[
        "a"
    ]
    assert group.frozen
    assert (group.lr, group.weight_decay, group.schedule, group.reason) == (0.0, 0.0, CONSTANT, "")
    model = Net()
    model.places = nn.Parameter(torch.arange(3), requires_grad=False)
    plan = build(model, rest=given("all", 0.1, 0.5))
    assert groups_of(plan)["all (int64)"].frozen
    assert groups_of(plan)["all (int64)"].names == ("places",)


def test_plans_that_never_learn_or_not_from_the_beginning_are_refused():
    with pytest.raises(
        PlanError, match=r"nothing would be trained, every learning rate is 0\. Set at least one .*conv1, bn1, conv2"
    ):
        build(Net(), rest=given("all", 0.0))
    with pytest.raises(PlanError, match=r"unfreeze: nothing is trained before epoch 2\. Leave at least one part out"):
        build(Net(), conv=given("a", 0.1, unfreeze_at=3), rest=given("b", 0.1, unfreeze_at=2))


def test_an_order_is_kept_and_needs_no_frozen_parameters():
    model = Net()
    order = [name for name, _ in model.named_parameters()][::-1]
    plan = build(model, make_context(order=order), conv=given("a", 0.1), rest=given("b", 0.1))
    assert [group.name for group in plan.groups] == ["b", "a"]
    assert plan.groups[0].names == tuple(name for name in order if not name.startswith("conv"))
    assert plan.groups[1].names == ("conv2.bias", "conv2.weight", "conv1.bias", "conv1.weight")
    plan = build(Net(), make_context(order=["head2.bias", "head2.weight"]), head2=given("a", 0.1), rest=given("b", 0.0))
    assert [group.name for group in plan.groups] == ["a", "b"]
    assert plan.groups[0].names == ("head2.bias", "head2.weight")


@pytest.mark.parametrize(
    ("order", "text"),
    [
        (["head2.bias"], r"order leaves out 'head2\.weight'\. Expected each of the 2 trained parameters, once"),
        (["head2.bias", "head2.weight", "head2.bias"], r"order names 'head2\.bias' twice\. Expected"),
        (["head2.bias", "head2.wieght"], r"order names 'head2\.wieght', which the model does not have \(Did you mean"),
        (["head2.wieght", "head2.wieght"], r"names 'head2\.wieght', which .* and leaves out .* and names .* twice\."),
    ],
)
def test_an_order_that_is_not_complete_is_told(order, text):
    with pytest.raises(PlanError, match=text):
        build(Net(), make_context(order=order), head2=given("a", 0.1), rest=given("b", 0.0))


def starts_of(**values):
    return plan_lrs(Net(), {"head": 0.1, "default": 0.2}, **values).starts


def test_prefixes_unfreeze_the_longest_wins_and_default_is_what_no_key_names():
    rates = {"head": 0.1, "conv2": 0.3, "default": 0.2}
    plan = plan_lrs(Net(), rates, unfreeze={1: ["conv", "head2"], 2: ["conv2.bias"], 3: ["default"]})
    points = {name: group.unfreeze_at for name, group in owners(plan).items()}
    assert points == {
        "conv1.weight": 1,
        "conv1.bias": 1,
        "bn1.weight": 3,
        "bn1.bias": 3,
        "conv2.weight": 1,
        "conv2.bias": 2,
        "head.1.weight": 0,
        "head.1.bias": 0,
        "head2.weight": 1,
        "head2.bias": 1,
    }
    assert [group.name for group in plan.groups] == ["conv", "default", "conv2", "conv2.bias", "head", "head2"]
    assert owners(plan)["conv1.weight"].lr == 0.2
    whole = plan_lrs(Net(), rates, unfreeze={1: ["conv", "conv2.b"], 2: ["bn"]})
    assert [group.name for group in whole.groups] == ["conv", "bn", "conv2", "conv2.b", "head"]
    assert plan.unfreeze_epochs == ()  # of the run, which has one epoch
    assert plan.at(Clock(4, 5)).unfreeze_epochs == (1, 2, 3)
    plan = plan_lrs(Net(), {"head2": {"lr": 0.1, "unfreeze_at": 1}, "default": 0.1}, unfreeze={1: ["head2"]})
    assert groups_of(plan)["head2"].unfreeze_at == 1


def test_modules_and_kinds_go_by_prefixes_and_points():
    assert starts_of() == {"head": 0, "default": 0}
    assert starts_of(unfreeze={2: ["conv", "head."], 4: ["default"]}) == {
        "head": 0, "head.": 2, "conv": 2, "default": 4
    }  # fmt: skip
    assert starts_of(unfreeze={2: ["hea"]}) == {"head": 2, "hea": 2, "default": 0}
    plan = plan_lrs(Net(), {"@bias": {"weight_decay": 0.0}, "default": 0.1}, unfreeze={2: ["conv", "bn1"]})
    assert [(group.name, group.unfreeze_at) for group in plan.groups] == [
        ("conv", 2),
        ("@bias from epoch 2", 2),
        ("bn1", 2),
        ("default", 0),
        ("@bias", 0),
    ]


def test_what_is_frozen_is_unfrozen_if_there_is_a_rate_for_it():
    options = {"weight_decay": 0.5, "schedule": "cosine", "unfrozen_lr": 0.01, "unfrozen_reason": "slower"}
    plan = plan_lrs(Net(), {"head": 0.1, "default": 0}, unfreeze={2: ["conv2"]}, **options)
    groups = groups_of(plan)
    assert [group.name for group in plan.groups] == ["default", "conv2", "conv2 (no decay)", "head", "head (no decay)"]
    assert groups["default"].frozen
    assert (groups["conv2"].lr, groups["conv2"].weight_decay, groups["conv2"].reason) == (0.01, 0.5, "slower")
    assert groups["conv2"].schedule == groups["head"].schedule == parse_schedule("cosine")
    assert plan.starts == {"head": 0, "default": None, "conv2": 2}


@pytest.mark.parametrize(
    ("unfreeze", "text"),
    [
        ({1: ["conv3"]}, r"key 'conv3' matches no parameter of Net\. Did you mean 'conv.'.*Top-level names: conv1"),
        ({1: ["drop1"]}, r"key 'drop1' matches no parameter of Net \(that module has no parameters\)"),
        ({1: ["@norm"]}, r"'@norm' is a layer kind\. Expected parameter-name prefixes, or 'default'\."),
        ({1: ["bn1"]}, r"'bn1' is unfrozen, but 'bn' has learning rate 0 there\. Set its learning rate\."),
        ({1: ["conv1"], 2: ["conv1"]}, r"'conv1' is listed twice, for epochs 1 and 2\. List it once\."),
        ({1: ["head2", "head2"]}, r"'head2' is listed twice, for epochs 1 and 1"),
        ({2: ["head2"]}, r"'head2' is unfrozen at epoch 2, but 'head2' has unfreeze_at 1\. Remove one of them\."),
        (
            {1: ["conv", "conv1", "conv2"]},
            r"'conv' has no effect: longer prefixes match all of its parameters: 'conv1', 'conv2'\. Remove",
        ),
        ({1: ["default"]}, r"'default' has no effect: the keys of lr match every parameter"),
    ],
)
def test_wrong_points_are_told(unfreeze, text):
    rates = {"conv": 0.1, "bn": 0, "head": 0.2, "head2": {"lr": 0.1, "unfreeze_at": 1}, "default": 0.1}
    with pytest.raises(PlanError, match=rf"^unfreeze: {text}"):
        plan_lrs(Net(), rates, unfreeze=unfreeze)


def test_wrong_points_are_told_all_at_once():
    with pytest.raises(PlanError) as caught:
        plan_lrs(Net(), {"bn": 0, "default": 0.1}, unfreeze={1: ["conv3", "bn1"], 2: ["@bias"]})
    assert str(caught.value).startswith("unfreeze: 3 errors.\n  '@bias' is a layer kind")


def test_a_tied_parameter_is_unfrozen_by_any_of_its_names():
    model = Net()
    model.head2.weight = model.head[1].weight
    plan = plan_lrs(model, {"default": 0.1}, unfreeze={1: ["head2"]})
    assert owners(plan)["head.1.weight"].unfreeze_at == owners(plan)["head2.bias"].unfreeze_at == 1
    assert owners(plan)["head.1.bias"].unfreeze_at == 0


def test_a_model_without_parameters_or_with_lazy_ones_is_refused():
    with pytest.raises(PlanError, match=r"ReLU has no parameters, so there is nothing to train"):
        name_parameters(nn.ReLU())
    with pytest.raises(PlanError, match=r"'1\.weight' belongs to a lazy layer .* Run one batch through the model"):
        name_parameters(nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(2)))


def test_names_near_a_key_that_matches_nothing():
    names = name_parameters(Net())
    assert no_match(Net(), "haed@bias", names) == (
        "key 'haed@bias' matches no parameter of Net. Did you mean 'head' or 'head2'? Top-level names: conv1, bn1, "
        "conv2, head, head2."
    )
    assert "(that module has no parameters)" in no_match(Net(), "drop1.", names)
    assert "(that module" not in no_match(Net(), "nose", names)
    assert top_level(f"a{index}.weight" for index in range(13)) == "a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, …"


def test_parameters_that_a_model_calls_dormant_are_frozen_and_named_so():
    class Spare(ModelInterface, Net):
        def __init__(self):
            super().__init__()
            self.spare = nn.Linear(4, 2)

        def dormant_parameters(self):
            return frozenset({"spare.weight", "spare.bias"})

    plan = plan_lrs(Spare(), {"default": 0.1})
    (group,) = (group for group in plan.groups if group.frozen)
    assert (group.name, group.names) == ("default (dormant)", ("spare.weight", "spare.bias"))
