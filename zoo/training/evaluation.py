"""Scores of a model on a data set."""

import os
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from zoo._model import get_fact
from zoo.data import UserLoader, default_workers, lay_channels_last
from zoo.engine import count_images, count_unpadded, load_from_user, load_to_score, make_accelerator, take_first
from zoo.errors import DataError, InputError
from zoo.models import take_model
from zoo.progress import Progress, is_main_process
from zoo.tasks import AnyEvaluation, Evaluation, Evaluator, Task, task_of
from zoo.training.run_folder import describe_weights, split_run
from zoo.training.run_model import load_model
from zoo.training.run_stage import read_record


def evaluate(
    model_or_run: Any,
    data: Any,
    *,
    split: str = "val",
    batch_size: int | None = None,
    device: str = "auto",
    num_workers: int | None = None,
    skip_bad: bool = False,
    image_root: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> AnyEvaluation:
    """Evaluate a model on labelled images; arguments and result are those of `zoo.evaluate`.

    Raises:
        ExportedError: The place holds an exported model.
    """
    place = model_or_run if isinstance(model_or_run, (str, os.PathLike)) else None
    if place is not None:
        model_or_run = load_model(place)
    model: Any = model_or_run if callable(model_or_run) else getattr(model_or_run, "model", model_or_run)
    if isinstance(model, nn.Module):
        model = take_model(model)
    if not (callable(model) and get_fact(model, "preprocess")):
        raise InputError(f"expected a model from zoo.get, a run or a run folder, not {type(model).__name__}.")
    task, classes = task_of(model), tuple(get_fact(model, "classes", ()))
    if image_root is not None and "image_root" not in task.opening:
        raise InputError(f"image_root is {str(image_root)!r}, which does not apply to a {task.card.noun}. Remove it.")
    with Progress(enabled=progress and is_main_process()) as show:
        if place is not None:
            _tell_weights(place, show)
        with show.counting("checking images") as count:
            options: dict[str, Any] = {"skip_bad": skip_bad, "only": split, "on_progress": count}
            options |= {} if image_root is None else {"image_root": image_root}
            opened = task.open_data(data, classes=classes, by_name=True, evaluation=True, **options)
        if opened.classes != classes:  # it was opened before, by zoo.open_data
            raise DataError(
                f"the classes of the opened data ({len(opened.classes)}, first {opened.classes[0]!r}) differ from "
                f"the model's ({len(classes)}, first {classes[0]!r}). Pass the folder or data set itself, and "
                "classes are matched by name; or open it with classes=model.classes."
            )
        how: dict[str, Any] = {"batch_size": batch_size, "num_workers": num_workers, "device": device}
        result, _ = score_split(model, task, opened, split, show, **how)
    return cast(AnyEvaluation, result)


def _tell_weights(place: str | os.PathLike[str], show: Progress) -> None:
    """Say which weights of a run are scored."""
    path, name = split_run(place)
    if read_record(path).get("status") == "interrupted":
        show.log(f"note: the run in {path} was interrupted; its last saved state is evaluated")
    elif path.is_dir() and (which := describe_weights(path, name)):
        show.log(f"weights: {which}")


def score_split(
    model: Any,
    task: Task,
    opened: Any,
    split: str,
    show: Progress,
    *,
    batch_size: int | None = None,
    num_workers: int | None = None,
    device: str = "auto",
) -> tuple[Any, Any]:
    """Score a model on a split of opened data, and return examples to draw, too."""
    part = _take_split(opened, split)
    accelerator = make_accelerator(device)
    network = accelerator.prepare(model)
    if isinstance(part, UserLoader):
        images, batches = None, load_from_user(part, accelerator, model)
    else:
        images, workers = part, default_workers(len(part)) if num_workers is None else num_workers
        size = task.scoring_batch if batch_size is None else batch_size
        source = task.make_scoring_source(model, images)
        batches = load_to_score(source, accelerator, batch_size=size, num_workers=workers)
    evaluator = task.make_evaluator(model, get_fact(model, "classes"), images, device=accelerator.device)
    with show.counting("evaluating") as count:
        scored = score_batches(evaluator, network, _counted(batches, count), accelerator)
    accelerator.unwrap_model(network, keep_fp32_wrapper=False)
    return scored


def score_batches(
    evaluator: Evaluator, network: nn.Module, batches: Iterable[Any], accelerator: Accelerator
) -> tuple[Evaluation, Sequence[Any]]:
    """Return the scores of a network over batches, and examples to draw.

    Args:
        evaluator: Of the task. With several processes, each observes its own batches and is told what all observed.
        network: Prepared by the accelerator; it is in eval mode afterwards.
        batches: Inputs and targets, from a loader that the accelerator has prepared.
        accelerator: Device and processes.
    """
    network.eval()
    for inputs, targets in batches:
        evaluator.update(_observe(evaluator, network, inputs, targets, accelerator))
    return evaluator.compute(), evaluator.examples


@torch.inference_mode()
def _observe(evaluator: Evaluator, network: nn.Module, inputs: Any, targets: Any, accelerator: Accelerator) -> Any:
    """Return what all processes observe of a batch."""
    if accelerator.num_processes == 1:  # there is nothing to gather, and users' samplers would be cut in wrong places
        return evaluator.observe(network(_lay_out(inputs)), targets)
    if evaluator.in_rows:
        return accelerator.gather_for_metrics(evaluator.observe(network(_lay_out(inputs)), targets))
    own = count_unpadded(accelerator, count_images(inputs))
    if own:  # else all of them are repeats; the other processes still wait for the pass and for what was observed
        inputs, targets, _ = take_first(inputs, targets, own)
    observed = evaluator.observe(network(_lay_out(inputs)), targets)
    return gather_object(observed if own else [])


def _lay_out(images: Any) -> Any:
    return tuple(map(lay_channels_last, images)) if isinstance(images, tuple) else lay_channels_last(images)


def _take_split(opened: Any, name: str) -> Any:
    """Return the images or the loader of a split."""
    splits: dict[str, Any] = opened.loaders or {"train": opened.train, "val": opened.val, "test": opened.test}
    if splits.get(name) is None:
        has = [split for split, part in splits.items() if part is not None]
        raise DataError(f"the data has no split {name!r}; it has {', '.join(has)}.")
    return splits[name]


def _counted(batches: Any, count: Any) -> Iterable[Any]:
    total = len(batches)
    for done, batch in enumerate(batches, start=1):
        yield batch
        count(done, total)
