"""Heads that are solved on some images and scored on others."""

from typing import NamedTuple

import torch
from torch import Tensor

from zoo.analysis.resampling import deal_folds
from zoo.optim.solvers import Basis, FeatureRows, choose_l2, make_prototypes, solve_head

INNER_FOLDS = 5  # by which the penalty is chosen, as in a run
NO_CHOICE = 1.0  # penalty where no image can be held out, as in a run


class HeldOut(NamedTuple):
    """Scores on held-out images.

    Attributes:
        top1: Share of images whose most probable class is right.
        macro_f1: Mean F1 over the classes that were shown or predicted.
        l2: Penalty of the head; None for prototypes.
    """

    top1: float
    macro_f1: float
    l2: float | None


class HeadScorer:
    """Solves heads on parts of some features and scores them on others.

    Args:
        vectors: Features of all images, `(N, D)`, float32.
        labels: Class of each, `(N,)`.
        classes: Their number.
        groups: Group of each, `(N,)`; None: each image is its own.
        solver: `exact` or `prototype`.
        l2: Penalty of `exact`; None: chosen within the images that a head is solved on.
    """

    def __init__(
        self,
        vectors: Tensor,
        labels: Tensor,
        classes: int,
        groups: Tensor | None = None,
        solver: str = "exact",
        l2: float | None = None,
    ) -> None:
        self.vectors, self.labels, self.classes, self.groups = vectors, labels, classes, groups
        self.solver, self.l2 = solver, l2

    def score(self, learnt: Tensor, held: Tensor, *, seed: int) -> HeldOut:
        """Solve a head on some images and score it on others.

        Args:
            learnt: Indices of the images to learn from.
            held: Indices of those that are held out.
            seed: Of the folds by which the penalty is chosen.
        """
        present, labels = torch.unique(
            self.labels[learnt], return_inverse=True
        )  # a class that is missing is never named
        if len(present) == 1:
            return self._compare(present.expand(len(held)), held, None)
        rows = FeatureRows.of(self.vectors[learnt], labels)
        if self.solver == "prototype":
            head, l2 = make_prototypes(rows, len(present))[0], None
        else:
            costs, basis = torch.eye(len(present), dtype=torch.float64), Basis.of(rows)
            l2, start = self.l2, None
            if l2 is None and (folds := self._deal_inner(learnt, labels, seed)) is not None:
                choice = choose_l2(rows, costs, folds, basis=basis)
                l2, start = choice.l2, choice.start
            l2 = NO_CHOICE if l2 is None else l2
            head = solve_head(rows, costs, l2, basis=basis, start=start).head
        return self._compare(present[head(self.vectors[held]).argmax(1)], held, l2)

    def _deal_inner(self, learnt: Tensor, labels: Tensor, seed: int) -> Tensor | None:
        """Return the folds by which the penalty is chosen; None if no image can be held out.

        Groups stay whole here, too: else the penalty would be that for images of known patients. Of a single group,
        its images are dealt.
        """
        count, groups = min(INNER_FOLDS, int(labels.bincount().max())), None
        if self.groups is not None:
            names, groups = torch.unique(self.groups[learnt], return_inverse=True)
            count, groups = (min(count, len(names)), groups) if len(names) > 1 else (count, None)
        return deal_folds(labels, count, seed=seed, groups=groups) if count > 1 else None

    def _compare(self, predicted: Tensor, held: Tensor, l2: float | None) -> HeldOut:
        true = self.labels[held]
        pairs = (true * self.classes + predicted).bincount(minlength=self.classes**2).view(self.classes, -1).double()
        shown = pairs.sum(0) + pairs.sum(1)
        f1 = 2 * pairs.diagonal()[shown > 0] / shown[shown > 0]
        return HeldOut(float((predicted == true).double().mean()), float(f1.mean()), l2)
