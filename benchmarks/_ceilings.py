"""What the machine can do at most, and what a training step asks of it: to tell how far a speed is from the limit."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


def measure_ceilings(*, device: str, precision: str) -> dict[str, Any]:
    """Measure a large matrix product and a large copy.

    Args:
        device: `cpu` or `cuda`.
        precision: `no` for float32, or `bf16`.

    Returns:
        `matmul_flops` and `copy_bytes` (read and written), per second.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    side, count = (8192, 2**30) if device == "cuda" else (1536, 2**27)
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    source = torch.ones(count, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    return {
        "matmul_flops": 2 * side**3 / _seconds(lambda: torch.matmul(left, right), device),
        "copy_bytes": 2 * count / _seconds(lambda: target.copy_(source), device),
    }


def count_costs(network: nn.Module, images: Tensor, *, precision: str) -> dict[str, float]:
    """Count what one step, forward and backward, asks for.

    Args:
        network: In training mode.
        images: One batch.
        precision: `no` or `bf16`.

    Returns:
        Per image: `flops` of convolutions and products, two for each multiplication; `bytes` that the operations of an
        uncompiled network read and write.
    """
    traffic = _Traffic()
    flops = FlopCounterMode(display=False)
    with flops, traffic:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
            outputs = network(images)
        total: Any = sum(
            value.float().sum() for value in tree_leaves(outputs) if isinstance(value, Tensor) and value.requires_grad
        )
        total.backward()
    return {"flops": flops.get_total_flops() / len(images), "bytes": traffic.bytes / len(images)}


class _Traffic(TorchDispatchMode):
    """Adds up the bytes of tensors that go into operations and come out of them; views cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        is_view = any(value.alias_info and not value.alias_info.is_write for value in func._schema.returns)
        if not is_view:
            tensors = [value for value in tree_leaves((args, kwargs, result)) if isinstance(value, Tensor)]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result


def _seconds(run: Callable[[], Any], device: str, repeats: int = 10) -> float:
    """Return the seconds of the fastest call."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times)
