import copy
import json
import math
import pickle
from dataclasses import FrozenInstanceError, replace
from io import StringIO

import pytest
import timm
from PIL import Image
from rich.console import Console

from plan_nets import Net, groups_of, make_context, plan_lrs
from zoo.errors import InputError, PlanError
from zoo.rates.assign import plan_layers
from zoo.rates.groups import CONSTANT, Group
from zoo.rates.plan import Plan, RateHook
from zoo.rates.schedules.parse import Clock, parse_schedule
from zoo.rates.spec import DecayEvery

CLOCK = Clock(epochs=4, steps_per_epoch=5)
LAYERED = {
    "conv1": {"lr": 0.1, "lr_scale": 0.5, "decay_every": {"steps": 4, "factor": 0.9, "start": 1}},
    "conv2": {"lr": 0.1, "unfreeze_at": 2},
    "bn": 0,
    "head": {"lr": [0.01 * step for step in range(20)]},
    "default": 0.2,
}


def layered(**options):
    defaults = {"warmup_steps": 6, "warmup_start": 0.1}
    return plan_lrs(Net(), LAYERED, clock=CLOCK, schedule="cosine", schedule_defaults=defaults, **options)


def group(name="a", lr=0.1, **values):
    return Group(name=name, names=(f"{name}.weight",), lr=lr, weight_decay=0.01, parameters=10, **values)


def rich_lines(plan):
    out = StringIO()
    Console(file=out, width=200).print(plan)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_rates_are_base_times_scale_times_schedule_times_decay():
    plan = layered(weight_decay=0.1)
    cosine = parse_schedule({"kind": "cosine", "warmup_steps": 6, "warmup_start": 0.1})
    for step in range(20):
        rates = plan.rates(step)
        decays = 0 if step == 0 else 1 + (step - 1) // 4
        assert rates["conv1"] == rates["conv1 (no decay)"]
        assert rates["conv1"] == pytest.approx(cosine.rate(step, CLOCK, 0.05) * 0.9**decays, rel=1e-14)
        assert rates["conv2"] == (0 if step < 10 else cosine.rate(step, CLOCK, 0.1))
        assert rates["bn"] == 0
        assert rates["head"] == 0.01 * step
    assert list(plan.rates(0)) == [group.name for group in plan.groups]
    rates = {"head": {"lr": 0.1, "weight_decay": 0.4, "weight_decay_schedule": "cosine"}, "bn1": 0, "default": 0.2}
    plan = plan_lrs(Net(), rates, clock=Clock(1, 3), weight_decay=0.3)
    expected = parse_schedule("cosine")
    for step in range(3):
        assert plan.weight_decays(step) == pytest.approx(
            {
                "default": 0.3,
                "default (no decay)": 0.0,
                "head": expected.rate(step, Clock(1, 3), 0.4),
                "head (no decay)": 0.0,
            }
        )


def test_explanations_say_which_factors_there_are():
    plan = layered()
    assert plan.explain(3) == {
        "conv1": "0.02475 = 0.1 × 0.5 × warm-up 3/6 (0.55) × decay 0.9^1",
        "bn": "0: frozen",
        "conv2": "0: frozen until epoch 2",
        "head": "0.03 = 0.19 × rates [3] (0.158)",
    }
    assert plan.explain(10)["conv2"] == "0.07862 = 0.1 × cosine 4/13 (0.786)"
    assert plan_lrs(Net(), {"default": 0.1}).explain(0) == {"default": "0.1"}
    one = group(lr_scale=0.5, decay_every=DecayEvery(steps=2, factor=0.5), unfreeze_at=1)
    assert one.full_lr == 0.05
    assert [one.rate(step, Clock(3, 2)) for step in range(6)] == [0, 0, 0.025, 0.025, 0.0125, 0.0125]
    assert one.decay(3, Clock(3, 2)) == 0.01
    assert group("fc (no decay)").key == "fc"
    assert [one.state, group().state, group(lr=0.0).state] == ["from epoch 1", "trained", "frozen"]


def test_a_plan_is_a_value():
    plan = layered()
    assert plan == layered()
    assert plan != plan_lrs(Net(), LAYERED, clock=CLOCK)
    assert copy.deepcopy(plan) == pickle.loads(pickle.dumps(plan)) == plan
    with pytest.raises(FrozenInstanceError):
        plan.groups = ()
    with pytest.raises(FrozenInstanceError):
        plan.groups[0].lr = 1.0


def test_what_learns_and_what_does_not():
    plan = layered()
    assert [group.name for group in plan.trained] == ["conv1", "conv2", "head"]
    assert plan.frozen_names == {"bn1.weight", "bn1.bias"}
    assert plan.frozen_at(0) == plan.frozen_at(1) == {"bn1.weight", "bn1.bias", "conv2.weight", "conv2.bias"}
    assert plan.frozen_at(2) == plan.frozen_names
    assert plan.unfreeze_epochs == (2,)
    assert not plan.adjusts_gradients
    assert Plan((group(clip_grad_norm=1.0),)).adjusts_gradients
    assert Plan((group(gradient_centralization=True),)).adjusts_gradients
    assert not Plan((group(lr=0.0, gradient_centralization=True),)).adjusts_gradients


