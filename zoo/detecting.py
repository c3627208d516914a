"""What is a detector's own in a run: how its data is opened, its batches, its loss, its scores and its pictures."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from zoo.batches import LoaderBatches, Prepare, Supply
from zoo.box_data import BoxData, open_box_data
from zoo.box_loader import BoxTargets, draw_scale, make_box_loader, resize_batch
from zoo.box_transforms import BoxAugment
from zoo.boxed_images import BoxedImages
from zoo.boxes import clip_boxes
from zoo.checkpoint import RunFolder
from zoo.detection_metrics import DetectionEvaluation, DetectionMetrics, Found, Truth, check_installed
from zoo.detection_pictures import Example, draw_batch, draw_class_ap, draw_precision_recall, draw_predictions
from zoo.errors import InputError
from zoo.letterbox import Letterbox, to_input
from zoo.loader import default_workers, lay_channels_last
from zoo.lr_plan import Plan
from zoo.postprocess import VALIDATION, Postprocess, select_detections
from zoo.preset import Preset, refuse_fields
from zoo.progress import Progress

OF_CLASSIFIERS = ("label_smoothing", "crop_pct", "crop_scale_min")
MOST_EXAMPLES = 12
MOST_CLASSES_TOLD = 20


class Detection:
    """The task of finding things of several classes in a picture; see `zoo.tasks.Task`."""

    name = "detection"
    columns: Mapping[str, str] = {"map": "mAP", "map50": "mAP50"}
    curves: Mapping[str, str] = {"map": "mAP@[.5:.95]", "map50": "mAP@.5"}
    defaults: Mapping[str, Any] = {"batch_size": 16}
    scoring_batch = 8

    def open_data(self, source: Any, **options: Any) -> BoxData:
        """Open what `zoo.box_data.open_box_data` opens."""
        return open_box_data(source, **options)

    def tell(self, data: BoxData, show: Progress) -> None:
        """Say which class has which number, how many boxes there are, and all that was found to be odd."""
        show.say(f"format: {data.form}; classes: {_list_classes(data)}")
        show.table(data.report.rows(), title="boxes per class", totals=data.report.totals())
        for line in data.report.summary():
            show.say(line)

    def check_preset(self, preset: Preset) -> None:
        """Refuse fields that only other tasks know, before anything is read."""
        refuse_fields(preset, OF_CLASSIFIERS, "a detector")
        if preset.augment not in ("auto", "none"):
            raise InputError(
                f"augment is {preset.augment!r}, which is for classifiers; a detector has fields for each change, such "
                "as mosaic=0.5 and flip_probability. Leave augment at 'auto', or say 'none' to turn all of them off."
            )
        if preset.cache == "memory":
            raise InputError("cache='memory' is not possible for detectors. Use cache='auto' or 'off'.")
        check_installed()

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
        """Return where batches come from; the first is drawn into the run's folder."""
        if data.train is None:
            raise InputError(f"{data.source} has no images to train on.")
        letterbox = _choose_letterbox(model, preset)
        workers = default_workers(len(data.train)) if preset.num_workers is None else preset.num_workers
        options: dict[str, Any] = {"num_workers": workers, "pin_memory": accelerator.device.type == "cuda"}
        options["batch_size"] = preset.batch_size
        augment, plain_from = _choose_augment(preset), preset.epochs - preset.plain_epochs
        loader = make_box_loader(
            data.train, letterbox, augment, shuffle=True, seed=preset.seed, plain_from=plain_from, **options
        )

        def draw(images: Tensor, targets: BoxTargets) -> None:
            if accelerator.is_main_process:
                path, is_bgr = folder.pictures / "first_batch.png", letterbox.channels == "bgr"
                draw_batch(images.cpu(), targets.rows.cpu(), data.classes, path, is_bgr=is_bgr)

        prepare = _prepare(letterbox, preset.multi_scale, preset.seed, draw)
        per_step = preset.batch_size * accelerator.num_processes
        train = LoaderBatches(accelerator.prepare(loader), loader.epoch_sampler, per_step, prepare)
        val = data.val and self.load_for_scoring(model, data.val, **options)
        return Supply(accelerator.prepare(model), train, val and accelerator.prepare(val))

    def make_loss(
        self, model: Any, classes: Sequence[str], preset: Preset, compile: Callable[[Any], Any] | None = None
    ) -> Callable[[Any, BoxTargets], Tensor]:
        """Return the model's own loss; it is not compiled, because each batch has another number of boxes."""
        own, params = getattr(model, "loss", None), preset.loss_params
        if not callable(own):
            raise InputError(f"{type(model).__name__} has no loss(outputs, rows), which a detector needs to learn.")

        def loss(outputs: Any, targets: BoxTargets) -> Tensor:
            value: Tensor = own(outputs, targets.rows, **params)
            return value

        return loss

    def load_for_scoring(self, model: Any, images: BoxedImages, **options: Any) -> Any:
        """Return batches of pictures as `predict` shows them to the network."""
        return make_box_loader(images, model.preprocess, **options)

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
        settings = getattr(model, "scoring", VALIDATION)
        metrics, examples = DetectionMetrics(classes, settings), []
        chosen = _spread(len(images), MOST_EXAMPLES)
        sums = torch.zeros(2, dtype=torch.float64)  # of losses, and of pictures
        network.eval()
        for canvases, targets in batches:
            with torch.inference_mode():
                outputs = network(lay_channels_last(to_input(canvases, model.preprocess)))
                value = loss(outputs, targets) if loss else model.loss(outputs, targets.rows)
                found = list(_locate(outputs, targets, model, len(classes), images, settings))
            sums += torch.tensor([float(value), 1.0]) * len(canvases)
            if accelerator.num_processes > 1:
                found = accelerator.gather_for_metrics(found, use_gather_object=True)
            metrics.update([boxes for _, boxes in found], [Truth(*images.boxes[index]) for index, _ in found])
            examples += [Example(index, boxes) for index, boxes in found if index in chosen]
        if accelerator.num_processes > 1:
            sums = accelerator.reduce(sums.float().to(accelerator.device), "sum")
        return metrics.compute(float(sums[0] / sums[1])), examples

    def draw(
        self, folder: RunFolder, evaluation: DetectionEvaluation, examples: Sequence[Example], images: BoxedImages
    ) -> None:
        """Draw precision over recall, the scores of each class, and predictions beside the truth."""
        draw_precision_recall(evaluation, folder.pictures / "precision_recall.png")
        draw_class_ap(evaluation, folder.pictures / "class_ap.png")
        draw_predictions(examples, images, evaluation.classes, folder.pictures / "predictions.png")


