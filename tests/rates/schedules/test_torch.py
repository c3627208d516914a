"""Schedulers of torch stepped beside a dummy optimizer, against the same schedulers stepped in a training loop."""

import copy
import functools
import json
import math

import pytest
import torch
from torch.optim import lr_scheduler as theirs

from zoo.errors import InputError
from zoo.rates.schedules.parse import parse_schedule
from zoo.rates.schedules.torch import Plateau, find_scheduler, is_scheduler, makes_scheduler, read_scheduler

COUNT = 12
ARGUMENTS = {
    "ConstantLR": {"factor": 0.5, "total_iters": 3},
    "CosineAnnealingLR": {"T_max": 8, "eta_min": 0.001},
    "CosineAnnealingWarmRestarts": {"T_0": 3, "T_mult": 2},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3},
    "ExponentialLR": {"gamma": 0.9},
    "LinearLR": {"start_factor": 0.25, "total_iters": 5},
    "MultiStepLR": {"milestones": [2, 7], "gamma": 0.5},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": COUNT},
    "PolynomialLR": {"total_iters": 9, "power": 2.0},
    "StepLR": {"step_size": 4},
}
MAKERS = {
    "LambdaLR": functools.partial(theirs.LambdaLR, lr_lambda=lambda epoch: 1 / (1 + epoch)),
    "MultiplicativeLR": functools.partial(theirs.MultiplicativeLR, lr_lambda=lambda epoch: 0.9),
    "SequentialLR": lambda optimizer: theirs.SequentialLR(
        optimizer, [theirs.LinearLR(optimizer, total_iters=3), theirs.CosineAnnealingLR(optimizer, 7)], [3]
    ),
    "ChainedScheduler": lambda optimizer: theirs.ChainedScheduler(
        [theirs.LinearLR(optimizer, total_iters=3), theirs.ExponentialLR(optimizer, 0.9)], optimizer=optimizer
    ),
}


def make_optimizer(*rates):
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=rates[0], momentum=0.9)


def loop_rates(make, *bases):
    """Rates of every group in a training loop that steps the optimizer, then the scheduler."""
    optimizer = make_optimizer(*bases)
    scheduler = make(optimizer)
    seen = []
    for step in range(COUNT):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        if step + 1 < COUNT:
            scheduler.step()
    return [list(rates) for rates in zip(*seen, strict=True)]


def test_the_cases_are_all_of_torchs_schedulers():
    known = {
        name
        for name, kind in vars(theirs).items()
        if isinstance(kind, type) and issubclass(kind, theirs.LRScheduler) and not name.startswith("_")
    }
    assert known - {"LRScheduler", "ReduceLROnPlateau"} == set(ARGUMENTS) | set(MAKERS)


