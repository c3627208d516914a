"""The network that goes into an exported file: from pixels to answers."""

import builtins
import io
import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from importlib import import_module
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from zoo._model import get_fact, get_task
from zoo.exporters._refusals import refuse_model
from zoo.tasks import DEFAULT_TASK


class ExportGraph(nn.Module):
    """A model from pixels to probabilities, or to boxes after suppression.

    Args:
        model: Of `zoo.get`, in eval mode.
        takes_bytes: Take `(N, H, W, 3)` uint8 RGB, and normalise inside; else `(N, 3, H, W)` float32, normalised.
        raw: Give logits, or boxes and scores of all places, before thresholds and suppression.

    Attributes:
        outputs: Their names, in order.
        size: Height and width of the input in pixels.
    """

    def __init__(self, model: Any, *, takes_bytes: bool = True, raw: bool = False) -> None:
        super().__init__()
        part = import_module(f"zoo.tasks.{get_task(model, DEFAULT_TASK)}.export")
        fused = getattr(model, "fused_copy", None)
        self.network = model if fused is None else fused.of(model)
        self.tail = (part.RawTail if raw else part.Tail)(model)
        self.outputs: tuple[str, ...] = part.RAW_OUTPUTS if raw else part.OUTPUTS
        self.takes_bytes, self.raw, self.how = takes_bytes, raw, get_fact(model, "preprocess")
        self.size = getattr(self.how, "canvas_size", None) or (self.how.image_size, self.how.image_size)
        self.mean: Tensor
        self.std: Tensor
        self.flips = getattr(self.how, "channels", "rgb") == "bgr"
        for name in ("mean", "std"):
            numbers = torch.tensor(getattr(self.how, name), dtype=torch.float32).view(1, 3, 1, 1)
            self.register_buffer(name, numbers, persistent=False)

    def forward(self, images: Tensor) -> Any:
        """Return the outputs as a tuple of tensors."""
        return self.tail(self.network(self.normalise(images) if self.takes_bytes else images))

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return what the network takes of `(N, H, W, 3)` uint8 pixels, by the same steps as in training."""
        values = pixels.permute(0, 3, 1, 2)
        values = values.flip(1) if self.flips else values
        return (values.to(torch.float32) / getattr(self.how, "max_value", 255.0) - self.mean) / self.std

    def sample(self, images: int = 2) -> Tensor:
        """Return an input of the right form."""
        height, width = self.size
        if self.takes_bytes:
            return torch.randint(0, 256, (images, height, width, 3), dtype=torch.uint8)
        return torch.randn(images, 3, height, width)


def trace(graph: ExportGraph) -> torch.export.ExportedProgram:
    """Return the program of a graph: for any number of images, or for one where its code needs a fixed number.

    Raises:
        InputError: Something in it cannot be traced.
    """
    graph = graph.cpu().float().eval()
    try:
        return _trace(graph, graph.sample(), torch.export.Dim("batch"))
    except Exception as error:
        if "batch" not in str(error):
            raise refuse_model(graph, error) from error
    try:
        return _trace(graph, graph.sample(1), None)
    except Exception as error:
        raise refuse_model(graph, error) from error


@torch.no_grad()
def _trace(graph: ExportGraph, images: Tensor, batch: Any) -> torch.export.ExportedProgram:
    shapes = None if batch is None else ({0: batch},)
    with _open_lengths(graph), _without_dumps():
        return torch.export.export(
            graph, (images,), dynamic_shapes=shapes, prefer_deferred_runtime_asserts_over_guards=True
        )


@contextmanager
def _open_lengths(graph: nn.Module) -> Iterator[None]:
    """Let `len(tensor)` in the code of a network, as transformers has it, stand for any number of images.

    Python makes a plain number of what `len` returns, and the file would take just so many.
    """
    names = {type(module).__module__ for module in graph.modules()}
    with ExitStack() as stack:
        for module in filter(None, map(sys.modules.get, names)):
            if "len" not in vars(module):
                stack.enter_context(patch.dict(vars(module), {"len": _measure}))
        yield


@contextmanager
def _without_dumps() -> Iterator[None]:
    """Hide the graph that torch prints when it cannot trace a model: the error says what is wrong."""
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    with redirect_stderr(io.StringIO()), patch.object(logger, "disabled", True):
        yield


def _measure(value: Any) -> Any:
    return value.shape[0] if isinstance(value, Tensor) and value.ndim else builtins.len(value)
