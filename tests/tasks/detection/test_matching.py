import numpy as np
import pytest

from zoo.tasks.detection.matching import THRESHOLDS, Matches, match_boxes
from zoo.tasks.detection.metrics import DetectionMetrics, Found, Truth

NOTHING = Truth(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, bool))
LEFT, RIGHT = [0, 0, 10, 10], [20, 0, 30, 10]


def found(*rows):
    """Boxes of `(xyxy, score, class)`."""
    boxes, scores, labels = zip(*rows, strict=True) if rows else ((), (), ())
    return Found(np.array(boxes, float).reshape(-1, 4), np.array(scores, float), np.array(labels, int))


def there(*rows):
    """Boxes of `(xyxy, class)` or `(xyxy, class, is a crowd)`."""
    boxes, labels, crowd = zip(*((*row, False)[:3] for row in rows), strict=True)
    return Truth(np.array(boxes, float), np.array(labels), np.array(crowd))


def test_each_true_box_goes_to_the_surest_box_on_it():
    overlaps = np.array([[0.6, 0.9], [0.55, 0.8], [0.1, 0.7], [0.4, 0.4]])
    assert match_boxes(overlaps).tolist() == [1, 0, -1, -1]
    assert match_boxes(np.zeros((2, 0))).tolist() == [-1, -1]


def confusion(*images, classes=2):
    matches = Matches(classes)
    for image in images:
        matches.update(*image)
    return matches.confusion.tolist()


def test_the_confusion_matrix_counts_right_confused_false_and_missed_boxes():
    truth = there((LEFT, 0), (RIGHT, 1), ([40, 0, 50, 10], 1))
    guesses = found((LEFT, 0.9, 0), (RIGHT, 0.8, 0), ([60, 0, 70, 10], 0.7, 1), ([40, 0, 50, 10], 0.2, 1))
    assert confusion((guesses, truth)) == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]
    assert confusion((found(), truth), (guesses, NOTHING)) == [[0, 0, 1], [0, 0, 2], [2, 1, 0]]


def test_a_box_of_its_class_comes_before_a_surer_one_of_another():
    guesses = found((LEFT, 0.9, 1), (LEFT, 0.5, 0))
    assert confusion((guesses, there((LEFT, 0)))) == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_a_box_on_a_crowd_of_its_class_counts_nowhere():
    crowd = there(([0, 0, 100, 100], 0, True))
    assert confusion((found((LEFT, 0.9, 0)), crowd)) == [[0, 0, 0]] * 3
    assert confusion((found((LEFT, 0.9, 1)), crowd)) == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_curves_over_the_confidence():
    matches = Matches(3)
    matches.update(found((LEFT, 0.9, 0), (RIGHT, 0.6, 0), (LEFT, 0.5, 0), (LEFT, 0.3, 1)), there((LEFT, 0), (RIGHT, 0)))
    matches.update(found(), there((LEFT, 1)))
    curves = matches.compute()
    at = {round(threshold, 2): place for place, threshold in enumerate(THRESHOLDS)}
    for threshold, precision, recall in [(0.0, 2 / 3, 1), (0.5, 2 / 3, 1), (0.51, 1, 1), (0.61, 1, 0.5), (0.9, 1, 0.5)]:
        assert curves.precision[0, at[threshold]] == pytest.approx(precision)
        assert curves.recall[0, at[threshold]] == pytest.approx(recall)
        assert curves.f1[0, at[threshold]] == pytest.approx(2 * precision * recall / (precision + recall))
    assert np.isnan(curves.precision[0, at[0.91]])
    assert curves.f1[0, at[0.91]] == curves.recall[0, at[0.91]] == 0
    assert curves.precision[1, 0] == curves.recall[1, 0] == curves.f1[1, 0] == 0
    assert np.isnan(curves.recall[2]).all()
    assert np.isnan(curves.f1[2]).all()
    assert np.isnan(Matches(1).compute().recall).all()


def test_the_best_f1_of_the_curves_is_that_of_the_counted_scores():
    """COCO's curve keeps the best precision from each recall on, so that its F1 is the same or a little larger."""
    random, metrics = np.random.default_rng(0), DetectionMetrics(["a", "b"])
    for _ in range(60):
        corners = random.uniform(0, 80, (6, 2))
        boxes, labels = np.hstack([corners, corners + random.uniform(10, 40, (6, 2))]), random.integers(0, 2, 6)
        moved = np.vstack([boxes + random.normal(0, 3, (6, 4)), boxes[:2] + 60])
        guesses = np.append(np.where(random.random(6) < 0.8, labels, 1 - labels), [0, 1])
        metrics.update([Found(moved, random.random(8), guesses)], [Truth(boxes, labels, np.zeros(6, bool))])
    scores = metrics.compute()
    assert sum(map(sum, scores.confusion[:-1])) == scores.boxes == 360
    for curve, of in zip(scores.by_conf.f1, scores.of_classes, strict=True):
        assert of.best_f1 - 0.03 < curve.max() <= of.best_f1 + 0.01
