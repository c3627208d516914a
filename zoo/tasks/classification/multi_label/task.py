"""The task of classifiers whose images have any number of labels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo._model import ask, get_fact, set_fact
from zoo.data import Images, SplitSource
from zoo.errors import InputError
from zoo.tasks.base import CardFacts, Task
from zoo.tasks.classification.augment import check_augment
from zoo.tasks.classification.data import Data, open_data
from zoo.tasks.classification.exclusion import read_excluded
from zoo.tasks.classification.mixing import find_mixing
from zoo.tasks.classification.multi_label.evaluator import MultiLabelEvaluator, WrongLabels
from zoo.tasks.classification.multi_label.loss import check_loss, count_labels, make_loss, weigh_labels
from zoo.tasks.classification.multi_label.metrics import MultiLabelEvaluation
from zoo.tasks.classification.multi_label.plots import draw_cooccurrence, draw_training, show_wrong
from zoo.tasks.classification.multi_label.scores import SCORES
from zoo.tasks.classification.multi_label.thresholds import DEFAULT, choose_thresholds
from zoo.tasks.classification.plots import MOST_TILES, draw_mistakes
from zoo.tasks.classification.task import Classification, checked_loss

CARD = CardFacts(
    noun="classifier with several labels",
    pipeline="image-classification",
    dataset="imagefolder",
    counted="labels",
    scores={"map": ("mean_average_precision", "mAP"), "micro_f1": ("f1", "micro F1"), "macro_f1": ("f1", "macro F1")},
    columns={
        "class": "label",
        "images": "images",
        "ap": "AP",
        "precision": "precision",
        "recall": "recall",
        "f1": "F1",
        "threshold": "threshold",
    },
    captions={
        "cooccurrence": "Labels named on the images of each label",
        "mistakes": "Images whose labels are most wrong",
    },
)
BELOW = "labels that are named / true labels / file"
RAREST = 1e-3  # share of the images that a label is taken to have at least, for its first probability


class MultiLabelClassification(Classification):
    """The task of naming all labels of an image; see `zoo.tasks.base.Task`."""

    name: ClassVar[str] = "classification.multi_label"
    card: ClassVar[CardFacts] = CARD
    columns: ClassVar[Mapping[str, str]] = {key: SCORES[key] for key in ("map", "micro_f1")}
    monitors: ClassVar[tuple[str, ...]] = tuple(SCORES)
    class_monitors: ClassVar[tuple[str, ...]] = ("ap", "precision", "recall", "f1")
    curves: ClassVar[Mapping[str, str]] = SCORES
    secondary: ClassVar[tuple[str, ...]] = ("images", "precision", "recall", "threshold")
    calibrates: ClassVar[bool] = True
    solves: ClassVar[bool] = False

    def choose(self, options: Any) -> Task:
        """Return this task.

        Raises:
            InputError: The options want one class for each image, for a model of several labels.
        """
        if options.labels != "multi":
            raise InputError(
                f"the model gives several labels for an image, but labels is {options.labels}. Set labels=multi "
                "(--multi-label), or start from another model."
            )
        return self

    def open_data(self, source: Any, **options: Any) -> Data:
        """Open images with any number of labels."""
        return open_data(source, **{**options, "labels": "multi"})

    def settle(self, model: Any, data: Data) -> None:
        """Give a model this task, thresholds, and a new head the shares of the labels as its first probabilities."""
        set_fact(model, "task", self.name)
        set_fact(model, "thresholds", (DEFAULT,) * len(data.classes))
        get_head = ask(model, "get_head")
        layer = get_head() if callable(get_head) else None
        if data.train is None or not isinstance(layer, nn.Linear) or layer.bias is None or layer.bias.any():
            return
        shares = [count / len(data.train) for count in count_labels(data).values()]
        with torch.no_grad():
            layer.bias.copy_(torch.tensor(shares).clamp(RAREST, 1 - RAREST).logit())

    def check_options(self, options: Any, model: Any = None) -> None:
        """Refuse what means one class for each image, and what contradicts itself."""
        check_loss(options, model)
        check_augment(options, model)
        read_excluded(options.exclude)

    def describe_classes(self, data: Data, options: Any) -> list[dict[str, str]]:
        """Return a table of each label: its training images and its weight; empty if they are not weighted."""
        counts, weights = count_labels(data), weigh_labels(data, options)
        return [{"label": name, "images": f"{counts[name]:,}", "weight": f"{weights[name]:.3f}"} for name in weights]

    def make_training_source(self, model: Any, data: Data, options: Any, *, is_frozen: bool) -> SplitSource:
        """Describe the training images and their random changes."""
        source = super().make_training_source(model, data, options, is_frozen=is_frozen)
        return replace(
            _with_rows(source),
            draw=partial(draw_training, classes=data.classes, mix=find_mixing(options, len(data.classes))),
        )

    def make_scoring_source(self, model: Any, images: Images, seed: int = 0) -> SplitSource:
        """Describe images as `predict` shows them to the network."""
        return _with_rows(super().make_scoring_source(model, images, seed))

    def make_worst_batch(self, model: Any, data: Data, options: Any, count: int) -> tuple[Tensor, Tensor]:
        """Return black images without labels."""
        images, _ = super().make_worst_batch(model, data, options, count)
        return images, torch.zeros(count, len(data.classes))

    def make_loss(
        self, model: nn.Module, data: Data, options: Any, compile: Callable[[Any], Any] | None = None
    ) -> Callable[[Any, Tensor], Tensor]:
        """Return the loss that the options say, or the model's own."""
        check_loss(options, model)
        device = next((parameter.device for parameter in model.parameters()), None)
        made = make_loss(data, options, model, device)
        return checked_loss(made if compile is None else compile(made), len(data.classes))

    def describe_balance(self, data: Data, options: Any) -> dict[str, dict[str, float]]:
        """Return the weights of the images with a label in the loss, by name."""
        weights = weigh_labels(data, options)
        return {"class_weights": weights} if weights else {}

    def make_evaluator(  # type: ignore[override]
        self,
        model: Any,
        classes: Sequence[str],
        images: Images | None,
        *,
        device: torch.device,
        loss: Callable[[Any, Tensor], Tensor] | None = None,
    ) -> MultiLabelEvaluator:
        """Return what scores logits at the model's thresholds; its loss is the plain one, whatever was learnt with."""
        thresholds = get_fact(model, "thresholds") or (DEFAULT,) * len(classes)
        return MultiLabelEvaluator(classes, thresholds)

    def calibrate(self, model: Any, evaluator: Any) -> None:
        """Give a model the thresholds that its outputs for the training images suggest."""
        set_fact(model, "thresholds", tuple(choose_thresholds(evaluator.logits.sigmoid(), evaluator.targets)))

    def make_plots(  # type: ignore[override]
        self, evaluation: MultiLabelEvaluation, wrong: Sequence[WrongLabels], images: Images | None
    ) -> dict[str, Callable[[Path], Any]]:
        """Return the co-occurrence of labels and the images whose labels are most wrong."""
        classes = evaluation.classes
        plots: dict[str, Callable[[Path], Any]] = {"cooccurrence.png": partial(draw_cooccurrence, evaluation)}
        if images is not None:
            most, total = wrong[:MOST_TILES], len(wrong)
            plots["mistakes.png"] = lambda path: draw_mistakes(
                [show_wrong(one, images, classes) for one in most], path, total=total, what=BELOW
            )
        return plots


def _with_rows(source: SplitSource) -> SplitSource:
    """Return a source whose targets `(B, C)` are kept as one row of each image."""
    return replace(
        source,
        pack_targets=lambda targets: list(targets[:, None, :]),
        unpack_targets=lambda rows, counts, indices: rows,
    )


TASK: Task = MultiLabelClassification()