class TestRates:
    @pytest.mark.parametrize("name", ARGUMENTS)
    @pytest.mark.parametrize("base", [0.1, 0.003])
    def test_by_name(self, name, base):
        (expected,) = loop_rates(functools.partial(getattr(theirs, name), **ARGUMENTS[name]), base)
        assert read_scheduler(name, ARGUMENTS[name]).rates(base, COUNT) == expected

    @pytest.mark.parametrize("name", MAKERS)
    def test_by_what_makes_it(self, name):
        (expected,) = loop_rates(MAKERS[name], 0.1)
        maker = MAKERS[name]
        if not isinstance(maker, functools.partial):
            assert makes_scheduler(maker)  # the name of its argument says so
        assert read_scheduler(maker, {}).rates(0.1, COUNT) == expected

    @pytest.mark.parametrize("name", [*ARGUMENTS, *MAKERS])
    def test_of_an_object_that_stays_as_it_is(self, name):
        make = MAKERS.get(name) or functools.partial(getattr(theirs, name), **ARGUMENTS[name])
        optimizer = make_optimizer(0.1)
        scheduler = make(optimizer)
        before = copy.deepcopy((scheduler.state_dict(), optimizer.param_groups[0]["lr"]))
        rates = read_scheduler(scheduler, {}).rates(0.1, COUNT)
        assert [rates] == loop_rates(make, 0.1)
        assert (scheduler.state_dict(), optimizer.param_groups[0]["lr"]) == before

    def test_of_the_groups_of_an_object_also_in_mid_run(self):
        make = functools.partial(theirs.LambdaLR, lr_lambda=[lambda epoch: 0.5**epoch, lambda epoch: 0.9**epoch])
        scheduler = read_scheduler(make(make_optimizer(0.1, 0.02)), {})
        assert [scheduler.rates(0.1, COUNT), scheduler.rates(0.02, COUNT)] == loop_rates(make, 0.1, 0.02)
        optimizer = make_optimizer(0.1)
        scheduler = theirs.StepLR(optimizer, 2)
        optimizer.step()
        scheduler.step()
        assert read_scheduler(scheduler, {}).rates(0.1, 3) == pytest.approx([0.1, 0.01, 0.01])

    def test_an_object_of_other_rates_is_refused(self):
        scheduler = read_scheduler(theirs.StepLR(make_optimizer(0.1, 0.02), 2), {})
        expected = (
            r"StepLR was created for the learning rates 0\.1, 0\.02; none is 0\.5, the learning rate of the "
            r"group\. Create it for the learning rates of the plan, or pass functools\.partial"
        )
        with pytest.raises(InputError, match=expected):
            scheduler.rates(0.5, 3)

    def test_two_groups_of_one_rate_must_agree(self):
        make = functools.partial(theirs.LambdaLR, lr_lambda=[lambda epoch: 0.5**epoch, lambda epoch: 0.9**epoch])
        scheduler = read_scheduler(make(make_optimizer(0.1, 0.1)), {})
        assert scheduler.rates(0.1, 1) == [0.1]
        with pytest.raises(
            InputError, match=r"LambdaLR: two of its groups have the same base rate but different learning rates"
        ):
            scheduler.rates(0.1, 2)

    def test_more_steps_than_it_has(self):
        scheduler = read_scheduler("OneCycleLR", {"max_lr": 0.1, "total_steps": 5})
        assert len(scheduler.rates(0.1, 5)) == 5
        with pytest.raises(InputError, match=r"OneCycleLR failed in step\(\): Tried to step 6 times"):
            scheduler.rates(0.1, 7)


class TestReading:
    @pytest.mark.parametrize(
        ("scheduler", "arguments", "expected"),
        [
            ("StepRL", {}, r"unknown torch scheduler 'StepRL'\. Did you mean 'StepLR'\? Known: ChainedScheduler, Cons"),
            ("os.system", {}, r"unknown torch scheduler 'os\.system'\."),
            ("LRScheduler", {}, r"unknown torch scheduler 'LRScheduler'\."),
            ("ReduceLROnPlateau", {}, r"ReduceLROnPlateau needs a metric\. Use \{'kind': 'plateau'"),
            (theirs.ReduceLROnPlateau, {}, r"ReduceLROnPlateau needs a metric\."),
            ("StepLR", {"stepsize": 3}, r"StepLR has no argument 'stepsize'\. Did you mean 'step_size'\?"),
            ("StepLR", {"step_size": 3, "optimizer": 1}, r"StepLR has no argument 'optimizer'\."),
            (
                "StepLR",
                {},
                r"StepLR cannot be created: StepLR\.__init__\(\) missing 1 required positional argument: 'step_size",
            ),
            (
                "LambdaLR",
                {"lr_lambda": abs},
                r"lr_lambda of LambdaLR is a function and cannot be saved to a file\. Pass "
                r"functools\.partial\(LambdaLR",
            ),
            (
                theirs.StepLR,
                {"step_size": 3},
                r"step_size would have no effect: the scheduler already exists\. Remove them",
            ),
            (3, {}, r"scheduler is 3; expected a name of torch\.optim\.lr_scheduler, or a scheduler\."),
            (lambda optimizer: 3, {}, r"<lambda> returns a int; expected a torch scheduler\."),
            ("StepLR (an object)", {}, r"'StepLR \(an object\)' is a Python object and cannot be saved to a file\."),
        ],
    )
    def test_says_what_is_wrong(self, scheduler, arguments, expected):
        with pytest.raises(InputError, match=expected):
            read_scheduler(scheduler, arguments)

    def test_plain_makers_become_names(self):
        maker = functools.partial(theirs.StepLR, step_size=3, gamma=0.5)
        assert read_scheduler(maker, {}).to_dict() == {"scheduler": "StepLR", "step_size": 3, "gamma": 0.5}
        assert read_scheduler(MAKERS["LambdaLR"], {}).to_dict() == {"scheduler": "LambdaLR (an object)"}
        made = theirs.StepLR(make_optimizer(0.1), 3)
        assert read_scheduler(made, {}).to_dict() == {"scheduler": "StepLR (an object)"}
        assert read_scheduler("StepLR", ARGUMENTS["StepLR"]).usual_pace == "epoch"
        assert read_scheduler("CyclicLR", ARGUMENTS["CyclicLR"]).usual_pace == "step"
        assert read_scheduler("OneCycleLR", ARGUMENTS["OneCycleLR"]).usual_pace == "step"
        with pytest.raises(InputError, match=r"ReduceLROnPlateau needs a metric\."):
            read_scheduler(theirs.ReduceLROnPlateau(make_optimizer(0.1)), {})

    def test_tells_schedulers_from_functions(self):
        assert is_scheduler(theirs.StepLR(make_optimizer(0.1), 3))
        assert not is_scheduler(theirs.StepLR)
        assert makes_scheduler(theirs.StepLR)
        assert makes_scheduler(functools.partial(theirs.StepLR, step_size=3))
        assert not makes_scheduler(lambda step: 1.0)
        assert not makes_scheduler(math.sqrt)
        assert find_scheduler("StepLR") is theirs.StepLR


