import math

import pytest
import torch

from zoo.tasks.classification.metrics import ClassificationMetrics


def logits(*indices, classes=7):
    """Confident logits for the given predictions."""
    return torch.nn.functional.one_hot(torch.tensor(indices), classes).float() * 10


def test_scores_of_a_known_confusion():
    metrics = ClassificationMetrics(["a", "b", "c"])
    metrics.update(logits(0, 0, 1, classes=3), torch.tensor([0, 1, 1]))
    metrics.update(logits(0, classes=3), torch.tensor([0]))
    result = metrics.compute()
    assert result.images == 4
    assert result.top1 == 0.75
    assert result.top5 == 1.0
    assert result.confusion == ((2, 0, 0), (1, 1, 0), (0, 0, 0))
    a, b, c = result.per_class()
    assert (a["images"], a["precision"], a["recall"]) == (2, pytest.approx(2 / 3), 1.0)
    assert (b["precision"], b["recall"], b["f1"]) == (1.0, 0.5, pytest.approx(2 / 3))
    assert (c["precision"], c["recall"], c["f1"]) == (None, None, None)


def test_top5_looks_at_five_classes():
    metrics = ClassificationMetrics([str(index) for index in range(7)])
    scores = torch.arange(7.0).flip(0).repeat(7, 1)
    metrics.update(scores, torch.arange(7))
    result = metrics.compute()
    assert result.top1 == pytest.approx(1 / 7)
    assert result.top5 == pytest.approx(5 / 7)


def test_loss_is_the_mean_over_images_not_over_batches():
    outputs, targets = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    metrics = ClassificationMetrics(["a", "b", "c"])
    metrics.update(outputs[:4], targets[:4])
    metrics.update(outputs[4:], targets[4:])
    assert metrics.compute().loss == pytest.approx(float(torch.nn.functional.cross_entropy(outputs, targets)), rel=1e-6)


def test_tables_and_data():
    metrics = ClassificationMetrics(["cat", "dog"])
    metrics.update(logits(0, 1, classes=2), torch.tensor([0, 1]))
    result = metrics.compute()
    assert result.rows()[0] == {
        "class": "cat",
        "images": "1",
        "precision": "100.0%",
        "recall": "100.0%",
        "F1": "100.0%",
    }
    assert str(result).startswith("top-1 100.00%, top-5 100.00%, loss ")
    assert result.to_dict()["confusion"] == [[1, 0], [0, 1]]


def test_outputs_that_are_not_numbers_are_wrong_and_never_class_0():
    metrics = ClassificationMetrics(("a", "b", "c"))
    nan, inf = math.nan, math.inf
    outputs = torch.tensor([[nan, 0, 0], [inf, 0, 0], [2.0, 0, 0], [0, 2.0, -inf], [nan, nan, nan], [0, 0, 2.0]])
    metrics.update(outputs, torch.tensor([0, 0, 0, 1, 1, 2]))
    scores = metrics.compute()
    assert scores.top1 == pytest.approx(3 / 6)
    assert scores.top5 == pytest.approx(3 / 6)
    assert math.isnan(scores.loss)
    assert scores.confusion == ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    assert scores.unanswered == (2, 1, 0)
    assert [row["images"] for row in scores.per_class()] == [3, 2, 1]
    assert [row["recall"] for row in scores.per_class()] == pytest.approx([1 / 3, 1 / 2, 1])
    assert scores.to_dict()["unanswered"] == 3
    assert str(scores).endswith("; 3 of 6 images gave NaN or infinite outputs and count as wrong")
    metrics = ClassificationMetrics(("a", "b"))
    metrics.update(torch.full((4, 2), math.nan), torch.tensor([0, 0, 1, 1]))
    scores = metrics.compute()
    assert (scores.top1, scores.top5, scores.unanswered) == (0.0, 0.0, (2, 2))
    metrics = ClassificationMetrics(("a", "b"))
    metrics.update(torch.eye(2), torch.tensor([0, 1]))
    scores = metrics.compute()
    assert (scores.top1, scores.unanswered, scores.warning) == (1.0, (), None)
    assert "unanswered" not in scores.to_dict()
