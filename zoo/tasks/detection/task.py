"""What is a detector's own in a run: how its data is opened, its batches, its loss, its scores and its pictures."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from zoo._model import ask
from zoo.data import Feed, Letterbox, Prepare, lay_channels_last, normalize_canvas
from zoo.engine import Supply, count_own, make_supply, open_store, take_first
from zoo.errors import InputError
from zoo.progress import Progress
from zoo.rates import Plan
from zoo.settings import Preset, refuse_fields
from zoo.tasks.detection.augment import BoxAugment
from zoo.tasks.detection.batches import (
    STRIDE,
    BoxSamples,
    BoxTargets,
    collate_boxes,
    draw_scale,
    make_box_loader,
    resize_batch,
)
from zoo.tasks.detection.boxes import clip_boxes
from zoo.tasks.detection.data import BoxData, open_box_data
from zoo.tasks.detection.images import BoxedImages
from zoo.tasks.detection.metrics import DetectionEvaluation, DetectionMetrics, Found, Truth, check_installed
from zoo.tasks.detection.plots import Example, draw_batch, draw_class_ap, draw_precision_recall, draw_predictions
from zoo.tasks.detection.postprocess import VALIDATION, Postprocess, select_detections
from zoo.training import RunFolder

OF_CLASSIFIERS = ("label_smoothing", "crop_pct", "crop_scale_min", "resizer")
MOSAIC_PICTURES = 4
MOST_EXAMPLES = 12
MOST_CLASSES_TOLD = 20


class Detection:
    """The task of finding things of several classes in a picture; see `zoo.tasks.base.Task`."""

    name = "detection"
    columns: Mapping[str, str] = {"map": "mAP", "map50": "mAP50"}
    curves: Mapping[str, str] = {"map": "mAP@[.5:.95]", "map50": "mAP@.5"}
    defaults: Mapping[str, Any] = {"batch_size": 16}
    scoring_batch = 8

    def open_data(self, source: Any, **options: Any) -> BoxData:
        """Open what `zoo.tasks.detection.data.open_box_data` opens."""
        return open_box_data(source, **options)

    def tell(self, data: BoxData, show: Progress) -> None:
        """Say which class has which number, how many boxes there are, and all that was found to be odd."""
        show.say(f"format: {data.form}; classes: {_list_classes(data)}")
        show.table(data.report.rows(), title="boxes per class", totals=data.report.totals())
        for line in data.report.summary():
            show.say(line)

    def check_preset(self, preset: Preset, model: Any = None) -> None:
        """Refuse fields that only other tasks know, or that the model's loss does not take, before anything is read."""
        check_params = ask(model, "check_loss_params")
        if check_params is not None:
            check_params(preset.loss_params)
        refuse_fields(preset, OF_CLASSIFIERS, "a detector")
        if preset.augment not in ("auto", "none"):
            raise InputError(
                f"augment is {preset.augment!r}, which is for classifiers; a detector has fields for each change, such "
                "as mosaic=0.5 and flip_probability. Leave augment at 'auto', or say 'none' to turn all of them off."
            )
        if preset.views > 1 and preset.plain_epochs and (preset.mosaic or preset.mixup):
            raise InputError(
                f"views is {preset.views} and plain_epochs {preset.plain_epochs}: views repeat the same pictures, "
                "mixed or not, to the end. Set plain_epochs to 0."
            )
        check_installed()

    def choose_preprocess(self, model: Any, preset: Preset) -> Letterbox:
        """Return the weights' preprocessing with the preset's size, and keep it with the model."""
        return _choose_letterbox(model, preset)

    def make_supply(
        self,
        model: nn.Module,
        data: BoxData,
        preset: Preset,
        plan: Plan,
        accelerator: Accelerator,
        show: Progress,
        folder: RunFolder,
    ) -> Supply:
        """Return where batches come from; the first that is made is drawn into the run's folder."""
        if data.train is None:
            raise InputError(f"{data.source} has no images to train on.")
        letterbox = _choose_letterbox(model, preset)

        def draw(images: Tensor, targets: BoxTargets) -> None:
            if accelerator.is_main_process:
                pixels, rows, is_bgr = images.cpu(), targets.rows.cpu(), letterbox.channels == "bgr"
                folder.draw("first_batch.png", lambda path: draw_batch(pixels, rows, data.classes, path, is_bgr=is_bgr))

        store, images, unseen = open_store(preset, accelerator, show, data.train, data.val), data.train, data.val
        if store is not None:
            images, unseen = images.keeping(store, "train"), unseen and unseen.keeping(store, "val")
        train = _feed(images, letterbox, preset, _choose_augment(preset), _prepare(letterbox, preset, draw))
        val = None if unseen is None else _feed(unseen, letterbox, preset, BoxAugment(), _prepare(letterbox))
        return replace(make_supply(model, train, val, preset, plan, accelerator, show), store=store)

    def make_worst_batch(self, model: Any, data: BoxData, preset: Preset, count: int) -> tuple[Tensor, BoxTargets]:
        """Return black canvases of the largest size, each with as many boxes as any may get."""
        letterbox = model.preprocess
        height, width = (math.ceil(side * (1 + preset.multi_scale) / STRIDE) * STRIDE for side in letterbox.canvas_size)
        most = max((len(boxes.labels) for boxes in data.train.boxes), default=0) if data.train else 0
        most *= (MOSAIC_PICTURES if preset.mosaic else 1) * (2 if preset.mixup else 1)
        boxes = torch.tensor([0.0, width / 2, height / 2, width / 2, height / 2]).repeat(count * most, 1)
        images = torch.arange(float(count)).repeat_interleave(most)[:, None]
        targets = BoxTargets(torch.cat([images, boxes], 1), torch.arange(count))
        return lay_channels_last(torch.zeros(count, 3, height, width)), targets

    def make_loss(
        self, model: Any, classes: Sequence[str], preset: Preset, compile: Callable[[Any], Any] | None = None
    ) -> Callable[[Any, BoxTargets], Tensor]:
        """Return the model's own loss; it is not compiled, because each batch has another number of boxes."""
        own, params = ask(model, "loss"), preset.loss_params
        if not callable(own):
            raise InputError(f"{type(model).__name__} has no loss(outputs, rows), which a detector needs to learn.")

        def loss(outputs: Any, targets: BoxTargets) -> Tensor:
            value: Tensor = own(outputs, targets.rows, **params)
            return value

        return loss

    def load_for_scoring(self, model: Any, images: BoxedImages, **options: Any) -> Any:
        """Return a loader of pictures as `predict` shows them to the network."""
        return make_box_loader(images, model.preprocess, **options)

    def prepare_for_scoring(self, model: Any) -> Prepare:
        """Return what turns a batch of that loader into what the network takes."""
        return _prepare(model.preprocess)

    def score(
        self,
        network: nn.Module,
        batches: Iterable[Any],
        accelerator: Accelerator,
        *,
        model: Any,
        classes: Sequence[str],
        images: BoxedImages,
        loss: Callable[[Any, BoxTargets], Tensor] | None = None,
    ) -> tuple[DetectionEvaluation, list[Example]]:
        """Return the scores over all batches, in pixels of the pictures, and some predictions to draw."""
        settings = ask(model, "scoring", VALIDATION)
        metrics, examples = DetectionMetrics(classes, settings), []
        chosen = _spread(len(images), MOST_EXAMPLES)
        sums = torch.zeros(2, dtype=torch.float64)  # of losses, and of pictures
        network.eval()
        for inputs, targets in batches:
            own = count_own(accelerator, len(targets.indices))
            if own:  # else all of them are repeats; the other processes still wait for the pass and for what was found
                inputs, targets, _ = take_first(inputs, targets, own)
            with torch.inference_mode():
                outputs = network(inputs)
                value = loss(outputs, targets) if loss else model.loss(outputs, targets.rows)
                found = list(_locate(outputs, targets, model, len(classes), images, settings))
            sums += torch.tensor([float(value), 1.0]) * own
            if accelerator.num_processes > 1:
                found = gather_object(found if own else [])
            metrics.update([boxes for _, boxes in found], [Truth(*images.boxes[index]) for index, _ in found])
            examples += [Example(index, boxes) for index, boxes in found if index in chosen]
        if accelerator.num_processes > 1:
            sums = accelerator.reduce(sums.float().to(accelerator.device), "sum")
        return metrics.compute(float(sums[0] / sums[1])), examples

    def draw(
        self, folder: RunFolder, evaluation: DetectionEvaluation, examples: Sequence[Example], images: BoxedImages
    ) -> None:
        """Draw precision over recall, the scores of each class, and predictions beside the truth."""
        folder.draw("precision_recall.png", lambda path: draw_precision_recall(evaluation, path))
        folder.draw("class_ap.png", lambda path: draw_class_ap(evaluation, path))
        folder.draw("predictions.png", lambda path: draw_predictions(examples, images, evaluation.classes, path))


