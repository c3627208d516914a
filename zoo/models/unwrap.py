"""Models as they come in: without the wrappers that belong to a way of running, and where gradients can be computed."""

import sys
import warnings
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from zoo._model import ask
from zoo.errors import InputError


def take_model(model: Any, *, trains: bool = False) -> nn.Module:
    """Return the network inside of what a user hands over; a warning tells what was taken off.

    `torch.compile`, `DataParallel` and `DistributedDataParallel` put a prefix before the name of every parameter: a run
    of such a wrapper could not be loaded or resumed, and no key of an lr plan would fit.

    Args:
        model: Any module. Wrappers inside of it are taken off in place, and so is a compilation in place.
        trains: Whether it is to be trained.

    Raises:
        InputError: It is no module, or cannot be trained where it is to be: it says so, or gradients are turned off.
    """
    if not isinstance(model, nn.Module):
        hint = f" Pass zoo.get({model!r}, ...)." if isinstance(model, str) else ""
        raise InputError(f"model is a {type(model).__name__}; expected a model from zoo.get or any nn.Module.{hint}")
    if trains:
        refuse_fixed(model)
    if trains and (torch.is_inference_mode_enabled() or not torch.is_grad_enabled()):
        raise InputError(
            "gradients are disabled here by torch.no_grad() or torch.inference_mode(), and training needs them. "
            "Call it outside that block."
        )
    found: list[str] = []
    network = _unwrap(model, found)
    for module in list(network.modules()):
        for name, child in module._modules.items():
            if child is not None and (inner := _unwrap(child, found)) is not child:
                module._modules[name] = inner
        if module._compiled_call_impl is not None:
            module._compiled_call_impl = None
            found.append("torch.compile")
    if found:
        advice = " Pass compile=True to train with torch.compile." if "torch.compile" in found else ""
        advice += " To use several GPUs, start the script with torchrun." if set(found) - {"torch.compile"} else ""
        warnings.warn(
            f"the model is wrapped in {' and '.join(dict.fromkeys(found))}; using the {type(network).__name__} "
            f"inside.{advice}",
            stacklevel=3,
        )
    return network


def refuse_fixed(model: nn.Module) -> None:
    """Refuse a model that says why it cannot be trained, such as one that a file holds.

    Raises:
        InputError: With its reason.
    """
    if reason := ask(model, "why_fixed"):
        raise InputError(reason)


def _unwrap(module: nn.Module, found: list[str]) -> nn.Module:
    """Return the module inside of wrappers, whose names are added to `found`."""
    while True:
        dynamo = sys.modules.get("torch._dynamo.eval_frame")  # where it is not loaded, nothing is compiled
        if isinstance(module, (nn.DataParallel, DistributedDataParallel)):
            found.append(type(module).__name__)
            module = module.module
        elif dynamo is not None and isinstance(module, dynamo.OptimizedModule):
            found.append("torch.compile")
            module = module._orig_mod
        else:
            return module
