import numpy as np
import pytest
import torch
from torch import nn

from zoo.optim.gradients import centralize_gradients, clip_groups, split_members


def parts(seed=0):
    """A convolution's weight, a dense layer's weight and a bias, in double precision, with gradients."""
    torch.manual_seed(seed)
    shapes = [(4, 3, 2, 2), (5, 4), (5,)]
    made = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in shapes]
    for parameter in made:
        parameter.grad = torch.randn_like(parameter)
    return made


def centred(values):
    flat = values.reshape(len(values), -1)
    return (flat - flat.mean(1, keepdims=True)).reshape(values.shape)


def test_means_over_all_dimensions_but_the_first_are_taken_out():
    parameters = parts()
    before = [parameter.grad.numpy().copy() for parameter in parameters]
    centralize_gradients(torch.optim.SGD([{"params": parameters, "gradient_centralization": True}], lr=0.1))
    convolution, dense, bias = (parameter.grad.numpy() for parameter in parameters)
    assert convolution == pytest.approx(centred(before[0]), abs=1e-15)
    assert dense == pytest.approx(centred(before[1]), abs=1e-15)
    assert (bias == before[2]).all()


def test_groups_that_do_not_ask_and_parameters_without_gradient_are_left_alone():
    parameters = parts()
    parameters[0].grad = None
    before = [None if parameter.grad is None else parameter.grad.clone() for parameter in parameters]
    optimizer = torch.optim.SGD([{"params": parameters, "gradient_centralization": False}], lr=0.1)
    centralize_gradients(optimizer)
    assert torch.equal(parameters[1].grad, before[1])
    optimizer.param_groups[0]["gradient_centralization"] = True
    centralize_gradients(optimizer)
    assert parameters[0].grad is None
    assert not torch.equal(parameters[1].grad, before[1])


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_decay_comes_before_the_mean_where_the_optimizer_adds_it_to_the_gradient(kind, maximize):
    parameters, expected = parts(), parts()
    group = {"gradient_centralization": True, "coupled_decay": True, "weight_decay": 0.3}
    optimizer = kind([{"params": parameters, **group}], lr=0.1, maximize=maximize)
    reference = kind(expected, lr=0.1, weight_decay=0.0)  # gets the finished gradient
    for _ in range(3):
        for parameter, other in zip(parameters, expected, strict=True):
            gradient, weight = parameter.grad.numpy(), parameter.detach().numpy()
            whole = (-gradient if maximize else gradient) + 0.3 * weight
            other.grad = torch.from_numpy(centred(whole) if whole.ndim > 1 else whole)
        centralize_gradients(optimizer)
        optimizer.step()
        reference.step()
        for parameter, other in zip(parameters, expected, strict=True):
            assert parameter.detach().numpy() == pytest.approx(other.detach().numpy(), abs=1e-9)
            parameter.grad = torch.randn_like(parameter)


def test_decay_that_passes_the_gradient_by_keeps_its_mean():
    parameters = parts()
    before = parameters[1].detach().numpy().copy()
    gradient = centred(parameters[1].grad.numpy())
    group = {"params": parameters, "gradient_centralization": True, "coupled_decay": False, "weight_decay": 0.3}
    optimizer = torch.optim.AdamW([group], lr=0.1)
    centralize_gradients(optimizer)
    optimizer.step()
    first = 0.1 * gradient / (np.abs(gradient) + 1e-8)
    assert parameters[1].detach().numpy() == pytest.approx(before * (1 - 0.1 * 0.3) - first, abs=1e-9)


def test_each_group_with_a_limit_is_clipped_by_its_own_norm():
    parameters = parts()
    before = [parameter.grad.numpy().copy() for parameter in parameters]
    lengths = [np.linalg.norm(gradient) for gradient in before]
    merged = {"params": parameters[:2], "name": "a", "members": [["a", 1], ["b", 1]], "clip_grad_norm": 1.0}
    optimizer = torch.optim.SGD([merged, {"params": parameters[2:], "name": "c", "clip_grad_norm": 1e6}], lr=0.1)
    norms = clip_groups(optimizer)
    assert {name: float(norm) for name, norm in norms.items()} == pytest.approx(
        dict(zip("abc", lengths, strict=True)), rel=1e-12
    )
    for parameter, gradient, length in zip(parameters[:2], before, lengths, strict=False):
        assert length > 1
        assert parameter.grad.numpy() == pytest.approx(gradient / length, rel=1e-5)
    assert (parameters[2].grad.numpy() == before[2]).all()
    parameters = parts()
    before = parameters[0].grad.clone()
    assert clip_groups(torch.optim.SGD([{"params": parameters}], lr=0.1)) == {}
    assert torch.equal(parameters[0].grad, before)


def test_members_are_slices_of_their_group():
    assert list(split_members({"params": [1, 2, 3], "name": "a", "members": [["a", 2], ["b", 1]]})) == [
        ("a", [1, 2]),
        ("b", [3]),
    ]
    assert list(split_members({"params": [1, 2, 3], "name": "a"})) == [("a", [1, 2, 3])]
