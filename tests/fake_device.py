"""A GPU that is not there: tensors without values on `cuda`, where an operation that mixes devices raises.

What depends on values is answered by a guess: a condition is false, and as many places as `FOUND` are not zero.
"""

from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = torch.device("cuda")
FOUND = 2
aten = torch.ops.aten


def found(tensor, *columns):
    return tensor.new_empty((FOUND, *columns), dtype=torch.int64)


class Guesses(TorchDispatchMode):
    """Answers in the place of fake tensors what only real values tell; whatever is not asked here goes on to them."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket._qualified_op_name
        if name == "aten::_local_scalar_dense":
            return False if args[0].dtype == torch.bool else 1
        if name == "aten::nonzero":
            return found(args[0], args[0].ndim)
        if name == "aten::_unique2":
            return found(args[0]), args[0].new_empty(args[0].shape, dtype=torch.int64), found(args[0])
        if name == "aten::bincount":
            return args[0].new_empty((kwargs.get("minlength", args[2] if len(args) > 2 else 0),), dtype=torch.int64)
        if name == "torchvision::nms":
            if len({one.device for one in args[:2]}) > 1:
                raise RuntimeError("nms: boxes and scores are on different devices")
            return found(args[0])
        if name in ("aten::index", "aten::index_put", "aten::index_put_"):
            return func(args[0], self.places(args[0], args[1]), *args[2:], **kwargs)
        return func(*args, **kwargs)

    @staticmethod
    def places(tensor, indices):
        """Put places where an index says by true and false which ones are meant."""
        chosen = []
        for index in indices:
            if index is not None and index.dtype == torch.bool:
                if index.device not in (tensor.device, torch.device("cpu")):
                    raise RuntimeError(f"an index on {index.device} of a tensor on {tensor.device}")
                chosen += [found(index)] * index.ndim
            else:
                chosen.append(index)
        return chosen


FAKE = FakeTensorMode()


@contextmanager
def fake_device():
    """Within it every tensor that is made has no values, and `cuda` is there."""
    with FAKE, Guesses(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "_check_tensor_all_with", lambda *_: None)  # libraries hold values against each other
        patch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)  # without a driver there is none
        yield CUDA


def move(model):
    """Return a real model with its parameters and buffers on `cuda`, without values; other tensors stay behind."""
    moved = {}
    with FAKE:
        for module in model.modules():
            for name, value in module._parameters.items():
                if value is not None and id(value) not in moved:
                    there = nn.Parameter(like(value), value.requires_grad)
                    moved[id(value)] = value, there  # the old one is kept, and so its id is not used again
                module._parameters[name] = None if value is None else moved[id(value)][1]
            for name, value in module._buffers.items():
                module._buffers[name] = None if value is None else like(value)
    return model


def like(value):
    return torch.empty(value.shape, dtype=value.dtype, device=CUDA)
