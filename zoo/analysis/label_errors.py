"""Labels that are probably wrong, by confident learning on probabilities of images that were held out."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.analysis.embedding import Embedding
from zoo.errors import InputError
from zoo.optim.solvers import Basis, FeatureRows, choose_l2, make_folds, solve_head
from zoo.progress import Progress

FOLDS = 5
LEAST = FOLDS  # images that a class needs to have its labels checked
UNSURE = 0.1  # a given class that is more than so many times as probable as the likely one may be right


class LabelError(NamedTuple):
    """A label that is probably wrong.

    Attributes:
        place: Index of the image.
        likely: Class number that is more probable.
        score: 1 - probability of the given class / probability of the likely one.
    """

    place: int
    likely: int
    score: float


def check_installed() -> None:
    """Raise an `InputError` if the library that finds wrong labels is missing."""
    if find_spec("cleanlab") is None:
        raise InputError(
            "finding wrong labels needs the library cleanlab. Install it: pip install 'zoo-finetune[check]'."
        )


def predict_all(
    base: Embedding, others: Sequence[Embedding], classes: int, show: Progress
) -> list[NDArray[np.float64]]:
    """Return class probabilities `(N, C)` of images that the head has not seen: of `base`, then of each other.

    Those of `base` are cross-validated, with the penalty that does best there; the others are those of a head that is
    solved on all of `base`.
    """
    rows, costs = FeatureRows.of(base.vectors, base.labels), torch.eye(classes, dtype=torch.float64)
    basis = Basis.of(rows)
    most = int(base.labels.bincount().max())
    if most < 2:
        raise InputError("labels are checked by images that are held out; each class has a single image.")
    folds = make_folds(base.labels, min(FOLDS, most), seed=0)
    with show.counting("predicting held-out images") as count:
        choice = choose_l2(rows, costs, folds, basis=basis, on_progress=count)
    found = [_to_probabilities(choice.logits)]
    if others:
        head = solve_head(rows, costs, choice.l2, basis=basis, start=choice.start).head
        found += [_to_probabilities(head(part.vectors)) for part in others]
    return found


def find_label_errors(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[list[LabelError], int]:
    """Return labels that are probably wrong, the worst first, and how many confident learning finds by itself.

    Of these, the ones are returned whose likely class is at least ten times as probable as the given one: the others
    are mostly hard images with the right label (docs/how-to/check-data.md).

    Args:
        probabilities: `(N, C)`, of images that were held out.
        labels: `(N,)` given class numbers; classes of fewer than 5 images are not judged.

    Source:
        Northcutt et al. 2021, Confident learning, arXiv 1911.00068, in the library cleanlab.
    """
    from cleanlab.filter import find_label_issues

    counts = np.bincount(labels, minlength=probabilities.shape[1])
    judged = np.flatnonzero(counts >= LEAST)
    places = np.flatnonzero(np.isin(labels, judged))
    if len(judged) < 2:
        return [], 0
    part = probabilities[places][:, judged]
    part /= part.sum(axis=1, keepdims=True)
    given = np.searchsorted(judged, labels[places])
    issues = np.flatnonzero(find_label_issues(given, part, n_jobs=1))
    likely, rows = part.argmax(axis=1), np.arange(len(part))
    ratios = part[rows, given] / part[rows, likely]
    sure = issues[ratios[issues] <= UNSURE]
    found = [LabelError(int(places[i]), int(judged[likely[i]]), 1 - float(ratios[i])) for i in sure]
    return sorted(found, key=lambda error: -error.score), len(issues)


def _to_probabilities(logits: Tensor) -> NDArray[np.float64]:
    values: NDArray[np.float64] = logits.double().softmax(1).cpu().numpy()
    return values
