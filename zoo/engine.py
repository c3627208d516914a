"""The engine of a run: the device, the precision and the processes that accelerate spans."""

import torch
from accelerate import Accelerator

from zoo.errors import InputError


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
