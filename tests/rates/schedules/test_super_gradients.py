"""The sequences of super-gradients: worked values, recorded runs, and the reference's faults."""

import math

import pytest
import torch

from zoo.errors import InputError
from zoo.rates.schedules.parse import Clock, parse_schedule
from zoo.rates.schedules.super_gradients import REFERENCES, Run, read_rates

pytestmark = pytest.mark.numbers


def read(base, run, **values):
    """Rates of a run, by epochs if every epoch has as many steps."""
    return [reading.rate for reading in read_rates(REFERENCES[values["kind"]](**values), run, base)]


class TestWorkedValues:
    """L = 4 batches per epoch, rate 0.1; six digits were noted."""

    def test_cosine_alone_and_after_a_warmup(self):
        expected = [0.1, 0.1, 0.099157, 0.096657, 0.092586, 0.087081, 0.080330, 0.072564]
        expected += [0.064046, 0.055067, 0.045933, 0.036954, 0.028436, 0.020670, 0.013919, 0.008414]
        assert read(0.1, Run(4, 4), kind="cosine") == pytest.approx(expected, abs=5e-7)
        expected = (
            [0.033333] * 4 + [0.066667] * 4 + [0.1, 0.1, 0.097015, 0.088419, 0.07525, 0.059096, 0.041904, 0.02575]
        )
        assert read(0.1, Run(4, 4), kind="cosine", warmup_epochs=2) == pytest.approx(expected, abs=5e-7)
        expected = [0.001, 0.0505, 0.1, 0.1, 0.1, 0.097577, 0.090546, 0.079595, 0.065796, 0.0505, 0.035204, 0.021405]
        seen = read(0.1, Run(3, 4), kind="cosine", warmup_steps=3, warmup_start_lr=1e-3)
        assert seen == pytest.approx(expected, abs=5e-7)


class TestFaults:
    """What the reference does wrong is kept."""

    def test_the_cosine_rises_in_the_cooldown(self):
        seen = read(0.1, Run(4, 4), kind="cosine", warmup_steps=2, warmup_start_lr=1e-3, cooldown_epochs=2)
        assert seen[-4] == pytest.approx(0.020, abs=5e-4)
        assert seen[-1] == pytest.approx(0.081, abs=5e-4)
        assert seen[-4:] == sorted(seen[-4:])
        seen = read(0.1, Run(4, 4), kind="cosine", cooldown_epochs=2)
        assert seen[8:] == [seen[8]] * 8
        assert seen[8] == pytest.approx(0.1 * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * 7 / 9))))
        with pytest.raises(InputError, match=r"the cosine schedule after the warm-up\."):
            read(0.1, Run(1, 4), kind="cosine", warmup_epochs=0, warmup_steps=1, warmup_start_lr=0.1, cooldown_epochs=1)

    def test_the_warmup_by_batch_ends_with_the_epoch_but_the_cosine_waits(self):
        seen = read(0.1, Run(5, 4), kind="cosine", warmup_steps=10, warmup_start_lr=0.01)
        assert seen[:4] == pytest.approx([0.01, 0.04, 0.07, 0.1])
        assert seen[4:12] == pytest.approx([0.1] * 8)
        assert seen[12] < 0.1
        seen = read(0.1, Run(4, 4), kind="cosine", warmup_epochs=2, warmup_steps=1)
        assert seen[:2] == pytest.approx([0.1 / 3, 0.1 / 3])
        assert seen[2:4] == pytest.approx([0.1, 0.1])  # the cosine, in the middle of the warm-up
        assert seen[4:6] == pytest.approx([0.2 / 3, 0.1])
        late = read(0.1, Run(4, 4), kind="cosine", warmup_epochs=1, warmup_steps=9)
        assert late[4:10] == pytest.approx([0.1] * 6)


