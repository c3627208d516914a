"""A paired bootstrap: how far could the difference of two detectors' mAP@.5 be that of the images that were drawn?

Images are drawn with replacement, the same for both detectors. The mAP of a draw is counted from the matches at an IoU
of 0.5 that an evaluation makes anyhow, with the interpolation of COCO at 101 recalls.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), the percentile interval.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import InputError
from zoo.tasks.detection.scores import SCORES
from zoo.tasks.paired import Answers, PairedTest

DRAWS, SEED = 1000, 0
RECALLS = np.linspace(0, 1, 101)

Floats = NDArray[np.float64]


def compare_answers(first: Answers, second: Answers) -> PairedTest:
    """Return the difference of mAP@.5 and its interval.

    Args:
        first: Boxes of the first run's split: `image`, `label`, `score` and `right` `(N,)`, and of the true boxes
            `true_image` and `true_label` `(M,)`.
        second: Of the other run.

    Raises:
        InputError: The true boxes differ, or there are none.
    """
    images, runs = len(first.places), (_Boxes(first), _Boxes(second))
    if set(runs[0].truth) != set(runs[1].truth) or any(
        not np.array_equal(runs[0].truth[name], runs[1].truth[name]) for name in runs[0].truth
    ):
        raise InputError("the true boxes differ")
    if not runs[0].truth:
        raise InputError("there are no true boxes")
    once = np.ones(images)
    differences = list(_draw(runs, images))
    low, high = np.percentile(differences, [2.5, 97.5])
    return PairedTest(
        score=SCORES["map50"],
        images=images,
        difference=runs[1].count_map(once) - runs[0].count_map(once),
        low=float(low),
        high=float(high),
        p=None,
        method=f"paired bootstrap over the images, {DRAWS:,} draws",
    )


def _draw(runs: "tuple[_Boxes, _Boxes]", images: int) -> Iterator[float]:
    """Yield the difference in each draw; one without any true box says nothing."""
    random = np.random.default_rng(SEED)
    for _ in range(DRAWS):
        times = random.multinomial(images, np.full(images, 1 / images)).astype(np.float64)
        difference = runs[1].count_map(times) - runs[0].count_map(times)
        if not math.isnan(difference):
            yield difference


class _Boxes:
    """The boxes of a run, by class, surest first.

    Args:
        answers: Of the run.

    Attributes:
        truth: Number of true boxes in each image, by class.
        found: Image of each found box, and whether it is right, by class.
    """

    def __init__(self, answers: Answers) -> None:
        arrays, images = answers.arrays, len(answers.places)
        at, true_at = (_find_shared(answers.places, arrays[name]) for name in ("image", "true_image"))
        order = np.argsort(-arrays["score"], kind="stable")
        order = order[at[order] >= 0]
        self.truth: dict[str, NDArray[Any]] = {}
        self.found: dict[str, tuple[NDArray[Any], Floats]] = {}
        for number, name in enumerate(answers.classes):
            there = true_at[(arrays["true_label"] == number) & (true_at >= 0)]
            own = order[arrays["label"][order] == number]
            if len(there):
                self.truth[name] = np.bincount(there, minlength=images)
                self.found[name] = at[own], arrays["right"][own].astype(np.float64)

    def count_map(self, times: Floats) -> float:
        """Return the mean over the classes of the average precision, if each image counts so many times."""
        with np.errstate(invalid="ignore", divide="ignore"):
            found = [self._count_ap(name, times) for name in self.truth]
        counted = [ap for ap in found if not math.isnan(ap)]
        return math.fsum(counted) / len(counted) if counted else math.nan

    def _count_ap(self, name: str, times: Floats) -> float:
        boxes = float(self.truth[name] @ times)
        at, right = self.found[name]
        if not boxes:
            return math.nan
        weights = times[at]
        hits, kept = np.cumsum(weights * right), np.cumsum(weights)
        precision = np.nan_to_num(hits / kept)
        best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        return float(best[np.searchsorted(hits / boxes, RECALLS - 1e-12)].mean())


def _find_shared(places: NDArray[Any], images: NDArray[Any]) -> NDArray[np.int64]:
    """Return for each box which of the shared images it is on; -1 for none."""
    order = np.argsort(places)
    found = order[np.searchsorted(places, images, sorter=order).clip(max=len(places) - 1)]
    return np.where(places[found] == images, found, -1)
