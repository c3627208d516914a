import math

import numpy as np
import pytest

from zoo.errors import InputError
from zoo.tasks import Answers
from zoo.tasks.classification.paired import compare_answers


def answers(right, classes=("ant", "bee"), places=None):
    """A run on as many images, all ants, of which some are named rightly."""
    ant = classes.index("ant")
    arrays = {"true": np.full(len(right), ant, np.int32), "predicted": np.where(right, ant, 1 - ant).astype(np.int32)}
    return Answers(arrays, classes, np.arange(len(right)) if places is None else np.array(places))


def split(lost, won, both=0, none=0):
    first = np.array([True] * lost + [False] * won + [True] * both + [False] * none)
    second = np.array([False] * lost + [True] * won + [True] * both + [False] * none)
    return first, second


def test_the_p_is_that_of_the_binomial_test():
    first, second = split(lost=2, won=10, both=70, none=18)
    test = compare_answers(answers(first), answers(second))
    exact = 2 * sum(math.comb(12, k) for k in range(3)) / 2**12
    assert test.p == pytest.approx(exact)
    assert test.difference == pytest.approx(0.08)
    assert test.low < 0.08 < test.high
    assert dict(test.counts) == {"only the first is right": 2, "only the second is right": 10}
    back = compare_answers(answers(second), answers(first))
    assert (back.difference, back.p, back.low) == (-test.difference, test.p, pytest.approx(-test.high))


def test_equal_answers_tell_nothing_apart():
    right = np.arange(50) % 3 > 0
    test = compare_answers(answers(right), answers(right))
    assert (test.p, test.difference) == (1.0, 0.0)
    assert test.low < 0 < test.high


def test_many_images_do_not_overflow():
    first, second = split(lost=9_000, won=10_000, both=80_000)
    assert 0 < compare_answers(answers(first), answers(second)).p < 1e-10


def test_the_interval_holds_what_it_says():
    random, true, inside = np.random.default_rng(0), 0.05, 0
    for _ in range(400):
        first, luck = random.random(200) < 0.7, random.random(200)
        second = np.where(first, luck > 0.1, luck < 0.4)  # lost 0.07, won 0.12
        test = compare_answers(answers(first), answers(second))
        inside += test.low <= true <= test.high
    assert 0.92 <= inside / 400 <= 0.98


def test_classes_are_matched_by_name_and_images_by_their_places():
    one = answers(np.array([True, False, True]), places=[0, 1])
    other = answers(np.array([True, True, False]), classes=("bee", "ant"), places=[1, 2])
    assert compare_answers(one, other).counts == {"only the first is right": 0, "only the second is right": 0}
    other.arrays["true"][2] = 0
    with pytest.raises(InputError, match="1 images have another true class"):
        compare_answers(one, other)
