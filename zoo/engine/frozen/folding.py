"""Batch norms folded into the convolutions before them: the same function in eval mode, with fewer passes over memory.

A norm in eval mode multiplies each channel by a constant and adds another; a convolution can do both itself. Which norm
comes right after which convolution is read from a trace of the network, not from its names.
"""

import itertools
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

CONVOLUTIONS = {"torch.nn.modules.conv.Conv2d", "timm.layers.conv2d_same.Conv2dSame"}
NORMS = {"torch.nn.modules.batchnorm.BatchNorm2d", "torch.nn.modules.batchnorm.SyncBatchNorm"}
NORMS_WITH_ACTIVATION = {  # these run their own `drop` and `act` after the norm
    "timm.layers.norm_act.BatchNormAct2d",
    "timm.layers.norm_act.SyncBatchNormAct",
}


@dataclass(frozen=True)
class Folding:
    """What was folded.

    Attributes:
        norms: How many batch norms are gone.
        problem: Why the network as a whole could not be traced, so that nothing was folded; None if it was.
    """

    norms: int
    problem: str | None = None


def fold_norms(network: nn.Module, *, method: str = "forward") -> Folding:
    """Fold the batch norms of a network in eval mode into its convolutions, in place.

    A pair is folded if the convolution's output goes to the norm alone, both are called once, and both are of a kind
    whose formula is known, without hooks. Every other norm stays as it is. A part that cannot be traced, because its
    code asks for values or sizes of a batch, stays as a whole. The folding is computed in float64.

    Args:
        network: In eval mode, and not to be trained afterwards. Give it a copy.
        method: Its method that is called with images, from which the trace starts; what that does not call stays.

    Returns:
        How many were folded. Outputs then agree with those before up to rounding.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch.fx, on whatever it meets
            graph = _Tracer(method).trace(network)
    except Exception as error:  # any code of any network runs here, with arguments that it was not written for
        return Folding(0, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
    modules = dict(network.named_modules())
    pairs = list(_find_pairs(graph, modules))
    for conv, norm in pairs:
        _fold(conv, norm)
        _neutralise(norm)
    _replace(network, {norm: _what_remains(norm) for _, norm in pairs})
    return Folding(len(pairs))


class _Tracer(fx.Tracer):
    """Follows a network down to its convolutions and norms; parts without norms are boxes that it does not open."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self.traced_func_name = method

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether a module is one step of the trace."""
        if _is_norm(m) or isinstance(m, nn.Conv2d):
            return True
        return type(m) is not nn.Sequential and not any(map(_is_norm, m.modules()))

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """Trace the call of a module; one whose inside cannot be traced becomes a box, too."""
        last, stack = next(iter(reversed(self.graph.nodes))), self.module_stack.copy()
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.module_stack = stack
            for node in itertools.takewhile(lambda node: node is not last, reversed(self.graph.nodes)):
                if node.op != "get_attr":  # these are kept for later uses of the same tensor
                    self.graph.erase_node(node)
            return self.create_proxy("call_module", self.path_of_module(m), args, kwargs)


def _find_pairs(graph: fx.Graph, modules: dict[str, nn.Module]) -> Iterator[tuple[nn.Conv2d, Any]]:
    """Yield convolutions and the norms that alone use what they give."""
    calls: Counter[nn.Module] = Counter()
    read = set()  # modules whose tensors are used past their call
    for node in graph.nodes:
        if node.op == "call_module":
            calls.update(modules[node.target].modules())
        elif node.op == "get_attr":
            read.add(modules.get(node.target.rpartition(".")[0]))
    for node in graph.nodes:
        if node.op != "call_module" or not node.args or not isinstance(before := node.args[0], fx.Node):
            continue
        if before.op != "call_module" or len(before.users) != 1:
            continue
        conv, norm = modules[str(before.target)], modules[node.target]
        once = calls[conv] == calls[norm] == 1 and not {conv, norm} & read
        if once and _can_fold(conv, norm):
            assert isinstance(conv, nn.Conv2d)
            yield conv, norm


def _can_fold(conv: nn.Module, norm: Any) -> bool:
    """Return whether the formulas of both are known, and nothing else happens when they are called."""
    if _kind(conv) not in CONVOLUTIONS or not _is_norm(norm):
        return False
    has_statistics = not norm.training and norm.running_mean is not None and norm.running_var is not None
    return has_statistics and _is_plain(conv) and _is_plain(norm)


def _is_plain(module: nn.Module) -> bool:
    """Return whether a call of a module runs its class's `forward` and nothing else."""
    hooks = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return not hooks and "forward" not in module.__dict__


def _fold(conv: nn.Conv2d, norm: Any) -> None:
    """Give a convolution the weight and bias with which it does the norm's work, too.

    `norm(y) = scale * (y - mean) + shift` with `scale = weight / sqrt(variance + epsilon)`, and `y = conv(x)`.
    """
    weight, mean = _exact(conv.weight), _exact(norm.running_mean)
    scale = torch.rsqrt(_exact(norm.running_var) + norm.eps)
    scale = scale if norm.weight is None else scale * _exact(norm.weight)
    shift = torch.zeros_like(mean) if norm.bias is None else _exact(norm.bias)
    bias = torch.zeros_like(mean) if conv.bias is None else _exact(conv.bias)
    conv.bias = _like(conv.weight, scale * (bias - mean) + shift)
    conv.weight = _like(conv.weight, weight * scale.reshape(-1, 1, 1, 1))


def _neutralise(norm: Any) -> None:
    """Let a norm change nothing, for code that keeps it elsewhere than among the registered modules."""
    norm.running_mean = torch.zeros_like(norm.running_mean)
    norm.running_var = torch.full_like(norm.running_var, 1 - norm.eps)
    norm.weight, norm.bias = None, None


def _what_remains(norm: Any) -> nn.Module:
    """Return what a norm does besides the norm."""
    remains = nn.Sequential(norm.drop, norm.act) if _kind(norm) in NORMS_WITH_ACTIVATION else nn.Identity()
    return remains.eval()


def _replace(network: nn.Module, replacements: dict[nn.Module, nn.Module]) -> None:
    """Put modules in the places of others, wherever these are registered."""
    for module in list(network.modules()):
        for name, child in module._modules.items():
            if child in replacements:
                module._modules[name] = replacements[child]


def _is_norm(module: nn.Module) -> bool:
    return _kind(module) in NORMS | NORMS_WITH_ACTIVATION


def _kind(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _exact(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64)  # not every device has float64


def _like(old: Tensor, exact: Tensor) -> nn.Parameter:
    return nn.Parameter(exact.to(old.device, old.dtype), requires_grad=False)
