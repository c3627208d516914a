"""Batches of a single image, from which a norm cannot learn, are found before the first epoch."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data import seeded_sample
from zoo.engine import preserve_state
from zoo.errors import InputError

SINGLE = (
    "norm layers cannot compute statistics from a {what} of one image, where each channel has a single value. Use a "
    "larger {remedy}, or set freeze_norm_stats=true."
)
OF_A_BATCH = SINGLE.format(what="batch", remedy="batch_size (a loader: drop_last=True)")
OF_A_MICRO_BATCH = SINGLE.format(what="micro-batch", remedy="micro_batch_size")


def is_of_norms(error: ValueError) -> bool:
    """Whether a norm has refused a single value per channel."""
    return "more than 1 value per channel" in str(error)


def holds_single(loader: Any) -> bool:
    """Return whether a loader is known to give a batch of a single image."""
    size: Any = getattr(loader, "batch_size", None)
    sampler: Any = getattr(loader, "sampler", None)
    if not isinstance(size, int) or not hasattr(sampler, "__len__"):
        return False
    return size == 1 or (len(sampler) % size == 1 and not getattr(loader, "drop_last", False))


def take_image(loader: Any, device: torch.device) -> Tensor:
    """Return the first image of a loader's data set as a batch; random numbers to come stay what they were.

    Raises:
        TypeError: The data set gives no images by number.
    """
    with seeded_sample(0, 0, 0, everywhere=True):
        image = loader.dataset[0][0]
    if not isinstance(image, Tensor):
        raise TypeError(f"the image is a {type(image).__name__}")
    return image[None].to(device)


def check_single(model: nn.Module, network: nn.Module, take_inputs: Callable[[], Any]) -> None:
    """Run a network in train mode on a single image; the model stays as it is.

    Args:
        model: Whose modes and buffers are kept.
        network: Turns inputs into outputs.
        take_inputs: Gives the inputs of a single image.

    Raises:
        InputError: A norm cannot learn from it.
    """
    with preserve_state(model):
        network.train()
        try:
            network(take_inputs())
        except ValueError as error:
            if is_of_norms(error):
                raise InputError(OF_A_BATCH) from error
        except (RuntimeError, TypeError, LookupError):
            return  # the first step will tell