class TestPlateau:
    def make(self, **values):
        return Plateau(parse_schedule({"kind": "plateau", **values}))

    def test_is_torchs(self):
        losses = [1.0, 0.9, 0.95, 0.9, 0.91, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, math.nan, 0.6]
        settings = {"factor": 0.5, "patience": 1, "threshold": 0.01, "cooldown": 2}
        optimizer = make_optimizer(0.2)
        scheduler = theirs.ReduceLROnPlateau(optimizer, min_lr=0.03, **settings)
        plateau = self.make(min_ratio=0.15, **settings)
        assert plateau.multiplier == 1
        seen = []
        for loss in losses:
            optimizer.step()
            scheduler.step(loss)
            plateau.update({"val_loss": loss, "top1": 0.5})
            seen.append(plateau.multiplier)
            assert 0.2 * seen[-1] == pytest.approx(optimizer.param_groups[0]["lr"])
        assert seen[0] == 1
        assert seen[-1] == 0.15

    @pytest.mark.parametrize(("metric", "expected"), [("loss", 1.0), ("val_loss", 1.0), ("top1", 0.1), ("top5", 0.1)])
    def test_knows_which_way_is_up(self, metric, expected):
        plateau = self.make(metric=metric, patience=0)
        for value in (
            0.9,
            0.8,
        ):
            plateau.update({metric: value})
        assert plateau.multiplier == expected

    def test_goes_on_from_its_state(self):
        plateau, again = self.make(patience=1), self.make(patience=1)
        state = json.loads(json.dumps(plateau.state_dict(), allow_nan=False))
        assert state["best"] is None
        plateau.load_state_dict(state)
        for loss in (1.0, 2.0, 2.0, 2.0):
            plateau.update({"val_loss": loss})
        assert plateau.multiplier == pytest.approx(0.1)
        again.load_state_dict(json.loads(json.dumps(plateau.state_dict())))
        assert again.state_dict() == plateau.state_dict()
        for one in (plateau, again):
            one.update({"val_loss": 2.0})
        assert again.multiplier == plateau.multiplier == pytest.approx(0.01)

    def test_refuses_what_it_cannot_follow(self):
        with pytest.raises(InputError, match=r"schedule 'cosine' follows no metric; expected kind 'plateau'\."):
            Plateau(parse_schedule("cosine"))
        with pytest.raises(InputError, match=r"follows 'val_loss', which was not measured\. Measured: loss, top1\."):
            self.make().update({"loss": 1.0, "top1": 0.5})
        with pytest.raises(InputError, match=r"state of schedule 'plateau' has no best, cooldown_counter, last_epoch"):
            self.make().load_state_dict({"multiplier": 1.0, "num_bad_epochs": 0})
