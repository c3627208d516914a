"""Curves in closed form against torch, against formulas written out here, and against recorded MindSpore rates."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from zoo.errors import InputError
from zoo.rates.schedules.base import Clock, Schedule
from zoo.rates.schedules.curves import CURVES
from zoo.rates.schedules.parse import parse_schedule

pytestmark = pytest.mark.numbers

RECORDED = Path(__file__).parents[2] / "fixtures" / "layered_lr"
CLOCK = Clock(epochs=10, steps_per_epoch=10)


def rates(spec, clock=CLOCK, base=1.0):
    schedule = parse_schedule(spec)
    schedule.check(clock)
    return [schedule.rate(step, clock, base) for step in range(clock.steps)]


def previous_factor(kind, step, *, steps, warmup_steps, warmup_start, final_lr_ratio):
    """The formula of the cosine and constant schedules since the first release."""
    if step < warmup_steps:
        return warmup_start + (1 - warmup_start) * step / warmup_steps
    if kind == "constant":
        return 1.0
    done = min(1.0, (step - warmup_steps) / max(1, steps - 1 - warmup_steps))
    return final_lr_ratio + (1 - final_lr_ratio) * 0.5 * (1 + math.cos(math.pi * done))


def torch_rates(make, count, base=0.1):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=base, momentum=0.9)
    scheduler = make(optimizer)
    seen = []
    for _ in range(count):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(seen) < count:
            scheduler.step()
    return seen


class TestClock:
    def test_counts_steps_and_batches(self):
        assert Clock(3, 4).steps == 12
        assert Clock(3, 4).batches == 4
        assert Clock(3, 4, accumulate=2).batches == 8
        assert Clock(3, 4, accumulate=2, batches_per_epoch=7).batches == 7
        assert Clock(3, 10).to_steps(0.25) == 2

    @pytest.mark.parametrize("name", ["epochs", "steps_per_epoch", "accumulate", "batches_per_epoch"])
    def test_refuses_what_is_no_length(self, name):
        lengths = {"epochs": 1, "steps_per_epoch": 1} | {name: 0}
        with pytest.raises(InputError, match=rf"{name} is 0; expected 1 or more\."):
            Clock(**lengths)


class TestWarmup:
    @pytest.mark.parametrize("kind", ["cosine", "constant"])
    @pytest.mark.parametrize(
        ("steps", "warmup_steps"),
        [(steps, warmup) for steps in (1, 2, 7, 40) for warmup in (0, 1, 2, 7, 40) if warmup <= steps],
    )
    def test_the_numbers_of_earlier_releases_stay_to_the_last_bit(self, kind, steps, warmup_steps):
        spec = {"kind": kind, "warmup_steps": warmup_steps, "warmup_start": 0.2}
        given = {"steps": steps, "warmup_steps": warmup_steps, "warmup_start": 0.2, "final_lr_ratio": 0.01}
        assert rates(spec, Clock(1, steps), 0.03) == [
            0.03 * previous_factor(kind, step, **given) for step in range(steps)
        ]

    def test_epochs_may_be_fractions(self):
        by_epochs = rates({"kind": "cosine", "warmup_epochs": 0.5})
        assert by_epochs == rates({"kind": "cosine", "warmup_steps": 5})
        assert by_epochs[:6] == pytest.approx([0.1, 0.28, 0.46, 0.64, 0.82, 1.0])

    def test_constant_holds_the_start(self):
        seen = rates({"kind": "exponential", "gamma": 0.5, "warmup_steps": 10, "warmup": "constant"})
        assert seen[:10] == [0.1] * 10
        assert seen[10] == 1.0
        assert seen[20] == 0.5
        spec = {"kind": "step", "every_steps": 3, "gamma": 0.5, "warmup": "constant", "warmup_over": True}
        seen = rates(spec | {"warmup_steps": 4, "warmup_start": 0.2}, Clock(1, 8))
        assert seen == [0.2, 0.2, 0.2, 0.2, 0.5, 0.5, 0.25, 0.25]

    def test_over_a_curve_it_ends_on_the_curve(self):
        """OneFlow's WarmupLR(0.4, 4, linear) around CosineDecayLR(17, 0.2)."""
        spec = {"kind": "cosine", "steps": 17, "final_ratio": 0.2}
        seen = rates(spec | {"warmup_steps": 4, "warmup_start": 0.4, "warmup_over": True}, Clock(5, 6), 0.03)
        curve = [0.03 * (0.8 * 0.5 * (1 + math.cos(math.pi * min(k, 17) / 17)) + 0.2) for k in range(30)]
        rise = [0.03 * (0.4 + (curve[4] / 0.03 - 0.4) * k / 4) for k in range(4)]
        assert seen == pytest.approx(rise + curve[4:], rel=1e-12)

    def test_a_start_rate_is_absolute_and_never_warms_downwards(self):
        seen = rates({"kind": "constant", "warmup_steps": 4, "warmup_start_lr": 0.02}, base=0.1)
        assert seen[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
        schedule = parse_schedule({"kind": "constant", "warmup_steps": 4, "warmup_start_lr": 0.2})
        expected = r"warmup_start_lr is 0\.2, above the learning rate 0\.1\. Expected 0\.1 or less\."
        with pytest.raises(InputError, match=expected):
            schedule.rate(0, CLOCK, 0.1)
        assert schedule.rate(0, CLOCK, 0.0) == 0

    def test_too_long_for_the_run(self):
        schedule = parse_schedule({"kind": "cosine", "warmup_steps": 60, "cooldown_epochs": 5})
        expected = r"'cosine': 60 warm-up steps and 50 cool-down steps do not fit in 100 optimizer steps \(10"
        with pytest.raises(InputError, match=expected):
            schedule.check(CLOCK)
        seen = rates({"kind": "cosine", "warmup_epochs": 10})
        assert seen[0] == 0.1
        assert seen[-1] == pytest.approx(0.1 + 0.9 * 99 / 100)

    def test_a_second_start_is_refused(self):
        with pytest.raises(InputError, match=r"warmup_start and warmup_start_lr are both set; expected one of them\."):
            parse_schedule({"kind": "cosine", "warmup_start": 0.1, "warmup_start_lr": 0.01})


class TestCooldown:
    def test_the_curve_ends_earlier_and_stays(self):
        seen = rates({"kind": "cosine", "cooldown_epochs": 2, "final_ratio": 0.05, "warmup_steps": 10})
        assert seen[:80] == rates({"kind": "cosine", "final_ratio": 0.05, "warmup_steps": 10}, Clock(8, 10))
        assert seen[79:] == pytest.approx([0.05] * 21)
        assert rates({"kind": "polynomial", "cooldown_epochs": 0.0}) == rates("polynomial")
        seen = rates({"kind": "exponential", "gamma": 0.9, "cooldown_epochs": 3})
        assert seen[69:] == [0.9 ** (69 / 10)] * 31


class TestByEpoch:
    @pytest.mark.parametrize(
        "spec",
        [
            {"kind": "cosine"},
            {"kind": "cosine", "warmup_epochs": 2},
            {"kind": "polynomial", "epochs": 7},
            {"kind": "exponential", "gamma": 0.8},
            {"kind": "inverse", "rate": 3},
            {"kind": "one_cycle"},
            {"kind": "step", "every_steps": 7},
            {"kind": "list", "values": [1 / (k + 1) for k in range(100)]},
        ],
    )
    def test_agrees_with_the_step_form_at_the_boundaries(self, spec):
        by_step, by_epoch = rates(spec), rates(spec | {"by": "epoch"})
        rise = 10 * spec.get("warmup_epochs", 0)
        assert by_epoch[::10] == by_step[::10]
        assert by_epoch[rise:] == [by_epoch[k // 10 * 10] for k in range(rise, 100)]
        assert by_epoch[:rise] == by_step[:rise]

    def test_is_mindspores_list_of_cosine_rates(self):
        """cosine_decay_lr(min, max, total_step, step_per_epoch, decay_epoch), float32, against a recorded run."""
        recorded = json.loads((RECORDED / "ms_a_momentum_tinynet.json").read_text())
        low, high, steps, steps_per_epoch, decay_epochs = recorded["groups"][0]["lr"]["list"]["args"]
        spec = {"kind": "cosine", "epochs": decay_epochs, "by": "epoch", "final_ratio": low / high}
        seen = rates(spec, Clock(steps // steps_per_epoch, steps_per_epoch), high)
        assert seen == pytest.approx(recorded["lr_used"]["conv"], abs=1e-7)


class TestCosine:
    def test_ends_at_the_last_step_or_after_its_length(self):
        assert rates("cosine")[-1] == pytest.approx(0.01)
        assert rates({"kind": "cosine", "steps": 40, "final_ratio": 0.2})[40:] == pytest.approx([0.2] * 60)
        assert rates({"kind": "cosine", "epochs": 4}) == rates({"kind": "cosine", "steps": 40})

    def test_is_mindspores_object(self):
        """CosineDecayLR(6e-5, 0.006, 14) and WarmUpLR(0.003, 5), asked at every step, against a recorded run."""
        recorded = json.loads((RECORDED / "ms_b_adam_tinybn.json").read_text())
        low, high, steps = recorded["groups"][0]["lr"]["schedule"]["args"]
        cosine = {"kind": "cosine", "steps": steps, "final_ratio": low / high, "warmup_steps": 0}
        assert rates(cosine, Clock(5, 6), high) == pytest.approx(recorded["lr_used"]["conv"], abs=1e-7)
        full, warmup_steps = recorded["groups"][1]["lr"]["schedule"]["args"]
        warmup = {"kind": "constant", "warmup_steps": warmup_steps, "warmup_start": 0.0}
        assert rates(warmup, Clock(5, 6), full) == pytest.approx(recorded["lr_used"]["bn"], abs=1e-7)


class TestOtherCurves:
    def test_worked_values(self):
        seen = rates({"kind": "polynomial", "power": 2, "final_ratio": 0.1, "steps": 50}, base=0.5)
        assert seen == pytest.approx([0.5 * (0.1 + 0.9 * (1 - min(k, 50) / 50) ** 2) for k in range(100)])
        assert rates("polynomial") == pytest.approx([(1 - k / 99) ** 0.9 for k in range(100)])
        expected = torch_rates(lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9), 10)
        assert rates({"kind": "exponential", "gamma": 0.9}, base=0.1)[::10] == pytest.approx(expected, rel=1e-12)
        assert rates({"kind": "exponential", "gamma": 0.5, "every_steps": 4})[2] == pytest.approx(0.5**0.5)
        expected = torch_rates(lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 7), 100)
        assert rates({"kind": "step", "every_steps": 7}, base=0.1) == pytest.approx(expected, rel=1e-12)
        expected = torch_rates(lambda optimizer: torch.optim.lr_scheduler.MultiStepLR(optimizer, [15, 70], 0.5), 100)
        spec = {"kind": "multistep", "gamma": 0.5}
        assert rates(spec | {"milestone_steps": [70, 15]}, base=0.1) == pytest.approx(expected, rel=1e-12)
        assert rates(spec | {"milestones": [1.5, 7]}, base=0.1) == pytest.approx(expected, rel=1e-12)
        seen = rates({"kind": "inverse", "rate": 0.5, "steps": 4})
        assert seen == pytest.approx([1 / (1 + 0.5 * k / 4) for k in range(100)])

    @pytest.mark.parametrize("steps_per_epoch", [1, 3, 7, 10])
    @pytest.mark.parametrize("every_epochs", [1, 0.7, 1.5, 0.1])
    def test_step_by_epochs_neither_drifts_nor_comes_a_step_late(self, steps_per_epoch, every_epochs):
        seen = rates({"kind": "step", "every_epochs": every_epochs, "gamma": 0.9}, Clock(20, steps_per_epoch))
        tenths = round(10 * every_epochs)  # whole numbers, so that nothing is rounded here
        powers = [10 * k // (tenths * steps_per_epoch) for k in range(20 * steps_per_epoch)]
        assert seen == pytest.approx([0.9**power for power in powers], rel=1e-12)

    def test_milestones_are_epochs_of_the_run_but_periods_begin_after_the_warmup(self):
        warmup = {"warmup_epochs": 2, "gamma": 0.5}
        assert rates({"kind": "multistep", "milestones": [5], **warmup})[48:52] == [1, 1, 0.5, 0.5]
        assert rates({"kind": "step", "every_epochs": 5, **warmup})[68:72] == [1, 1, 0.5, 0.5]
        assert rates({"kind": "step", "every_epochs": 5, "warmup_over": True, **warmup})[48:52] == [1, 1, 0.5, 0.5]

    @pytest.mark.parametrize("steps", [1, 2, 3, 10, 97])
    @pytest.mark.parametrize(
        ("ours", "theirs"),
        [
            ({}, {}),
            ({"anneal": "linear"}, {"anneal_strategy": "linear"}),
            ({"pct_start": 0.0}, {"pct_start": 0.0}),
            ({"pct_start": 0.75, "div_factor": 10.0, "final_div_factor": 100.0},) * 2,
            ({"three_phase": True}, {"three_phase": True}),
            (
                {"three_phase": True, "pct_start": 0.4, "anneal": "linear"},
                {"three_phase": True, "pct_start": 0.4, "anneal_strategy": "linear"},
            ),
        ],
    )
    def test_one_cycle_is_torchs(self, ours, theirs, steps):
        expected = torch_rates(
            lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps, **theirs), steps
        )
        assert rates({"kind": "one_cycle", **ours}, Clock(1, steps), 0.1) == pytest.approx(expected, rel=1e-12)

    def test_growth_beyond_all_numbers_is_told(self):
        spec = {"kind": "exponential", "gamma": 1e10, "every_steps": 1}
        with pytest.raises(InputError, match=r"gamma 1e\+10 to the power 31 overflows\. Choose a gamma of 1 or less"):
            rates(spec)
        with pytest.raises(InputError, match=r"gamma 1e\+200 to the power 2 overflows\. Use a gamma of 1 or"):
            rates({"kind": "step", "gamma": 1e200, "milestones": [1, 1], "compat": "super-gradients"})

    def test_one_cycle_has_one_rise_before_the_cooldown(self):
        assert rates({"kind": "one_cycle", "pct_start": 1.0}, Clock(1, 1)) == [1.0]
        seen = rates({"kind": "one_cycle", "cooldown_epochs": 1})
        assert seen[:90] == rates("one_cycle", Clock(9, 10))
        assert seen[90:] == [seen[89]] * 10
        with pytest.raises(InputError, match=r"warmup_epochs is 0\.5, but one_cycle has its own warm-up\. Remove"):
            parse_schedule({"kind": "one_cycle", "warmup_epochs": 0.5})
        assert rates({"kind": "one_cycle", "warmup_epochs": 0.0}) == rates("one_cycle")
        with pytest.raises(InputError, match=r"pct_start is 0\.6; expected at most 0\.5 with three_phase\."):
            parse_schedule({"kind": "one_cycle", "pct_start": 0.6, "three_phase": True})


class TestLists:
    def test_factors_and_rates_of_any_form(self):
        values = [k / 100 for k in range(100)]
        assert rates({"kind": "list", "values": values}, base=0.5) == [0.5 * value for value in values]
        assert rates({"kind": "rates", "values": values}, base=0.5) == values
        assert rates({"kind": "rates", "values": values}, base=0.0) == values
        assert rates({"kind": "rates", "values": np.ones(100, np.float32)}) == [1.0] * 100
        assert rates({"kind": "rates", "values": torch.ones(120)}) == [1.0] * 100
        values = [1 / (k + 1) for k in range(100)]
        seen = rates({"kind": "list", "values": values, "warmup_steps": 2})
        assert seen == pytest.approx([0.1, 0.55 * values[1], *values[2:]])

    @pytest.mark.parametrize("kind", ["list", "rates"])
    def test_too_short_is_told_before_training(self, kind):
        schedule = parse_schedule({"kind": kind, "values": [1.0] * 99})
        expected = (
            rf"schedule '{kind}' has 99 values; the run has 100 optimizer steps \(10 epochs of 10\)\. "
            r"Pass at least 100 values, one per step\."
        )
        with pytest.raises(InputError, match=expected):
            schedule.check(CLOCK)
        assert schedule.rate(98, CLOCK, 1.0) == 1.0
        with pytest.raises(InputError, match=expected):
            schedule.rate(99, CLOCK, 1.0)

    def test_values_are_checked(self):
        with pytest.raises(InputError, match=r"(?s)values\.1 is -1; expected a list .*values\.2 is nan; expected"):
            parse_schedule({"kind": "list", "values": [0.1, -1, math.nan]})
        with pytest.raises(InputError, match=r"values is \(\); expected a list of numbers, 0 or more"):
            parse_schedule({"kind": "list", "values": []})


SPECS = {
    "constant": {},
    "cosine": {},
    "exponential": {"gamma": 0.9},
    "inverse": {"rate": 2.0},
    "list": {"values": [1 / (k + 1) for k in range(100)]},
    "multistep": {"milestones": [2, 4.5]},
    "one_cycle": {},
    "plateau": {},
    "polynomial": {},
    "rates": {"values": [0.1 / (k + 1) for k in range(100)]},
    "step": {"every_epochs": 3},
}
WARMUPS = {
    "no warm-up": {},
    "linear": {"warmup_epochs": 1.5},
    "constant": {"warmup_steps": 4, "warmup": "constant"},
    "over": {"warmup_epochs": 2, "warmup_over": True, "cooldown_epochs": 1.5},
    "from a rate": {"warmup_steps": 7, "warmup_start_lr": 0.01},
}
CASES = [
    pytest.param({"kind": kind, **spec, **warmup}, id=f"{kind}, {name}")
    for kind, spec in SPECS.items()
    for name, warmup in WARMUPS.items()
    if kind != "one_cycle" or name == "no warm-up"
]


class TestEveryCurve:
    def test_has_a_case(self):
        assert set(SPECS) == set(CURVES)

    @pytest.mark.parametrize("spec", CASES)
    def test_the_terms_multiply_to_the_rate(self, spec):
        schedule = parse_schedule(spec)
        for step in range(100):
            terms = schedule.terms(step, CLOCK, 0.1)
            assert all(label and isinstance(factor, float) for label, factor in terms)
            product = 0.1 * math.prod(factor for _, factor in terms)
            assert product == pytest.approx(schedule.rate(step, CLOCK, 0.1), rel=1e-12, abs=1e-18)

    @pytest.mark.parametrize("spec", CASES)
    def test_is_a_value(self, spec):
        schedule = parse_schedule(spec)
        again = parse_schedule(json.loads(json.dumps(schedule.to_dict())))
        assert isinstance(schedule, Schedule)
        assert again == schedule
        assert hash(again) == hash(schedule)
        assert again != parse_schedule({"kind": "constant", "warmup_steps": 9})
        with pytest.raises(ValueError, match=r"frozen"):
            schedule.kind = "cosine"

    @pytest.mark.parametrize("spec", CASES)
    def test_stays_after_the_end_of_the_run(self, spec):
        schedule = parse_schedule(spec)
        last = schedule.rate(99, CLOCK, 0.1)
        assert [schedule.rate(step, CLOCK, 0.1) for step in (100, 101, 5000)] == [last] * 3
        with pytest.raises(InputError, match=r"step is -1; expected 0 or more\."):
            schedule.rate(-1, CLOCK, 0.1)

    @pytest.mark.parametrize("spec", CASES)
    def test_runs_of_one_step(self, spec):
        schedule = parse_schedule(spec | ({"warmup_steps": 0} if "warmup_steps" in spec else {"warmup_epochs": 0}))
        rate = schedule.rate(0, Clock(1, 1), 0.1)
        assert 0 < rate <= 0.1

    @pytest.mark.parametrize("spec", CASES)
    def test_is_settled_only_where_nothing_changes(self, spec):
        schedule = parse_schedule(spec)
        seen = [schedule.rate(step, CLOCK, 0.1) for step in range(100)]
        settled = [schedule.is_settled(step, CLOCK) for step in range(100)]
        assert settled == sorted(settled)
        assert all(seen[step] == 0.1 for step, is_settled in enumerate(settled) if is_settled)
        if spec["kind"] == "constant":
            assert settled.count(True) == seen.count(0.1)


class TestTerms:
    @pytest.mark.parametrize(
        ("spec", "step", "expected"),
        [
            ({"kind": "cosine", "warmup_steps": 10}, 3, [("warm-up 3/10", 0.37)]),
            ({"kind": "cosine", "final_ratio": 0.0}, 33, [("cosine 33/99", 0.75)]),
            ({"kind": "step", "every_epochs": 3}, 65, [("step 0.1^2", 0.01)]),
            (
                {"kind": "multistep", "milestones": [1], "warmup_steps": 20},
                10,
                [("warm-up 10/20", 0.55), ("multistep 0.1^1", 0.1)],
            ),
            ({"kind": "exponential", "gamma": 0.9}, 25, [("exponential 0.9^2.5", 0.9**2.5)]),
            ({"kind": "list", "values": [0.5] * 100}, 7, [("list [7]", 0.5)]),
            ({"kind": "rates", "values": [0.2] * 100}, 7, [("rates [7]", 2.0)]),
            ({"kind": "constant", "warmup_steps": 5}, 5, []),
            ({"kind": "plateau"}, 5, []),
        ],
    )
    def test_labels(self, spec, step, expected):
        terms = parse_schedule(spec).terms(step, CLOCK, 0.1)
        assert [label for label, _ in terms] == [label for label, _ in expected]
        assert [factor for _, factor in terms] == pytest.approx([factor for _, factor in expected])

    def test_of_a_group_without_a_rate(self):
        assert parse_schedule("cosine").terms(50, CLOCK, 0.0) == (("cosine 50/99", 0.0),)
