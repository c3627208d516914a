import math

import numpy as np
import pytest
import torch
from torch import nn

from zoo.optim.catalog import find_optimizer, list_optimizers, shipped_kinds
from zoo.optim.optimizers.mindspore import AdamWeightDecay, MindSporeAdam
from zoo.optim.optimizers.oneflow import OneFlowSGD

pytestmark = pytest.mark.numbers


def follow(kind, steps=6, dtype=torch.float32, **settings):
    """Take steps on half the sum of squares, whose gradient is the weight; return all weights."""
    weight = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=dtype))
    optimizer = kind([weight], **settings)
    path = []
    for _ in range(steps):
        weight.grad = weight.detach().clone()
        optimizer.step()
        path.append(weight.detach().double().numpy().copy())
    return np.stack(path)


def test_mindspore_adam_follows_its_formula():
    w, m, v, path = np.array([1.0, -2.0, 0.5]), 0.0, 0.0, []
    for t in range(1, 7):
        g = w + 0.01 * w
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w = w - 0.1 * math.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 0.01)
        path.append(w)
    found = follow(MindSporeAdam, dtype=torch.float64, lr=0.1, eps=0.01, weight_decay=0.01)
    assert found == pytest.approx(np.stack(path), abs=1e-12)
    theirs = follow(torch.optim.Adam, dtype=torch.float64, lr=0.1, eps=0.01, weight_decay=0.01)
    assert np.abs(found - theirs).max() > 0.01


@pytest.mark.parametrize("option", ["use_nesterov", "use_amsgrad"])
def test_options_of_mindspore_adam_follow_their_formulas(option):
    w, m, v, largest, path = np.array([1.0, -2.0, 0.5]), 0.0, 0.0, 0.0, []
    for t in range(1, 7):
        g = w + 0.01 * w
        m, v = 0.9 * m + 0.1 * g, 0.5 * v + 0.5 * g * g
        largest = np.maximum(largest, v)
        mean = 0.9 * m + 0.1 * g if option == "use_nesterov" else m
        square = largest if option == "use_amsgrad" else v
        w = w - 0.3 * math.sqrt(1 - 0.5**t) / (1 - 0.9**t) * mean / (np.sqrt(square) + 0.01)
        path.append(w)
    settings = {"lr": 0.3, "betas": (0.9, 0.5), "eps": 0.01, "weight_decay": 0.01}
    found = follow(MindSporeAdam, dtype=torch.float64, **settings, **{option: True})
    assert found == pytest.approx(np.stack(path), abs=1e-12)
    assert np.abs(found - follow(MindSporeAdam, dtype=torch.float64, **settings)).max() > 0.01


@pytest.mark.parametrize(
    ("size", "torchs", "mindspores"),
    [(1e-2, 9.99999e-4, 9.99968e-4), (1e-6, 9.90099e-4, 7.59747e-4), (1e-8, 5e-4, 3.06534e-5)],
)
def test_adams_differ_most_in_their_first_step_for_small_gradients(size, torchs, mindspores):
    for kind, expected in ((torch.optim.Adam, torchs), (MindSporeAdam, mindspores)):
        weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        weight.grad = torch.full_like(weight, size)
        kind([weight], lr=1e-3).step()
        assert -weight.item() == pytest.approx(expected, rel=1e-5)


def test_adam_weight_decay_follows_its_formula():
    w, m, v, path = np.array([1.0, -2.0, 0.5]), 0.0, 0.0, []
    share1, share2 = (float(np.float32(1) - np.float32(beta)) for beta in (0.9, 0.999))
    for _ in range(6):
        m, v = 0.9 * m + share1 * w, 0.999 * v + share2 * w * w
        w = w - 0.01 * (m / (np.sqrt(v) + 1e-6) + 0.2 * w)
        path.append(w)
    found = follow(AdamWeightDecay, dtype=torch.float64, lr=0.01, weight_decay=0.2)
    assert found == pytest.approx(np.stack(path), abs=1e-12)


