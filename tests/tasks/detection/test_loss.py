import pytest
import torch
from torch import nn

import zoo
from yolo_nas_fill import fill
from zoo._model import ModelInterface
from zoo.errors import InputError
from zoo.tasks.detection.batches import BoxTargets
from zoo.tasks.detection.loss import ModelLoss

TARGETS = BoxTargets(torch.tensor([[0.0, 1, 30, 30, 40, 20], [1, 0, 40, 20, 20, 30]]), torch.arange(2))


class Whole(ModelInterface, nn.Module):
    """A detector that does not tell the terms of its loss apart."""

    def loss(self, outputs, rows, *, weight=1.0):
        return outputs.sum() * weight + len(rows)


@pytest.mark.usefixtures("small_detector")
def test_the_terms_of_yolo_nas_sum_to_its_loss_to_the_bit():
    model = fill(zoo.get("yolo_nas_s", num_classes=2)).train()
    outputs = model(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    for params in ({}, {"iou_weight": 3.0, "assigner": "static"}):
        loss = ModelLoss(model, params)
        terms = loss.split(outputs, TARGETS)
        assert list(terms) == ["classification", "iou", "dfl"]
        assert terms["classification"] + terms["iou"] + terms["dfl"] == loss(outputs, TARGETS)
        assert not any(term.requires_grad for term in terms.values())


def test_a_loss_without_terms_is_one_term_without_a_name():
    loss = ModelLoss(Whole(), {"weight": 2.0})
    assert loss.split(torch.ones(3), TARGETS) == {"": 8.0}
    assert loss(torch.ones(3), TARGETS) == 8


def test_a_model_without_a_loss_is_refused():
    with pytest.raises(InputError, match=r"Linear has no method loss\(outputs, rows\)"):
        ModelLoss(nn.Linear(1, 1))
