"""What a run needs of a model of somebody else's is tried with one real batch, before anything takes time.

The trial runs on a copy. The model, its buffers and the random numbers to come stay as they are.
"""

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from zoo._model import ModelInterface, ask, float_dtype, known_config
from zoo.data import is_out_of_memory
from zoo.errors import InputError, ZooError
from zoo.files import why_not_saved
from zoo.optim import apply_plan, keep_norm_statistics
from zoo.rates import Plan
from zoo.settings import Preset
from zoo.tasks import Task
from zoo.training.run_claim import name_model

FEW = 2  # images of a trial: norms cannot learn from one


def try_batches(task: Task, model: nn.Module, data: Any, preset: Preset, plan: Plan) -> None:
    """Try a step of training and one of validation, and whether the model can be saved.

    Models of this package on images of its own loaders are not tried: what they need is known.

    Args:
        task: The model's.
        model: It stays as it is, and so do the random numbers to come.
        data: Opened data.
        preset: The effective preset.
        plan: Which parameters learn.

    Raises:
        InputError: In one sentence, what fails.
    """
    check_state(model)
    _check_dtypes(model, reads_files=data.loaders is None)
    if _is_known(model) and data.loaders is None:
        return
    with _same_draws(model):
        twin = _copy(model)
        # A function that was set as an attribute is shared with the copy, and may count its calls: it is left alone.
        loss = task.make_loss(nn.Identity() if "loss" in vars(twin) else twin, data, preset)
        for split in ("train", "val"):
            batch = _take(task, model, data, preset, split)
            if batch is not None:
                _try_batch(twin, loss, batch, preset, plan, learns=split == "train")


def check_can_learn(model: nn.Module) -> None:
    """Refuse a model with parameters that have no size yet, or that no optimizer may change.

    Raises:
        InputError: Naming what to do first.
    """
    named = (*model.named_parameters(), *model.named_buffers())
    if lazy := next((name for name, tensor in named if is_lazy(tensor)), None):
        raise InputError(
            f"{lazy!r} of the {name_model(model)} is a lazy parameter without a shape. Run one batch through the "
            "model, model(images), before fine-tuning."
        )
    if any(tensor.is_inference() for _, tensor in named):
        raise InputError(
            f"the {name_model(model)} was created inside torch.inference_mode() and cannot be trained. Create it "
            "outside."
        )


def check_state(model: nn.Module) -> None:
    """Refuse a model whose state a run could not save.

    Raises:
        InputError: It holds something else than plain tensors; the text names it.
    """
    for name, value in model.state_dict().items():
        reason = why_not_saved(value)
        if reason:
            raise InputError(
                f"the run could not be saved: {name!r} in the model's state_dict is {reason}; expected a tensor that "
                "safetensors supports. Change the module that holds it, or remove it from the model."
            )


def _check_dtypes(model: nn.Module, *, reads_files: bool) -> None:
    """Refuse weights of a type in which the images do not come, or in which nothing can be learnt."""
    found = {one.dtype: name for name, one in model.named_parameters() if one.is_floating_point()}
    odd = next((dtype for dtype in found if dtype in (torch.float16, torch.bfloat16)), None)
    if reads_files:
        odd = next((dtype for dtype in found if dtype != torch.float32), None)
    if odd is None:
        return
    which = f"the weights of {found[odd]!r}" if len(found) > 1 else "the model's weights"
    reason = "images are float32" if reads_files else "small optimizer steps are lost in that precision"
    raise InputError(
        f"{which} are {_word(odd)}, but {reason}. Call model.float() first; for mixed precision use precision=bf16."
    )


def _is_known(model: nn.Module) -> bool:
    """Whether a model is one of this package, as it was made."""
    return isinstance(model, ModelInterface) and bool(known_config(model)) and not ask(model, "is_altered", False)


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise InputError(
            f"{type(model).__name__} cannot be copied ({type(error).__name__}: {_first_line(error)}), and a run "
            "needs a copy. Do not store computed tensors as attributes of the model."
        ) from error


def _take(task: Task, model: nn.Module, data: Any, preset: Preset, split: str) -> tuple[Any, Any] | None:
    """Return a few images of a split and their targets, as the network takes them."""
    if data.loaders is not None:
        user = data.loaders.get(split)
        if user is None:
            return None
        with _same_generators(user.loader):
            images, targets = next(iter(user.loader))
        images, targets = user.prepare(images, targets, 0, 0)
        dtype = float_dtype(model)
        return (images if dtype is None else images.to(dtype)), targets
    images = getattr(data, split)
    if images is None:
        return None
    task.choose_preprocess(model, preset)
    source = task.make_scoring_source(model, images)
    samples, targets = source.collate([source.samples[i, 0] for i in range(min(FEW, preset.batch_size, len(source)))])
    return source.prepare(samples, targets, 0, 0)


def _try_batch(
    twin: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    batch: tuple[Any, Any],
    preset: Preset,
    plan: Plan,
    *,
    learns: bool,
) -> None:
    images, targets = batch
    device = next((parameter.device for parameter in twin.parameters()), torch.device("cpu"))
    images, targets = send_to_device((images, targets), device)
    apply_plan(twin, plan)
    if preset.freeze_norm_stats:
        keep_norm_statistics(twin)
    try:
        if learns:
            twin.train()
            value = loss(twin(images, *((targets,) if ask(twin, "takes_targets", False) else ())), targets)
            if value.requires_grad:  # else the run says what is missing
                torch.autograd.backward(value)
        twin.eval()
        with torch.inference_mode():
            loss(twin(images), targets)
    except ZooError:
        raise
    except Exception as error:
        if is_out_of_memory(error):  # the run goes on in smaller micro-batches
            return
        raise _tell(twin, images, targets, error, learns=learns) from error


def _tell(twin: nn.Module, images: Tensor, targets: Any, error: Exception, *, learns: bool) -> InputError:
    kind = type(twin).__name__
    if "more than 1 value per channel" in str(error):
        return InputError(
            f"a norm layer of {kind} cannot be trained on a batch of {len(images)} image: each channel has a single "
            "value. Use a larger batch_size, or set freeze_norm_stats=true."
        )
    labels = f"{_word(targets.dtype)} {tuple(targets.shape)}" if isinstance(targets, Tensor) else type(targets).__name__
    return InputError(
        f"{kind} fails on the first {'training' if learns else 'validation'} batch: {type(error).__name__}: "
        f"{_first_line(error).rstrip('.')}. The images are {_word(images.dtype)} {tuple(images.shape)}, the targets "
        f"{labels}, the model's weights {_word(float_dtype(twin))}. Make model(images) accept this batch."
    )


@contextmanager
def _same_draws(model: nn.Module) -> Iterator[None]:
    """Leave the random numbers to come what they would have been."""
    states = random.getstate(), np.random.get_state()
    devices = sorted({one.device.index or 0 for one in model.parameters() if one.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


@contextmanager
def _same_generators(loader: Any) -> Iterator[None]:
    """Leave the generators of a user's loader as they are, which decide the order of its images."""
    sampler = getattr(loader, "sampler", None)
    inner = getattr(getattr(loader, "batch_sampler", None), "sampler", None)
    found = [getattr(one, "generator", None) for one in (loader, sampler, inner)]
    kept = [(one, one.get_state()) for one in found if isinstance(one, torch.Generator)]
    try:
        yield
    finally:
        for generator, state in kept:
            generator.set_state(state)


def _word(dtype: torch.dtype | None) -> str:
    return str(dtype).removeprefix("torch.")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0]
