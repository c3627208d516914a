"""Checkpoints of super-gradients, `.pth`: weights, class names and preprocessing, read as data.

Such a file is a pickle. Only tensors and plain values are made of it; objects of other kinds that its trainer leaves
in it (of OmegaConf, NumPy, its own classes) become stand-ins that keep what they were given and do nothing, and a file
that asks for anything else is refused before it is read. Keys and steps as super-gradients 3.7.1 writes them
(Deci-AI/super-gradients, commit e0ccacf).
"""

import io
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from zoo.errors import InputError, WeightsError
from zoo.sg_processing import read_processing

if TYPE_CHECKING:
    from torch import Tensor

STATE_DICTS = ("ema_net", "net")  # the averaged weights come first, as their own program takes them
WRAPPER = "module."  # of torch's parallel training
HARMLESS = (  # what stand-ins are made for
    "omegaconf.", "super_gradients.", "hydra.", "numpy.", "typing.", "collections.", "enum.", "pathlib.", "datetime.",
    "argparse.Namespace", "copyreg._reconstructor", "_codecs.encode", "torch.optim.", "torch.nn.", "torch.amp.",
    "torch.cuda.amp.",
)  # fmt: skip
PLAIN_TYPES = ("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object", "set",
               "slice", "str", "tuple")  # fmt: skip