def _choose_letterbox(model: Any, preset: Preset) -> Letterbox:
    """Return the weights' preprocessing with the preset's size, and keep it with the model."""
    own = getattr(model, "preprocess", None)
    letterbox = own if isinstance(own, Letterbox) else Letterbox()
    if preset.image_size is not None:
        letterbox = letterbox.resized(preset.image_size, step=getattr(model, "size_step", 1))
    model.preprocess = letterbox
    return letterbox


def _choose_augment(preset: Preset) -> BoxAugment | None:
    if preset.augment == "none":
        return None
    names = ("photometric", "zoom_out", "iou_crop", "scale_jitter", "mosaic", "mixup")
    return BoxAugment(flip=preset.flip_probability, **{name: getattr(preset, name) for name in names})


def _prepare(
    letterbox: Letterbox, multi_scale: float, seed: int, draw: Callable[[Tensor, BoxTargets], None]
) -> Prepare:
    """Return what turns a batch of canvases into what the network takes."""

    def prepare(images: Tensor, targets: BoxTargets, epoch: int, batch: int) -> tuple[Tensor, BoxTargets]:
        if epoch == batch == 0:
            draw(images, targets)
        inputs = to_input(images, letterbox)
        if multi_scale:
            size = draw_scale(letterbox, multi_scale, seed, epoch, batch)
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
