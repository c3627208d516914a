import copy

import pytest
import torch

from tiny_state import CLOCK, make_network, make_optimizer, make_state, mutate
from zoo.errors import InputError
from zoo.optim.build import load_optimizer_state
from zoo.training.state_checks import (
    check_clock,
    check_form,
    check_optimizer,
    check_tensors,
    is_of_optimizer,
    telling_misfits,
)


def check(state):
    network = make_network()
    check_form(state)
    check_tensors(state, network)
    check_clock(state, CLOCK, ["default"])
    optimizer = make_optimizer(network)
    with telling_misfits():
        load_optimizer_state(optimizer, state["optimizer"])
        check_optimizer(optimizer)
    network(torch.randn(5, 3)).sum().backward()
    with telling_misfits(is_of_optimizer):
        optimizer.step()


def test_every_state_passes_or_is_one_sentence():
    check(make_state())
    passed = []
    for name, changed in mutate(make_state()):
        try:
            check(changed)
        except InputError:
            continue
        passed.append(name)
    free = (
        *(
            "run",
            "version",
            "plan",
            "optimizer_class",
            "best",
            "scaler",
            "micro_batch_size",
            "ema = None",
            "proof.digests",
        ),
        *("clock.epochs = 3", "position.images", "position.loss_sum", "position.seconds", "position.waiting"),
        *("records.0", "proof.moments", "rates.assigned", "rates.changes = []", "rates.plateaus = {}"),
        *("rates.history.default.", "optimizer.state", "optimizer.param_groups.0"),
    )
    assert [name for name in passed if not name.startswith(free)] == []
    assert len(passed) < 300


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"position": {"epoch": 10**9}}, r"epoch 1000000000, batch 0 is out of range\. Resume it"),
        ({"position": {"batch": 2}}, "epoch 1, batch 2 is out of range"),
        ({"position": {"step": 3}}, "it has 3 steps and rates of {'default': 2}; expected 2 for each of"),
        ({"position": {"step": 2.5}}, r"position\.step: Input should be a valid integer"),
        ({"position": {"epoch": True}}, r"position\.epoch: Input should be a valid integer"),
        ({"clock": {"batches": 3}}, r"batches was 3 and is now 2\. Use the same data or loaders"),
        ({"clock": {"processes": 4}}, "processes was 4 and is now 1"),
        ({"model": {"0.weight": torch.ones(4, 4)}}, r"0\.weight is float32 \[4, 4\]; the network has float32 \[4, 3\]"),
        ({"model": {"0.weight": torch.ones(4, 3).half()}}, r"0\.weight is float16"),
        ({"model": {"extra": torch.ones(1)}}, "model belongs to a different network: extra is not in the network"),
        ({"ema": {"2.bias": torch.tensor([0.0, float("nan")])}}, r"ema: 2\.bias has NaN or infinite values\. Resume"),
        ({"records": []}, "it has records of 0 epochs; expected 1"),
    ],
)
def test_what_is_not_of_this_run_is_told(change, text):
    state = make_state()
    for key, value in change.items():
        state[key] = {**state[key], **value} if isinstance(value, dict) else value
    with pytest.raises(InputError, match=text):
        check(state)


@pytest.mark.parametrize(("value", "text"), [(torch.ones(3), "has the shape"), (float("nan"), "NaN or infinite")])
def test_moments_that_are_not_of_their_parameter(value, text):
    state = make_state()
    slots = state["optimizer"]["state"]
    slots[0] = copy.deepcopy(slots[0])
    slots[0]["exp_avg"] = value if isinstance(value, torch.Tensor) else torch.full((4, 3), value)
    with pytest.raises(InputError, match=text):
        check(state)
