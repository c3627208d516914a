from collections import Counter

import pytest

from zoo.data.partition import check_parts, draw_parts
from zoo.errors import DataError


def draw(labels, shares, **options):
    names = [f"{index}.png" for index in range(len(labels))]
    return draw_parts(labels, names, shares, **options)


def test_every_split_has_its_share_of_every_label():
    labels = [(index % 10 // 9,) for index in range(200)]  # 180 and 20
    parts = draw(labels, {"val": 0.2, "test": 0.1})
    counts = Counter(zip((label for (label,) in labels), parts, strict=True))
    assert counts == {
        (0, "train"): 126,
        (0, "val"): 36,
        (0, "test"): 18,
        (1, "train"): 14,
        (1, "val"): 4,
        (1, "test"): 2,
    }
    assert parts == draw(labels, {"val": 0.2, "test": 0.1})
    assert parts != draw(labels, {"val": 0.2, "test": 0.1}, seed=1)


def test_the_order_of_the_images_does_not_matter():
    labels, names = [(n % 3,) for n in range(30)], [f"{n}.png" for n in range(30)]
    parts = dict(zip(names, draw_parts(labels, names, {"val": 0.3}), strict=True))
    again = draw_parts(labels[::-1], names[::-1], {"val": 0.3})
    assert dict(zip(names[::-1], again, strict=True)) == parts


def test_several_labels_and_groups_are_shared_out():
    labels = [tuple(label for label in range(4) if (index >> label) % 2) for index in range(320)]
    groups = [str(index // 4) for index in range(320)]
    parts = draw(labels, {"val": 0.25}, groups=groups)
    assert len(set(zip(groups, parts, strict=True))) == 80
    for label in range(4):
        held = [part for part, of in zip(parts, labels, strict=True) if label in of]
        assert held.count("val") == pytest.approx(0.25 * len(held), abs=4)


def test_a_class_that_cannot_be_everywhere_is_told_with_its_numbers():
    labels = [(0,)] * 10 + [(1,)]
    parts = draw(labels, {"val": 0.2})
    assert parts[10] == "train"
    with pytest.raises(DataError, match=r"1 of 2 classes cannot .*\n  dog: 1 train, 0 val\nEach class needs 2 images"):
        check_parts(labels, ("cat", "dog"), parts, ("train", "val"), "images")