def _choose_letterbox(model: Any, preset: Preset) -> Letterbox:
    """Return the weights' preprocessing with the preset's size, and keep it with the model."""
    own = ask(model, "preprocess")
    letterbox = own if isinstance(own, Letterbox) else Letterbox()
    if preset.image_size is not None:
        letterbox = letterbox.resized(preset.image_size, step=ask(model, "size_step", 1))
    model.preprocess = letterbox
    return letterbox


def _choose_augment(preset: Preset) -> BoxAugment:
    if preset.augment == "none":
        return BoxAugment()
    names = ("photometric", "zoom_out", "iou_crop", "scale_jitter", "mosaic", "mixup")
    return BoxAugment(flip=preset.flip_probability, **{name: getattr(preset, name) for name in names})


def _feed(images: BoxedImages, letterbox: Letterbox, preset: Preset, augment: BoxAugment, prepare: Prepare) -> Feed:
    """Return what batches of a split are made with; `prepare` also says how batches change their size."""
    plain_from = preset.epochs - preset.plain_epochs if preset.plain_epochs else None
    changed = {} if augment.is_none else {"augment": asdict(augment), "seed": preset.seed}
    return Feed(
        images=images,
        samples=BoxSamples(images, letterbox, augment, preset.seed, plain_from),
        collate=collate_boxes,
        prepare=prepare,
        facts={"letterbox": letterbox.to_dict(), **changed},
        changes=_why_changing(preset, augment),
        to_rows=_split_rows,
        from_rows=_join_rows,
    )


