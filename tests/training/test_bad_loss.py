"""The cause of a loss that is no number is told by weights and inputs, not guessed."""

import math

import pytest
import torch
from torch import nn

from zoo.training.bad_loss import explain_loss

IMAGES = torch.zeros(2, 3, 4, 4)


def explain(*, step=0, weights=1.0, inputs=IMAGES):
    network = nn.Linear(2, 2)
    nn.init.constant_(network.weight, weights)
    return explain_loss(math.nan, epoch=step // 2 + 1, step=step, network=network, inputs=inputs)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"step": 5}, "in optimizer step 6, in epoch 3. The rate is probably too high: try a tenth of it"),
        ({"step": 5, "weights": math.nan}, "The rate is probably too high"),
        ({"weights": math.nan}, "the weights hold values that are not finite numbers (NaN or infinity) before"),
        ({"weights": math.inf}, "learnt: weight. Load other weights"),
        ({"inputs": IMAGES + math.nan}, "the images of this batch hold values that are not finite numbers"),
        ({"inputs": IMAGES + math.inf, "step": 9, "weights": math.nan}, "the images of this batch hold"),
        ({"inputs": torch.full((2, 3), math.nan)}, "Remove them with `zoo cache clear` and start again."),
        ({"inputs": (IMAGES, IMAGES + math.nan)}, "the kept features of this batch"),
        ({}, "the outputs of the network or the loss overflow"),
        ({"inputs": None}, "the outputs of the network or the loss overflow"),
    ],
)
def test_the_cause_is_told(options, text):
    found = explain(**options)
    assert found.startswith("the loss is nan in optimizer step ")
    assert text in found
    assert ("rate is probably" in found) == ("rate is probably" in text)
