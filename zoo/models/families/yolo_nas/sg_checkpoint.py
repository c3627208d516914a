"""Checkpoints of super-gradients, `.pth`: weights, class names and preprocessing, read as data.

Such a file is a pickle. Only tensors and plain values are made of it; objects of other kinds that its trainer leaves
in it (of OmegaConf, NumPy, its own classes) become stand-ins that keep what they were given and do nothing, and a file
that asks for anything else is refused before it is read. Keys and steps as super-gradients 3.7.1 writes them
(Deci-AI/super-gradients, commit e0ccacf).
"""

import math
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, NamedTuple

from zoo.errors import InputError, WeightsError
from zoo.files import list_globals
from zoo.models.families.yolo_nas.sg_processing import read_processing

if TYPE_CHECKING:
    from torch import Tensor

STATE_DICTS = ("ema_net", "net", "state_dict", "model_state_dict", "model")  # averaged weights come first, as there
WRAPPERS = ("module.", "_orig_mod.", "net.", "model.")  # of parallel training, torch.compile, and other programs
READ = ("class_names", "image_processor", "conf", "iou")  # what is read of `processing_params`
HARMLESS = (  # what stand-ins are made for
    "omegaconf.", "super_gradients.", "hydra.", "numpy.", "typing.", "collections.", "enum.", "pathlib.", "datetime.",
    "argparse.Namespace", "copyreg._reconstructor", "_codecs.encode", "torch.optim.", "torch.nn.", "torch.amp.",
    "torch.cuda.amp.",
)  # fmt: skip
PLAIN_TYPES = ("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object", "set",
               "slice", "str", "tuple")  # fmt: skip
NUMBERS = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "u8": "Q", "u4": "I", "b1": "?"}
UNORDERED = (".set", ".frozenset")  # their order is that of one process
MAX_DEPTH = 40  # of nested values; more is no setting
MOST_VALUES = 100_000  # in the settings


