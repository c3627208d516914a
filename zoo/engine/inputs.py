"""Where the batches of a run come from: the user's loaders, images, or what a frozen backbone makes of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, send_to_device
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from zoo._model import float_dtype, known_config
from zoo.data import (
    EpochSampler,
    ImageStore,
    Prepare,
    SplitSource,
    UserLoader,
    check_guard,
    default_workers,
    is_out_of_memory,
    lay_channels_last,
    order_batches,
    prefetch_items,
    why_random,
)
from zoo.engine.frozen.backbone import BackboneEngine, choose_dtype, find_patch
from zoo.engine.frozen.cache import keep_features
from zoo.engine.frozen.compute import Split
from zoo.engine.frozen.policy import (
    HeadOnly,
    KeptSamples,
    Residence,
    as_they_are,
    backbone_trains_reason,
    choose_residence,
)
from zoo.engine.frozen.precision import choose_engine
from zoo.engine.frozen.shards import KeptFeatures
from zoo.engine.memory import measure_free_memory
from zoo.engine.options import EngineOptions
from zoo.errors import InputError
from zoo.progress import Progress
from zoo.rates import Plan

TO_TRY = 8  # images by which the speed of a backbone is measured
VECTORS_TO_SCORE = 1024  # per batch, where nothing is learnt


class LoaderBatches:
    """A loader as batches that can be started at any one.

    Args:
        loader: Prepared by the accelerator.
        sampler: Gives the order of each epoch; None for a loader that the user brought, whose first batches are then
            loaded and thrown away when a run is resumed in the middle of an epoch.
        images_per_batch: Of all processes together.
        prepare: Called with images, targets, epoch and batch; returns inputs and targets as the network takes them.
            None: they are so already.
        ahead: Whether a thread fetches batches a little before they are asked for.
    """

    def __init__(
        self,
        loader: Any,
        sampler: EpochSampler | None = None,
        images_per_batch: int = 1,
        prepare: Prepare | None = None,
        ahead: bool = False,
    ) -> None:
        self.loader, self.sampler, self.images_per_batch, self.prepare = loader, sampler, images_per_batch, prepare
        self.ahead = ahead

    @property
    def batch_size(self) -> int | None:
        """Images per batch of all processes together; None: not known."""
        return None if self.sampler is None else self.images_per_batch

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self.epoch(0)

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[tuple[Any, Any]]:
        """Iterate over one epoch, from a batch on."""
        first = 0
        if self.sampler is not None:
            self.sampler.set_epoch(epoch, start=start_batch * self.images_per_batch)
            first = start_batch
        for batch, pair in enumerate(prefetch_items(self.loader) if self.ahead else self.loader, first):
            if batch < start_batch:
                continue
            if self.prepare is None:
                yield pair
                continue
            images, targets = pair
            yield self.prepare(images, targets, epoch, batch)


@dataclass(frozen=True)
class TrainingInputs:
    """What a run trains on and what it trains.

    Attributes:
        network: What turns the first of a batch into outputs, prepared by the accelerator: the model, or its head.
        train: Batches to learn from.
        val: Batches to score; None if there are none.
        engine: What runs a frozen backbone; None if the backbone learns.
        features: Where features are kept, and what that took; empty if they are not.
        store: Where decoded images are kept; to be closed at the end.
        kept: The kept features of each split, training images first; sample `view * images + index` is the view of an
            image. None if they are not kept.
        source: The training images that they are of.
    """

    network: Any
    train: LoaderBatches
    val: LoaderBatches | None
    engine: BackboneEngine | None = None
    features: Mapping[str, Any] = field(default_factory=dict)
    store: ImageStore | None = None
    kept: Sequence[KeptFeatures] = ()
    source: SplitSource | None = None

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return such a network, not prepared, of a model: of the moving average of the weights, say."""
        if self.engine is None:
            return model
        return HeadOnly(model, None if self.features else self.engine)

    def to_inputs(self, images: Tensor) -> Any:
        """Return what the network takes of images."""
        return self.engine.join(self.engine(images)) if self.engine and self.features else images


def inputs_of_loaders(model: nn.Module, loaders: Mapping[str, UserLoader], accelerator: Accelerator) -> TrainingInputs:
    """Take batches from the user's own loaders, as they come."""
    scored = load_from_user(loaders["val"], accelerator, model) if "val" in loaders else None
    return TrainingInputs(accelerator.prepare(model), load_from_user(loaders["train"], accelerator, model), scored)


