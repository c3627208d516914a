from typing import Any

import numpy as np
import pytest
import torch

from zoo.errors import InputError
from zoo.tasks.detection.formats._marks import describe, find_key, parse_marks

BOXES = [[1.0, 2.0, 4.0, 4.5], [0.0, 0.0, 9.0, 7.0]]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("XYXY", BOXES),
        ("XYWH", [[1, 2, 5, 6.5], [0, 0, 9, 7]]),
        ("CXCYWH", [[-1, -0.25, 3, 4.25], [-4.5, -3.5, 4.5, 3.5]]),
    ],
)
def test_ways_to_write_boxes(written: str, expected: list[list[float]]) -> None:
    marks = parse_marks(torch.tensor(BOXES), ["a", "b"], None, written=written)
    assert marks.boxes.tolist() == expected
    assert (marks.keys, marks.crowd.tolist(), marks.size) == (("a", "b"), [False, False], None)


@pytest.mark.parametrize(
    "crowd", [[0, 1], ["0", "1"], [False, True], [None, True], [0.0, 1.0], np.array([0, 1]), torch.tensor([0, 1])]
)
def test_crowds(crowd: Any) -> None:
    assert parse_marks(BOXES, [0, 1], crowd).crowd.tolist() == [False, True]


@pytest.mark.parametrize(
    ("crowd", "text"),
    [
        ([0, 2], "mark of a crowd 2; expected 0 or 1"),
        ([[0], [1, 1]], r"mark of a crowd \[0\]"),
        ("01", "mark of a crowd '01'"),
        ([0], "2 boxes and 1 marks of crowds"),
    ],
)
def test_crowds_that_cannot_be_read(crowd: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        parse_marks(BOXES, [0, 1], crowd)


def test_tensors_and_crowds_are_said_in_words() -> None:
    with pytest.raises(InputError, match=r"it has a tensor that cannot be read \(.*\); expected float32"):
        parse_marks(torch.tensor(BOXES, dtype=torch.bfloat16), [0, 1], None)
    with pytest.raises(InputError, match="its boxes are no table of numbers"):
        parse_marks([[10**400, 0, 1, 1]], [0], None)
    assert find_key({"b": 1, "a": 2}, ("a", "b")) == "a"
    assert find_key({}, ("a",)) is None
    assert describe({"a": 1}) == "a mapping with the keys a"
    assert describe([1]) == "a list of 1"
    assert describe(1) == "of the type int"
