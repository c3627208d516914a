"""Builds what a run trains with: device, optimizer, loss, batches, and how many images the network takes at a time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn

from zoo._model import ask
from zoo.engine import (
    MicroBatchSize,
    StepCompiler,
    TrainingInputs,
    find_micro_batch_size,
    make_accelerator,
    preserve_state,
)
from zoo.errors import TrainingError
from zoo.optim import build_optimizer
from zoo.progress import Progress
from zoo.rates import Plan
from zoo.rates.schedules import Clock
from zoo.settings import Preset
from zoo.tasks import Task, task_of
from zoo.training.inputs import make_inputs
from zoo.training.moving_average import EpochMean, MovingAverage
from zoo.training.position import Position
from zoo.training.run_folder import RunFolder, make_caption
from zoo.training.single_image import check_single, holds_single, take_image
from zoo.training.step import TrainingStep

MOST_STATES = 2  # numbers that an optimizer such as AdamW keeps for each that learns


@dataclass
class RunParts:
    """What a run trains with.

    Attributes:
        model: On the device, frozen as the plan says.
        data: Opened data.
        preset: The effective preset.
        plan: On the clock of the run.
        accelerator: Device, precision and processes.
        supply: Batches to train and to score on.
        network: What turns inputs into outputs, prepared by the accelerator; prepared anew when more is unfrozen.
        optimizer: Prepared by the accelerator.
        loss: Makes a scalar of outputs and targets.
        compiler: Compiles the step; None if it runs uncompiled.
        micro_batches: How many images of a batch are in the network at a time.
        average: Moving average of the weights; None: they are kept as they are.
        mean: Mean of the weights of the last epochs; None: there is none.
    """

    model: nn.Module
    data: Any
    preset: Preset
    plan: Plan
    accelerator: Accelerator
    supply: TrainingInputs
    network: Any
    optimizer: Any
    loss: Callable[[Any, Any], Tensor]
    compiler: StepCompiler | None
    micro_batches: MicroBatchSize
    average: MovingAverage | None
    mean: EpochMean | None = None

    @property
    def task(self) -> Task:
        """The model's task."""
        return task_of(self.model)

    @property
    def final_model(self) -> nn.Module:
        """The weights that are scored and kept: their moving average if there is one."""
        return self.model if self.average is None else self.average.model

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        is_main: bool = self.accelerator.is_main_process
        return is_main

    @property
    def shows_targets(self) -> bool:
        """Whether the network is called with the targets, too."""
        shows: bool = ask(self.model, "takes_targets", False)
        return shows

    def renew_network(self) -> None:
        """Prepare the network again after more of it was unfrozen."""
        if self.compiler is not None:
            self.compiler.renew_network()
        if self.accelerator.num_processes > 1:  # gradients are gathered only for what learnt when it was wrapped
            self.network = self.accelerator.prepare(self.accelerator.unwrap_model(self.network))

    def make_step(self, set_rates: Callable[[Position], None]) -> TrainingStep:
        """Return what takes the steps until more is unfrozen."""
        return TrainingStep(
            self.network if self.compiler is None else self.compiler.compile_network(self.network),
            self.compute_loss,
            self.optimizer,
            self.accelerator,
            set_rates=set_rates,
            micro_batches=self.micro_batches,
            clip_grad_norm=self.preset.clip_grad_norm,
            adjusts_groups=self.plan.adjusts_gradients,
            average=self.average,
            seed=self.preset.seed,
            shows_targets=self.shows_targets,
        )

    def compute_loss(self, outputs: Any, targets: Any) -> Tensor:
        """Return the loss of a training step, after a check that something can be learnt from it."""
        value = self.loss(outputs, targets)
        if not value.requires_grad:
            names = [name for group in self.plan.trained for name in group.names]
            raise TrainingError(
                f"the loss does not depend on any trainable parameter: {', '.join(names[:3])}. Does forward() use "
                "them? Assign a new layer to the attribute that forward() calls."
            )
        return value


def build_parts(
    model: nn.Module,
    data: Any,
    preset: Preset,
    plan: Plan,
    folder: RunFolder,
    show: Progress,
    *,
    optimizer: Any = None,
    saved: Mapping[str, Any] | None = None,
) -> RunParts:
    """Build what a run trains with.

    Args:
        model: Frozen as the plan says; moved to the device.
        data: Opened data.
        preset: The effective preset.
        plan: Made of the model and the preset.
        folder: Where the run is kept.
        show: Told what is chosen.
        optimizer: The user's class or instance, instead of the one that the preset names.
        saved: The state of a run that goes on.
    """
    accelerator = make_accelerator(preset.device, preset.precision)
    model.to(accelerator.device)
    if all(parameter.ndim < 5 for parameter in model.parameters()):
        model.to(memory_format=torch.channels_last)
    folder.caption = make_caption(model, data.source, folder.path)

    def make_supply() -> TrainingInputs:
        return make_inputs(task_of(model), model, data, preset, plan, accelerator, show, folder)

    return join_parts(model, data, preset, plan, accelerator, make_supply, show, optimizer=optimizer, saved=saved)