def load_from_user(user: UserLoader, accelerator: Accelerator, model: nn.Module) -> LoaderBatches:
    """Return the batches of a loader that a user brought; targets are looked at before they go to the device.

    Images of another floating-point type than the model's weights, such as float64, are cast.
    """
    dtype = float_dtype(model)
    context = getattr(user.loader, "multiprocessing_context", None)
    check_guard(getattr(user.loader, "num_workers", 0), context and context.get_start_method())
    is_known = isinstance(user.loader, DataLoader)
    loader = accelerator.prepare_data_loader(user.loader, device_placement=False) if is_known else user.loader

    def prepare(images: Any, targets: Any, epoch: int, batch: int) -> tuple[Any, Any]:
        pair = user.prepare(images, targets, epoch, batch)
        inputs, numbers = send_to_device(pair, accelerator.device, non_blocking=True)
        is_other = isinstance(inputs, Tensor) and inputs.is_floating_point() and inputs.dtype != dtype
        return (inputs.to(dtype) if is_other else inputs), numbers

    return LoaderBatches(loader, prepare=prepare)


def load_to_score(source: SplitSource, accelerator: Accelerator, *, batch_size: int, num_workers: int) -> LoaderBatches:
    """Return the batches of a split that is only scored, in the order of its images."""
    options: dict[str, Any] = {"batch_size": batch_size, "num_workers": num_workers}
    loader = order_batches(
        source.samples, len(source), source.collate, shuffle=False, seed=0, pin_memory=False, **options
    )
    return LoaderBatches(accelerator.prepare(loader), prepare=source.prepare)


def open_store(options: EngineOptions, accelerator: Accelerator, show: Progress, *splits: Any) -> ImageStore | None:
    """Open what keeps decoded images, one for all processes, if the options ask for it.

    Raises:
        InputError: The images of a split are not the same whenever they are read.
    """
    if options.image_cache == "off":
        return None
    if reason := _why_random([images for images in splits if images is not None], accelerator):
        raise InputError(f"image_cache={options.image_cache} is not possible: {reason}. Use image_cache=off.")
    folder: list[Any] = [None]
    arguments: dict[str, Any] = {"limit_bytes": int(options.image_cache_gb * 1e9), "log": show.log}
    store = ImageStore(options.image_cache, **arguments) if accelerator.is_main_process else None
    if accelerator.num_processes > 1:
        folder = [store and store.folder]
        broadcast_object_list(folder)
    return store or ImageStore(options.image_cache, **arguments, folder=folder[0])


def build_inputs(
    model: nn.Module,
    train: SplitSource,
    val: SplitSource | None,
    options: EngineOptions,
    plan: Plan,
    accelerator: Accelerator,
    show: Progress,
    *,
    passes: int,
) -> TrainingInputs:
    """Choose where batches come from, and prepare it.

    A backbone that is frozen as a whole is not trained but run, by an engine made for that; if it is worth it, once for
    each image.

    Args:
        model: On the accelerator's device, frozen as the plan says.
        train: Images to learn from.
        val: Images to score, if there are any.
        options: The effective ones.
        plan: Decides whether the backbone is frozen.
        accelerator: Device and processes.
        show: Where a pass over all images is shown.
        passes: How often each training image is looked at: the epochs, or what a solver needs.

    Raises:
        InputError: If features were to be kept and cannot be.
    """
    workers = default_workers(len(train)) if options.num_workers is None else options.num_workers
    loaders, learning = _Loaders(options, accelerator, workers), backbone_trains_reason(model, plan)
    reason = learning or train.uncacheable_reason
    if not reason and options.cache != "off":
        reason = _why_random([feed.images for feed in (train, val) if feed], accelerator)
    if reason and options.cache in ("memory", "disk"):
        raise InputError(f"cache={options.cache} is not possible: {reason}. Use cache=auto or cache=off.")
    if learning:
        if options.cache == "auto" and learning == find_patch(model):
            show.log(f"feature cache off: {learning}")
        scored = None if val is None else loaders.of_images(val, val.prepare, learn=False)
        return TrainingInputs(accelerator.prepare(model), loaders.of_images(train, train.prepare, learn=True), scored)
    keeps = not reason and options.cache != "off"
    views = min(options.views, passes)
    engine = _make_engine(model, train, (views if keeps else passes) * len(train), options, accelerator, show)
    if reason and options.cache == "auto":
        show.log(f"feature cache off: {reason}")
    if keeps:
        splits = [Split(train, views), *([Split(val, 1)] if val else [])]
        name = known_config(model).get("model") or type(model).__name__
        kept = keep_features(engine, splits, options, accelerator, show, name=name, epochs=passes, num_workers=workers)
        if kept.splits:
            placed = place_features(kept.splits, accelerator.device, show)
            facts = {**kept.facts, "features_on": str(placed[0].device)}
            return inputs_of_features(model, train, val, placed, engine, options, accelerator, facts)
    scored = None if val is None else loaders.of_images(val, val.prepare, learn=False)
    batches = loaders.of_images(train, train.prepare, learn=True)
    return TrainingInputs(accelerator.prepare(HeadOnly(model, engine)), batches, scored, engine)