@pytest.mark.parametrize(
    ("momentum", "dampening", "nesterov"), [(0.9, 0.5, False), (0.9, 0.0, True), (0.0, 0.5, False)]
)
def test_oneflow_sgd_follows_its_formula(momentum, dampening, nesterov):
    w, buffer, path = np.array([1.0, -2.0, 0.5]), 0.0, []
    for _ in range(6):
        g = w + 0.01 * w
        buffer = momentum * buffer + (1 - dampening) * g
        w = w - 0.1 * (g if momentum == 0 else g + momentum * buffer if nesterov else buffer)
        path.append(w)
    settings = {"lr": 0.1, "momentum": momentum, "dampening": dampening, "nesterov": nesterov, "weight_decay": 0.01}
    found = follow(OneFlowSGD, dtype=torch.float64, **settings)
    assert found == pytest.approx(np.stack(path), abs=1e-12)
    same = np.allclose(found, follow(torch.optim.SGD, dtype=torch.float64, **settings), atol=1e-12)
    assert same == (momentum == 0 or dampening == 0)


@pytest.mark.parametrize("kind", shipped_kinds().values())
def test_each_class_of_the_folder_is_found_by_its_name(kind):
    assert find_optimizer(kind.__name__) is kind
    assert kind.__name__ in list_optimizers()
    assert kind.__doc__


@pytest.mark.parametrize("kind", shipped_kinds().values())
def test_ours_take_closures_and_tensor_rates_and_pass_over_what_has_no_gradient(kind):
    weight, idle = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = kind([weight, idle], lr=torch.tensor(0.1))

    def closure():
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2
    assert weight.tolist() != [1, 1]
    assert idle.tolist() == [1, 1]
    assert idle not in optimizer.state


# Worked values: half the sum of squares from (1, -2, 0.5), rate 0.1, three steps, printed to six digits.
WORKED = {
    "RMSpropTF": [(0.899991, -1.824576, 0.448007), (0.719109, -1.517855, 0.352690), (0.481925, -1.121161, 0.226959)],
    "Lamb": [(0.867933, -1.866625, 0.368587), (0.747105, -1.744342, 0.249499), (0.635842, -1.631279, 0.142406)],
}


@pytest.mark.parametrize(
    ("name", "params"),
    [("RMSpropTF", {"momentum": 0.9, "weight_decay": 1e-4}), ("Lamb", {"weight_decay": 0.01})],
)
def test_timms_optimizers_give_the_worked_values_of_super_gradients(name, params):
    assert follow(find_optimizer(name), 3, lr=0.1, **params) == pytest.approx(np.array(WORKED[name]), abs=1e-6)


@pytest.mark.parametrize(("name", "rate"), [("SuperGradientsRMSpropTF", 1.0), ("RMSpropTF", 0.1)])
def test_decoupled_decay_of_rmsprop_tf_is_that_of_super_gradients_or_of_timm(name, rate):
    w, square, buffer, path = np.array([1.0, -2.0, 0.5]), 1.0, 0.0, []
    for _ in range(6):
        g = w
        w = w * (1 - rate * 0.05)
        square = square + 0.1 * (g * g - square)
        buffer = 0.9 * buffer + 0.1 * g / np.sqrt(square + 1e-10)
        w = w - buffer
        path.append(w)
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05, "decoupled_decay": True}
    assert follow(find_optimizer(name), dtype=torch.float64, **settings) == pytest.approx(np.stack(path), abs=1e-12)


def test_coupled_decay_of_rmsprop_tf_is_the_same_in_both():
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05}
    found = [follow(find_optimizer(name), **settings) for name in ("SuperGradientsRMSpropTF", "RMSpropTF")]
    assert np.array_equal(*found)


def test_timms_lion_follows_its_formula():
    w, m, path = np.array([1.0, -2.0, 0.5]), 0.0, []
    for _ in range(6):
        g = w
        w = w * (1 - 0.1 * 0.01)
        w, m = w - 0.1 * np.sign(0.9 * m + 0.1 * g), 0.99 * m + 0.01 * g
        path.append(w)
    found = follow(find_optimizer("lion"), dtype=torch.float64, lr=0.1, weight_decay=0.01)
    assert found == pytest.approx(np.stack(path), abs=1e-7)
