"""McNemar's test: do two classifiers name the same images differently well?

Only images that one of them names rightly and the other wrongly say anything about that.

Sources: McNemar (1947), Psychometrika 12, 153-157; its exact form is a binomial test. The interval of the difference is
that of Agresti and Min (2005), Statistics in Medicine 24, 729-740.
"""

import math

import numpy as np

from zoo.errors import InputError
from zoo.tasks.classification.scores import SCORES
from zoo.tasks.paired import Answers, PairedTest

Z = 1.959964  # of the normal distribution, for 95 %


def compare_answers(first: Answers, second: Answers) -> PairedTest:
    """Return the difference of top-1, its interval, and the exact p of McNemar's test.

    Args:
        first: `true` and `predicted` class numbers `(N,)` of the first run's split; -1: no answer.
        second: Of the other run.

    Raises:
        InputError: The true classes differ.
    """
    truths = [np.array(answers.classes)[answers.arrays["true"][answers.places]] for answers in (first, second)]
    if differ := int((truths[0] != truths[1]).sum()):
        raise InputError(f"{differ:,} images have another true class")
    right = [(answers.arrays["true"] == answers.arrays["predicted"])[answers.places] for answers in (first, second)]
    lost, won = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
    images = len(first.places)
    difference, room = _find_interval(lost, won, images)
    return PairedTest(
        score=SCORES["top1"],
        images=images,
        difference=(won - lost) / images,
        low=max(difference - room, -1.0),
        high=min(difference + room, 1.0),
        p=_test_equal(lost, won),
        method="McNemar's exact test",
        counts={"only the first is right": lost, "only the second is right": won},
    )


def _find_interval(lost: int, won: int, images: int) -> tuple[float, float]:
    """Return the middle and half the width of the interval; half an image is added to each of the four counts."""
    total = images + 2
    middle = (won - lost) / total
    return middle, Z * math.sqrt(((won + lost + 1) / total - middle**2) / total)


def _test_equal(lost: int, won: int) -> float:
    """Return how probable a split at least as unequal is if each were a toss of a coin."""
    tosses, fewer = lost + won, min(lost, won)
    logs = [
        math.lgamma(tosses + 1) - math.lgamma(k + 1) - math.lgamma(tosses - k + 1) - tosses * math.log(2)
        for k in range(fewer + 1)
    ]
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))