def inputs_of_features(
    model: nn.Module,
    train: SplitSource,
    val: SplitSource | None,
    kept: Sequence[KeptFeatures],
    engine: BackboneEngine,
    options: EngineOptions,
    accelerator: Accelerator,
    facts: Mapping[str, Any],
) -> TrainingInputs:
    """Return batches of features that are kept, for the head of a model.

    Args:
        model: On the accelerator's device.
        train: Images to learn from.
        val: Images to score, if there are any.
        kept: Their features, training images first.
        engine: That made them.
        options: Batch size, seed and views.
        accelerator: Device and processes.
        facts: What is to be said of the features.
    """
    loaders = _Loaders(options, accelerator, 0)
    scored = None if val is None else loaders.of_features(val, kept[1], engine, learn=False)
    batches = loaders.of_features(train, kept[0], engine, learn=True)
    network = accelerator.prepare(HeadOnly(model))
    return TrainingInputs(network, batches, scored, engine, facts, kept=kept, source=train)


class Cached(NamedTuple):
    """Features of splits that are only looked at.

    Attributes:
        kept: Of each split.
        keys: Under which they are cached on disk; empty if they are in memory.
    """

    kept: Sequence[KeptFeatures]
    keys: Sequence[str]


def cache_features(
    model: nn.Module,
    sources: Sequence[SplitSource],
    options: EngineOptions,
    accelerator: Accelerator,
    show: Progress,
    *,
    name: str,
) -> Cached:
    """Return what the backbone of a model makes of the images of some splits; what is cached is not computed again.

    Args:
        model: On the accelerator's device.
        sources: The splits, without random changes.
        options: Where and in which numbers features are cached, how many images at a time.
        accelerator: Device and processes.
        show: Where a pass over all images is shown.
        name: Of the model, for people.

    Raises:
        InputError: The model has no backbone of its own, was changed by hooks, or there is no room.
    """
    reason = find_patch(model) or _why_random([source.images for source in sources], accelerator)
    if reason:
        raise InputError(f"features of these images cannot be computed once for all: {reason}.")
    images = sum(len(source) for source in sources)
    workers = default_workers(images) if options.num_workers is None else options.num_workers
    engine = _make_engine(model, sources[0], images, options, accelerator, show)
    splits = [Split(source, 1) for source in sources]
    kept = keep_features(engine, splits, options, accelerator, show, name=name, epochs=2, num_workers=workers)
    if not kept.splits:
        raise InputError(f"features need to be kept for this: {kept.choice.why}.")
    return Cached(kept.splits, kept.facts["keys"])


def place_features(splits: Sequence[KeptFeatures], device: torch.device, show: Progress) -> list[KeptFeatures]:
    """Return kept features in the memory of the device that trains if they fit there, else as they are.

    Args:
        splits: Features of each split, in the machine's memory or mapped from files.
        device: That trains.
        show: Where it is told, unless there is no choice.
    """
    if device.type != "cuda":
        return list(splits)
    residence = choose_residence(device.type, sum(kept.nbytes for kept in splits), measure_free_memory(device))
    placed = list(splits)
    if residence.on_device:
        try:
            placed = [kept.load(device) for kept in splits]
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            residence = Residence(False, "another process took the GPU memory in the meantime")
    where = "on the GPU" if residence.on_device else "in main memory and copied to the GPU per batch"
    show.log(f"cached features are held {where}: {residence.why}")
    return placed


