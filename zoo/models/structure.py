"""What a network is built of: enough to tell whether its builder would make the same one again."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

_ONLY_IN_TRAINING = re.compile(r"momentum=[^,]*(, )?")


def describe_structure(model: Any, networks: Iterable[nn.Module], head: str) -> dict[str, Any]:
    """Return a line for each layer, each tensor and each method that was replaced, whatever the number of classes.

    What matters in training only is left out: dropout, the momentum of norms, whether norms are synchronised.

    Args:
        model: The module as users see it.
        networks: Modules that compute for it and are no layers of it.
        head: The name of the layer whose size is the number of classes.
    """
    lines: dict[str, Any] = {}
    for name, tensor in model.state_dict().items():
        lines[f"tensor {name}"] = tuple(tensor.shape)[name.startswith(head) :]
    for name, module in model.named_modules():
        if not _is_idle(module):
            is_sized = name == head and type(module) is nn.Linear
            settings = "" if is_sized else _ONLY_IN_TRAINING.sub("", module.extra_repr())
            lines[f"layer {name}"] = (_kind(module), settings)
    for name, module in (*model.named_modules(), *(("", one) for one in networks)):
        lines |= {f"method {type(module).__name__} {name} {own}": code for own, code in _replaced_methods(module)}
    return lines


def hooked_layers(model: nn.Module, networks: Iterable[nn.Module]) -> list[str]:
    """Return what to call the layers with a forward hook, which no file holds."""
    named = (*model.named_modules(), *(("", one) for one in networks))
    return [name or type(one).__name__ for name, one in named if one._forward_hooks or one._forward_pre_hooks]


def _is_idle(module: nn.Module) -> bool:
    """Whether a layer passes on what it is given once training is over."""
    return isinstance(module, (nn.Identity, _DropoutNd)) or type(module).__name__ == "DropPath"


def _kind(module: nn.Module) -> Any:
    return "batch norm" if isinstance(module, _BatchNorm) else type(module)


def _replaced_methods(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the methods for which an instance has something of its own, and what that is called."""
    for own, value in vars(module).items():
        if own != "train" and callable(value) and callable(getattr(type(module), own, None)):
            yield own, getattr(value, "__qualname__", type(value).__qualname__)
