"""The task of classifiers: data, loss, scores and plots of images with one label each."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo._model import find_loss, float_dtype, get_fact, set_fact
from zoo.data import (
    Augment,
    Changes,
    Images,
    Preprocess,
    Samples,
    SplitSource,
    Transform,
    UserTransform,
    collate,
    eval_transform,
    lay_channels_last,
    load_transform,
    need_of_crops,
    to_input,
    train_transform,
)
from zoo.errors import InputError
from zoo.progress import Progress
from zoo.tasks.answers import PredictFlags
from zoo.tasks.base import CardFacts, Task, TaskDefaults
from zoo.tasks.classification.augment import check_augment, check_has_images, choose_augment, describe_augment
from zoo.tasks.classification.balance import (
    check_balance,
    describe_balance,
    make_weighted_loss,
    weigh_classes,
    weigh_images,
)
from zoo.tasks.classification.data import Data, open_data
from zoo.tasks.classification.evaluator import ClassificationEvaluator, Miss, check_logits
from zoo.tasks.classification.exclusion import read_excluded
from zoo.tasks.classification.metrics import Evaluation
from zoo.tasks.classification.mixing import Mixing, draw_training, find_mixing
from zoo.tasks.classification.plots import MOST_TILES, Tile, draw_mistakes
from zoo.tasks.classification.predict import print_names
from zoo.tasks.classification.scores import SCORES
from zoo.tasks.confusion_plot import draw_confusion

CARD = CardFacts(
    noun="classifier",
    pipeline="image-classification",
    dataset="imagefolder",
    scores={"top1": ("accuracy", "top-1 accuracy"), "top5": ("accuracy", "top-5 accuracy")},
    columns={"class": "class", "images": "images", "precision": "precision", "recall": "recall", "f1": "F1"},
    captions={
        "confusion": "Confusion matrix",
        "mistakes": "Wrong predictions with the highest confidence",
    },
)


class Classification(TaskDefaults):
    """The task of saying which of several classes an image is of; see `zoo.tasks.base.Task`."""

    name: ClassVar[str] = "classification"
    card: ClassVar[CardFacts] = CARD
    columns: ClassVar[Mapping[str, str]] = {"top1": SCORES["top1"]}
    monitors: ClassVar[tuple[str, ...]] = tuple(SCORES)
    class_monitors: ClassVar[tuple[str, ...]] = ("precision", "recall", "f1")
    curves: ClassVar[Mapping[str, str]] = {key: SCORES[key] for key in ("top1", "top5")}
    secondary: ClassVar[tuple[str, ...]] = ("images", "precision", "recall")
    defaults: ClassVar[Mapping[str, Any]] = {}
    scoring_batch: ClassVar[int] = 64
    flags: ClassVar[frozenset[str]] = frozenset({"out", "save", "top_k"})
    saves: ClassVar[tuple[str, ...]] = ("images", "json", "csv")
    opening: ClassVar[tuple[str, ...]] = ("image_root", "exclude")
    solves: ClassVar[bool] = True

    def choose(self, options: Any) -> Task:
        """Return this task, or that of several labels for each image."""
        if options.labels == "single":
            return self
        from zoo.tasks.classification.multi_label import TASK as several

        return several

    def open_data(self, source: Any, **options: Any) -> Data:
        """Open what `zoo.tasks.classification.data.open_data` opens."""
        return open_data(source, **options)

    def report(self, data: Data, options: Any, show: Progress) -> None:
        """Say how tables were read, what images get and which are odd, and how unequal classes are balanced."""
        check_has_images(data, options)
        for note in [*data.notes, *describe_augment(options)]:
            show.log(note)
        if rows := self.describe_classes(data, options):
            show.table(rows, title="training images per class")
        if data.remarks:
            first = data.remarks[0]
            some = f"{len(data.remarks):,} image{'s are' if len(data.remarks) > 1 else ' is'}"
            show.log(f"warning: {some} almost black. {first.name}: {first.reason}")

    def describe_classes(self, data: Data, options: Any) -> list[dict[str, str]]:
        """Return a table of how classes are balanced; empty if they are not."""
        return describe_balance(data, options)

    def check_options(self, options: Any, model: Any = None) -> None:
        """Refuse what the model's own loss would ignore or cannot take, and what contradicts itself."""
        check_balance(options, model)
        check_augment(options, model)
        read_excluded(options.exclude)

    def check_installed(self) -> None:
        """Accept any installation: nothing beyond the base packages is needed."""

    def choose_preprocess(self, model: Any, options: Any) -> Preprocess:
        """Return the weights' preprocessing with size, crop and decoding of the options, and keep it with the model."""
        own = get_fact(model, "preprocess")
        changes = {"image_size": options.image_size, "crop_pct": options.crop_pct, "decode": options.decode or "fast"}
        preprocess = own if isinstance(own, Preprocess) else Preprocess()
        preprocess = preprocess.replace(**{key: value for key, value in changes.items() if value is not None})
        set_fact(model, "preprocess", preprocess)
        return preprocess

    def make_training_source(self, model: Any, data: Data, options: Any, *, is_frozen: bool) -> SplitSource:
        """Describe the training images and their random changes."""
        augment, mix = choose_augment(options, is_frozen=is_frozen), find_mixing(options, len(data.classes))
        crop = {"crop_scale_min": options.crop_scale_min, "flip_probability": options.flip_probability}
        user = load_transform(options.transform)
        changes, preprocess = Changes.of_options(options), get_fact(model, "preprocess")
        form: dict[str, Any] = {"normalise": False, "resizer": options.resizer}
        transform = train_transform(preprocess, augment=augment, **crop, changes=changes, **form)
        facts: dict[str, Any] = {"preprocess": preprocess.to_dict(), "resizer": options.resizer}
        source = partial(
            _make_source,
            _reduce(data.train, preprocess, augment, options, user),
            transform,
            options.seed,
            preprocess,
            mix=mix,
            user=user,
            draw=partial(draw_training, classes=data.classes, mix=mix),
            draw_weights=weigh_images(data, options),
        )
        if augment == "none" and user is None:
            return source(facts)
        changed = {"augment": augment, "crop_scale_min": options.crop_scale_min, "flip": options.flip_probability}
        facts |= {"changed": {**changed, **changes.said()}, "seed": options.seed}
        return source(facts, draws=True, changes=_why_changing(options, mix))

    def make_scoring_source(self, model: Any, images: Images, seed: int = 0) -> SplitSource:
        """Describe images as `predict` shows them to the network."""
        preprocess = get_fact(model, "preprocess")
        transform = eval_transform(preprocess, normalise=False)
        facts, needed = {"preprocess": preprocess.to_dict(), "resizer": "pillow"}, images.needing(preprocess.need)
        return _make_source(needed, transform, seed, preprocess, facts, dtype=float_dtype(model))

    def make_worst_batch(self, model: Any, data: Data, options: Any, count: int) -> tuple[Tensor, Tensor]:
        """Return black images and their classes."""
        if data.loaders:
            raise InputError(
                "micro_batch_size=auto needs images, but the data are loaders. Set micro_batch_size to a number."
            )
        side = get_fact(model, "preprocess").image_size
        return lay_channels_last(torch.zeros(count, 3, side, side)), torch.zeros(count, dtype=torch.int64)

    def make_loss(
        self, model: nn.Module, data: Data, options: Any, compile: Callable[[Any], Any] | None = None
    ) -> Callable[[Any, Tensor], Tensor]:
        """Return the model's own loss, or cross-entropy for a module that has none, weighted as the options say."""
        check_balance(options, model)
        device = next((parameter.device for parameter in model.parameters()), None)
        weighted = make_weighted_loss(data, options, device)
        own: Callable[..., Tensor] = weighted or find_loss(model) or nn.functional.cross_entropy
        own = own if compile is None else compile(own)
        return checked_loss(partial(own, label_smoothing=options.label_smoothing), len(data.classes))

    def describe_balance(self, data: Data, options: Any) -> dict[str, dict[str, float]]:
        """Return the weights of the classes in the loss, with mean 1, by name."""
        weights = weigh_classes(data, options)
        return {"class_weights": weights} if weights else {}

    def make_evaluator(
        self,
        model: Any,
        classes: Sequence[str],
        images: Images | None,
        *,
        device: torch.device,
        loss: Callable[[Any, Tensor], Tensor] | None = None,
    ) -> ClassificationEvaluator:
        """Return what scores logits; its loss is the cross-entropy, whatever was learnt with."""
        return ClassificationEvaluator(classes, device)

    def make_plots(
        self, evaluation: Evaluation, misses: Sequence[Miss], images: Images | None
    ) -> dict[str, Callable[[Path], Any]]:
        """Return the confusion matrix and the most confident mistakes."""
        classes = evaluation.classes
        plots: dict[str, Callable[[Path], Any]] = {
            "confusion.png": lambda path: draw_confusion(evaluation.confusion, classes, path)
        }
        if images is not None:
            most, total = misses[:MOST_TILES], len(misses)
            plots["mistakes.png"] = lambda path: draw_mistakes(
                [_show(miss, images, classes) for miss in most], path, total=total
            )
        return plots

    def predict_command(self, model: Any, sources: Any, flags: PredictFlags) -> None:
        """Print the most probable names; with a folder, write them there, with a sheet of the first images."""
        print_names(model, sources, flags)


