"""Scores a classifier batch by batch, and keeps the images that it names wrongly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from zoo.errors import InputError
from zoo.tasks.classification.metrics import ClassificationMetrics, Evaluation, are_answers


@dataclass(frozen=True)
class Miss:
    """An image whose most probable class is wrong.

    Attributes:
        index: Its place in the data set.
        target: The true class.
        predicted: The most probable one.
        confidence: How probable, 0 to 1.
    """

    index: int
    target: int
    predicted: int
    confidence: float


class ClassificationEvaluator:
    """Scores logits; see `zoo.tasks.base.Evaluator`.

    Args:
        classes: Names, in the order of the outputs.
        device: Where outputs are.
    """

    in_rows = True

    def __init__(self, classes: Sequence[str], device: torch.device | str) -> None:
        self.metrics = ClassificationMetrics(classes, device)
        self._misses: list[Miss] = []
        self._answers: list[Tensor] = []  # of each batch, true and predicted classes `(2, B)`

    @property
    def examples(self) -> list[Miss]:
        """The misses, the most confident first."""
        return sorted(self._misses, key=lambda miss: -miss.confidence)

    def observe(self, outputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and class numbers as they are, once they are known to be logits."""
        logits, count = check_logits(outputs), len(self.metrics.classes)
        if logits.ndim != 2 or logits.shape[1] != count:
            raise InputError(f"the model returns outputs of shape {tuple(logits.shape)}; expected (B, {count}).")
        return logits, targets

    def update(self, observed: tuple[Tensor, Tensor]) -> None:
        """Add a batch of all processes, whose images are the next ones of the data set."""
        outputs, targets = observed
        seen = self.metrics.images
        self.metrics.update(outputs, targets)
        best = outputs.float().softmax(-1).max(-1)
        answered = are_answers(outputs)
        self._answers.append(torch.stack([targets, best.indices.where(answered, -1)]))
        wrong = ((best.indices != targets) & answered).nonzero().flatten()
        columns = (wrong + seen, targets[wrong], best.indices[wrong], best.values[wrong])
        self._misses += [Miss(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]

    def compute(self) -> Evaluation:
        """Return the scores."""
        every = torch.cat(self._answers, 1) if self._answers else torch.zeros(2, 0)
        true, predicted = every.to("cpu", torch.int32).numpy()
        return replace(self.metrics.compute(), answers={"true": true, "predicted": predicted})


def check_logits(outputs: Any) -> Tensor:
    """Return outputs that are one tensor.

    Raises:
        InputError: They are something else, which networks of other libraries give.
    """
    if isinstance(outputs, Tensor):
        return outputs
    kind, advice = type(outputs).__name__, "Wrap the model in a module whose forward returns only the logits."
    if isinstance(getattr(outputs, "logits", None), Tensor):
        advice = "Wrap the model in a module whose forward returns model(images).logits."
    elif isinstance(outputs, Mapping):
        kind += f" with the keys {', '.join(map(str, outputs))}"
    elif isinstance(outputs, (tuple, list)):
        kind += f" of {len(outputs)}"
        advice += " (torchvision's GoogLeNet and Inception return one tensor with aux_logits=False.)"
    raise InputError(f"the model returns a {kind}; expected one tensor of logits, (images, classes). {advice}")
