"""Everything that makes a schedule, what it becomes, and what is wrong with it."""

import functools
import json
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as theirs

from zoo.errors import InputError
from zoo.rates.schedules import parse as module
from zoo.rates.schedules.parse import Clock, Schedule, list_schedules, parse_schedule, register_schedule, to_plain

CLOCK = Clock(epochs=4, steps_per_epoch=5)
COMPAT = "super-gradients"


def rates(spec, base=1.0, clock=CLOCK, **options):
    schedule = parse_schedule(spec, **options)
    schedule.check(clock)
    return [schedule.rate(step, clock, base) for step in range(clock.steps)]


def make_scheduler(*bases):
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1)], "lr": base} for base in bases], lr=0.1)
    return theirs.StepLR(optimizer, 1, gamma=0.5)


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    monkeypatch.setattr(module, "_REGISTERED", {})


class TestForms:
    def test_a_text_a_schedule_or_nothing_is_taken(self):
        assert parse_schedule("cosine") == parse_schedule({"kind": "cosine"})
        given = {"kind": "cosine", "warmup_epochs": None, "steps": None, "compat": None}
        assert parse_schedule(given, {"warmup_steps": 3}) == parse_schedule({"kind": "cosine", "warmup_steps": 3})
        schedule = parse_schedule("cosine")
        assert parse_schedule(schedule, {"warmup_steps": 3}) is schedule
        given = {"kind": "torch", "scheduler": "StepLR", "step_size": 1, "compat": None}
        before = dict(given)
        parse_schedule(given)
        assert given == before

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (3, r"schedule is 3; expected a name such as 'cosine', a mapping with 'kind', a function of the step or a"),
            ({"steps": 3}, r"schedule \{'steps': 3\} has no 'kind'\. Add it; known: constant, cosine,"),
            ("cosin", r"unknown schedule 'cosin'\. Did you mean 'cosine'\? Known: constant, cosine, exponential, func"),
            ({"kind": ["cosine"]}, r"unknown schedule \['cosine'\]\."),
            ({"kind": "cosine", "final_raito": 0.1}, r"1 error\.\n  unknown key 'final_raito'\. Did you mean 'final_r"),
            ({"kind": "exponential"}, r"gamma is missing; expected a number, above 0\."),
            ({"kind": "step"}, r"every_epochs or every_steps is missing; expected one of them\."),
            ({"kind": "step", "every_epochs": 1, "every_steps": 1}, r"every_epochs and every_steps are both set;"),
            ({"kind": "multistep"}, r"milestones or milestone_steps is missing; expected one of them\."),
            ({"kind": "multistep", "milestones": [1, "a"]}, r"milestones\.1 is 'a'; expected a list of epochs, 0 or"),
            ({"kind": "cosine", "warmup_start": 1.5}, r"warmup_start is 1\.5; expected a number, 0 to 1\."),
            ({"kind": "cosine", "warmup_steps": True}, r"warmup_steps is True; expected an integer, 0 or more, or nul"),
            ({"kind": "cosine", "final_ratio": math.nan}, r"final_ratio is nan; expected a number, 0 to 1\."),
            ({"kind": "plateau", "metric": "acc"}, r"metric is 'acc'; expected 'val_loss', 'top1', 'top5' or 'loss'\."),
            ({"kind": "inverse", "rate": 0}, r"rate is 0; expected a number, above 0\."),
            ({"kind": "inverse", "speed": 1.0}, r"unknown key 'speed'\."),
            ({"kind": "cosine", "compat": "timm"}, r"compat is 'timm'; expected 'super-gradients', or null\."),
            ({"kind": "torch"}, r"scheduler is missing; expected a name of torch\.optim\.lr_scheduler, or a scheduler"),
            ({"kind": "torch", "scheduler": "StepLR", "step_size": 1, "warmup_stpes": 1}, r"Did you mean 'warmup_step"),
            ({"kind": "torch", "scheduler": "StepLR", "step_size": 1, "per": "day"}, r"per is 'day'; expected 'step' "),
        ],
    )
    def test_says_what_is_wrong(self, value, expected):
        with pytest.raises(InputError, match=expected):
            parse_schedule(value)

    def test_says_everything_that_is_wrong(self):
        with pytest.raises(InputError) as error:
            parse_schedule({"kind": "cosine", "by": "day", "steps": "x", "warmup": 1})
        assert str(error.value).splitlines() == [
            "schedule 'cosine': 3 errors.",
            "  by is 'day'; expected 'step' or 'epoch'.",
            "  warmup is 1; expected 'linear' or 'constant'.",
            "  steps is 'x'; expected an integer, 1 or more, or null.",
        ]


