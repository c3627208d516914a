import pytest
import torch

from zoo.optim.modes import CLOSURE, asks_for_closure, set_mode


class Moded:
    mode = None

    def train(self):
        self.mode = "train"

    def eval(self):
        self.mode = "eval"


def test_modes_are_switched_where_there_are_any():
    optimizer = Moded()
    set_mode(optimizer, learn=True)
    assert optimizer.mode == "train"
    set_mode(optimizer, learn=False)
    assert optimizer.mode == "eval"
    set_mode(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1), learn=True)


@pytest.mark.parametrize(
    ("error", "asks"),
    [
        (TypeError("step() missing 1 required positional argument: 'closure'"), True),
        (AssertionError("needs a closure"), True),
        (TypeError("'NoneType' object is not callable"), True),
        (TypeError("unsupported operand"), False),
    ],
)
def test_what_asks_for_a_closure_is_known(error, asks):
    assert asks_for_closure(error) == asks
    assert "SAM needs a closure" in CLOSURE.format("SAM")
