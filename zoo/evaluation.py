"""Scores of a model on a data set, and the images that it gets most confidently wrong."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from zoo.checkpoint import load_model
from zoo.data import open_data
from zoo.errors import DataError, InputError
from zoo.loader import default_workers, make_loader
from zoo.loop import run_batches
from zoo.metrics import ClassificationMetrics, Evaluation
from zoo.preprocess import eval_transform
from zoo.progress import Progress, is_main_process


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


def evaluate(
    model_or_run: Any,
    data: Any,
    *,
    split: str = "val",
    batch_size: int = 64,
    device: str = "auto",
    num_workers: int | None = None,
    skip_bad: bool = False,
    progress: bool = True,
) -> Evaluation:
    """Score a model on images with known classes.

    Args:
        model_or_run: A model of this package, a `Run`, or the folder of one.
        data: What `finetune` takes. Its classes are matched with the model's by name.
        split: `train`, `val` or `test`.
        batch_size: Images per forward pass.
        device: `auto`, `cpu`, `cuda` or `mps`.
        num_workers: Processes that load images; None: chosen.
        skip_bad: Leave out files that cannot be read, instead of stopping.
        progress: Whether to show a bar.

    Returns:
        Top-1, top-5, loss, scores per class and the confusion matrix.
    """
    if isinstance(model_or_run, (str, os.PathLike)):
        model_or_run = load_model(model_or_run)
    model: Any = getattr(model_or_run, "model", model_or_run)
    if not (callable(model) and hasattr(model, "preprocess")):
        raise InputError(f"expected a model of zoo.get, a run or its folder, not {type(model).__name__}.")
    with Progress(enabled=progress and is_main_process()) as show:
        with show.counting("checking images") as count:
            opened = open_data(
                data, classes=model.classes, skip_bad=skip_bad, evaluation=True, only=split, on_progress=count
            )
        if opened.classes != tuple(model.classes):  # it was opened before, by zoo.open_data
            raise DataError(
                f"the data was opened with other classes ({len(opened.classes)}, first {opened.classes[0]!r}) than the "
                f"model's ({len(model.classes)}, first {model.classes[0]!r}). Pass what it was opened from, and they "
                "are matched by name."
            )
        splits: dict[str, Any] = {"train": opened.train, "val": opened.val, "test": opened.test}
        if opened.loaders:
            splits = dict(zip(("train", "val"), opened.loaders, strict=True))
        batches = splits.get(split)
        if batches is None:
            has = [name for name, part in splits.items() if part is not None]
            raise DataError(f"the data has no split {split!r}; it has {', '.join(has)}.")
        if not opened.loaders:
            workers = default_workers(len(batches)) if num_workers is None else num_workers
            transform = eval_transform(model.preprocess)
            batches = make_loader(batches, transform, batch_size=batch_size, num_workers=workers)
        accelerator = make_accelerator(device)
        network, batches = accelerator.prepare(model, batches)
        with show.counting("evaluating") as count:
            result, _ = score(network, _counted(batches, count), accelerator, model.classes)
        accelerator.unwrap_model(network, keep_fp32_wrapper=False)
    return result


def score(
    network: nn.Module, batches: Iterable[Any], accelerator: Accelerator, classes: tuple[str, ...]
) -> tuple[Evaluation, list[Miss]]:
    """Return the scores over all batches, and the misses, the most confident first."""
    metrics = ClassificationMetrics(classes, accelerator.device)
    misses: list[Miss] = []
    seen = 0
    for outputs, targets in run_batches(network, batches, accelerator):
        if outputs.ndim != 2 or outputs.shape[1] != len(classes):
            raise InputError(f"the model gives outputs of shape {tuple(outputs.shape)}; expected (B, {len(classes)}).")
        metrics.update(outputs, targets)
        best = outputs.float().softmax(-1).max(-1)
        wrong = (best.indices != targets).nonzero().flatten()
        columns = (wrong + seen, targets[wrong], best.indices[wrong], best.values[wrong])
        misses += [Miss(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]
        seen += len(targets)
    return metrics.compute(), sorted(misses, key=lambda miss: -miss.confidence)


def make_accelerator(device: str = "auto", precision: str = "no") -> Accelerator:
    """Return the engine for a device and a precision; started by `accelerate launch`, it spans all processes.

    Args:
        device: `auto`, `cpu`, `cuda` or `mps`.
        precision: `no` (float32), `bf16` or `fp16`.

    Raises:
        InputError: If this machine has no such device, or it cannot do the precision.
    """
    from accelerate.state import AcceleratorState, PartialState

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device != "auto" and not available.get(device, False):
        has = ", ".join(name for name, there in available.items() if there)
        raise InputError(f"device {device!r} is not available to torch {torch.__version__}; this machine has: {has}.")
    alone = not PartialState._shared_state or PartialState().num_processes == 1
    AcceleratorState._reset_state(reset_partial_state=alone)  # another run in this process may have chosen differently
    try:
        accelerator = Accelerator(cpu=device == "cpu", mixed_precision=precision)
        if precision == "fp16" and accelerator.device.type == "cpu":
            raise ValueError("it needs a GPU")  # accelerate would take float32 without a word
    except ValueError as error:
        raise InputError(
            f"precision {precision!r} does not work on this device: {error}. Try 'no' or 'bf16'."
        ) from error
    return accelerator


def _counted(batches: Any, count: Any) -> Iterable[Any]:
    total = len(batches)
    for done, batch in enumerate(batches, start=1):
        yield batch
        count(done, total)