def _reduce(images: Any, preprocess: Preprocess, augment: Augment, options: Any, user: UserTransform | None) -> Any:
    """Return training images, of which no more is decoded than is needed; a transform of the user's sees all."""
    need = need_of_crops(preprocess, augment=augment, crop_scale_min=options.crop_scale_min)
    return images.needing(None if user else need)


def checked_loss(own: Callable[[Tensor, Any], Tensor], classes: int) -> Callable[[Any, Any], Tensor]:
    """Return a loss that looks at outputs first: one logit for each class is expected."""

    def loss(outputs: Any, targets: Any) -> Tensor:
        logits, expected = check_logits(outputs), (len(targets), classes)
        if logits.shape != expected:
            raise InputError(
                f"the model returns outputs of shape {tuple(logits.shape)} for {len(targets)} images; expected "
                f"{expected}, one logit for each of the {classes} classes."
            )
        return own(logits, targets)

    return loss


def _why_changing(options: Any, mix: Mixing | None) -> str | None:
    """Return why an image does not look the same in every epoch, or whenever its view is shown."""
    if mix is not None:
        return "every batch is mixed anew (mixup or CutMix)"
    if options.views == 1:
        return "augmentation changes the images every epoch (views=4 would cache four versions of each)"
    return None


def _make_source(
    images: Any,
    transform: Transform,
    seed: int,
    preprocess: Preprocess,
    facts: Mapping[str, Any],
    *,
    draws: bool = False,
    mix: Mixing | None = None,
    user: UserTransform | None = None,
    changes: str | None = None,
    dtype: torch.dtype | None = None,
    draw: Callable[[Tensor, Tensor, Path], None] | None = None,
    draw_weights: Sequence[float] | None = None,
) -> SplitSource:
    """Describe a split.

    Args:
        images: Of the split.
        transform: Gives uint8.
        seed: Of the random changes.
        preprocess: What the network expects.
        facts: As `SplitSource` has them, and so are the rest.
        draws: Whether the transform draws random numbers.
        mix: What mixes batches, if they are.
        user: A transform of the user's own.
        changes: As `SplitSource`.
        dtype: Of the network; None: float32.
        draw: As `SplitSource`.
        draw_weights: As `SplitSource`.
    """
    return SplitSource(
        images=images,
        samples=Samples(images, transform, seed, draws=draws, user=user),
        collate=collate,
        prepare=partial(_prepare, preprocess=preprocess, dtype=dtype or torch.float32, mix=mix),
        cache_key=facts,
        uncacheable_reason=changes,
        pack_targets=lambda targets: list(targets[:, None, None]),
        unpack_targets=lambda rows, counts, indices: rows.flatten(),
        draw=draw,
        draw_weights=draw_weights,
        code=user and user.call,
    )


def _prepare(
    images: Tensor,
    targets: Tensor,
    epoch: int,
    batch: int,
    *,
    preprocess: Preprocess,
    dtype: torch.dtype,
    mix: Mixing | None,
) -> tuple[Tensor, Tensor]:
    """Turn a batch of pixels into what the network takes."""
    inputs = to_input(images, preprocess).to(dtype)
    if mix is not None:
        inputs, targets = mix(inputs, targets, epoch, batch)
    return lay_channels_last(inputs), targets


def _show(miss: Miss, images: Images, classes: Sequence[str]) -> Tile:
    image, _ = images.read(miss.index)
    return Tile(
        image=image,
        truth=classes[miss.target],
        predicted=classes[miss.predicted],
        confidence=miss.confidence,
        name=images.names[miss.index],
    )


TASK: Task = Classification()
