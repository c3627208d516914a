import math
from types import SimpleNamespace

import pytest

from zoo.tasks.classification.metrics import Evaluation
from zoo.training.loop import Position
from zoo.training.verdict import find_trouble, list_warnings


def records(*losses):
    return [{"loss": loss} for loss in losses]


@pytest.mark.parametrize(
    ("first", "highest", "losses", "diverged"),
    [
        (1.4, 1e6, (794129.0, 1e-6), True),
        (1.4, 1.5, (794129.0, 1e-6), True),  # not every loss was fetched
        (1.4, 1e6, (), True),
        (1.4, 130.0, (20.0, 0.1), False),
        (0.01, 3.0, (2.0, 0.1), False),
        (30.0, 300.0, (120.0, 4.0), False),
        (None, None, (1.0,), False),  # a run that an earlier version began
    ],
)
def test_a_loss_that_went_through_the_roof_is_told(first, highest, losses, diverged):
    warnings = list_warnings(Position(first_loss=first, highest_loss=highest), records(*losses), None)
    assert bool(warnings) == diverged
    if diverged:
        assert "the loss rose from 1.4 to " in warnings[0]
        assert warnings[0].endswith("Start a new run with a tenth of the learning rate")


def test_scores_that_are_no_numbers_are_told():
    evaluation = Evaluation(0.5, 0.5, math.nan, 4, ("a", "b"), ((1, 0), (0, 1)), (1, 1))
    assert find_trouble(evaluation) == "2 of 4 images gave NaN or infinite outputs"
    assert find_trouble(SimpleNamespace(loss=math.nan)) == "the validation loss is not a number"
    assert find_trouble(SimpleNamespace(loss=None)) is find_trouble(SimpleNamespace(loss=math.inf)) is None
    assert list_warnings(Position(), records(1.0), evaluation) == [find_trouble(evaluation)]


def test_a_validation_loss_that_went_through_the_roof_is_told():
    exploded = SimpleNamespace(loss=24366.0)
    assert "the loss rose from 1.4 to 2.437e+04" in list_warnings(Position(first_loss=1.4), records(1.2), exploded)[0]
    assert list_warnings(Position(first_loss=1.4), records(1.2), SimpleNamespace(loss=1.5)) == []


def test_one_answer_for_images_of_several_classes_is_told():
    always = Evaluation(0.5, 1.0, 0.7, 4, ("ant", "bee"), ((0, 2), (0, 2)))
    (doubt,) = list_warnings(Position(), records(1.0), always)
    assert doubt.startswith("all 4 images are predicted as 'bee', no better than chance")
    one_class = Evaluation(1.0, 1.0, 0.1, 2, ("ant", "bee"), ((0, 0), (0, 2)))
    assert one_class.doubt is Evaluation(0.5, 1.0, 0.7, 4, ("ant", "bee"), ((1, 1), (1, 1))).doubt is None
    assert Evaluation(0.0, 0.0, math.nan, 2, ("ant", "bee"), ((0, 0), (0, 0)), (1, 1)).doubt is None