def test_a_plan_can_be_set_to_another_run():
    plan = replace(plan_lrs(Net(), {"default": 0.1}, schedule="cosine"), steps_are_known=False)
    longer = plan.at(Clock(2, 10))
    assert longer.clock == Clock(2, 10)
    assert longer.steps_are_known
    assert longer.rates(19)["default"] == pytest.approx(0.001)
    assert plan.rates(0) == longer.rates(0)


def test_what_is_too_short_for_a_run_is_told_with_its_group_all_at_once():
    rates = {"conv": {"lr": [0.1] * 5}, "head": {"lr": 0.1, "weight_decay_schedule": {"kind": "list", "values": [1.0]}}}
    plan = plan_lrs(Net(), rates | {"default": 0})
    with pytest.raises(PlanError) as caught:
        plan.at(Clock(1, 6))
    first, second, third = str(caught.value).splitlines()
    assert first == "lr plan:"
    assert second.startswith("  'conv': schedule 'rates' has 5 values; the run has 6 optimizer steps")
    assert third.startswith("  'head': schedule 'list' has 1 values; the run has 6")
    plan = plan_lrs(Net(), {"conv": 0.1, "default": 0.2}, schedule={"kind": "cosine", "warmup_steps": 10})
    with pytest.raises(PlanError, match=r"^lr plan: schedule 'cosine': 10 warm-up steps and 0 cool-down steps do not"):
        plan.at(Clock(1, 5))


def test_a_function_is_asked_once_when_the_run_is_known():
    settings = {"lr": 0.1, "weight_decay": 0.5, "weight_decay_schedule": lambda step: 1 / (step + 1)}
    options = {"decay_norm_and_bias": True, "schedule": lambda step: 0.5**step}
    plan = plan_lrs(Net(), {"default": settings}, **options).at(Clock(1, 3))
    assert [plan.rates(step)["default"] for step in range(3)] == [0.1, 0.05, 0.025]
    assert plan.weight_decays(1) == {"default": 0.25}
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert plan.groups[0].schedule.to_dict()["values"] == [1.0, 0.5, 0.25]


def test_a_hook_changes_rates_and_is_asked_before_the_run():
    class Double(RateHook):
        def rates(self, rates, step, clock):
            if clock.steps > 10:
                raise PlanError("too long")
            return {name: 2 * rate for name, rate in rates.items()}

    plan = replace(plan_lrs(Net(), {"bn1": 0, "default": 0.1}), hook=Double())
    assert plan.rates(0) == {"default": 0.2, "bn1": 0}
    assert plan.explain(0) == {"default": "0.2, set by update_param_groups", "bn1": "0: frozen"}
    assert plan.records()[0]["highest_rate"] == 0.2
    with pytest.raises(PlanError, match=r"too long"):
        plan.at(Clock(1, 11))
    with pytest.raises(TypeError, match=r"Protocols cannot be instantiated"):
        RateHook()


def test_the_plan_is_data():
    plan = layered(weight_decay=0.1)
    data = json.loads(json.dumps(plan.to_dict()))
    assert data["clock"] == {"epochs": 4, "steps_per_epoch": 5, "accumulate": 1, "batches_per_epoch": 5}
    assert data["starts"] == {"conv1": 0, "conv2": 2, "bn": None, "head": 0, "default": 0}
    first = data["groups"][0]
    assert first["names"] == ["conv1.weight"]
    assert first["schedule"]["kind"] == "cosine"
    assert first["decay_every"] == {"steps": 4, "factor": 0.9, "start": 1}
    assert list(first)[:6] == ["name", "names", "lr", "weight_decay", "frozen", "parameters"]
    assert {*first, "solver"} == {"frozen", *Group.__dataclass_fields__}, "a solver is named where there is one"


def test_records_are_rows_of_numbers():
    rows = layered(weight_decay=0.1).records()
    assert [row["name"] for row in rows] == [group.name for group in layered(weight_decay=0.1).groups]
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    by_name = {row["name"]: row for row in rows}
    assert by_name["conv2"] == {
        "name": "conv2",
        "state": "from epoch 2",
        "tensors": 1,
        "parameters": 144,
        "share": 144 / 288,
        "lr": 0.1,
        "lr_scale": 1.0,
        "weight_decay": 0.1,
        "schedule": "cosine",
        "gradient_centralization": False,
        "unfreeze_at": 2,
        "first_rate": 0.0,
        "highest_rate": pytest.approx(0.1 * (0.01 + 0.495 * (1 + math.cos(math.pi * 4 / 13))), rel=1e-14),
        "last_rate": pytest.approx(0.001),
        "reason": "",
    }
    assert (by_name["bn"]["state"], by_name["bn"]["unfreeze_at"], by_name["bn"]["highest_rate"]) == ("frozen", None, 0)
    assert (by_name["head"]["first_rate"], by_name["head"]["last_rate"]) == (0, 0.19)


