"""The engine of a run: the device, the precision and the processes that accelerate spans."""

import os
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, InitProcessGroupKwargs

from zoo.data import find_device
from zoo.errors import InputError

# A process that has its share of the features already waits for one that has to compute it all: NCCL's own ten minutes
# are too few for that. Launchers end all processes as soon as one fails, so nobody waits in vain.
LONGEST_WAIT = timedelta(hours=6)
SHARDING = ("FSDP", "DEEPSPEED", "MEGATRON_LM", "TP")  # parts of a model in each process
_REFUSED = "precision {!r} is not supported on this device: {}. Use 'no' or 'bf16'."


def make_accelerator(device: str = "auto", precision: str = "no") -> Accelerator:
    """Return the engine for a device and a precision; started by a launcher, it spans all its processes.

    Args:
        device: `auto`, `cpu`, `cuda` or `mps`.
        precision: `no` (float32), `bf16` or `fp16`.

    Raises:
        InputError: If this machine has no such device, or it cannot do the precision; or if the launcher was told what
            contradicts this.
    """
    from accelerate.state import AcceleratorState, PartialState

    check_device(device, precision)
    # Left to itself, accelerate would start each process alone where there is no GPU.
    on_cpu = find_device(device).type == "cpu"
    alone = not PartialState._shared_state or PartialState().num_processes == 1
    AcceleratorState._reset_state(reset_partial_state=alone)  # another run in this process may have chosen differently
    waiting = InitProcessGroupKwargs(timeout=LONGEST_WAIT)
    loading = DataLoaderConfiguration(non_blocking=torch.cuda.is_available())  # batches are pinned: nobody has to wait
    try:
        options = {"dataloader_config": loading, "kwargs_handlers": [waiting]}
        accelerator = Accelerator(cpu=on_cpu, mixed_precision=precision, **options)
    except ValueError as error:
        raise InputError(_REFUSED.format(precision, error)) from error
    started = int(os.environ["WORLD_SIZE"]) if "LOCAL_RANK" in os.environ else 1
    _check_processes(started, accelerator.num_processes, accelerator.device.type, accelerator.distributed_type.name)
    return accelerator


def check_device(device: str, precision: str) -> None:
    """Refuse a device or a precision that this machine does not have.

    Args:
        device: As for `make_accelerator`.
        precision: As for `make_accelerator`.

    Raises:
        InputError: Naming what there is.
    """
    kind = find_device(device).type
    _check_launcher(os.environ.get("ACCELERATE_MIXED_PRECISION", "no"), precision)
    if precision == "fp16" and kind == "cpu":  # accelerate would take float32 without a word
        raise InputError(_REFUSED.format(precision, "fp16 needs a GPU"))


def count_unpadded(accelerator: Accelerator, images: int) -> int:
    """Return how many images of this process's batch are its own; the others were added to fill up the last batches.

    Several processes get batches of one size. Where there are too few images for that, accelerate repeats the first
    ones at the end, and those have been counted already. It may be none that is left.

    Args:
        accelerator: That has prepared the loader, while the batch is at hand.
        images: In the batch.
    """
    state, last = accelerator.gradient_state, int(accelerator.gradient_state.remainder)
    if accelerator.num_processes == 1 or not state.end_of_dataloader or last < 1:
        return images
    return min(max(0, last - int(accelerator.process_index) * images), images)


def _check_launcher(launched: str, precision: str) -> None:
    """Refuse a precision that was given to `accelerate launch` alone: the preset's would win without a word."""
    if launched not in ("no", "", precision):
        raise InputError(
            f"accelerate launch sets mixed_precision {launched!r}, but the run has precision {precision!r}. Set it "
            f"for the run, with --set precision={launched} or in the preset, or leave out both."
        )


def _check_processes(started: int, spanned: int, device: str, kind: str) -> None:
    """Refuse processes that would each do a run of its own, or share a model in a way that runs are not made for."""
    if kind in SHARDING:
        raise InputError(
            f"accelerate is configured to use {kind}, which shards the model; zoo keeps the full model in every "
            "process. Start without it."
        )
    if spanned < started:
        raise InputError(
            f"{started} processes were started, but on device {device} each would train alone. Use device=cpu, or "
            "start one process."
        )