class TestDefaults:
    @pytest.mark.parametrize("key", ["warmup_epochs", "warmup_steps", "warmup_start", "warmup", "cooldown_epochs"])
    def test_count_where_the_mapping_says_nothing(self, key):
        default, own = ("constant", "linear") if key == "warmup" else (1, 0)
        assert parse_schedule("cosine", {key: default}) == parse_schedule({"kind": "cosine", key: default})
        assert parse_schedule({"kind": "cosine", key: own}, {key: default}) == parse_schedule(
            {"kind": "cosine", key: own}
        )

    def test_none_and_foreign_keys_count_nothing(self):
        defaults = {"warmup_epochs": None, "warmup_start_lr": None, "epochs": 3, "steps": 5}
        assert parse_schedule("cosine", defaults) == parse_schedule("cosine")
        assert rates("cosine", defaults={"final_lr_ratio": 0.5})[-1] == 0.5
        assert rates({"kind": "cosine", "final_ratio": 0.1}, defaults={"final_lr_ratio": 0.5})[-1] == 0.1
        assert rates("polynomial", defaults={"final_lr_ratio": 0.5})[-1] == 0

    def test_one_length_or_start_replaces_the_other(self):
        seen = parse_schedule({"kind": "cosine", "warmup_steps": 3}, {"warmup_epochs": 2.0})
        assert seen == parse_schedule({"kind": "cosine", "warmup_steps": 3})
        seen = parse_schedule({"kind": "cosine", "warmup_steps": 0}, {"warmup_epochs": 2.0})
        assert rates(seen)[0] == 1
        assert parse_schedule("cosine", {"warmup_epochs": 0, "warmup_steps": 3}).rise(CLOCK) == 3
        with pytest.raises(InputError, match=r"warmup_epochs and warmup_steps are both set"):
            parse_schedule("cosine", {"warmup_epochs": 2.0, "warmup_steps": 3})
        defaults = {"warmup_steps": 4, "warmup_start": 0.1, "warmup_start_lr": 0.02}
        assert rates("constant", 0.1, defaults=defaults)[0] == pytest.approx(0.02)
        assert rates({"kind": "constant", "warmup_start": 0.5}, 0.1, defaults=defaults)[0] == pytest.approx(0.05)

    def test_a_start_rate_is_one_ratio_for_all_groups(self):
        defaults = {"warmup_steps": 4, "warmup_start_lr": 0.05, "largest_rate": 0.1}
        for base in (0.1, 0.01, 0.001):
            seen = rates("constant", base, defaults=defaults)
            assert seen[:5] == pytest.approx([base * (0.5 + 0.5 * k / 4) for k in range(5)])
        assert parse_schedule("constant", defaults).to_dict()["warmup_start"] == 0.5
        defaults = {"warmup_steps": 4, "warmup_start_lr": 0.2, "largest_rate": 0.1}
        with pytest.raises(
            InputError, match=r"'constant': warmup_start_lr is 0\.2, above the learning rate 0\.1\. Expected 0\.1"
        ):
            parse_schedule("constant", defaults)
        with pytest.raises(InputError, match=r"warmup_start_lr is '1'; expected a number, 0 or more, or null\."):
            parse_schedule({"kind": "constant", "warmup_start_lr": "1"}, {"largest_rate": 0.1})

    def test_do_not_change_what_was_read_once(self):
        defaults = {"warmup_epochs": 1, "warmup_start_lr": 0.05, "largest_rate": 0.1, "final_lr_ratio": 0.5}
        for spec in ("cosine", {"kind": "cosine", "warmup_steps": 2, "cooldown_epochs": 1}, {"kind": "one_cycle"}):
            schedule = parse_schedule(spec)
            assert parse_schedule(schedule.to_dict(), defaults | {"cooldown_epochs": 2}) == schedule


