"""Features that a run keeps: the choice of where, the key by which they are found again, and what is said of it."""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from zoo.data import digest_images
from zoo.engine.frozen.backbone import BackboneEngine
from zoo.engine.frozen.code_digest import UnreadableCodeError, digest_code
from zoo.engine.frozen.compute import FeaturePass, Split
from zoo.engine.frozen.keys import (
    feature_folder,
    features_folder,
    find_versions,
    make_key,
    mark_used,
    write_about,
)
from zoo.engine.frozen.policy import Choice, Passes, choose_cache, format_bytes
from zoo.engine.frozen.shards import FeatureShards, KeptFeatures, choose_per_shard
from zoo.engine.options import EngineOptions
from zoo.errors import InputError, StorageError
from zoo.files import cache_folder
from zoo.progress import Progress, format_seconds

MOST_CHANGE = 1e-3  # of a map's norm by float16; rounding alone changes it by 3e-4


@dataclass
class Kept:
    """What a run keeps.

    Attributes:
        choice: Where, and why there.
        splits: The features of each split; none if they are not kept.
        facts: Plain values for the run's folder.
    """

    choice: Choice
    splits: list[KeptFeatures] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def keep_features(
    engine: BackboneEngine,
    splits: Sequence[Split],
    options: EngineOptions,
    accelerator: Accelerator,
    show: Progress,
    *,
    epochs: int,
    name: str = "",
    num_workers: int,
) -> Kept:
    """Choose where features are kept, compute those that are not there yet, and open them.

    Args:
        engine: The frozen backbone.
        splits: Training images, then those to score if there are any.
        options: Say where, in which numbers, how many images at a time, and how often they are scored.
        accelerator: Device and processes.
        show: Where it is told.
        epochs: Of the whole run.
        name: Of the model, for people.
        num_workers: Processes that load images.

    Raises:
        InputError: They cannot be kept where it was asked for.
        StorageError: They were to be kept on disk, and cannot be written.
    """
    run = FeaturePass(engine, accelerator, batch_size=options.batch_size, num_workers=num_workers)
    numbers = _choose_numbers(options.cache_dtype, run.first(splits[0].feed))
    passes = _count_passes(splits, epochs, options.evaluate_every)
    wish = options.cache
    plan = _agree(accelerator, splits, wish, passes, numbers, lambda: _make_keys(engine, splits, numbers))
    kept = Kept(plan.choice)
    try:
        kept.splits = _compute(run, splits, plan, numbers, show)
    except StorageError as error:
        if wish != "auto":
            raise
        plan = _agree(accelerator, splits, wish, passes, numbers, no_disk=_first_sentence(error))
        kept = Kept(plan.choice, _compute(run, splits, plan, numbers, show))
    if plan.choice.where == "off":
        return kept
    kept.facts = _facts(kept, run, splits, plan, numbers)
    if accelerator.is_main_process and plan.shards:
        _note(kept, run, splits, plan, name)
    show.log(_tell(kept, run, passes))
    return kept


def _compute(
    run: FeaturePass, splits: Sequence[Split], plan: "_Plan", numbers: "_Numbers", show: Progress
) -> list[KeptFeatures]:
    """Compute the features that are not there yet where the plan says; none are kept where it says `off`."""
    if plan.choice.where == "off":
        show.log(f"feature cache off: {plan.choice.why}")
        return []
    if not plan.found:
        show.log(f"caching features of the frozen backbone: {plan.choice.why}")
    for shards in plan.shards:
        if run.accelerator.is_main_process and (damaged := shards.damaged()):
            show.log(
                f"{len(damaged):,} of {len(shards):,} cached feature files in {shards.folder} are damaged or from "
                "another version; recomputing them"
            )
    total = sum(split.samples for split in splits)
    run.start()
    with nullcontext(_ignore) if plan.found else show.counting("computing backbone features", total) as count:
        run.advance = lambda done: count(done, total)
        if plan.choice.where == "memory":
            return [run.into_memory(split, numbers.dtype) for split in splits]
        pairs = zip(splits, plan.shards, strict=True)
        return [run.onto_disk(split, numbers.dtype, shards) for split, shards in pairs]


class _Numbers(NamedTuple):
    """In which numbers features are kept, and how many bytes those of an image take."""

    dtype: torch.dtype
    sample_bytes: int


class _Plan(NamedTuple):
    """Where features are kept; on disk, in which shards, and whether all of them are there."""

    choice: Choice
    shards: list[FeatureShards]
    found: bool


def _choose_numbers(wish: str, parts: tuple[Tensor, ...]) -> _Numbers:
    """Choose float16 for maps whose values it holds, else float32, as vectors are small; or what is wished for."""
    dtype = torch.float32 if wish == "auto" else getattr(torch, wish)
    if wish == "auto" and any(part.ndim > 2 for part in parts) and all(map(_fits_half, parts)):
        dtype = torch.float16
    return _Numbers(dtype, sum(part[0].numel() for part in parts) * dtype.itemsize)


def _fits_half(part: Tensor) -> bool:
    """Whether float16 changes a part by no more than its 11 bits do: nothing overflows or vanishes that counts."""
    change = (part.half().float() - part).norm() / part.norm()
    return float(change) < MOST_CHANGE