def test_the_digest_is_of_everything_that_decides_on_rates():
    plan = layered()
    assert plan.digest == layered().digest
    others = [
        plan_lrs(Net(), LAYERED | {"default": 0.3, "head2": 0.1}, clock=CLOCK),
        replace(plan, clock=Clock(4, 6)),
        replace(plan, clock=Clock(4, 5, accumulate=2)),
        layered(weight_decay=0.1),
        layered(gradient_centralization=True),
        plan_lrs(Net(), LAYERED, clock=CLOCK, schedule="constant"),
    ]
    assert len({other.digest for other in [plan, *others]}) == 7
    strange = [Plan((group(options={"function": function}),)).digest for function in (max, min)]
    assert strange[0] == strange[1]  # by its type, not its address


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
    assert plan.totals() == {"prefix": "total", "state": "6.94% trained", "tensors": "10", "parameters": "288"}
    lines = str(plan_lrs(Net(), {"head": 0.012345, "default": 0.1}, weight_decay=0.1)).splitlines()
    ends = {
        line.index(number) + len(number) for line, number in zip(lines, ["lr", "0.1", "0.1", "0.012345"], strict=False)
    }
    assert len(ends) == 1
    assert [line.split("  ")[0] for line in lines] == [
        "prefix",
        "default",
        "default (no decay)",
        "head",
        "head (no decay)",
        "total",
    ]


def test_columns_that_say_something_are_shown():
    rows = layered(weight_decay=0.1).rows()
    assert rows[0] == {
        "prefix": "conv1",
        "state": "trained",
        "tensors": "1",
        "parameters": "108",
        "lr": "0.1",
        "scale": "0.5",
        "weight decay": "0.1",
        "schedule": "cosine",
        "decays": "× 0.9 every 4 steps",
        "why": "0.1 × 0.5 (lr_scale)",
    }
    by_name = {row["prefix"]: row for row in rows}
    assert by_name["head"]["schedule"] == "rates"
    assert by_name["head"]["why"] == "0.19, highest of 20 rates"
    assert set(by_name["bn"].values()) == {"bn", "frozen", "2", "8", "0", "-", ""}
    clipped = plan_lrs(
        Net(), {"conv": {"lr": 0.1, "clip_grad_norm": 2.0}, "default": 0.2}, gradient_centralization=True
    )
    assert [(row["clip"], row["centralized"]) for row in clipped.rows()] == [("2", "yes"), ("-", "yes")]


def test_options_that_are_not_those_of_all_groups_are_shown():
    rates = {"conv": {"lr": 0.1, "optimizer_params": {"momentum": 0.5, "nesterov": True}}, "default": 0.1}
    rates["head"] = {"optimizer_params": {"nesterov": True}, "weight_decay": 0.2, "weight_decay_schedule": "cosine"}
    rows = {row["prefix"]: row for row in plan_lrs(Net(), rates, decay_norm_and_bias=True).rows()}
    assert [row["optimizer"] for row in rows.values()] == ["momentum 0.5, nesterov True", "-", "nesterov True"]
    assert [row["weight decay"] for row in rows.values()] == ["0", "0", "0.2 × cosine"]
    alike = plan_lrs(Net(), {"default": {"lr": 0.1, "optimizer_params": {"momentum": 0.5}}})
    assert "optimizer" not in alike.rows()[0]
    assert "schedule" not in Plan((group(lr=0.0),)).rows()[0]


def test_rich_prints_the_same_table():
    plan = layered(weight_decay=0.1)
    lines = rich_lines(plan)
    for row in [*plan.rows(), plan.totals()]:
        assert any(all(text in line for text in row.values()) for line in lines), row
    marked = Plan((group("[red]a[/red]"), group("[b]")))
    assert any("[red]a[/red]" in line for line in rich_lines(marked))


def test_the_plot_is_a_png(tmp_path):
    path = layered(weight_decay=0.1).plot(tmp_path / "plan.png", title="Which part learns when")
    assert path == tmp_path / "plan.png"
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert min(image.size) > 500


def test_plots_of_long_runs_many_groups_and_one_step(tmp_path):
    model = timm.create_model("resnet10t")
    common = make_context(clock=Clock(100, 5000), schedule="cosine", weight_decay=0.1, unfreeze={50: ["conv1"]})
    plan = plan_layers(model, {"default": 0.1}, common, layer_decay=0.75)
    curves = plan._curves()
    assert {len(curve) for curve in curves.values()} == {2001}
    assert curves["fc"][0] == 0.1
    assert curves["fc"][-1] == pytest.approx(0.001)
    assert curves["fc"] == curves["fc (no decay)"]
    assert plan.plot(str(tmp_path / "plan.png")).is_file()
    with pytest.raises(InputError, match=r"cannot write a plot to '.*'; expected a \.png file"):
        plan.plot(tmp_path / "plan.jpg")
    assert plan_lrs(Net(), {"default": 0.1})._curves() == {"default": [0.1]}
    assert groups_of(plan_lrs(Net(), {"default": 0.1}))["default"].schedule == CONSTANT