class TestFunctions:
    def test_gets_the_step_and_the_clock_if_it_asks_for_it(self):
        assert rates(lambda step: 0.5**step, 0.1) == [0.1 * 0.5**k for k in range(20)]
        assert rates({"kind": "function", "function": lambda step: 1.0, "warmup_steps": 2})[:3] == [0.1, 0.55, 1]
        expected = [1 - k / 20 for k in range(20)]
        assert rates(lambda step, clock: 1 - step / clock.steps) == expected
        assert rates(lambda step, when: 1 - step / when.steps) == expected
        assert rates(lambda step, *, power=2.0: 1 - step / 20) == expected
        assert rates(lambda step, gamma=0.5: gamma**step) == [0.5**k for k in range(20)]
        assert rates(math.exp, clock=Clock(1, 3)) == [math.exp(k) for k in range(3)]
        assert rates(int) == list(range(20))  # without a signature that could be looked at
        assert rates(lambda step: np.float32(0.5)) == [0.5] * 20
        assert rates(lambda step: Fraction(1, 2)) == [0.5] * 20
        assert rates(lambda step: 1) == [1.0] * 20

    @pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, None, "0.1", True, 1j])
    def test_other_values_are_told_before_training(self, value):
        def halve(step):
            return value if step == 7 else 0.5

        expected = r"schedule '.*halve' gives .* at step 7; expected a finite number, 0 or more\."
        with pytest.raises(InputError, match=expected):
            parse_schedule(halve).check(CLOCK)

    def test_is_asked_once_per_step(self):
        asked = []
        schedule = parse_schedule(lambda step: asked.append(step) or 1.0)
        for _ in range(3):
            assert schedule.rate(5, CLOCK, 0.1) == 0.1
        assert asked == list(range(20))
        assert schedule.is_settled(0, CLOCK)

    def test_no_file_can_hold_it(self):
        def halve(step):
            return 0.5

        values = parse_schedule(halve).to_dict()
        assert values["kind"] == "function"
        assert values["name"].endswith("halve")
        with pytest.raises(
            InputError,
            match=r"halve' is a Python function and cannot be saved to a file\. Pass it again, or register it with "
            r"@register_schedule\('",
        ):
            parse_schedule(json.loads(json.dumps(values)))

    def test_registered_it_has_a_name(self):
        @register_schedule("halving")
        def halve(step):
            return 0.5**step

        schedule = parse_schedule("halving", {"warmup_steps": 0})
        assert rates(schedule) == [0.5**k for k in range(20)]
        assert parse_schedule(json.loads(json.dumps(schedule.to_dict()))) == schedule == parse_schedule(halve)
        assert schedule.terms(2, CLOCK, 0.1) == ((f"{halve.__qualname__}(2)", 0.25),)
        assert "halving" in list_schedules()
        with pytest.raises(InputError, match=r"unknown key 'gamma'"):
            parse_schedule({"kind": "halving", "gamma": 1})
        assert list_schedules() == sorted(list_schedules())
        assert {"constant", "cosine", "function", "torch", "plateau", "one_cycle"} <= set(list_schedules())
        register_schedule("mine")(lambda step: 1.0)
        for name in ("mine", "cosine", "function"):
            with pytest.raises(InputError, match=rf"schedule '{name}' is already registered\. Choose another name\."):
                register_schedule(name)(lambda step: 1.0)
        with pytest.raises(InputError, match=r"the name is missing\. Write @register_schedule\('name'\)\."):
            register_schedule(lambda step: 1.0)


