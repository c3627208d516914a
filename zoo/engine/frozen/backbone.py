"""A frozen backbone as an inference engine: a fused copy, channels last, in the type that the device is fast in.

The stored model keeps its form of training and stays as it is. What the engine gives are ordinary tensors, on which a
head can be trained.
"""

import copy
import hashlib
import json
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from zoo._model import FACTS, ask, cut, head_prefixes, known_config
from zoo.data import lay_channels_last
from zoo.engine.frozen.code_digest import CodeDigest, closes_over_module, is_local
from zoo.engine.frozen.folding import fold_norms
from zoo.errors import InputError
from zoo.optim import digest_tensor

Parts: TypeAlias = tuple[Tensor, ...]

DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PLAIN = (bool, int, float, str)
NOT_READ = {"training", "classes", "preprocess", "config", "load_report", "licence", FACTS}  # of a run, or in the key
NO_SETTINGS = NOT_READ | {"drop_rate", "num_classes", "pretrained_cfg", "default_cfg", "_model_args"}  # of a library
MODES = {"train", "eval"}  # methods that decide how a module learns
OF_THE_BACKBONE = {"run_backbone", "trunk", "forward", "_call_impl"}  # of a whole model's methods
_OF_EVERY_MODULE = frozenset(vars(nn.Module())) | {"_compiled_call_impl"}


def choose_dtype(
    setting: str, precision: str, device_type: str, *, has_bf16: Callable[[], bool] | None = None
) -> torch.dtype:
    """Choose the type that a frozen backbone computes in.

    Args:
        setting: `no` (float32), `bf16`, `fp16`, or `auto`: bf16 on a GPU that has it, else what `precision` says.
        precision: Of the run: `no`, `bf16` or `fp16`.
        device_type: `cpu`, `cuda` or `mps`.
        has_bf16: Asked whether the GPU computes in bf16 itself; None: torch is asked.

    Raises:
        InputError: A setting is unknown, or it is fp16 on a CPU.
    """
    for name, value, known in (("setting", setting, ("auto", *DTYPES)), ("precision", precision, tuple(DTYPES))):
        if value not in known:
            raise InputError(f"{name} is {value!r}; expected {', '.join(known)}.")
    if setting == "auto":
        setting = "bf16" if device_type == "cuda" and (has_bf16 or _gpu_has_bf16)() else precision
    if setting == "fp16" and device_type == "cpu":
        raise InputError("precision 'fp16' needs a GPU; the backbone runs on the CPU. Use 'no' or 'bf16'.")
    return DTYPES[setting]


