"""What a classifier gives behind its network in an exported file."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.tasks.parity import SCORE_BOUND, Parity

OUTPUTS = ("probabilities",)
RAW_OUTPUTS = ("logits",)


class Tail(nn.Module):
    """Turns logits `(N, C)` into probabilities, float32.

    Args:
        model: Not used: all classifiers have the same.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()

    def forward(self, logits: Tensor) -> tuple[Tensor, ...]:
        """Return the probabilities."""
        return (logits.float().softmax(-1),)


class RawTail(nn.Module):
    """Gives logits `(N, C)` as they are, float32.

    Args:
        model: Not used: all classifiers have the same.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()

    def forward(self, logits: Tensor) -> tuple[Tensor, ...]:
        """Return the logits."""
        return (logits.float(),)


class Comparison:
    """Compares the probabilities of two classifiers, image by image.

    Args:
        classes: Their names, in the order of the outputs.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.numbers = {name: number for number, name in enumerate(classes)}
        self.differences: list[NDArray[Any]] = []
        self.same: list[bool] = []
        self.right: list[tuple[bool, bool]] = []
        self.first: str | None = None

    def add(self, name: str, ours: Any, theirs: Mapping[str, Any], target: Any = None) -> None:
        """Add an image.

        Args:
            name: Of the image.
            ours: The model's `Prediction` of all classes.
            theirs: `names` and `probabilities` of all classes.
            target: Number of its class; None: not known.
        """
        mine, other = self._spread(ours.names, ours.probabilities), self._spread(**_pick(theirs))
        difference, best = np.abs(mine - other), int(mine.argmax())
        is_tie = mine[best] - mine[int(other.argmax())] <= SCORE_BOUND
        self.differences.append(difference)
        self.same.append(bool(is_tie))
        if target is not None:
            self.right.append((best == target, int(other.argmax()) == target))
        if self.first is None and not (is_tie and difference.max() <= SCORE_BOUND):
            self.first = name

    def compute(self) -> Parity:
        """Return what all images show."""
        gaps = np.stack(self.differences)
        ours, theirs = np.mean(self.right, axis=0).tolist() if self.right else (None, None)
        largest, mean, share = float(gaps.max()), float(gaps.mean()), float(np.mean(self.same))
        return Parity(len(gaps), largest, mean, share, "top-1", ours, theirs, self.first)

    def _spread(self, names: Sequence[str], probabilities: Sequence[float]) -> NDArray[Any]:
        values = np.zeros(len(self.numbers))
        values[[self.numbers[name] for name in names]] = probabilities
        return values


def _pick(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {key: answer[key] for key in ("names", "probabilities")}