class TestTorch:
    def test_steps_per_epoch_unless_told(self):
        spec = {"kind": "torch", "scheduler": "StepLR", "step_size": 1, "gamma": 0.5}
        assert rates(spec) == [0.5 ** (k // 5) for k in range(20)]
        assert rates(spec | {"per": "step"}) == [0.5**k for k in range(20)]
        cycle = {"kind": "torch", "scheduler": "OneCycleLR", "max_lr": 0.1, "total_steps": 20}
        assert rates(cycle, 0.1) == pytest.approx(rates("one_cycle", 0.1))

    def test_begins_after_the_warmup(self):
        spec = {"kind": "torch", "scheduler": "StepLR", "step_size": 1, "gamma": 0.5, "warmup_start": 0.0}
        seen = rates(spec | {"per": "step", "warmup_steps": 2})
        assert seen == [0.0, 0.5, *(0.5**k for k in range(18))]
        assert rates(spec | {"warmup_epochs": 1})[5:] == [0.5 ** (k // 5 - 1) for k in range(5, 20)]
        assert rates(spec | {"warmup_steps": 2})[2:] == [0.5 ** (k // 5) for k in range(2, 20)]
        assert rates(spec | {"warmup_epochs": 1, "warmup_over": True})[5:] == [0.5 ** (k // 5) for k in range(5, 20)]
        assert rates(spec | {"cooldown_epochs": 2})[5:] == [0.5] * 15

    @pytest.mark.parametrize(
        "value", [theirs.LinearLR, functools.partial(theirs.LinearLR), lambda optimizer: theirs.LinearLR(optimizer)]
    )
    def test_takes_what_makes_a_scheduler(self, value):
        expected = [(1 / 3 + (2 / 3) * epoch / 5) * 0.1 for epoch in range(4)]
        assert rates(value, 0.1)[::5] == pytest.approx(expected)

    def test_takes_schedulers(self):
        schedule = parse_schedule(make_scheduler(0.1, 0.02))
        schedule.check(CLOCK)
        for base in (0.1, 0.02):
            assert schedule.rate(19, CLOCK, base) == pytest.approx(base / 8)
        with pytest.raises(InputError, match=r"StepLR was created for the learning rates 0\.1, 0\.02; none is 0\.5"):
            schedule.rate(0, CLOCK, 0.5)
        given = {"kind": "torch", "scheduler": make_scheduler(0.1), "per": "step"}
        assert parse_schedule(given).rate(3, CLOCK, 0.1) == pytest.approx(0.1 / 8)

    def test_is_a_value(self):
        spec = {"kind": "torch", "scheduler": "MultiStepLR", "milestones": [1, 2], "warmup_steps": 2}
        schedule = parse_schedule(spec)
        assert parse_schedule(json.loads(json.dumps(schedule.to_dict()))) == schedule
        schedule.rate(3, CLOCK, 0.1)
        assert schedule == parse_schedule(spec)
        assert hash(schedule) == hash(parse_schedule(spec))
        assert parse_schedule(functools.partial(theirs.MultiStepLR, milestones=[1])) == parse_schedule(
            {"kind": "torch", "scheduler": "MultiStepLR", "milestones": [1]}
        )

    def test_rates_that_are_none_are_told(self):
        schedule = parse_schedule(functools.partial(theirs.LambdaLR, lr_lambda=lambda epoch: 1.0 - epoch))
        with pytest.raises(InputError, match=r"LambdaLR gives -1\.0 at step 2; expected a finite number, 0 or more\."):
            schedule.check(CLOCK)

    def test_terms(self):
        spec = {"kind": "torch", "scheduler": "StepLR", "step_size": 1, "gamma": 0.5, "warmup_steps": 10}
        schedule = parse_schedule(spec)
        assert schedule.terms(5, CLOCK, 0.1) == (("warm-up 5/10", pytest.approx(0.55)),)
        assert schedule.terms(15, CLOCK, 0.1) == (("StepLR after 1 epoch", pytest.approx(0.5)),)
        assert parse_schedule(spec | {"per": "step"}).terms(12, CLOCK, 0.1)[0][0] == "StepLR after 2 steps"
        assert not schedule.is_settled(0, CLOCK)


class TestCompat:
    def test_by_argument_or_by_key(self):
        schedule = parse_schedule({"kind": "cosine", "warmup_epochs": 1}, compat=COMPAT)
        assert schedule == parse_schedule({"kind": "cosine", "warmup_epochs": 1, "compat": COMPAT})
        assert isinstance(schedule, Schedule)
        assert rates(schedule)[:5] == [0.5] * 5
        assert rates(schedule)[5:7] == [1.0, 1.0]
        defaults = {"warmup_epochs": 2.0, "warmup_start": 0.1, "final_lr_ratio": 0.2, "cooldown_epochs": 1.0}
        seen = parse_schedule("cosine", defaults, COMPAT)
        own = {"kind": "cosine", "warmup_epochs": 2, "final_ratio": 0.2, "cooldown_epochs": 1}
        assert seen == parse_schedule(own, compat=COMPAT)
        batches = {"warmup_epochs": 0, "warmup_steps": 3, "warmup_start_lr": 0.01, "largest_rate": 0.1}
        assert rates("constant", 0.1, defaults=batches, compat=COMPAT)[:3] == pytest.approx([0.01, 0.055, 0.1])

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("inverse", r"unknown schedule 'inverse'\..* Known: constant, cosine, exponential, function, polynomial, "),
            ({"kind": "cosine", "warmup_epochs": 0.5}, r"warmup_epochs is 0\.5; expected an integer, 0 or more\."),
            ({"kind": "cosine", "warmup_start": 0.5}, r"unknown key 'warmup_start'\. Did you mean 'warmup_start_lr'"),
            (
                {"kind": "cosine", "warmup_steps": 3},
                r"warmup_start_lr is missing: a warm-up by batch has no default st",
            ),
            ({"kind": "polynomial", "power": 2.0}, r"power is 2\.0; expected a number, 0\.9 to 0\.9\."),
            ({"kind": "step", "gamma": 0.1}, r"milestones and every_epochs\."),
            ({"kind": "step", "gamma": 0.1, "milestones": []}, r"milestones and every_epochs"),
            ({"kind": "step", "gamma": 0.1, "milestones": [1], "every_epochs": 1}, r"milestones and every_epochs\."),
            ({"kind": "torch", "scheduler": "StepLR", "step_size": 1}, r"phase is missing; expected 'TRAIN_EPOCH_STA"),
            ({"kind": "torch", "scheduler": "StepLR", "phase": "X", "step_size": 1}, r"phase is 'X'; expected 'TRAIN"),
        ],
    )
    def test_says_what_is_wrong(self, value, expected):
        with pytest.raises(InputError, match=expected):
            parse_schedule(value, compat=COMPAT)

    @pytest.mark.parametrize(
        "spec",
        [
            {"kind": "constant"},
            {"kind": "cosine", "warmup_steps": 3, "warmup_start_lr": 0.01},
            {"kind": "exponential", "gamma": 0.9},
            {"kind": "polynomial", "cooldown_epochs": 1},
            {"kind": "step", "gamma": 0.5, "milestones": [1, 2], "warmup_epochs": 1},
            {"kind": "step", "gamma": 0.5, "every_epochs": 1.5},
            {"kind": "torch", "scheduler": "StepLR", "step_size": 1, "phase": "TRAIN_EPOCH_END"},
        ],
    )
    def test_is_a_value(self, spec):
        schedule = parse_schedule(spec, compat=COMPAT)
        again = parse_schedule(json.loads(json.dumps(schedule.to_dict())))
        seen = rates(again, 0.1)
        assert seen == rates(schedule, 0.1)
        assert again == schedule
        assert hash(again) == hash(schedule)
        for step in range(20):
            ((label, factor),) = schedule.terms(step, CLOCK, 0.1)
            assert label.startswith("super-gradients ")
            assert 0.1 * factor == pytest.approx(seen[step], rel=1e-12)
        assert schedule.rate(500, CLOCK, 0.1) == seen[-1]
        with pytest.raises(InputError, match=r"step is -1; expected 0 or more\."):
            schedule.rate(-1, CLOCK, 0.1)

    def test_functions_have_its_arguments(self):
        def fall(initial_lr, epoch, iter, max_epoch, iters_per_epoch):
            return initial_lr * (1 - (epoch * iters_per_epoch + iter) / (max_epoch * iters_per_epoch))

        seen = rates(fall, 0.1, compat=COMPAT)
        assert seen == pytest.approx([0.1, *(0.1 * (1 - k / 20) for k in range(19))])
        with pytest.raises(InputError, match="fall' is a Python function and cannot be saved to a"):
            parse_schedule(parse_schedule(fall, compat=COMPAT).to_dict())
        register_schedule("falling")(fall)
        named = parse_schedule("falling", compat=COMPAT)
        assert rates(named, 0.1) == seen
        assert parse_schedule(json.loads(json.dumps(named.to_dict()))) == named
        with pytest.raises(InputError, match=r"schedule 'function' of super-gradients gives -1 at step 1; expected a"):
            parse_schedule(lambda **_: -1, compat=COMPAT).check(CLOCK)

    def test_the_formula_is_taken_at_the_batches_of_the_steps(self):
        even = Clock(2, 2, accumulate=2, batches_per_epoch=4)
        assert len(set(rates("polynomial", clock=even, compat=COMPAT))) == 4
        uneven = Clock(2, 3, accumulate=2, batches_per_epoch=5)
        seen = rates("polynomial", 0.1, clock=uneven, compat=COMPAT)
        before = [1, 3, 4, 6, 8]  # batches of the run, from 0, at which the steps before were taken
        assert seen == pytest.approx([0.1, *(0.1 * (1 - batch / 10) ** 0.9 for batch in before)])
        short = Clock(1, 1, accumulate=4, batches_per_epoch=1)
        assert rates({"kind": "cosine", "final_ratio": 0.5}, 0.1, clock=short, compat=COMPAT) == [0.1]

    def test_what_a_function_gives_can_be_kept(self):
        def half(initial_lr, epoch, iter, max_epoch, iters_per_epoch):
            return 0.02 + initial_lr / 2 ** (1 + epoch)

        plain = to_plain(half, CLOCK, compat=COMPAT, defaults={"warmup_epochs": 1}, bases=[0.01, 0.1])
        assert plain["kind"] == "recorded"
        again = parse_schedule(json.loads(json.dumps(plain)), {"warmup_epochs": 1}, COMPAT)
        schedule = parse_schedule(half, {"warmup_epochs": 1}, COMPAT)
        for base in (0.01, 0.1):
            assert rates(again, base) == rates(schedule, base)
            assert again.fixed(CLOCK, [base]) == schedule.fixed(CLOCK, [base])
        assert not again.is_settled(0, CLOCK)
        with pytest.raises(InputError, match=r"rate 0\.01 and 0\.1; this run has 0\.2\. Pass the"):
            again.rate(0, CLOCK, 0.2)
        with pytest.raises(InputError, match="recorded for 20 optimizer steps; this run has 30"):
            again.check(Clock(epochs=6, steps_per_epoch=5))

    def test_is_settled_after_the_warmup_of_a_constant(self):
        schedule = parse_schedule({"kind": "constant", "warmup_epochs": 2}, compat=COMPAT)
        assert [schedule.is_settled(step, CLOCK) for step in range(20)] == [False] * 10 + [True] * 10
        assert not parse_schedule("cosine", compat=COMPAT).is_settled(19, CLOCK)
        spec = {"kind": "torch", "scheduler": "StepLR", "step_size": 99, "phase": "TRAIN_EPOCH_END"}
        assert not parse_schedule(spec, compat=COMPAT).is_settled(0, CLOCK)

    def test_schedulers_of_the_caller(self):
        given = {"kind": "torch", "scheduler": make_scheduler(0.1), "phase": "TRAIN_EPOCH_END"}
        assert rates(given, 0.1, compat=COMPAT)[::5] == pytest.approx([0.1, 0.05, 0.025, 0.0125])
        with pytest.raises(InputError, match=r"phase is missing"):
            parse_schedule(make_scheduler(0.1), compat=COMPAT)
