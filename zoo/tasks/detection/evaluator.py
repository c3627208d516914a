"""Scores a detector batch by batch, in pixels of the images, and keeps some predictions to draw."""

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torchvision.ops import clip_boxes_to_image

from zoo._model import ask
from zoo.errors import InputError
from zoo.tasks.detection.batches import BoxTargets
from zoo.tasks.detection.images import BoxedImages
from zoo.tasks.detection.loss import ModelLoss
from zoo.tasks.detection.metrics import DetectionEvaluation, DetectionMetrics, Found, Truth
from zoo.tasks.detection.plots import Example
from zoo.tasks.detection.postprocess import VALIDATION, select_detections

MOST_EXAMPLES = 12


class Observed(NamedTuple):
    """What a process observes of its part of a batch.

    Attributes:
        losses: Mean loss times the number of these images; `total`, and its terms by name if it has some.
        found: The place of each image in its data set, and what was found in it.
    """

    losses: dict[str, float]
    found: list[tuple[int, Found]]


class DetectionEvaluator:
    """Scores the outputs of a detector; see `zoo.tasks.base.Evaluator`.

    Args:
        model: Says what its outputs mean, and how images come onto its canvas.
        classes: Names, in the order of the outputs.
        images: The split.
        loss: The model's; None: it has none.
    """

    in_rows = False

    def __init__(self, model: Any, classes: Sequence[str], images: BoxedImages, loss: ModelLoss | None) -> None:
        self.model, self.images, self.loss, self.classes = model, images, loss, len(classes)
        self.settings = ask(model, "scoring", VALIDATION)
        self.metrics = DetectionMetrics(classes, self.settings)
        self.examples: list[Example] = []
        self._chosen = _spread(len(images), MOST_EXAMPLES)
        self._loss_sums, self._count = Counter[str](), 0

    def observe(self, outputs: Any, targets: BoxTargets) -> list[Observed]:
        """Return the loss, and what was found."""
        found = list(self._locate(outputs, targets))
        if self.loss is None:
            return [Observed({}, found)]
        terms = self.loss.split(outputs, targets)
        means = {"total": functools.reduce(torch.add, terms.values()), **terms}
        means.pop("", None)  # a loss without terms
        values = torch.stack([mean.float() * len(targets.indices) for mean in means.values()])  # summed as float32
        return [Observed(dict(zip(means, values.tolist(), strict=True)), found)]

    def update(self, observed: Sequence[Observed]) -> None:
        """Add what the processes found."""
        for losses, found in observed:
            self._loss_sums.update(losses)
            self._count += len(found)
        every = [pair for part in observed for pair in part.found]
        truth = [Truth(*self.images.boxes[index]) for index, _ in every]
        self.metrics.update([boxes for _, boxes in every], truth, [index for index, _ in every])
        self.examples += [Example(index, boxes) for index, boxes in every if index in self._chosen]

    def compute(self) -> DetectionEvaluation:
        """Return the scores."""
        means = {name: total / self._count for name, total in self._loss_sums.items()}
        return self.metrics.compute(means.pop("total", None), means)

    def _locate(self, outputs: Any, targets: BoxTargets) -> Iterator[tuple[int, Found]]:
        """Yield the place of each image in its data set, and what was found in it, in its own pixels."""
        boxes, scores = self.model.decode(outputs)
        if scores.shape[-1] != self.classes:
            raise InputError(f"the model returns scores for {scores.shape[-1]} classes; expected {self.classes}.")
        detections = select_detections(boxes, scores, self.settings)
        for index, (on_canvas, certainty, labels) in zip(targets.indices.tolist(), detections, strict=True):
            height, width = self.images.sizes[index]
            place = self.model.preprocess.place(height, width)
            found = clip_boxes_to_image(place.to_image(on_canvas.cpu()), (height, width))
            yield index, Found(found.numpy(), certainty.cpu().numpy(), labels.cpu().numpy())


def _spread(count: int, most: int) -> set[int]:
    """Return up to so many indices, evenly spread."""
    return {round(place * (count - 1) / max(1, min(count, most) - 1)) for place in range(min(count, most))}
