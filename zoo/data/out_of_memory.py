"""When memory has run out: tell it from other errors, give back what a failed attempt has left, take less at a time."""

import ctypes
import gc
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from zoo.errors import InputError

Result = TypeVar("Result")

OUT_OF_MEMORY = (  # what errors say that have no class of their own
    "DefaultCPUAllocator: ",
    "Cannot allocate memory",
    "CUDA out of memory",
    "MPS backend out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "std::bad_alloc",
)


class Halving:
    """Calls a function with as many images at a time as memory holds: after it ran out, with half as many.

    Attributes:
        size: Images at a time at most; None as long as memory sufficed.
    """

    size: int | None = None

    def call(
        self, function: Callable[[Tensor], Sequence[Result]], images: Tensor, device: torch.device
    ) -> list[Result]:
        """Return what a function gives for images `(B, ...)`, one result each.

        Args:
            function: Takes and returns part of them.
            images: All of them.
            device: Where the function needs memory.

        Raises:
            InputError: A single image is too much.
        """
        done: list[Result] = []
        while len(done) < len(images):
            part = images[len(done) :][: self.size]
            reason = ""
            try:
                done += function(part)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).partition("\n")[0][:120] or type(error).__name__
            if reason:  # here, where no exception holds the memory any more
                self._halve(len(part), reason)
                release_memory(device)
        return done

    def _halve(self, used: int, reason: str) -> None:
        if used == 1:
            raise InputError(
                f"out of memory with a single image ({reason}). Use a smaller image_size, tiles, or device='cpu'."
            )
        self.size = -(-used // 2)
        warnings.warn(f"out of memory with {used} images at a time; {self.size} from here on", stacklevel=2)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that the memory of a GPU or of the machine did not suffice."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return type(error) is RuntimeError and any(words in str(error) for words in OUT_OF_MEMORY)


def release_memory(device: torch.device) -> None:
    """Give back what a failed attempt has left; call it when no exception holds its frames any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    elif trim := getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None:
        trim(0)  # what the C library keeps for later is in pieces that larger batches cannot use