class SGCheckpoint(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        tensors: By name, on the CPU, without the prefix of parallel training.
        config: What it says of the model, as `config.json` would: `classes`, `preprocess`, `postprocess`, each only if
            it says so.
        notes: What is to be known of how it was read.
    """

    tensors: "dict[str, Tensor]"
    config: dict[str, Any]
    notes: tuple[str, ...]


def read_sg_checkpoint(path: Path, *, with_processing: bool = True) -> SGCheckpoint:
    """Read a checkpoint.

    Args:
        path: The file, as the trainer wrote it, or a state dict alone.
        with_processing: Whether to read class names and preprocessing; if not, the file counts as saying nothing.

    Raises:
        WeightsError: It is damaged, asks for more than data, holds no weights, or its preprocessing has a step that
            `Letterbox` cannot do.
    """
    content = _load(path)
    place, state = _choose_state(content, path)
    tensors = _without_wrappers(_check_tensors(state, path))
    notes = [f"weights taken from {place}"] if place else []
    if not with_processing:
        return SGCheckpoint(tensors, {}, (*notes, "the file's classes and preprocessing were ignored"))
    given = content.get("processing_params") if place else None
    if given is None:
        notes.append("the file has no preprocessing; that of the published weights is used")
        return SGCheckpoint(tensors, {}, tuple(notes))
    try:
        entries = _find_mapping(given)
        config, more = read_processing({key: _Plain(key).read(entries[key]) for key in READ if key in entries})
    except InputError as error:
        raise WeightsError(
            f"{path}, processing_params: {error} To convert only the weights, with the preprocessing of the "
            f"published ones: zoo convert {path} -o FOLDER --weights-only."
        ) from error
    return SGCheckpoint(tensors, config, (*notes, *more))


# From the file to plain values


class _StandIn:
    """Takes the place of an object of a class that is not loaded; it keeps what it is given."""

    origin = ""
    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _make_stand_in(name: str) -> Callable[..., Any]:
    """Return what is called instead of the class of this name."""
    if name == "collections.defaultdict":
        return lambda *arguments: {}  # torch's reader fills dictionaries, and nothing that only looks like one
    return type("_StandIn", (_StandIn,), {"origin": name})


def _load(path: Path) -> dict[Any, Any]:
    """Read the file as data."""
    import torch

    try:
        is_zip = zipfile.is_zipfile(path)
        _check_start(path, is_zip)
        stand_ins = [(_make_stand_in(name), name) for name in _find_objects(path, is_zip)]
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):  # type: ignore[arg-type]
            warnings.simplefilter("ignore")  # of pickles of a newer form, which are refused in words of our own
            content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=is_zip)
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnpicklingError as error:
        raise WeightsError(_explain_refusal(path, is_zip)) from error
    except Exception as error:  # a damaged file fails in as many ways as there are bytes
        raise WeightsError(
            f"{path} is damaged, truncated, or not a torch.save file ({type(error).__name__}). Download it again."
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(
            f"{path} contains a whole object ({_name_kind(content)}) instead of a dictionary of tensors; only the "
            "program that wrote it can open it. Expected a checkpoint with 'net' or 'ema_net', or a state dict."
        )
    return content


def _check_start(path: Path, is_zip: bool) -> None:
    """Refuse what a failed download or a flipped bit leaves, before a reader takes it for a pickle.

    A zip file has a checksum of each of its records; files of torch before 1.6 have none.
    """
    if is_zip:
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise WeightsError(f"{path} is compressed, unlike torch.save files. It is not read.")
            damaged = archive.testzip()
        if damaged is not None:
            raise WeightsError(
                f"{path} is damaged: the checksum of its record {damaged!r} is wrong. Download it again."
            )
        return
    with path.open("rb") as file:
        start = file.read(24)
    if start[8:9] == b"{":
        raise WeightsError(f"{path} contains safetensors data. Rename it to {path.stem}.safetensors.")
    if not start.startswith(b"\x80"):
        what = f"it starts with {start!r}" if start else "it is empty"
        what = "it is truncated" if start.startswith(b"PK") else what
        raise WeightsError(f"{path} is not a torch.save file: {what}. Download it again.")


def _find_objects(path: Path, is_zip: bool) -> list[str]:
    """Return the classes and functions beyond torch's own that a file asks for, if all of them are harmless."""
    from torch.serialization import get_unsafe_globals_in_checkpoint

    if is_zip:
        names: list[str] = get_unsafe_globals_in_checkpoint(path)
    else:
        names = [name for name in list_globals(path, is_zip) if not name.startswith("torch.")]
    blocked = [name for name in names if not _is_harmless(name)]
    if blocked:
        raise WeightsError(_refuse(path, ", ".join(blocked)))
    return names


def _refuse(path: Path, blocked: str) -> str:
    return (
        f"{path} is rejected: a pickle can run code when it is loaded, and this one imports {blocked}. Nothing was "
        "run. Expected tensors and plain values; do not use the file unless you know why it needs this."
    )


def _explain_refusal(path: Path, is_zip: bool) -> str:
    """Say why torch's reader of plain data has refused a file."""
    names = list_globals(path, is_zip)
    blocked = [name for name in names if not _is_harmless(name) and not name.startswith("torch.")]
    if blocked:
        return _refuse(path, ", ".join(blocked))
    return (
        f"{path} cannot be read as plain data: torch.load(weights_only=True) does not support its pickle format, "
        "such as pickle_protocol=4. If you trust the file, save it again without that option."
    )


def _is_harmless(name: str) -> bool:
    module, _, kind = name.rpartition(".")
    return name.startswith(HARMLESS) or (module in ("builtins", "__builtin__") and kind in PLAIN_TYPES)


def _name_kind(content: Any) -> str:
    return content.origin if isinstance(content, _StandIn) else type(content).__name__


def _find_mapping(value: Any) -> Mapping[Any, Any]:
    """Return the entries of a dictionary, or of a container of OmegaConf."""
    inner = value.state.get("_content") if isinstance(value, _StandIn) and isinstance(value.state, dict) else value
    if not isinstance(inner, dict):
        raise InputError(f"it is {_name_kind(value)}; expected a dictionary.")
    return inner


class _Plain:
    """Turns stand-ins into the plain values that they stand for.

    A value may be in a file once and in many places, and the copies of copies can be more than any memory holds: after
    `MOST_VALUES` reading ends with an error.

    Args:
        key: What is read, named in errors.
    """

    def __init__(self, key: str) -> None:
        self.key, self.left = key, MOST_VALUES

    def read(self, value: Any, depth: int = 0) -> Any:
        """Return strings, numbers, booleans, None, and lists and dictionaries of them.

        Raises:
            InputError: It is something else, nested too deeply or too large.
        """
        self.left -= 1
        if depth > MAX_DEPTH or self.left < 0:
            raise InputError(f"{self.key} is nested deeper than {MAX_DEPTH}, or has more than {MOST_VALUES:,} values.")
        if isinstance(value, dict):
            return {str(self.read(key, depth + 1)): self.read(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.read(item, depth + 1) for item in value]
        if value is None or isinstance(value, (str, int, float, bool)):
            return value
        if isinstance(value, _StandIn):
            return self._read_stand_in(value, depth)
        raise self._refuse(value)

    def _read_stand_in(self, value: _StandIn, depth: int) -> Any:
        state = value.state
        if isinstance(state, dict) and state.keys() & {"_content", "_val"}:  # containers and values of OmegaConf
            return self.read(state.get("_content", state.get("_val")), depth + 1)
        if value.origin.endswith(".multiarray.scalar"):
            kind, raw = (*value.arguments, None, None)[:2]
            found = read_items(kind, raw)
            if len(found) != 1:
                raise self._refuse(value)
            return found[0]
        if value.origin.endswith(".multiarray._reconstruct") and isinstance(state, tuple) and len(state) == 5:
            _, shape, kind, _, raw = state
            found = self.read(raw, depth + 1) if isinstance(raw, list) else read_items(kind, raw)
            if isinstance(shape, tuple) and len(shape) <= 1 and len(found) == math.prod(shape):
                return found if shape else found[0]
            raise self._refuse(value)
        if (
            value.arguments and not value.origin.startswith("numpy.") and not value.origin.endswith(UNORDERED)
        ):  # of an enumeration, for example
            return self.read(value.arguments[0], depth + 1)
        raise self._refuse(value)

    def _refuse(self, value: Any) -> InputError:
        return InputError(f"{self.key} holds a value of {_name_kind(value)}, which cannot be read as plain data.")


def read_items(kind: Any, raw: Any) -> list[Any]:
    """Return the numbers or texts of a NumPy scalar or array, from its type and bytes; none if they do not fit.

    Args:
        kind: Stand-in of the type, whose first argument is its code, such as `f8` or `U12`.
        raw: The bytes, as such or as text in Latin-1.
    """
    code = kind.arguments[0] if isinstance(kind, _StandIn) and kind.arguments else None
    if isinstance(raw, _StandIn) and raw.arguments and isinstance(raw.arguments[0], str):
        raw = raw.arguments[0]
    raw = raw.encode("latin1", "ignore") if isinstance(raw, str) else raw
    if not isinstance(code, str) or not isinstance(raw, bytes):
        return []
    is_big = isinstance(kind.state, tuple) and kind.state[1:2] == (">",)
    if code in NUMBERS:
        letter = NUMBERS[code]
        count, rest = divmod(len(raw), struct.calcsize(f"<{letter}"))
        return [] if rest else list(struct.unpack(f"{'>' if is_big else '<'}{count}{letter}", raw))
    letter, length = code[:1], code[1:]
    size = int(length) * {"U": 4, "S": 1}.get(letter, 0) if length.isdecimal() and len(length) < 8 else 0
    if not size or len(raw) % size:
        return []
    encoding = "utf8" if letter == "S" else "utf-32-be" if is_big else "utf-32-le"
    try:
        return [raw[start : start + size].decode(encoding).rstrip("\0") for start in range(0, len(raw), size)]
    except UnicodeDecodeError:
        return []


# Weights


def _choose_state(content: dict[Any, Any], path: Path) -> tuple[str, Mapping[Any, Any]]:
    """Return under which key the weights are, and the weights; the key is empty if the file is the state dict."""
    from torch import Tensor

    for key in STATE_DICTS:
        if isinstance(content.get(key), Mapping) and content[key]:
            return key, content[key]
        if isinstance(content.get(key), _StandIn):
            raise WeightsError(f"{path}: {key} is a whole object ({content[key].origin}); expected a state dict.")
    if any(isinstance(value, Tensor) for value in content.values()):
        return "", content
    keys = ", ".join(map(str, list(content)[:6])) or "none"
    raise WeightsError(f"{path} contains no weights: expected 'ema_net', 'net', or named tensors; its keys are {keys}.")


def _check_tensors(state: Mapping[Any, Any], path: Path) -> "dict[str, Tensor]":
    import torch

    for name, value in state.items():
        usable = isinstance(value, torch.Tensor) and value.layout == torch.strided and value.device.type == "cpu"
        if not isinstance(name, str) or not usable or value.is_quantized:
            is_tensor = isinstance(value, torch.Tensor)
            kind = f"a {value.layout} tensor on {value.device}" if is_tensor else _name_kind(value)
            raise WeightsError(f"{path}: weight {name!r} is {kind}; expected a dense tensor.")
        held = value.untyped_storage().nbytes()
        if value.numel() * value.element_size() > held:  # copies of its values would fill any memory
            raise WeightsError(
                f"{path}: weight {name!r} has {value.numel():,} values, but the file has only {held:,} bytes of it. "
                "Save the checkpoint again, with .clone() of each tensor."
            )
        if not _is_finite(value):
            raise WeightsError(
                f"{path}: weight {name!r} has NaN or infinite values: training had diverged when it was saved. Use "
                "an earlier checkpoint."
            )
    return {name: tensor.detach() for name, tensor in state.items()}


def _is_finite(tensor: "Tensor") -> bool:
    """Tell whether all values are finite numbers; floats of 8 bits are compared as wider ones."""
    if tensor.is_floating_point() and tensor.element_size() == 1:
        tensor = tensor.float()
    return bool(tensor.isfinite().all())


def _without_wrappers(tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """Take off what a wrapper around the network has put before all names, be it one or several."""
    while wrapper := next((word for word in WRAPPERS if all(name.startswith(word) for name in tensors)), None):
        tensors = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
    return tensors