class TestKinds:
    def test_polynomial_exponential_steps_and_constant(self):
        seen = read(0.1, Run(4, 4), kind="polynomial", warmup_epochs=1, cooldown_epochs=1)
        assert seen[:5] == [0.05, 0.05, 0.05, 0.05, 0.1]
        assert seen[5:13] == pytest.approx([0.1 * (1 - i / 8) ** 0.9 for i in range(8)])
        assert seen[13:] == [seen[12]] * 3
        seen = read(0.1, Run(2, 4), kind="exponential", gamma=0.5)
        assert seen == pytest.approx([0.1, *(0.1 * 0.5 ** (i / 4) for i in range(7))])
        seen = read(0.1, Run(5, 2), kind="step", gamma=0.5, milestones=[1, 3])
        assert seen[::2] == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025])
        seen = read(0.1, Run(7, 1), kind="step", gamma=0.5, every_epochs=1.5, cooldown_epochs=2)
        assert seen == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.025, 0.025, 0.025])
        assert read(0.1, Run(3, 1), kind="constant", warmup_epochs=1) == [0.05, 0.1, 0.1]

    def test_a_function_gets_five_arguments(self):
        seen = []

        def schedule(initial_lr, epoch, iter, max_epoch, iters_per_epoch):
            seen.append((initial_lr, epoch, iter, max_epoch, iters_per_epoch))
            return initial_lr / len(seen)

        rates = read(0.1, Run(4, 2), kind="function", function=schedule, warmup_epochs=1, cooldown_epochs=1)
        assert seen == [(0.1, 0, 0, 2, 2), (0.1, 0, 1, 2, 2), (0.1, 1, 0, 2, 2), (0.1, 1, 1, 2, 2)]
        assert rates == pytest.approx([0.05, 0.05, 0.1, 0.1, 0.05, 0.1 / 3, 0.025, 0.025])

    @pytest.mark.parametrize("phase", ["TRAIN_EPOCH_START", "TRAIN_BATCH_END", "TRAIN_BATCH_STEP", "TRAIN_EPOCH_END"])
    def test_torch_compounds_with_the_warmup(self, phase):
        spec = {"kind": "torch", "scheduler": "ExponentialLR", "gamma": 0.5, "phase": phase, "warmup_epochs": 1}
        schedule = parse_schedule(spec, compat="super-gradients")
        seen = [schedule.rate(step, Clock(3, 2), 0.1) for step in range(6)]
        expected = {
            "TRAIN_EPOCH_START": [0.05, 0.05, 0.05, 0.05, 0.025, 0.025],
            "TRAIN_BATCH_END": [0.05, 0.05, 0.05, 0.025, 0.0125, 0.00625],
            "TRAIN_BATCH_STEP": [0.05, 0.05, 0.1, 0.05, 0.025, 0.0125],
            "TRAIN_EPOCH_END": [0.05, 0.05, 0.1, 0.1, 0.05, 0.05],
        }
        assert seen == pytest.approx(expected[phase])

    def test_torch_at_validation_or_when_it_is_made(self):
        spec = {"kind": "torch", "scheduler": "StepLR", "step_size": 1, "phase": "VALIDATION_EPOCH_END"}
        schedule = parse_schedule(spec, compat="super-gradients")
        assert [schedule.rate(step, Clock(2, 2), 0.1) for step in range(4)] == pytest.approx([0.1, 0.1, 0.01, 0.01])
        scheduler = torch.optim.lr_scheduler.LinearLR(
            torch.optim.SGD([torch.zeros(1)], lr=0.1), start_factor=0.5, total_iters=2
        )
        spec = {"kind": "torch", "scheduler": scheduler, "phase": "TRAIN_BATCH_STEP"}
        schedule = parse_schedule(spec, compat="super-gradients")
        schedule.check(Clock(1, 4))
        assert [schedule.rate(step, Clock(1, 4), 0.1) for step in range(4)] == pytest.approx([0.05, 0.075, 0.1, 0.1])


class TestAccumulation:
    def test_schedules_run_on_real_steps_and_the_warmup_on_batches(self):
        seen = read(0.1, Run(2, 4, accumulate=2), kind="polynomial")
        assert seen == pytest.approx([0.1, *(0.1 * (1 - i / 8) ** 0.9 for i in (1, 3, 5))])
        run = Run(2, 3, accumulate=2)
        seen = read(0.1, run, kind="exponential", gamma=0.5)
        assert run.steps == len(seen) == 3
        assert seen == pytest.approx([0.1, 0.1 * 0.5 ** (1 / 3), 0.1 * 0.5])  # after batches 1, 3 and 5
        seen = read(0.1, Run(2, 4, accumulate=2), kind="constant", warmup_steps=4, warmup_start_lr=0.01)
        assert seen == pytest.approx([0.04, 0.1, 0.1, 0.1])


class TestWarmupModes:
    def test_chosen_by_what_is_set(self):
        def mode(**values):
            return REFERENCES["cosine"](kind="cosine", warmup_start_lr=0.01, **values).warmup

        assert mode() == "epoch"
        assert mode(warmup_steps=3) == "batch"
        assert mode(warmup_steps=3, warmup_epochs=1) == "epoch"
        assert mode(warmup_steps=3, warmup_epochs=1, warmup="batch") == "batch"

    def test_of_one_batch_downwards_or_longer_than_the_run(self):
        seen = read(0.1, Run(1, 4), kind="constant", warmup_steps=1, warmup_start_lr=0.01)
        assert seen == [0.01, 0.01, 0.01, 0.01]
        seen = read(0.01, Run(3, 1), kind="constant", warmup_epochs=1, warmup_start_lr=0.05)
        assert seen == pytest.approx([0.05, 0.01, 0.01])
        assert read(0.1, Run(2, 1), kind="cosine", warmup_epochs=4) == pytest.approx([0.02, 0.04])


class TestReadings:
    def test_say_what_set_the_rate(self):
        readings = read_rates(
            REFERENCES["step"](kind="step", gamma=0.5, milestones=[1], warmup_epochs=1), Run(3, 1), 1.0
        )
        assert [reading.source for reading in readings] == ["warm-up", "warm-up", "step"]
        readings = read_rates(REFERENCES["cosine"](kind="cosine"), Run(1, 2), 1.0)
        assert [reading.source for reading in readings] == ["base rate", "cosine"]
