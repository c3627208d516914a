"""The network that goes into an exported file: from pixels to answers."""

from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import InputError


class ExportGraph(nn.Module):
    """A model from pixels to probabilities, or to boxes after suppression.

    Args:
        model: Of `zoo.get`, in eval mode.
        takes_bytes: Take `(N, H, W, 3)` uint8 RGB, and normalise inside; else `(N, 3, H, W)` float32, normalised.
        raw: Give what the network gives, without what follows it.

    Attributes:
        outputs: Their names, in order.
        size: Height and width of the input in pixels.
    """

    def __init__(self, model: Any, *, takes_bytes: bool = True, raw: bool = False) -> None:
        super().__init__()
        part = import_module(f"zoo.tasks.{model.task}.export")
        fused = getattr(model, "fused_copy", None)
        self.network = model if fused is None else fused.of(model)
        self.tail = None if raw else part.Tail(model)
        self.outputs: tuple[str, ...] = () if raw else part.OUTPUTS
        self.takes_bytes, self.how = takes_bytes, model.preprocess
        self.size = getattr(self.how, "canvas_size", None) or (self.how.image_size, self.how.image_size)
        self.mean: Tensor
        self.std: Tensor
        self.flips = getattr(self.how, "channels", "rgb") == "bgr"
        for name in ("mean", "std"):
            numbers = torch.tensor(getattr(self.how, name), dtype=torch.float32).view(1, 3, 1, 1)
            self.register_buffer(name, numbers, persistent=False)

    def forward(self, images: Tensor) -> Any:
        """Return the outputs as a tuple of tensors."""
        found = self.network(self._normalise(images) if self.takes_bytes else images)
        return found if self.tail is None else self.tail(found)

    def _normalise(self, pixels: Tensor) -> Tensor:
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
            raise InputError(_refusal(error)) from error
    try:  # such as len(tensor), which gives a number
        return _trace(graph, graph.sample(1), None)
    except Exception as error:
        raise InputError(_refusal(error)) from error


@torch.no_grad()
def _trace(graph: ExportGraph, images: Tensor, batch: Any) -> torch.export.ExportedProgram:
    shapes = None if batch is None else ({0: batch},)
    return torch.export.export(
        graph, (images,), dynamic_shapes=shapes, prefer_deferred_runtime_asserts_over_guards=True
    )


def _refusal(error: Exception) -> str:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return f"the model cannot be exported: {reason}"
