import pytest
from torch import nn

import zoo
from zoo.errors import InputError
from zoo.optim.live_rates import LiveRates
from zoo.rates.schedules.parse import Clock

CONSTANT = {"schedule": "constant", "warmup_epochs": 0}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def get_finetune_lr_dict(self, lr):
        return {"head": lr, "default": 0}


def make(rates, **options):
    plan = zoo.plan(Net(), rates, epochs=2, steps_per_epoch=5, **options)
    return LiveRates(plan)


def test_without_news_the_rates_are_the_plans_and_are_kept():
    live = make({"head": 0.1, "default": 0.01})
    taken = [live.take(step) for step in range(10)]
    assert taken == [live.plan.rates(step) for step in range(10)]
    assert live.history["head"] == [rates["head"] for rates in taken]
    assert set(live.history) == {group.name for group in live.plan.trained}
    live = make({"head": 0.1, "default": 0.01}, schedule="constant", warmup_steps=3)
    with pytest.raises(InputError, match=r"'head' follows a schedule from here on"):
        live.assign("head", 0.02, 2)
    live.assign("head", 0.02, 3)
    assert live.take(3)["head"] == 0.02


def test_a_rate_that_is_set_holds_from_that_step_on_for_both_halves():
    live = make({"head": 0.1, "default": 0.01}, **CONSTANT)
    assert live.take(0)["head"] == 0.1
    live.assign("head", 0.02, 1)
    rates = live.take(1)
    assert rates["head"] == rates["head (no decay)"] == 0.02
    assert rates["default"] == 0.01
    assert live.changes == [{"step": 1, "group": "head", "lr": 0.02}]
    live.assign("head (no decay)", 0.5, 2)
    rates = live.take(2)
    assert (rates["head"], rates["head (no decay)"]) == (0.02, 0.5)
    live.assign("default", 0, 3)
    assert live.take(3)["default"] == 0


@pytest.mark.parametrize(
    ("rates", "group", "lr", "text"),
    [
        ({"head": 0.1, "default": 0}, "hed", 0.1, r"no group 'hed'\. Did you mean 'head'\? It has head\."),
        ({"head": 0.1, "default": 0}, "default", 0.1, r"'default' is frozen and not in the optimizer"),
        ({"head": 0.1, "default": 0}, "head", -1, r"the learning rate of 'head' is -1\. Expected a finite number"),
        ({"head": 0.1, "default": 0}, "head", float("nan"), r"is nan"),
        ({"head": {"schedule": "cosine", "lr": 0.1}, "default": 0}, "head", 0.1, r"follows a schedule"),
        (
            {"head": {"decay_every": {"steps": 2, "factor": 0.5}, "lr": 1}, "default": 0},
            "head",
            0.1,
            r"follows a sched",
        ),
        ({"head": {"unfreeze_at": 1, "lr": 1}, "default": 0.1}, "head", 0.1, r"is frozen until epoch 1"),
    ],
)
def test_what_cannot_be_set_is_told(rates, group, lr, text):
    with pytest.raises(InputError, match=text):
        make(rates, **CONSTANT).assign(group, lr, 0)


def test_a_plateau_takes_its_factor_off_when_the_metric_stays():
    plateau = {"kind": "plateau", "factor": 0.5, "patience": 0, "metric": "val_loss", "warmup_steps": 0}
    live = make(
        {"head": {"lr": 0.1, "schedule": plateau}, "default": {"lr": 0.01, "schedule": "constant"}}, warmup_steps=0
    )
    assert live.take(0)["head"] == 0.1
    live.update({"val_loss": 1.0, "loss": 1.0})
    assert live.take(1)["head"] == 0.1
    live.update({"val_loss": 1.5, "loss": 0.5})
    rates = live.take(2)
    assert rates["head"] == rates["head (no decay)"] == 0.05
    assert rates["default"] == 0.01
    other = make(
        {"head": {"lr": 0.1, "schedule": plateau}, "default": {"lr": 0.01, "schedule": "constant"}}, warmup_steps=0
    )
    other.load_state_dict(live.state_dict())
    assert other.take(3)["head"] == 0.05


def test_the_state_goes_on():
    live = make({"head": 0.1, "default": 0.01}, **CONSTANT)
    live.take(0)
    live.assign("head", 0.02, 1)
    live.take(1)
    other = LiveRates(live.plan.at(Clock(2, 5)))
    other.load_state_dict(live.state_dict())
    assert other.take(2)["head"] == 0.02
    assert other.history["head"] == [0.1, 0.02, 0.02]
    assert other.changes == live.changes