NUMBERS = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "u8": "Q", "u4": "I", "b1": "?"}
MOST_PICKLES = 8  # in a file of torch before 1.6: four, and the places of the tensors
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
    tensors = _check_tensors(state, path)
    if all(name.startswith(WRAPPER) for name in tensors):
        tensors = {name.removeprefix(WRAPPER): tensor for name, tensor in tensors.items()}
    notes = [f"weights taken from {place}"] if place else []
    if not with_processing:
        return SGCheckpoint(tensors, {}, (*notes, "what the file says of classes and preprocessing was left out"))
    found = _Plain().read(content.get("processing_params")) if place else None
    if not isinstance(found, dict):
        notes.append("the file does not say how pictures are prepared: as for the published weights is taken")
        return SGCheckpoint(tensors, {}, tuple(notes))
    try:
        config, more = read_processing(found)
    except InputError as error:
        raise WeightsError(
            f"{path}, processing_params: {error} To take the weights alone, and prepare pictures as for the published "
            f"ones: zoo convert {path} -o FOLDER --weights-only."
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
        if not is_zip:
            _check_start(path)
        stand_ins = [(_make_stand_in(name), name) for name in _find_objects(path, is_zip)]
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):  # type: ignore[arg-type]
            warnings.simplefilter("ignore")  # of pickles of a newer form, which are refused in words of our own
            content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=is_zip)
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnpicklingError as error:
        raise WeightsError(_refuse(path, _name_blocked(path, is_zip) or "objects that are no data")) from error
    except Exception as error:  # a damaged file fails in as many ways as there are bytes
        raise WeightsError(
            f"{path} is damaged, cut short, or no file of torch.save ({type(error).__name__}). Get it anew."
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(
            f"{path} holds no dictionary of tensors but a whole object ({_name_kind(content)}), which only the program "
            "that wrote it can open. Expected a checkpoint with 'net' or 'ema_net', or a state dict."
        )
    return content


def _check_start(path: Path) -> None:
    """Refuse what a failed download leaves, before a reader takes it for a pickle."""
    with path.open("rb") as file:
        start = file.read(24)
    if not start.startswith(b"\x80"):
        what = f"it begins with {start!r}" if start else "it is empty"
        what = "its end is missing" if start.startswith(b"PK") else what
        raise WeightsError(f"{path} is no file of torch.save: {what}. Get it anew.")


def _find_objects(path: Path, is_zip: bool) -> list[str]:
    """Return the classes and functions beyond torch's own that a file asks for, if all of them are harmless.

    Files of torch before 1.6 are not zip files; for them there is no such list, and they get no stand-ins.
    """
    from torch.serialization import get_unsafe_globals_in_checkpoint

    if not is_zip:
        return []
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise WeightsError(f"{path} is compressed, which no file of torch.save is. It is not read.")
    names: list[str] = get_unsafe_globals_in_checkpoint(path)
    blocked = [name for name in names if not _is_harmless(name)]
    if blocked:
        raise WeightsError(_refuse(path, ", ".join(blocked)))
    return names


def _refuse(path: Path, blocked: str) -> str:
    return (
        f"{path} is refused: a pickle can run code when it is loaded, and this one asks for "
        f"{blocked}. Nothing of it was run. Expected tensors and plain values; do not use the file "
        "if you do not know why it asks for that."
    )


def _name_blocked(path: Path, is_zip: bool) -> str:
    """Return what a pickle asks for that is not harmless, as far as it can be seen without running it."""
    names: dict[str, None] = {}
    strings = ["", ""]
    try:
        with _open_pickle(path, is_zip) as stream:
            for _ in range(MOST_PICKLES):  # an old file is several, one after the other
                for operation, argument, _ in pickletools.genops(stream):
                    if operation.name == "GLOBAL":
                        names[str(argument).replace(" ", ".")] = None
                    elif operation.name == "STACK_GLOBAL":
                        names[".".join(strings[-2:])] = None
                    elif isinstance(argument, str):
                        strings.append(argument)
    except (ValueError, OSError, KeyError):
        pass  # the end, or damage: what was seen so far counts
    return ", ".join(name for name in names if not _is_harmless(name) and not name.startswith("torch."))


def _open_pickle(path: Path, is_zip: bool) -> IO[bytes]:
    if not is_zip:
        return path.open("rb")
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        return io.BytesIO(archive.read(name))


def _is_harmless(name: str) -> bool:
    module, _, kind = name.rpartition(".")
    return name.startswith(HARMLESS) or (module in ("builtins", "__builtin__") and kind in PLAIN_TYPES)


def _name_kind(content: Any) -> str:
    return content.origin if isinstance(content, _StandIn) else type(content).__name__


class _Plain:
    """Turns stand-ins into the plain values that they stand for; None where there are none.

    A value may be in a file once and in many places, and the copies of copies can be more than any memory holds: after
    `MOST_VALUES` there are no more.
    """

    def __init__(self) -> None:
        self.left = MOST_VALUES

    def read(self, value: Any, depth: int = 0) -> Any:
        self.left -= 1
        if depth > MAX_DEPTH or self.left < 0:
            return None
        if isinstance(value, dict):
            return {str(self.read(key, depth + 1)): self.read(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.read(item, depth + 1) for item in value]
        if not isinstance(value, _StandIn):
            return value if isinstance(value, (str, int, float, bool)) else None
        if isinstance(value.state, dict):  # containers and values of OmegaConf
            return self.read(value.state.get("_content", value.state.get("_val")), depth + 1)
        if value.origin.endswith(".multiarray.scalar"):
            return _read_number(value)
        has_value = bool(value.arguments) and not value.origin.startswith("numpy.")  # of an enumeration, for example
        return self.read(value.arguments[0], depth + 1) if has_value else None


def _read_number(scalar: _StandIn) -> Any:
    """Return a number of NumPy: its type is a stand-in, too, and its bytes are in the file as such or as text."""
    kind, raw = (*scalar.arguments, None, None)[:2]
    name = kind.arguments[0] if isinstance(kind, _StandIn) and kind.arguments else None
    code = NUMBERS.get(name) if isinstance(name, str) else None
    if isinstance(raw, _StandIn) and raw.arguments and isinstance(raw.arguments[0], str):
        raw = raw.arguments[0].encode("latin1", "ignore")
    if code is None or not isinstance(raw, bytes) or len(raw) != struct.calcsize(f"<{code}"):
        return None
    return struct.unpack(f"<{code}", raw)[0]


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
    raise WeightsError(f"{path} holds no weights: expected 'ema_net', 'net', or tensors by name; its keys are {keys}.")


def _check_tensors(state: Mapping[Any, Any], path: Path) -> "dict[str, Tensor]":
    import torch

    for name, value in state.items():
        usable = isinstance(value, torch.Tensor) and value.layout == torch.strided and value.device.type == "cpu"
        if not isinstance(name, str) or not usable or value.is_quantized:
            is_tensor = isinstance(value, torch.Tensor)
            kind = f"a {value.layout} tensor on {value.device}" if is_tensor else _name_kind(value)
            raise WeightsError(f"{path}: {name!r} of its weights is {kind}; expected a dense tensor, by its name.")
    return {name: tensor.detach() for name, tensor in state.items()}