def _why_changing(preset: Preset, augment: BoxAugment) -> str | None:
    """Return why a picture does not look the same in every epoch, or whenever its view is shown."""
    if preset.multi_scale:
        return "each batch has another size (multi_scale)"
    if preset.views == 1 and not augment.is_none:
        return "the pictures are changed anew in each epoch (views=4 would keep four versions of each)"
    return None


def _split_rows(targets: BoxTargets) -> list[Tensor]:
    """Return class and box of each picture of a batch, `(n, 5)`."""
    counts = torch.bincount(targets.rows[:, 0].long(), minlength=len(targets.indices))
    return list(torch.split(targets.rows[:, 1:], counts.tolist()))


def _join_rows(rows: Tensor, counts: Tensor, indices: Tensor) -> BoxTargets:
    numbers = torch.arange(len(counts), device=counts.device)
    images = numbers.repeat_interleave(counts, output_size=len(rows))  # known, so that a GPU need not be waited for
    return BoxTargets(torch.cat([images[:, None].to(rows), rows], 1), indices)


def _prepare(
    letterbox: Letterbox, preset: Preset | None = None, draw: Callable[[Tensor, BoxTargets], None] | None = None
) -> Prepare:
    """Return what turns a batch of canvases into what the network takes.

    Args:
        letterbox: How pixel values become numbers.
        preset: Says whether batches change their size; None: they do not.
        draw: Called with the first batch.
    """

    def prepare(images: Tensor, targets: BoxTargets, epoch: int, batch: int) -> tuple[Tensor, BoxTargets]:
        if draw is not None and epoch == batch == 0:
            draw(images, targets)
        inputs = normalize_canvas(images, letterbox)
        if preset is not None and preset.multi_scale:
            size = draw_scale(letterbox, preset.multi_scale, preset.seed, epoch, batch)
            inputs, targets = resize_batch(inputs, targets, size)
        return lay_channels_last(inputs), targets

    return prepare


def _locate(
    outputs: Any, targets: BoxTargets, model: Any, classes: int, images: BoxedImages, settings: Postprocess
) -> Iterator[tuple[int, Found]]:
    """Yield the place of each picture in its data set, and what was found in it, in its own pixels."""
    boxes, scores = model.decode(outputs)
    if scores.shape[-1] != classes:
        raise InputError(f"the model gives scores for {scores.shape[-1]} classes; expected {classes}.")
    detections = select_detections(boxes, scores, settings)
    for index, (on_canvas, certainty, labels) in zip(targets.indices.tolist(), detections, strict=True):
        height, width = images.sizes[index]
        place = model.preprocess.place(height, width)
        found = clip_boxes(place.to_picture(on_canvas.cpu()), height, width)
        yield index, Found(found.numpy(), certainty.cpu().numpy(), labels.cpu().numpy())


def _spread(count: int, most: int) -> set[int]:
    """Return up to so many indices, evenly spread."""
    return {round(place * (count - 1) / max(1, min(count, most) - 1)) for place in range(min(count, most))}


def _list_classes(data: BoxData) -> str:
    pairs = [f"{number} {name}" for number, name in enumerate(data.classes)]
    kept = pairs[:MOST_CLASSES_TOLD]
    return ", ".join(kept) + (f", … ({len(pairs)})" if len(pairs) > len(kept) else "")
