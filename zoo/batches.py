"""Where the batches of a run come from: the user's loaders, images, or features of a frozen trunk that are kept."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from accelerate import Accelerator
from torch import Tensor, nn

from zoo.data import Data
from zoo.errors import InputError
from zoo.features import FeatureBatches, HeadOnly, compute_features, why_not_cached, why_not_frozen
from zoo.images import Images
from zoo.loader import EpochSampler, default_workers, lay_channels_last, make_loader
from zoo.lr_plan import Plan
from zoo.preprocess import Preprocess, eval_transform, train_transform
from zoo.preset import Preset
from zoo.progress import Progress

Prepare: TypeAlias = Callable[[Tensor, Any, int, int], tuple[Tensor, Any]]

ROWS_TO_SCORE = 1024  # features per batch where nothing is learnt


class LoaderBatches:
    """A loader of images as batches that can be started at any batch.

    Args:
        loader: Prepared by the accelerator.
        sampler: Gives the order of each epoch; None for a loader that the user brought, whose first batches are then
            loaded and thrown away when a run is resumed in the middle of an epoch.
        images_per_batch: Of all processes together.
        prepare: Called with images, targets, epoch and batch; returns images and targets as the network takes them.
    """

    def __init__(
        self, loader: Any, sampler: EpochSampler | None, images_per_batch: int, prepare: Prepare | None = None
    ) -> None:
        self.loader, self.sampler, self.images_per_batch = loader, sampler, images_per_batch
        self.prepare = prepare or _lay_out

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[tuple[Tensor, Any]]:
        """Iterate over one epoch, from a batch on; images lie channels last, which convolutions are faster with."""
        if self.sampler is not None:
            self.sampler.set_epoch(epoch, start=start_batch * self.images_per_batch)
            for batch, (images, targets) in enumerate(self.loader, start_batch):
                yield self.prepare(images, targets, epoch, batch)
            return
        for batch, pair in enumerate(self.loader):
            if batch >= start_batch:
                yield pair


@dataclass(frozen=True)
class Supply:
    """What a run trains on and what it trains.

    Attributes:
        network: What turns the first of a batch into outputs, prepared by the accelerator: the model, or its head.
        train: Batches to learn from.
        val: Batches to score; None if there are none.
    """

    network: Any
    train: Any
    val: Any


def make_supply(
    model: nn.Module,
    data: Data,
    preset: Preset,
    plan: Plan,
    preprocess: Preprocess,
    accelerator: Accelerator,
    show: Progress,
) -> Supply:
    """Choose where batches come from, and prepare it.

    Args:
        model: On the accelerator's device, frozen as the plan says.
        data: Opened data.
        preset: The effective preset.
        plan: Decides whether the trunk is frozen.
        preprocess: What the model expects of an image.
        accelerator: Device and processes.
        show: Where a pass over all images is shown.

    Raises:
        InputError: If features were to be kept and cannot be.
    """
    if data.loaders:
        train, val = data.loaders
        batches = LoaderBatches(accelerator.prepare(train), None, 1)
        return Supply(accelerator.prepare(model), batches, val and accelerator.prepare(val))
    if data.train is None:
        raise InputError(f"{data.source} has no images to train on.")
    augment: Any = preset.augment
    if augment == "auto":
        augment = "crop-flip" if why_not_frozen(model, plan) else "none"
    workers = default_workers(len(data.train)) if preset.num_workers is None else preset.num_workers
    options: dict[str, Any] = {
        "batch_size": preset.batch_size,
        "num_workers": workers,
        "pin_memory": accelerator.device.type == "cuda",
    }
    if _keeps_features(model, data, preset, plan, accelerator, augmented=augment != "none"):
        return _keep_features(model, data.train, data.val, preprocess, preset.seed, options, accelerator, show)
    transform = train_transform(
        preprocess,
        augment=augment,
        crop_scale_min=preset.crop_scale_min,
        flip_probability=preset.flip_probability,
    )
    loader = make_loader(data.train, transform, shuffle=True, seed=preset.seed, **options)
    per_step = preset.batch_size * accelerator.num_processes
    batches = LoaderBatches(accelerator.prepare(loader), loader.epoch_sampler, per_step)
    val = data.val and accelerator.prepare(make_loader(data.val, eval_transform(preprocess), **options))
    return Supply(accelerator.prepare(model), batches, val)


def _keeps_features(
    model: nn.Module, data: Data, preset: Preset, plan: Plan, accelerator: Accelerator, *, augmented: bool
) -> bool:
    if preset.cache == "off":
        return False
    reason = why_not_cached(
        model,
        plan,
        augmented=augmented,
        epochs=preset.epochs,
        images=len(data.train or ()) + len(data.val or ()),
        processes=accelerator.num_processes,
    )
    if reason and preset.cache == "memory":
        raise InputError(f"cache='memory' is not possible: {reason}. Use cache='auto' or 'off'.")
    return reason is None


def _keep_features(
    model: nn.Module,
    train: Images,
    val: Images | None,
    preprocess: Preprocess,
    seed: int,
    options: Mapping[str, Any],
    accelerator: Accelerator,
    show: Progress,
) -> Supply:
    """Run the frozen trunk once over all images; from then on only the head runs."""
    total, transform = len(train) + len(val or ()), eval_transform(preprocess)
    with show.counting("features of the frozen trunk", total) as count, accelerator.autocast():
        loader = accelerator.prepare(make_loader(train, transform, **options))
        features, targets = compute_features(model, loader, on_batch=lambda images: count(images, total))
        order = make_loader(train, transform, shuffle=True, seed=seed, **options).epoch_sampler
        batches, scored = FeatureBatches(features, targets, order, options["batch_size"]), None
        if val is not None:
            loader = accelerator.prepare(make_loader(val, transform, **options))
            kept = compute_features(model, loader, on_batch=lambda images: count(len(train) + images, total))
            scored = FeatureBatches(*kept, EpochSampler(len(val)), ROWS_TO_SCORE)
    megabytes = total * features.shape[1] * 4 / 1e6
    show.say(f"kept the features of {total:,} images ({megabytes:.1f} MB): each epoch runs the head only")
    return Supply(accelerator.prepare(HeadOnly(model)), batches, scored)


def _lay_out(images: Tensor, targets: Tensor, epoch: int, batch: int) -> tuple[Tensor, Tensor]:
    return lay_channels_last(images), targets
