"""The devices of this machine, by the names that options have for them."""

import torch

from zoo.errors import InputError


def find_device(name: str) -> torch.device:
    """Return a device.

    Args:
        name: `auto` (the fastest that there is), `cpu`, `cuda` or `mps`.

    Raises:
        InputError: This machine has no such device.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    if not available.get(name, False):
        has = ", ".join(name for name, there in available.items() if there)
        raise InputError(f"device {name!r} is not available (torch {torch.__version__}); available: {has}.")
    return torch.device(name)