def join_parts(
    model: nn.Module,
    data: Any,
    preset: Preset,
    plan: Plan,
    accelerator: Accelerator,
    make_supply: Callable[[], TrainingInputs],
    show: Progress,
    *,
    optimizer: Any = None,
    saved: Mapping[str, Any] | None = None,
) -> RunParts:
    """Build optimizer and loss around a model and the batches that it is shown.

    Args:
        model: On the accelerator's device, frozen as the plan says.
        data: Opened data.
        preset: The effective preset.
        plan: Made of the model and the preset.
        accelerator: Device, precision and processes.
        make_supply: Returns the batches; called when the loss is known.
        show: Told what is chosen.
        optimizer: As in `build_parts`.
        saved: As in `build_parts`.
    """
    chosen, params = optimizer or preset.optimizer, preset.optimizer_params
    made = build_optimizer(model, plan, optimizer=chosen, params=params, tensor_rates=preset.compile)
    compiler = StepCompiler(show.log, stages=len(plan.unfreeze_epochs) + 1) if preset.compile else None
    if compiler is not None:
        compiler.compile_optimizer(made, plan)
    loss = task_of(model).make_loss(model, data, preset, None if compiler is None else compiler.compile_loss)
    supply = make_supply()
    average = None
    if preset.ema_decay is not None:
        average = MovingAverage(model, preset.ema_decay, warmup=preset.ema_warmup)
    parts = RunParts(
        model=model,
        data=data,
        preset=preset,
        plan=plan,
        accelerator=accelerator,
        supply=supply,
        network=supply.network,
        optimizer=accelerator.prepare(made),
        loss=loss,
        compiler=compiler,
        micro_batches=MicroBatchSize(),
        average=average,
        mean=None if preset.swa_epochs is None else EpochMean(model, preset.swa_epochs, preset.epochs),
    )
    size = _choose_size(parts, show) if saved is None or "micro_batch_size" not in saved else saved["micro_batch_size"]
    parts.micro_batches = MicroBatchSize(cast("int | None", size), on_halved=lambda size: show.log(HALVED.format(size)))
    _check_single(parts)
    batches = len(supply.train)
    clock = Clock(preset.epochs, -(-batches // preset.accumulate), preset.accumulate, batches)
    return replace(parts, plan=plan.at(clock))


HALVED = "out of memory: continuing with micro-batches of {} images"


def _choose_size(parts: RunParts, show: Progress) -> int | None:
    """Return how many images of a batch are in the network at a time; None: all of them."""
    preset, device = parts.preset, parts.accelerator.device
    if preset.micro_batch_size != "auto":
        return preset.micro_batch_size
    network = parts.accelerator.unwrap_model(parts.network)  # one process must not wait for another here

    def try_step(images: int) -> None:
        batch = parts.task.make_worst_batch(parts.model, parts.data, preset, images)
        inputs, targets = send_to_device(batch, device)
        inputs = parts.supply.to_inputs(inputs)
        with preserve_state(parts.model):
            network.train()
            outputs = network(inputs, targets) if parts.shows_targets else network(inputs)
            parts.accelerator.backward(parts.compute_loss(outputs, targets))
            network.eval()
            with torch.inference_mode():
                network(inputs)

    learning = sum(p.numel() * p.element_size() for p in parts.model.parameters() if p.requires_grad)
    found = find_micro_batch_size(try_step, preset.batch_size, device=device, reserve=MOST_STATES * learning)
    show.log(found.text)
    return int(parts.accelerator.gather(torch.tensor([found.size], device=device)).min())


def _check_single(parts: RunParts) -> None:
    """Find out whether a batch of a single image can be learnt from, if there will be one."""
    loaders, device = getattr(parts.data, "loaders", None), parts.accelerator.device
    loader = loaders["train"].loader if loaders else parts.supply.train
    if parts.accelerator.num_processes > 1 or not holds_single(loader):
        return

    def take_inputs() -> Any:
        if loaders:
            return take_image(loader, device)
        inputs, _ = parts.task.make_worst_batch(parts.model, parts.data, parts.preset, 1)
        return parts.supply.to_inputs(inputs.to(device))

    check_single(parts.model, parts.network, take_inputs)
