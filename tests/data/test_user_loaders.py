from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from zoo.data.user_loaders import UserLoader, check_first_batch, count_classes, is_loader, match_targets
from zoo.errors import DataError

IMAGES = torch.rand(6, 3, 8, 8)
NUMBERS = torch.tensor([0, 1, 2, 0, 1, 2])


class Batches:
    """Any iterable of batches."""

    def __init__(self, *batches: Any) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Any:
        return iter(self.batches)


def loader(**options: Any) -> Any:
    return DataLoader(TensorDataset(IMAGES, NUMBERS), batch_size=4, **options)


def user(batches: Any, name: str = "train", **options: Any) -> UserLoader:
    return UserLoader(batches, name, ("a", "b", "c"), **options)


def test_good_loaders_are_known_and_left_alone() -> None:
    assert is_loader(loader())
    assert is_loader(Batches())
    assert not any(map(is_loader, (TensorDataset(IMAGES), [1], (1, 2), {}, "a", None, iter([]))))
    before = torch.get_rng_state()
    check_first_batch(user(loader(shuffle=True)))
    seen: list[int] = []
    assert count_classes(loader(shuffle=True), "train", seen.append) == 3
    assert seen == [4, 2]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("batch", "text"),
    [
        (
            {"image": IMAGES, "label": NUMBERS},
            "a batch of the loader train is a dict with the keys image, label; expected",
        ),
        (IMAGES, "a batch of the loader train is a Tensor; expected batches"),
        ((IMAGES, NUMBERS, 1), "is a tuple; expected"),
        ((IMAGES.byte(), NUMBERS), r"the images of the loader train are uint8 of shape \(6, 3, 8, 8\); expected"),
        ((IMAGES.permute(0, 2, 3, 1), NUMBERS), r"images .* of shape \(6, 8, 8, 3\); expected"),
        ((IMAGES[0], NUMBERS), r"images .* of shape \(3, 8, 8\)"),
        (([1], NUMBERS), "images of the loader train are a list"),
        ((IMAGES, NUMBERS.float()), r"the targets of the loader train are float32 of shape \(6,\); expected"),
        ((IMAGES, NUMBERS[:4]), r"the targets .* of shape \(4,\)"),
        ((IMAGES, NUMBERS + 1), "has targets from 1 to 3 in batch 1; expected 0 to 2"),
        ((IMAGES, NUMBERS - 1), "has targets from -1 to 1 in batch 1; expected 0 to 2"),
    ],
)
def test_wrong_batches(batch: Any, text: str) -> None:
    with pytest.raises(DataError, match=text):
        check_first_batch(user(Batches(batch)))


def test_every_batch_is_held_against_the_classes() -> None:
    plain = user(loader())
    assert plain.prepare(IMAGES, NUMBERS, 0, 0) == (IMAGES, NUMBERS)
    with pytest.raises(
        DataError, match=r"the loader train has targets from 0 to 3 in batch 8; expected 0 to 2\. Correct"
    ):
        plain.prepare(IMAGES, torch.tensor([0, 3]), 1, 7)
    with pytest.raises(DataError, match=r"has targets from -1 to 1 in batch 1; expected 0 to 2"):
        plain.prepare(IMAGES, torch.tensor([1, -1]), 0, 0)
    with pytest.raises(DataError, match="the loader val yields no batch; expected"):
        check_first_batch(user(Batches(), "val"))
    with pytest.raises(DataError, match="the loader val yields no batch; expected"):
        count_classes(Batches(), "val", print)


def test_numbers_of_a_loader_become_those_of_the_classes() -> None:
    mapped = user(loader(), known=("c", "a", "x"), table={0: 2, 1: 0})
    assert mapped.prepare(IMAGES, torch.tensor([0, 1, 0]), 0, 0)[1].tolist() == [2, 0, 2]
    text = r"the loader train has targets in batch 3 that are not classes: 'x', 7\. Expected 'a', 'b', 'c'"
    with pytest.raises(DataError, match=text):
        mapped.prepare(IMAGES, torch.tensor([0, 7, 2]), 0, 2)


def test_which_number_means_which_class() -> None:
    options: Any = {"name": "val", "origin": "the model", "by_name": True}
    assert match_targets(None, ("0", "1", "2"), **options) is None
    assert match_targets(("a", "b"), ("a", "b"), **options) is None
    assert match_targets(("b", "a"), ("a", "b"), **options) == {0: 1, 1: 0}
    assert match_targets(None, ("0", "10", "2"), **options) == {0: 0, 10: 1, 2: 2}
    assert match_targets(None, ("a", "b"), **options | {"by_name": False}) is None
    with pytest.raises(
        DataError, match=r"the labels of the loader val are numbers without names, .* of the model have"
    ):
        match_targets(None, ("a", "b"), **options)
