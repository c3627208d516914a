"""The task of detectors: data, loss, scores and plots of images with boxes."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo._model import ask
from zoo.data import Letterbox, Prepare, SplitSource, lay_channels_last, load_transform, normalize_canvas
from zoo.data import check_installed as check_hashes
from zoo.errors import InputError
from zoo.progress import Progress
from zoo.tasks.answers import PredictFlags
from zoo.tasks.base import CardFacts, Task, TaskDefaults
from zoo.tasks.confusion_plot import draw_confusion
from zoo.tasks.detection.augment import BoxAugment
from zoo.tasks.detection.batches import STRIDE, BoxSamples, BoxTargets, collate_boxes, draw_scale, resize_batch
from zoo.tasks.detection.data import BoxData, open_box_data
from zoo.tasks.detection.drawing import import_supervision
from zoo.tasks.detection.evaluator import DetectionEvaluator
from zoo.tasks.detection.images import BoxedImages
from zoo.tasks.detection.loss import ModelLoss
from zoo.tasks.detection.matching import BACKGROUND, CONF, IOU
from zoo.tasks.detection.metrics import DetectionEvaluation
from zoo.tasks.detection.metrics import check_installed as check_metrics
from zoo.tasks.detection.plots import (
    Example,
    draw_batch,
    draw_by_confidence,
    draw_class_ap,
    draw_precision_recall,
    draw_predictions,
)
from zoo.tasks.detection.predict import print_boxes
from zoo.tasks.detection.repeat import check_sampler, count_repeats, find_rarity, report_repeats
from zoo.tasks.detection.scores import SCORES
from zoo.tasks.detection.user_transform import check_boxes_transform

MOSAIC_IMAGES = 4
MOST_CLASSES_TOLD = 20
CONFUSION = f"Confusion matrix (confidence {CONF:g} or more, IoU {IOU:g})"
CARD = CardFacts(
    noun="detector",
    pipeline="object-detection",
    dataset="objectfolder",
    scores={"map": ("mean_average_precision", "mAP@[.5:.95]"), "map50": ("mean_average_precision", "mAP@.5")},
    columns={
        "class": "class",
        "boxes": "boxes",
        "ar100": "AR@100",
        "ap": "AP@[.5:.95]",
        "ap50": "AP@.5",
    },
    captions={
        "class_ap": "Average precision per class",
        "precision_recall": "Precision and recall",
        "by_confidence": "Precision, recall and F1 over the confidence threshold",
        "confusion": "Confusion matrix",
        "predictions": "True boxes and predicted boxes",
        "first_batch": "The first training batch, as the network sees it",
    },
    former={"recall": "ar100"},  # COCO's average recall
)


class Detection(TaskDefaults):
    """The task of finding things of several classes in an image; see `zoo.tasks.base.Task`."""

    name: ClassVar[str] = "detection"
    card: ClassVar[CardFacts] = CARD
    columns: ClassVar[Mapping[str, str]] = {key: SCORES[key] for key in ("map", "map50")}
    monitors: ClassVar[tuple[str, ...]] = tuple(SCORES)
    class_monitors: ClassVar[tuple[str, ...]] = ("ap", "ap50", "ar100")
    curves: ClassVar[Mapping[str, str]] = {"map": "mAP@[.5:.95]", "map50": "mAP@.5"}
    secondary: ClassVar[tuple[str, ...]] = ("AR@100", "at conf", "recall", "precision", "AP@.5")
    defaults: ClassVar[Mapping[str, Any]] = {"batch_size": 16}
    scoring_batch: ClassVar[int] = 8
    flags: ClassVar[frozenset[str]] = frozenset({"coco_ids", "conf", "iou", "out", "overlap", "save", "tiles"})
    saves: ClassVar[tuple[str, ...]] = ("images", "json", "csv", "coco", "yolo", "crops")
    opening: ClassVar[tuple[str, ...]] = ()

    def open_data(self, source: Any, **options: Any) -> BoxData:
        """Open what `zoo.tasks.detection.data.open_box_data` opens."""
        return open_box_data(source, **options)

    def report(self, data: BoxData, options: Any, show: Progress) -> None:
        """Say which class has which number, how many boxes there are, and all that was found to be odd."""
        show.log(f"format: {data.form}; classes: {_list_classes(data)}")
        show.table(
            data.report.rows(),
            title="boxes per class",
            totals=data.report.totals(),
            secondary=data.report.secondary,
            in_full="zoo data check --json",
        )
        for line in data.report.summary():
            show.log(line)
        report_repeats(data, options, show)

    def check_options(self, options: Any, model: Any = None) -> None:
        """Refuse what the model's loss does not take, or what contradicts itself, before anything is read."""
        check_params = ask(model, "check_loss_params")
        if check_params is not None:
            check_params(options.loss_params)
        check_sampler(options)
        _check_augment(options)

    def check_installed(self) -> None:
        """Refuse to begin without what counts the scores, draws boxes, and finds near-duplicates."""
        check_metrics()
        check_hashes()
        import_supervision()

    def choose_preprocess(self, model: Any, options: Any) -> Letterbox:
        """Return the weights' preprocessing with size and decoding of the options, and keep it with the model."""
        own = ask(model, "preprocess")
        letterbox = own if isinstance(own, Letterbox) else Letterbox()
        if options.image_size is not None:
            letterbox = letterbox.resized(options.image_size, step=ask(model, "size_step", 1))
        model.preprocess = letterbox = letterbox.replace(decode=options.decode or "fast")
        return letterbox

    def make_training_source(self, model: Any, data: BoxData, options: Any, *, is_frozen: bool) -> SplitSource:
        """Describe the training images and their random changes, which do not depend on what is frozen."""
        letterbox, augment = model.preprocess, _choose_augment(options)
        plain_from = options.epochs - options.plain_epochs if options.plain_epochs else None
        user = load_transform(options.transform)
        check_boxes_transform(user)
        train: Any = data.train
        images = train.needing(None if user else letterbox.need_enlarged(augment.enlargement))
        changed = {} if augment.is_none and user is None else {"augment": augment.to_key(), "seed": options.seed}

        def draw(batch: Tensor, targets: BoxTargets, path: Path) -> None:
            draw_batch(batch.cpu(), targets.rows.cpu(), data.classes, path, is_bgr=letterbox.channels == "bgr")

        return SplitSource(
            images=images,
            samples=BoxSamples(images, letterbox, augment, options.seed, plain_from, user),
            collate=collate_boxes,
            prepare=_preparing(letterbox, options.multi_scale, options.seed),
            cache_key={"letterbox": letterbox.to_dict(), **changed},
            uncacheable_reason=_why_changing(options, augment),
            pack_targets=_split_rows,
            unpack_targets=_join_rows,
            draw=draw,
            repeats=count_repeats(data, options),
            code=user and user.call,
        )

    def make_scoring_source(self, model: Any, images: BoxedImages, seed: int = 0) -> SplitSource:
        """Describe images as `predict` shows them to the network."""
        letterbox = model.preprocess
        images = images.needing(letterbox.need)
        return SplitSource(
            images=images,
            samples=BoxSamples(images, letterbox, seed=seed),
            collate=collate_boxes,
            prepare=_preparing(letterbox),
            cache_key={"letterbox": letterbox.to_dict()},
            uncacheable_reason=None,
            pack_targets=_split_rows,
            unpack_targets=_join_rows,
        )

    def make_worst_batch(self, model: Any, data: BoxData, options: Any, count: int) -> tuple[Tensor, BoxTargets]:
        """Return black canvases of the largest size, each with as many boxes as any may get."""
        letterbox = model.preprocess
        height, width = (
            math.ceil(side * (1 + options.multi_scale) / STRIDE) * STRIDE for side in letterbox.canvas_size
        )
        most = max((len(boxes.labels) for boxes in data.train.boxes), default=0) if data.train else 0
        most *= (MOSAIC_IMAGES if options.mosaic else 1) * (2 if options.mixup else 1)
        boxes = torch.tensor([0.0, width / 2, height / 2, width / 2, height / 2]).repeat(count * most, 1)
        images = torch.arange(float(count)).repeat_interleave(most)[:, None]
        targets = BoxTargets(torch.cat([images, boxes], 1), torch.arange(count))
        return lay_channels_last(torch.zeros(count, 3, height, width)), targets

    def make_loss(
        self, model: Any, data: BoxData, options: Any, compile: Callable[[Any], Any] | None = None
    ) -> ModelLoss:
        """Return the model's own loss; it is not compiled, because each batch has another number of boxes."""
        return ModelLoss(model, options.loss_params)

    def describe_balance(self, data: BoxData, options: Any) -> dict[str, dict[str, float]]:
        """Return how many training images have each class, and how often they are repeated at least."""
        rarity = find_rarity(data, options).items()
        images, factors = ({name: value[place] for name, value in rarity} for place in range(2))
        return {"images_per_class": images, "repeat_factors": factors} if rarity else {}

    def make_evaluator(
        self, model: Any, classes: Sequence[str], images: BoxedImages, *, device: torch.device, loss: Any = None
    ) -> DetectionEvaluator:
        """Return what scores outputs in pixels of the images; the loss of an exported model is not known."""
        known = loss or (None if ask(model, "why_fixed") else ModelLoss(model))
        return DetectionEvaluator(model, classes, images, known)

    def make_plots(
        self, evaluation: DetectionEvaluation, examples: Sequence[Example], images: BoxedImages
    ) -> dict[str, Callable[[Path], Any]]:
        """Return curves, the confusion matrix, the scores of each class, and predictions beside the truth."""
        return {
            "precision_recall.png": lambda path: draw_precision_recall(evaluation, path),
            "by_confidence.png": lambda path: draw_by_confidence(evaluation, path),
            "confusion.png": lambda path: draw_confusion(
                evaluation.confusion, [*evaluation.classes, BACKGROUND], path, title=CONFUSION
            ),
            "class_ap.png": lambda path: draw_class_ap(evaluation, path),
            "predictions.png": lambda path: draw_predictions(examples, images, evaluation.classes, path),
        }

    def predict_command(self, model: Any, sources: Any, flags: PredictFlags) -> None:
        """Print the boxes that are found, and draw them."""
        print_boxes(model, sources, flags)


