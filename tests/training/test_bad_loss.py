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
        ({"step": 5}, "nan at optimizer step 6, epoch 3. The learning rate is probably too high: try a tenth of it"),
        ({"step": 5, "weights": math.nan}, "The learning rate is probably too high"),
        ({"weights": math.nan}, "the model's weights contain NaN or infinite values before"),
        ({"weights": math.inf}, "first update: weight. Load other weights"),
        ({"inputs": IMAGES + math.nan}, " this batch contains "),
        ({"inputs": IMAGES + math.inf, "step": 9, "weights": math.nan}, " this batch contains"),
        ({"inputs": torch.full((2, 3), math.nan)}, "is damaged. Run `zoo cache clear` and start again."),
        (
            {"inputs": (IMAGES, IMAGES + math.nan)},
            "the loss is nan at optimizer step 1, epoch 1: the cached features of this batch",
        ),
        (
            {},
            "the loss is nan at optimizer step 1, epoch 1, before the first update, although weights and "
            "images are finite: the network's outputs or its loss overflow. Try precision=no, and check the "
            "normalisation of the images and the model's loss.",
        ),
        (
            {"inputs": None},
            "the loss is nan at optimizer step 1, epoch 1, before the first update, although weights and "
            "images are finite: the network's outputs or its loss overflow. Try precision=no, and check the "
            "normalisation of the images and the model's loss.",
        ),
    ],
)
def test_the_cause_is_told(options, text):
    found = explain(**options)
    assert found.startswith("the loss is nan at optimizer step")
    assert text in found
    assert ("rate is probably" in found) == ("rate is probably" in text)