class BackboneEngine:
    """Computes what the backbone of a model gives, faster than the model itself does.

    Args:
        model: Has `trunk`, which turns images into one tensor or a tuple of two or more, `head` and `head_prefixes`.
        device: Where it runs.
        dtype: What it computes in: float32, bfloat16 or float16.
        fuse: Whether batch norms are folded. Without that, float32 on the CPU gives bit by bit what the model's
        backbone
            gives in eval mode for the same images, channels last.
        compile: Whether `torch.compile` is tried, for the shape of the first batch; other shapes run as without.
        log: Told once if nothing can be compiled.

    Raises:
        InputError: The model has no backbone.
    """

    def __init__(
        self,
        model: Any,
        *,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        fuse: bool = True,
        compile: bool = False,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self._method = cut(model).backbone
        self.device, self.dtype = torch.device(device), dtype
        self._model, self._fuse, self._say = model, fuse, log or _say_nothing
        with torch.inference_mode(False):  # the copy may outlive a prediction
            self._backbone, self.folded_norms = _deploy(model, fuse, self._method)
            _cast(self._backbone.to(self.device), dtype, channels_last=fuse)
        self._compiled: Callable[[Tensor], Any] | None = None
        self._compiled_shape: torch.Size | None = None
        if compile:
            self._compile()

    def __call__(self, images: Tensor) -> Parts:
        """Turn images into features.

        Args:
            images: `(B, 3, H, W)`, normalised, of any floating type, on any device.

        Returns:
            What the backbone gives, as a tuple of ordinary tensors without gradient, in `dtype`, on `device`: one of
            `(B, D)` for a classifier, the maps `(B, C, H', W')`, channels last, for a detector.

        Raises:
            InputError: The images are of integers, or the backbone gives something else.
        """
        if not images.is_floating_point():
            raise InputError(f"images are {images.dtype}; expected normalised floating-point values.")
        # What surrounds the call, such as autocast of a training step, must not change what is computed.
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            there = images.to(self.device, non_blocking=True)  # cast there, not here: in one call torch casts first
            parts = _flatten(self._run(lay_channels_last(there.to(self.dtype))))
        with torch.inference_mode(False):  # a clone made here is an ordinary tensor, which backward() can keep
            return tuple(part.clone() for part in parts)

    def join(self, parts: Sequence[Tensor]) -> Any:
        """Return what the model's `head` takes, in float32: the only part itself, or the tuple of several."""
        whole = tuple(part.float() for part in parts)
        return whole[0] if len(whole) == 1 else whole

    @property
    def precision(self) -> str:
        """Return what it computes in as a preset says it: `no`, `bf16` or `fp16`."""
        return next(name for name, dtype in DTYPES.items() if dtype == self.dtype)

    def digest(self) -> str:
        """Return the SHA-256 of the stored model's backbone as it is now; see `digest_backbone`."""
        return digest_backbone(self._model)

    def describe(self) -> dict[str, Any]:
        """Return how the features are computed, as plain values."""
        return {
            "fused": self._fuse,
            "folded_norms": self.folded_norms,
            "dtype": str(self.dtype).removeprefix("torch."),
            "compiled": self._compiled is not None,
            "device": self.device.type,
            "channels_last": True,
            "torch": str(torch.__version__),
        }

    def _run(self, images: Tensor) -> Any:
        if self._compiled is None or self._compiled_shape not in (None, images.shape):
            return self._run_backbone(images)
        self._compiled_shape = images.shape
        try:
            return self._compiled(images)
        except torch._dynamo.exc.TorchDynamoException as error:
            self._give_up(error)  # before the backbone ran
            return self._run_backbone(images)

    def _run_backbone(self, images: Tensor) -> Any:
        return getattr(self._backbone, self._method)(images)

    def _compile(self) -> None:
        try:
            self._compiled = torch.compile(self._run_backbone, dynamic=False)
        except RuntimeError as error:  # this version of Python, for example
            self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        self._compiled = None
        error = getattr(error, "inner_exception", None) or error.__cause__ or error
        first = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        self._say(f"running the backbone without compilation, with the same result: {type(error).__name__}: {first}")


def digest_backbone(model: Any) -> str:
    """Return the SHA-256 of a model's backbone: its structure, its code, and all its parameters and buffers.

    The head does not count, nor do devices, memory formats and modes. Of the structure, the names, the classes and the
    settings of all modules count, and the model's name and options; of the code, what is not of a library whose
    version is known, functions that modules hold, and methods that were put in the place of a library's.

    Args:
        model: Has `trunk` and `head_prefixes`.

    Raises:
        UnreadableCodeError: It cannot be told what decides the features; the text says why.
    """
    digest = hashlib.sha256()
    config, inner = known_config(model), _inner(model)
    options = {name: value for name, value in (config.get("options") or {}).items() if name not in NO_SETTINGS}
    modules, starts = list(_backbone_modules(model)), head_prefixes(model)
    code = CodeDigest({id(module): name for name, module in modules} | {id(inner): "the network"})
    whole = [config.get("model"), options, *(_describe(one, code, type(one).__name__) for one in (model, inner))]
    digest.update(json.dumps(whole, default=repr, sort_keys=True).encode())
    for name, module in modules:
        line = [name, module.extra_repr(), _describe(module, code, name)] if name else []
        digest.update(json.dumps(line, sort_keys=True).encode())
        for own, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            if not _join(name, own).startswith(starts):
                digest.update(f"{own} {digest_tensor(tensor)}".encode())
    return digest.hexdigest()


def find_patch(model: Any) -> str | None:
    """Return what was put onto a model from outside, so that its backbone has to run as it is; None: nothing.

    A copy of the backbone would miss a hook that counts, and a function that was put in the place of `forward` mostly
    calls the original's.
    """
    if torch.nn.modules.module._global_forward_hooks or torch.nn.modules.module._global_forward_pre_hooks:
        return "all modules have a forward hook (register_module_forward_hook)"
    inner = _inner(model)
    for name, module in [*_backbone_modules(model), ("", inner)]:
        where = f"{name!r} in the backbone" if name else type(module).__name__
        if module._forward_hooks or module._forward_pre_hooks:
            return f"{where} has a forward hook"
        for own, value in vars(module).items():
            if own in MODES or not callable(value) or isinstance(value, (type, nn.Module)):
                continue
            is_method = callable(getattr(type(module), own, None)) and (module is not model or own in OF_THE_BACKBONE)
            if is_method and not _is_own_method(value, module):
                return f"{own}() of {where} was replaced"
            if not _is_own_method(value, module) and closes_over_module(value):
                return f"the function {own!r} of {where} refers to a module"
    return None


def _inner(model: Any) -> Any:
    """Return the network that shares its layers with a model of this package; any other model itself."""
    network = vars(model).get("network")
    return network if isinstance(network, nn.Module) else model


def _deploy(model: Any, fuse: bool, method: str) -> tuple[Any, int]:
    """Return a copy of a model for use, without its head, and how many norms of the backbone were folded."""
    with torch.inference_mode(False):  # the copy may outlive a prediction
        if fuse and ask(model, "fuse"):
            twin = model.fuse()
        else:
            twin = copy.deepcopy(model).eval().requires_grad_(False)
            if fuse:
                fold_norms(twin, method=method)
    _drop_head(twin)
    return twin, _count_norms(model) - _count_norms(twin)


def _drop_head(model: nn.Module) -> None:
    """Put `Identity` in the places of the head's modules; the backbone does not call them."""
    starts = head_prefixes(model)
    for name, module in list(_backbone_modules(model)):
        for own, child in module._modules.items():
            if child is not None and _is_head(_join(name, own), child, starts):
                module._modules[own] = nn.Identity().eval()


def _cast(model: nn.Module, dtype: torch.dtype, *, channels_last: bool) -> None:
    """Cast weights and lay them out; batch norms stay in float32, which they take with any input."""
    for module in model.modules():
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if tensor.is_floating_point() and not isinstance(module, _BatchNorm):
                cast = tensor.data.to(dtype)
                tensor.data = lay_channels_last(cast) if channels_last else cast


def _count_norms(model: nn.Module) -> int:
    return sum(isinstance(module, _BatchNorm) for _, module in _backbone_modules(model))


def _backbone_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield all modules with their names, parents first, but those of the head."""
    starts, waiting = head_prefixes(model), [("", model)]
    while waiting:
        name, module = waiting.pop()
        yield name, module
        children = [(_join(name, own), child) for own, child in module._modules.items() if child is not None]
        waiting += [pair for pair in reversed(children) if not _is_head(*pair, starts)]


def _is_head(name: str, module: nn.Module, starts: tuple[str, ...]) -> bool:
    """Return whether a module is the head or a part of it; one without parameters by itself is none."""
    return f"{name}.".startswith(starts) and next(module.parameters(), None) is not None


def _join(name: str, own: str) -> str:
    return f"{name}.{own}" if name else own


def _flatten(features: Any) -> Parts:
    """Return the tensors that a backbone gave."""
    if isinstance(features, Tensor):
        return (features,)
    if isinstance(features, tuple) and len(features) > 1 and all(isinstance(part, Tensor) for part in features):
        return features
    raise InputError(
        f"the backbone returns a {type(features).__name__}; expected a tensor, or a tuple of two or more tensors. "
        "Change what trunk() returns and head() takes."
    )


def _describe(module: nn.Module, code: CodeDigest, name: str) -> list[str]:
    """Return class and attributes of a module that may decide what it computes in eval mode.

    Of a library's module those are plain values and functions; of anybody else's, all that it holds.
    """
    kind, lines = type(module), [code.of_class(type(module), name)]
    is_library = not any(is_local(base.__module__) for base in kind.__mro__)
    for own, value in sorted(vars(module).items()):
        if own in _OF_EVERY_MODULE or own in MODES or own in (NO_SETTINGS if is_library else NOT_READ):
            continue
        if not is_library or _is_plain(value) or (callable(value) and not isinstance(value, nn.Module)):
            lines.append(f"{own} {code.of(value, f'{kind.__name__}.{own}', strict=not is_library)}")
    return lines


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_plain(one) for pair in value.items() for one in pair)
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, PLAIN)


def _is_own_method(value: Any, module: nn.Module) -> bool:
    """Whether a value is a method of a library, bound to the module that holds it, as some have for `forward`."""
    if not isinstance(value, types.MethodType) or value.__self__ is not module:
        return False
    return not is_local(getattr(value.__func__, "__globals__", {}).get("__name__"))


def _gpu_has_bf16() -> bool:
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _say_nothing(line: str) -> None:
    """Take a line for nobody."""