def _check_augment(options: Any) -> None:
    """Refuse a policy, which is for classifiers, and plain epochs that would not be plain."""
    if options.augment not in ("auto", "none"):
        raise InputError(
            f"augment is {options.augment!r}, which is for classifiers; detectors have one field per "
            "augmentation, such as mosaic and flip_probability. Use augment 'auto', or 'none' to turn them all "
            "off."
        )
    if options.views > 1 and options.plain_epochs and (options.mosaic or options.mixup):
        raise InputError(
            f"views is {options.views} and plain_epochs {options.plain_epochs}: with views, the same images "
            "repeat until the end, mosaic and mixup included. Set plain_epochs to 0."
        )


def _choose_augment(options: Any) -> BoxAugment:
    if options.augment == "none":
        return BoxAugment()
    names = (field.name for field in fields(BoxAugment) if field.name != "flip")
    return BoxAugment(flip=options.flip_probability, **{name: getattr(options, name) for name in names})


def _why_changing(options: Any, augment: BoxAugment) -> str | None:
    """Return why an image does not look the same in every epoch, or whenever its view is shown."""
    if options.multi_scale:
        return "the input size changes with every batch (multi_scale)"
    if options.views == 1 and not (augment.is_none and options.transform is None):
        return "augmentation changes the images every epoch (views=4 would cache four versions of each)"
    return None


