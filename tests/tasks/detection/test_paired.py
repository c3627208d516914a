import numpy as np
import pytest

from zoo.errors import InputError
from zoo.tasks import Answers
from zoo.tasks.detection.metrics import DetectionMetrics, Found, Truth
from zoo.tasks.detection.paired import compare_answers

CLASSES = ("ant", "bee", "none")
IMAGES = 40


def evaluate(noise, seed=0):
    """Score a detector whose boxes are the less exact the more noise there is; the true boxes are always the same."""
    world, random = np.random.default_rng(1), np.random.default_rng(seed)
    metrics = DetectionMetrics(CLASSES)
    for _ in range(IMAGES):
        corner = world.uniform(0, 60, (4, 2))
        boxes, labels = np.concatenate([corner, corner + 20], 1), world.integers(0, 2, 4)
        moved = np.concatenate([boxes + random.normal(0, noise, boxes.shape), world.uniform(0, 80, (3, 4))])
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        guesses = np.concatenate([labels, world.integers(0, 2, 3)])
        metrics.update([Found(moved, random.random(7), guesses)], [Truth(boxes, labels, np.zeros(4, bool))])
    return metrics.compute()


@pytest.fixture(scope="module")
def runs():
    return [evaluate(noise=2), evaluate(noise=4, seed=5)]


def answers(run, places=None, classes=CLASSES):
    return Answers(run.answers, classes, np.arange(IMAGES) if places is None else np.array(places))


def test_the_difference_is_that_of_the_scores_and_its_interval_leaves_zero_out(runs):
    good, bad = runs
    test = compare_answers(answers(bad), answers(good))
    assert test.difference == pytest.approx(good.map50 - bad.map50, abs=1e-6)
    assert 0 < test.low < test.difference < test.high
    assert (test.p, test.images) == (None, IMAGES)


def test_a_run_does_not_differ_from_itself(runs):
    test = compare_answers(answers(runs[0]), answers(runs[0]))
    assert (test.low, test.difference, test.high) == (0, 0, 0)


def test_only_shared_images_count_in_whatever_order(runs):
    places = np.random.default_rng(0).permutation(IMAGES)[:15]
    halves = [compare_answers(answers(runs[1], chosen), answers(runs[0], chosen)) for chosen in (places, places[::-1])]
    assert halves[0].difference == pytest.approx(halves[1].difference)
    assert halves[0].images == 15


def test_other_true_boxes_are_refused(runs):
    with pytest.raises(InputError, match="the true boxes differ"):
        compare_answers(answers(runs[0], range(10)), answers(runs[1], range(1, 11)))
    with pytest.raises(InputError, match="the true boxes differ"):
        compare_answers(answers(runs[0]), answers(runs[1], classes=("ant", "wasp", "none")))