def _agree(
    accelerator: Accelerator,
    splits: Sequence[Split],
    wish: str,
    passes: Passes,
    numbers: _Numbers,
    make_keys: Callable[[], list[str]] | None = None,
    no_disk: str | None = None,
) -> _Plan:
    """Let the main process choose for all of them; a refusal is raised in every process."""
    answer: list[Any] = [None, [], False]
    if accelerator.is_main_process:
        try:
            keys: list[str] = []
            try:
                keys = make_keys() if make_keys and wish != "memory" else []
            except UnreadableCodeError as error:
                no_disk = f"{error}, so cached features cannot be identified reliably"
            found = bool(keys) and not any(shards.missing() for shards in _shards(keys, splits, numbers))
            if not no_disk and not found and wish != "memory":
                no_disk = _why_unwritable(features_folder())
            choice = choose_cache(
                wish,
                passes,
                numbers.sample_bytes,
                processes=accelerator.num_processes,
                free_memory=psutil.virtual_memory().available,
                free_disk=_free_disk(cache_folder()),
                found=found,
                no_disk=no_disk,
            )
            answer = [choice, keys, found]
        except InputError as error:
            answer[0] = str(error)
    if accelerator.num_processes > 1:
        broadcast_object_list(answer)
    choice, keys, found = answer
    if isinstance(choice, str):
        raise InputError(choice)
    return _Plan(choice, _shards(keys, splits, numbers) if choice.where == "disk" else [], found)


def _count_passes(splits: Sequence[Split], epochs: int, evaluate_every: int) -> Passes:
    train, *others = splits
    return Passes(
        epochs=epochs,
        views=train.views,
        train=len(train.feed),
        val=sum(len(split.feed) for split in others),
        evaluations=-(-epochs // evaluate_every),
    )


def _shards(keys: Sequence[str], splits: Sequence[Split], numbers: _Numbers) -> list[FeatureShards]:
    per_shard = choose_per_shard(numbers.sample_bytes)
    return [
        FeatureShards(feature_folder(key), split.samples, per_shard, key=key)
        for key, split in zip(keys, splits, strict=True)
    ]


def _make_keys(engine: BackboneEngine, splits: Sequence[Split], numbers: _Numbers) -> list[str]:
    backbone = engine.digest()  # once for all splits: it reads every weight
    return [_key(engine, backbone, split, numbers) for split in splits]


def _key(engine: BackboneEngine, backbone: str, split: Split, numbers: _Numbers) -> str:
    """Return what decides every number that is kept, as one digest."""
    code = split.feed.code
    return make_key(
        ({} if code is None else {"transform": digest_code(code, "the transform")})
        | {
            "trunk": backbone,
            "engine": engine.describe(),
            "network sees": dict(split.feed.cache_key),
            "views": split.views,
            "images": digest_images(split.feed.images),
            "numbers": str(numbers.dtype),
            "versions": find_versions(),
        }
    )


def _free_disk(folder: Path) -> int:
    """Return the free bytes of the disk that a folder is on, or will be."""
    return shutil.disk_usage(_existing(folder)).free


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if os.path.exists(place))


def _first_sentence(error: StorageError) -> str:
    return str(error).partition(" Make room")[0].rstrip(".")


def _why_unwritable(folder: Path) -> str | None:
    """Return why nothing can be written into a folder, which need not exist; None if it can."""
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            return None
    except OSError as error:
        return f"{folder} is not writable ({error.strerror or error})"


def _facts(kept: Kept, run: FeaturePass, splits: Sequence[Split], plan: _Plan, numbers: _Numbers) -> dict[str, Any]:
    return {
        "where": kept.choice.where,
        "why": kept.choice.why,
        "keys": [shards.key for shards in plan.shards],
        "numbers": str(numbers.dtype).removeprefix("torch."),
        "bytes": sum(part.nbytes for part in kept.splits),
        "views": splits[0].views,
        "images": [len(split.feed) for split in splits],
        "computed": run.computed,
        "seconds": round(run.seconds, 3),
        "engine": run.engine.describe(),
    }


def _ignore(done: int, total: int) -> None:
    """Show nothing: no bar for what is there already."""


def _note(kept: Kept, run: FeaturePass, splits: Sequence[Split], plan: _Plan, name: str) -> None:
    """Leave a note in each folder for people and for `zoo cache`."""
    for shards, split, features in zip(plan.shards, splits, kept.splits, strict=True):
        if run.computed:
            own = {"model": name, "images": len(split.feed), "views": split.views, "bytes": features.nbytes}
            write_about(shards.folder, kept.facts | own)
        mark_used(shards.folder)


def _tell(kept: Kept, run: FeaturePass, passes: Passes) -> str:
    """Say what is kept, what it took and what it saves."""
    images, views = passes.train + passes.val, passes.views
    what = f"features of {images:,} images" + (
        f", {views} augmented versions of each training image" if views > 1 else ""
    )
    size = format_bytes(sum(part.nbytes for part in kept.splits))
    if not run.computed:
        return f"{what}: {size} on disk, reused from an earlier run; each epoch runs only the head"
    part = "" if run.computed == passes.once else f"{run.computed:,} of them "
    rate = run.computed / max(run.seconds, 1e-9)
    saved = max((passes.without - passes.once) / rate, 0.0)
    return (
        f"{what}: {size} {'on disk' if kept.choice.where == 'disk' else 'in memory'}, {part}computed in "
        f"{run.seconds:.1f} s ({rate:,.0f} images/s); each epoch runs only the head, which saves about "
        f"{format_seconds(saved)}"
    )