def _split_rows(targets: BoxTargets) -> list[Tensor]:
    """Return class and box of each image of a batch, `(n, 5)`."""
    counts = torch.bincount(targets.rows[:, 0].long(), minlength=len(targets.indices))
    return list(torch.split(targets.rows[:, 1:], counts.tolist()))


def _join_rows(rows: Tensor, counts: Tensor, indices: Tensor) -> BoxTargets:
    numbers = torch.arange(len(counts), device=counts.device)
    images = numbers.repeat_interleave(counts, output_size=len(rows))  # known, so that a GPU need not be waited for
    return BoxTargets(torch.cat([images[:, None].to(rows), rows], 1), indices)


def _preparing(letterbox: Letterbox, multi_scale: float = 0.0, seed: int = 0) -> Prepare:
    """Return what turns a batch of canvases into what the network takes, each of another size if they are to be."""

    def prepare(images: Tensor, targets: BoxTargets, epoch: int, batch: int) -> tuple[Tensor, BoxTargets]:
        inputs = normalize_canvas(images, letterbox)
        if multi_scale:
            inputs, targets = resize_batch(inputs, targets, draw_scale(letterbox, multi_scale, seed, epoch, batch))
        return lay_channels_last(inputs), targets

    return prepare


def _list_classes(data: BoxData) -> str:
    pairs = [f"{number} {name}" for number, name in enumerate(data.classes)]
    kept = pairs[:MOST_CLASSES_TOLD]
    return ", ".join(kept) + (f", … ({len(pairs)})" if len(pairs) > len(kept) else "")


TASK: Task = Detection()
