"""The batches of a run: a task describes its splits, and the engine makes batches of them."""

from dataclasses import replace
from functools import partial
from typing import Any

from accelerate import Accelerator
from torch import nn

from zoo.data import SplitSource
from zoo.engine import TrainingInputs, build_inputs, inputs_of_loaders, open_store
from zoo.engine.frozen import backbone_trains_reason
from zoo.errors import InputError
from zoo.progress import Progress
from zoo.rates import Plan
from zoo.settings import Preset
from zoo.tasks import Task
from zoo.training.run_folder import RunFolder

FIRST_BATCH = "first_batch.png"


def make_inputs(
    task: Task,
    model: nn.Module,
    data: Any,
    preset: Preset,
    plan: Plan,
    accelerator: Accelerator,
    show: Progress,
    folder: RunFolder,
) -> TrainingInputs:
    """Return where the batches of a run come from; the model's preprocessing is settled here.

    Args:
        task: The model's.
        model: On the accelerator's device, frozen as the plan says.
        data: Opened data.
        preset: The effective preset.
        plan: Decides whether the backbone is frozen.
        accelerator: Device and processes.
        show: Where a pass over all images is shown.
        folder: Where the first batch is drawn, if the task draws it.

    Raises:
        InputError: There are no images to train on, or what the preset asks for is not possible with them.
    """
    task.choose_preprocess(model, preset)
    if data.loaders:
        return inputs_of_loaders(model, data.loaders, accelerator)
    if data.train is None:
        raise InputError(f"{data.source} has no images to train on.")
    store = open_store(preset, accelerator, show, data.train, data.val)
    if store is not None:
        val = None if data.val is None else data.val.keeping(store, "val")
        data = replace(data, train=data.train.keeping(store, "train"), val=val)
    train = task.make_training_source(model, data, preset, is_frozen=backbone_trains_reason(model, plan) is None)
    val = None if data.val is None else task.make_scoring_source(model, data.val, preset.seed)
    train = _draw_first(train, folder) if accelerator.is_main_process else train
    return replace(build_inputs(model, train, val, preset, plan, accelerator, show), store=store)


def _draw_first(source: SplitSource, folder: RunFolder) -> SplitSource:
    """Return a source whose first batch is drawn on its way to the network."""
    if (draw := source.draw) is None:
        return source

    def prepare(images: Any, targets: Any, epoch: int, batch: int) -> tuple[Any, Any]:
        if epoch == batch == 0:
            folder.draw(FIRST_BATCH, partial(draw, images, targets))
        return source.prepare(images, targets, epoch, batch)

    return replace(source, prepare=prepare)
