from typing import Any

import numpy as np
import pytest
import torch

from zoo.data.labels import (
    check_classes,
    derive_classes,
    match_numbers,
    number_labels,
    order_names,
    plain_labels,
    plain_name,
)
from zoo.errors import DataError, InputError


def names(count: int) -> list[str]:
    return [f"train[{number}]" for number in range(count)]


def number(
    labels: list[Any], classes: tuple[str, ...], known: tuple[str, ...] | None = None, **options: bool
) -> tuple[int, ...]:
    return number_labels(labels, known, classes, names=names(len(labels)), split="val", origin="train", **options)


def test_numbers_and_names_are_labels_and_give_the_classes() -> None:
    labels = [1, np.int64(2), np.uint8(3), torch.tensor(4), torch.tensor([5]), np.array(6), np.array([7])]
    assert plain_labels(labels, names(7), "train") == [1, 2, 3, 4, 5, 6, 7]
    assert plain_labels(["b", np.str_("a")], names(2), "train") == ["b", "a"]
    assert derive_classes([1, 0], ("x", "y", "z"), "train") == ("x", "y", "z")
    assert derive_classes(["b", "a", "b"], None, "train") == ("a", "b")
    assert derive_classes([0, 3, 1], None, "train") == ("0", "1", "2", "3")
    assert derive_classes([], None, "train") == ()


@pytest.mark.parametrize(
    "label",
    [
        -1,
        0.0,
        1.5,
        True,
        None,
        np.float32(1),
        np.True_,
        torch.tensor(1.0),
        torch.tensor(True),
        torch.eye(3)[0],
        [1],
        b"a",
    ],
    ids=str,
)
def test_anything_else_is_named_with_its_place(label: Any) -> None:
    text = r"^1 label of train cannot be used; expected class numbers from 0 .*\n  train\[1\]: .* \(%s\)\n"
    with pytest.raises(DataError, match=text % type(label).__name__):
        plain_labels([0, label, 2], names(3), "train")


def test_labels_that_cannot_be_used_are_told() -> None:
    with pytest.raises(DataError, match=r"^15 labels .*\n(.*\n){10}  \.\.\. and 5 more\n"):
        plain_labels([None] * 15, names(15), "train")
    with pytest.raises(DataError, match="mix numbers and names; expected one kind"):
        plain_labels([0, "a"], names(2), "train")
    with pytest.raises(DataError, match=r"Convert True and False to 1 and 0, int\(label\), or to names\."):
        plain_labels([True, np.False_], names(2), "train")


def test_numbers_that_are_no_class_numbers_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"go up to 5,000,001, but only 2 are used; expected .*open_data\(..., classes=\["
    ):
        derive_classes([5_000_001, 4_000_001], None, "train")
    with pytest.raises(
        DataError, match=r"go from 1 to 3; expected class numbers from 0\. Subtract 1 from each, or .*\["
    ):
        derive_classes([1, 2, 3, 3], None, "train")


def test_labels_become_class_numbers_in_their_range() -> None:
    assert number([0, 2], ("a", "b", "c"), by_name=False) == (0, 2)
    assert number(["c", "a"], ("a", "b", "c")) == (2, 0)
    assert number([0, 1], ("a", "b", "c"), known=("c", "a")) == (2, 0)  # by name, not by number
    text = r"^2 labels of val out of range; expected 0 to 1 for 2 classes:\n  train\[1\]: 2\n"
    with pytest.raises(DataError, match=text):
        number([0, 2, 9], ("a", "b"), by_name=False)
    with pytest.raises(DataError, match="expected 0 to 0 for 1 class:"):
        number([1], ("a", "b"), known=("a",))


def test_classes_that_are_not_there() -> None:
    text = r"^val has classes that are missing in train: 'dogs' \(2 images\), 'elk' \(1 image\)\. Did you mean 'dog'\?"
    with pytest.raises(DataError, match=text):
        number(["dogs", "cat", "elk", "dogs"], ("cat", "dog"))
    with pytest.raises(DataError, match=r"'c10' .* and 3 more\. Known classes: 'd0', .* and 2 more\."):
        number([f"c{i}" for i in range(13)], tuple(f"d{i}" for i in range(12)))
    with pytest.raises(DataError, match=r"Did you mean 'cat'\? The name in val is 'c\\u0430t'\."):
        number(["c\u0430t"], ("cat", "dog"))


def test_numbers_without_names_are_the_classes_of_their_digits() -> None:
    assert number([2, 10, 0], ("0", "1", "10", "2")) == (3, 2, 0)
    assert number([2, 0], ("0", "1", "2")) == (2, 0)  # its place as well
    with pytest.raises(
        DataError, match=r"^val has classes that are missing in train: '3' \(2 images\)\. Known classes: '0'"
    ):
        number([3, 3, 0], ("0", "1", "10", "2"))
    text = (
        r"^the labels of val are numbers without names, but the classes of train have names: 'a', 'b', so the "
        r"numbers cannot be matched\. Set the names on the data set, dataset\.classes = \["
    )
    with pytest.raises(DataError, match=text):
        number([0, 1], ("a", "b"))


@pytest.mark.parametrize(
    ("text", "name"),
    [(" cat\t", "cat"), ("red\n blood  cell", "red blood cell"), ("cafe\u0301", "caf\u00e9"), ("a\ud800", "a\\ud800")],
)
def test_plain_names(text: str, name: str) -> None:
    assert plain_name(text) == name
    assert plain_name(name) == name


def test_names_are_compared_as_they_are_read() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert number([decomposed, "b "], (composed, "b")) == (0, 1)
    assert number([0, 1], (composed, "b"), known=("b", decomposed)) == (1, 0)
    assert derive_classes([decomposed, composed, " b"], None, "train") == ("b", composed)
    assert derive_classes([], (decomposed, composed), "train") == (composed,)


def test_names_in_the_order_of_others() -> None:
    assert order_names(("a", "b", "c", "d"), ("d", "x", "b")) == ("d", "b", "a", "c")
    assert order_names(("a", "cafe\u0301"), ("caf\u00e9",)) == ("cafe\u0301", "a")
    assert order_names(("a", "b"), ()) == ("a", "b")
    assert match_numbers(("b", "x"), ("a", "b")) == {0: 1}


def test_classes_given_by_hand() -> None:
    assert check_classes(None) is None
    assert check_classes([]) is None
    assert check_classes(["b", "a"]) == ("b", "a")


@pytest.mark.parametrize(
    ("classes", "text"),
    [
        ("ab", "expected a list of names"),
        ([1, 2], "expected a list"),
        (["a", ""], "expected"),
        (["a", "a"], "'a' twice"),
    ],
)
def test_wrong_classes(classes: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        check_classes(classes)
