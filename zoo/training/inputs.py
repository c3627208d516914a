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
SOLVER_PASSES = 2  # over each image, at least: to standardise its features, and to solve the head
MOST_DRAWN = 24  # images, where no batch of images reaches the network


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
    first = _FirstBatch(train, folder)
    draws = train.draw is not None and accelerator.is_main_process
    passes = SOLVER_PASSES * preset.views if preset.solver else plan.clock.epochs
    source = first.source if draws else train
    inputs = build_inputs(model, source, val, preset, plan, accelerator, show, passes=passes)
    if draws:
        first.draw(from_features=bool(inputs.features))
    return replace(inputs, store=store)


class _FirstBatch:
    """Draws the first training batch, on its way to the network.

    Args:
        source: Its task knows how to draw a batch.
        folder: Where to.
    """

    def __init__(self, source: SplitSource, folder: RunFolder) -> None:
        self._source, self._folder, self._is_due = source, folder, False
        self.source = replace(source, prepare=self._prepare)

    def draw(self, *, from_features: bool) -> None:
        """Draw the next batch; if cached features are trained on, draw some images of the data set at once."""
        self._is_due = not from_features
        if from_features:
            source, count = self._source, min(MOST_DRAWN, len(self._source))
            chosen = [source.samples[place * len(source) // count] for place in range(count)]
            self._draw(*source.collate(chosen))

    def _prepare(self, images: Any, targets: Any, epoch: int, batch: int) -> tuple[Any, Any]:
        if self._is_due and epoch == batch == 0:
            self._is_due = False
            self._draw(images, targets)
        return self._source.prepare(images, targets, epoch, batch)

    def _draw(self, images: Any, targets: Any) -> None:
        assert self._source.draw is not None
        self._folder.draw(FIRST_BATCH, partial(self._source.draw, images, targets))