def _why_random(splits: Sequence[Any], accelerator: Accelerator) -> str | None:
    """Return why the images of a split may look different each time, as the main process finds it."""
    found: list[str | None] = [None]
    if accelerator.is_main_process:
        found = [next((reason for images in splits if (reason := why_random(images))), None)]
    if accelerator.num_processes > 1:
        broadcast_object_list(found)
    return found[0]


@dataclass(frozen=True)
class _Loaders:
    """Makes the loaders of one run."""

    options: EngineOptions
    accelerator: Accelerator
    workers: int

    def of_images(self, feed: SplitSource, prepare: Prepare, *, learn: bool) -> LoaderBatches:
        arguments: dict[str, Any] = {"batch_size": self.options.batch_size, "num_workers": self.workers}
        # A thread may decode while the network computes, but not draw: the loop draws from the same generator.
        is_plain = getattr(feed.samples, "in_threads", False) and not getattr(feed.samples, "draws", True)
        ahead = not self.workers and is_plain and self._may_run_ahead(learn=learn)
        return self._make(feed.samples, feed, feed.collate, prepare, ahead, learn=learn, **arguments)

    def of_features(
        self, feed: SplitSource, kept: KeptFeatures, engine: BackboneEngine, *, learn: bool
    ) -> LoaderBatches:
        has_maps, on_cpu = any(part.ndim > 2 for part in kept.take([0])[0]), kept.device.type == "cpu"
        size = self.options.batch_size if learn or has_maps else VECTORS_TO_SCORE
        pins = on_cpu and self.accelerator.device.type == "cuda"  # only memory of the machine can be pinned
        arguments: dict[str, Any] = {"batch_size": size, "num_workers": 0, "pin_memory": pins}
        samples = KeptSamples(kept, feed, pin_memory=pins)
        ahead = has_maps and on_cpu and self._may_run_ahead(learn=learn)

        def prepare(parts: tuple[Tensor, ...], targets: Any, epoch: int, batch: int) -> tuple[Any, Any]:
            return engine.join([lay_channels_last(part) for part in parts]), targets

        return self._make(samples, feed, as_they_are, prepare, ahead, learn=learn, **arguments)

    def _may_run_ahead(self, *, learn: bool) -> bool:
        """Whether the loader may end before its last batch is used: not if that is gathered from several processes."""
        return learn or self.accelerator.num_processes == 1

    def _make(
        self,
        samples: Dataset[Any],
        feed: SplitSource,
        collate: Any,
        prepare: Prepare,
        ahead: bool,
        *,
        learn: bool,
        **arguments: Any,
    ) -> LoaderBatches:
        loader = order_batches(
            samples,
            len(feed),
            collate,
            shuffle=learn,
            seed=self.options.seed,
            views=self.options.views if learn else 1,
            draw_weights=feed.draw_weights if learn else None,
            repeats=feed.repeats if learn else None,
            **{"pin_memory": self.accelerator.device.type == "cuda"} | arguments,
        )
        per_step = arguments["batch_size"] * self.accelerator.num_processes
        return LoaderBatches(self.accelerator.prepare(loader), loader.epoch_sampler, per_step, prepare, ahead)


def _make_engine(
    model: nn.Module, feed: SplitSource, images: int, options: EngineOptions, accelerator: Accelerator, show: Progress
) -> BackboneEngine:
    """Make the engine of a frozen backbone that will see so many images."""
    device = accelerator.device
    dtype = choose_dtype(options.backbone_precision, options.precision, device.type)
    arguments: dict[str, Any] = {
        "device": device,
        "fuse": options.fuse_backbone,
        "compile": options.compile,
        "log": show.log,
    }
    if device.type != "cpu" or options.backbone_precision != "auto" or options.precision != "no":
        return BackboneEngine(model, dtype=dtype, **arguments)
    samples, targets = feed.collate([feed.samples[index, 0] for index in range(min(TO_TRY, len(feed)))])
    inputs, _ = feed.prepare(samples, targets, 0, 1)
    chosen = choose_engine(lambda dtype: BackboneEngine(model, dtype=dtype, **arguments), inputs, images, show.log)
    dtypes = [chosen.dtype]
    if accelerator.num_processes > 1:
        broadcast_object_list(dtypes)
    return chosen if dtypes[0] == chosen.dtype else BackboneEngine(model, dtype=dtypes[0], **arguments)
