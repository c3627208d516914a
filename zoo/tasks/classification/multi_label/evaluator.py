"""Scores a classifier with several labels batch by batch, and keeps the images that it is most wrong of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.errors import InputError
from zoo.tasks.classification.evaluator import check_logits
from zoo.tasks.classification.multi_label.metrics import MultiLabelEvaluation, compute_scores

MOST_EXAMPLES = 1000  # images that are kept to be drawn


@dataclass(frozen=True)
class WrongLabels:
    """An image of which labels are named that it does not have, or not named that it has.

    Attributes:
        index: Its place in the data set.
        true: Numbers of its labels.
        named: Numbers of the labels that are named.
        error: Of the label that is most wrong, how far its probability is from the truth, 0 to 1.
    """

    index: int
    true: tuple[int, ...]
    named: tuple[int, ...]
    error: float


class MultiLabelEvaluator:
    """Scores logits; see `zoo.tasks.base.Evaluator`. All logits are kept on the CPU until the end.

    Args:
        classes: Names, in the order of the outputs.
        thresholds: From which probability on each is named.
    """

    in_rows = True

    def __init__(self, classes: Sequence[str], thresholds: Sequence[float]) -> None:
        self.classes, self.thresholds = tuple(classes), tuple(thresholds)
        self._logits: list[Tensor] = []
        self._targets: list[Tensor] = []

    @property
    def logits(self) -> Tensor:
        """All logits, `(N, C)`, float32."""
        return torch.cat(self._logits) if self._logits else torch.zeros(0, len(self.classes))

    @property
    def targets(self) -> Tensor:
        """All targets, `(N, C)`, 0 or 1."""
        return torch.cat(self._targets) if self._targets else torch.zeros(0, len(self.classes))

    @property
    def examples(self) -> list[WrongLabels]:
        """The images with wrong labels, the most wrong first."""
        probabilities, truth = self.logits.sigmoid(), self.targets.bool()
        named = probabilities >= torch.tensor(self.thresholds)
        errors = (probabilities - truth.float()).abs().masked_fill(named == truth, 0).amax(1)
        wrong = [index for index in errors.argsort(descending=True).tolist() if errors[index] > 0][:MOST_EXAMPLES]
        return [WrongLabels(i, _numbers(truth[i]), _numbers(named[i]), float(errors[i])) for i in wrong]

    def observe(self, outputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and targets as they are, once they are known to be logits."""
        logits, expected = check_logits(outputs), (len(targets), len(self.classes))
        if logits.shape != expected or targets.shape != expected:
            shapes = f"{tuple(logits.shape)} for targets of shape {tuple(targets.shape)}"
            raise InputError(f"the model returns outputs of shape {shapes}; expected {expected} of both.")
        return logits, targets

    def update(self, observed: tuple[Tensor, Tensor]) -> None:
        """Add a batch of all processes, whose images are the next ones of the data set."""
        logits, targets = observed
        self._logits.append(logits.float().cpu())
        self._targets.append(targets.cpu())

    def compute(self) -> MultiLabelEvaluation:
        """Return the scores."""
        return compute_scores(self.logits, self.targets, self.classes, self.thresholds)


def _numbers(flags: Tensor) -> tuple[int, ...]:
    return tuple(flags.nonzero().flatten().tolist())
