"""What is a classifier's own in a run: how its data is opened, its loss, its scores and its pictures."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from zoo._model import find_loss, float_dtype, get_fact, set_fact
from zoo.data import (
    Augment,
    Feed,
    Images,
    Prepare,
    Preprocess,
    Samples,
    Transform,
    collate,
    eval_transform,
    lay_channels_last,
    make_loader,
    to_input,
    train_transform,
)
from zoo.engine import Supply, make_supply, open_store, supply_loaders
from zoo.engine.frozen import why_not_frozen
from zoo.errors import InputError
from zoo.progress import Progress
from zoo.rates import Plan
from zoo.settings import Preset, refuse_fields
from zoo.tasks.classification.data import Data, open_data
from zoo.tasks.classification.metrics import ClassificationMetrics, Evaluation, are_answers
from zoo.tasks.classification.plots import Mistake, draw_confusion, draw_mistakes
from zoo.training import RunFolder, run_batches

MOST_MISTAKES = 24
OF_DETECTORS = ("loss_params", "photometric", "zoom_out", "iou_crop", "scale_jitter", "multi_scale", "mosaic", "mixup")


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


class Classification:
    """The task of saying which of several classes an image is of; see `zoo.tasks.base.Task`."""

    name = "classification"
    columns: Mapping[str, str] = {"top1": "top-1"}
    curves: Mapping[str, str] = {"top1": "top-1", "top5": "top-5"}
    defaults: Mapping[str, Any] = {}
    scoring_batch = 64

    def open_data(self, source: Any, **options: Any) -> Data:
        """Open what `zoo.tasks.classification.data.open_data` opens."""
        return open_data(source, **options)

    def tell(self, data: Data, show: Progress) -> None:
        """Say which images are odd."""
        if data.remarks:
            first = data.remarks[0]
            some = f"{len(data.remarks):,} image{'s are' if len(data.remarks) > 1 else ' is'}"
            show.say(f"warning: {some} almost black. {first.name}: {first.reason}")

    def check_preset(self, preset: Preset, model: Any = None) -> None:
        """Refuse fields that only other tasks know."""
        refuse_fields(preset, (*OF_DETECTORS, "plain_epochs"), "a classifier")

    def choose_preprocess(self, model: Any, preset: Preset) -> Preprocess:
        """Return the weights' preprocessing with the preset's size and crop, and keep it with the model."""
        own = get_fact(model, "preprocess")
        changes = {"image_size": preset.image_size, "crop_pct": preset.crop_pct}
        preprocess = own if isinstance(own, Preprocess) else Preprocess()
        preprocess = preprocess.replace(**{key: value for key, value in changes.items() if value is not None})
        set_fact(model, "preprocess", preprocess)
        return preprocess

    def make_supply(
        self,
        model: nn.Module,
        data: Data,
        preset: Preset,
        plan: Plan,
        accelerator: Accelerator,
        show: Progress,
        folder: RunFolder,
    ) -> Supply:
        """Return where batches come from."""
        preprocess = self.choose_preprocess(model, preset)
        if data.loaders:
            return supply_loaders(model, data.loaders, accelerator)
        if data.train is None:
            raise InputError(f"{data.source} has no images to train on.")
        augment = _choose_augment(preset, is_frozen=why_not_frozen(model, plan) is None)
        changed: dict[str, Any] = {}
        if augment != "none":
            changed = {"augment": augment, "crop_scale_min": preset.crop_scale_min, "flip": preset.flip_probability}
        transform = train_transform(
            preprocess,
            augment=augment,
            crop_scale_min=preset.crop_scale_min,
            flip_probability=preset.flip_probability,
            normalise=False,
            resizer=preset.resizer,
        )
        store, images, unseen = open_store(preset, accelerator, show, data.train, data.val), data.train, data.val
        if store is not None:
            images, unseen = images.keeping(store, "train"), unseen and unseen.keeping(store, "val")
        train = _feed(images, transform, preprocess, preset, changed, preset.resizer)
        plain = eval_transform(preprocess, normalise=False)
        val = None if unseen is None else _feed(unseen, plain, preprocess, preset, {})
        return replace(make_supply(model, train, val, preset, plan, accelerator, show), store=store)

    def make_worst_batch(self, model: Any, data: Data, preset: Preset, count: int) -> tuple[Tensor, Tensor]:
        """Return black images and their classes."""
        if data.loaders:
            raise InputError("chunk_size='auto' needs images, and the data are loaders. Give chunk_size a number.")
        side = get_fact(model, "preprocess").image_size
        return lay_channels_last(torch.zeros(count, 3, side, side)), torch.zeros(count, dtype=torch.int64)

    def make_loss(
        self, model: nn.Module, classes: Sequence[str], preset: Preset, compile: Callable[[Any], Any] | None = None
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the model's own loss, or cross-entropy for a module that has none."""
        own: Callable[..., Tensor] = find_loss(model) or nn.functional.cross_entropy
        own = own if compile is None else compile(own)

        def loss(outputs: Tensor, targets: Tensor) -> Tensor:
            expected = (len(targets), len(classes))
            _check_logits(outputs)
            if outputs.shape != expected:
                raise InputError(
                    f"the model gives outputs of shape {tuple(outputs.shape)} for {len(targets)} images; expected "
                    f"{expected}: one number for each of the {len(classes)} classes."
                )
            return own(outputs, targets, label_smoothing=preset.label_smoothing)

        return loss

    def load_for_scoring(self, model: Any, images: Images, **options: Any) -> Any:
        """Return a loader of images that are not augmented."""
        return make_loader(images, eval_transform(get_fact(model, "preprocess"), normalise=False), **options)

    def prepare_for_scoring(self, model: Any) -> Prepare:
        """Return what turns a batch of that loader into what the network takes."""
        return _prepare(get_fact(model, "preprocess"), float_dtype(model))

    def score(
        self,
        network: nn.Module,
        batches: Iterable[Any],
        accelerator: Accelerator,
        *,
        model: Any,
        classes: Sequence[str],
        images: Images | None,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> tuple[Evaluation, list[Miss]]:
        """Return the scores over all batches, and the misses, the most confident first."""
        return score(network, batches, accelerator, tuple(classes))

    def draw(self, folder: RunFolder, evaluation: Evaluation, misses: Sequence[Miss], images: Images | None) -> None:
        """Draw the confusion matrix and the most confident mistakes."""
        classes = evaluation.classes
        folder.draw("confusion.png", lambda path: draw_confusion(evaluation.confusion, classes, path))
        if images is not None:
            most = misses[:MOST_MISTAKES]
            folder.draw(
                "mistakes.png", lambda path: draw_mistakes([_show(miss, images, classes) for miss in most], path)
            )


def _check_logits(outputs: Any) -> None:
    """Refuse outputs that are no tensor, which networks of other libraries give."""
    if isinstance(outputs, Tensor):
        return
    kind, advice = type(outputs).__name__, "Wrap the model in a module whose forward returns the logits alone."
    if isinstance(getattr(outputs, "logits", None), Tensor):
        advice = "Wrap the model in a module whose forward returns model(images).logits."
    elif isinstance(outputs, Mapping):
        kind += f" with the keys {', '.join(map(str, outputs))}"
    elif isinstance(outputs, (tuple, list)):
        kind += f" of {len(outputs)}"
        advice += " (torchvision's GoogLeNet and Inception give one tensor with aux_logits=False.)"
    raise InputError(f"the model gives a {kind}; expected one tensor of logits, (images, classes). {advice}")


def _choose_augment(preset: Preset, *, is_frozen: bool) -> Augment:
    """Choose what `auto` is: no changes where features of a frozen trunk can be kept then."""
    if preset.augment == "auto":
        return "none" if is_frozen and preset.views == 1 else "crop-flip"
    return preset.augment


def _feed(
    images: Images,
    transform: Transform,
    preprocess: Preprocess,
    preset: Preset,
    changed: Mapping[str, Any],
    resizer: str = "pillow",
) -> Feed:
    """Return what batches of a split are made with.

    Args:
        images: Of the split.
        transform: Gives uint8.
        preprocess: What the network expects.
        preset: Has seed and views.
        changed: Which random changes the transform makes; empty if none.
        resizer: Of the transform.
    """
    facts: dict[str, Any] = {"preprocess": preprocess.to_dict(), "resizer": resizer}
    if changed:
        facts |= {"changed": dict(changed), "seed": preset.seed}
    anew = "the images are changed anew in each epoch (views=4 would keep four versions of each)"
    return Feed(
        images=images,
        samples=Samples(images, transform, preset.seed, draws=bool(changed)),
        collate=collate,
        prepare=_prepare(preprocess),
        facts=facts,
        changes=anew if changed and preset.views == 1 else None,
        to_rows=lambda targets: list(targets[:, None, None]),
        from_rows=lambda rows, counts, indices: rows.flatten(),
    )


def _prepare(preprocess: Preprocess, dtype: torch.dtype | None = None) -> Prepare:
    """Return what turns a batch of pixels into what the network takes; in float32, or in another type."""

    def prepare(images: Tensor, targets: Tensor, epoch: int, batch: int) -> tuple[Tensor, Tensor]:
        return lay_channels_last(to_input(images, preprocess).to(dtype or torch.float32)), targets

    return prepare


def score(
    network: nn.Module, batches: Iterable[Any], accelerator: Accelerator, classes: tuple[str, ...]
) -> tuple[Evaluation, list[Miss]]:
    """Return the scores over all batches, and the misses, the most confident first."""
    metrics = ClassificationMetrics(classes, accelerator.device)
    misses: list[Miss] = []
    seen = 0
    for outputs, targets in run_batches(network, batches, accelerator):
        _check_logits(outputs)
        if outputs.ndim != 2 or outputs.shape[1] != len(classes):
            raise InputError(f"the model gives outputs of shape {tuple(outputs.shape)}; expected (B, {len(classes)}).")
        metrics.update(outputs, targets)
        best = outputs.float().softmax(-1).max(-1)
        wrong = ((best.indices != targets) & are_answers(outputs)).nonzero().flatten()
        columns = (wrong + seen, targets[wrong], best.indices[wrong], best.values[wrong])
        misses += [Miss(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]
        seen += len(targets)
    return metrics.compute(), sorted(misses, key=lambda miss: -miss.confidence)


def _show(miss: Miss, images: Images, classes: Sequence[str]) -> Mistake:
    picture, _ = images.read(miss.index)
    return Mistake(
        image=picture,
        truth=classes[miss.target],
        predicted=classes[miss.predicted],
        confidence=miss.confidence,
        name=images.names[miss.index],
    )
