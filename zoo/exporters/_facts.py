"""What an exported file says of itself, in its metadata and in `config.json` beside it: both are untrusted.

Of a file that zoo has not written, `config.json` has to say how an image is prepared and what the output means.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from zoo.data import Preprocess
from zoo.errors import InputError, WeightsError
from zoo.exporters._graph_file import GraphFile
from zoo.files import check_checksum, dump_json, parse_object, read_object
from zoo.models import MAX_CLASSES, ModelConfig

CONFIG = "config.json"
SAME = ("task", "classes", "preprocess", "postprocess", "licence")  # in both places
FLOATS = ("float32", "float16")
COLOURS = 3
OF_CLASSES = ("probabilities", "logits")  # outputs with a column for each class


class Facts(NamedTuple):
    """What is known of an exported model.

    Attributes:
        config: Task, classes, preprocessing, thresholds and licence.
        takes_bytes: Whether it takes `(N, H, W, 3)` uint8 RGB; else `(N, 3, H, W)` float32, normalised.
        outputs: What its outputs mean, in order.
    """

    config: ModelConfig
    takes_bytes: bool
    outputs: tuple[str, ...]


def read_facts(graph: GraphFile) -> Facts:
    """Return what is known of an open file, once its shapes agree with it.

    Raises:
        InputError: Something is missing, is damaged, or contradicts something else.
    """
    path = graph.path
    stored, beside = _read_stored(graph), _read_beside(path)
    if not stored and not isinstance(beside.get("preprocess"), Mapping):
        raise InputError(_tell_foreign(graph))
    for key in SAME:
        if key in stored and key in beside and stored[key] != beside[key]:
            raise InputError(
                f"{path} and {path.with_name(CONFIG)} contradict each other: {key} differs. They are of different "
                "exports, or one was changed. Restore them."
            )
    raw = beside | stored
    takes_bytes, outputs = _read_export(path, raw.get("export"), graph)
    config = _read_config(path, raw, graph)
    _check_shapes(graph, config, takes_bytes, outputs)
    return Facts(config, takes_bytes, outputs)


def _read_stored(graph: GraphFile) -> dict[str, Any]:
    """Return the metadata of the file itself."""
    values = ", ".join(f"{dump_json(key)}: {text}" for key, text in graph.facts.items())
    try:
        return parse_object(f"{{{values}}}".encode(errors="replace"))
    except ValueError as error:
        raise InputError(
            f"the metadata of {graph.path} is damaged: it is no JSON ({error}). Export it again."
        ) from error


def _read_beside(path: Path) -> dict[str, Any]:
    """Return `config.json` of an export that a file lies in; empty if there is none, or one of something else."""
    place = path.with_name(CONFIG)
    if not place.is_file():
        return {}
    check_checksum(place)
    try:
        found = read_object(place)
    except (OSError, ValueError) as error:
        raise InputError(f"{place} cannot be read: {error}. Restore it, or export the model again.") from error
    return found if "export" in found else {}


def _read_export(path: Path, export: Any, graph: GraphFile) -> tuple[bool, tuple[str, ...]]:
    """Return whether the file takes bytes, and what its outputs mean."""
    kinds = {"bytes": True, "float": False}
    default = "bytes" if graph.inputs and graph.inputs[0].dtype == "uint8" else "float"
    kind = export.get("input", default) if isinstance(export, Mapping) else None
    outputs = export.get("outputs") if isinstance(export, Mapping) else None
    if kind not in kinds or not isinstance(outputs, list) or not all(isinstance(name, str) for name in outputs):
        raise InputError(
            f"the metadata of {path} is damaged: export is {export!r:.100}; expected input (bytes or float) and "
            "outputs, a list of names. Export it again."
        )
    return kinds[kind], tuple(outputs)


def _read_config(path: Path, raw: Mapping[str, Any], graph: GraphFile) -> ModelConfig:
    known = {key: raw[key] for key in ModelConfig.model_fields if raw.get(key) is not None}
    try:
        config = ModelConfig.parse(known, path.name)
    except WeightsError as error:
        reason = str(error).partition(": ")[2].partition(" Expected the config.json")[0]
        raise InputError(f"the metadata of {path} is damaged: {reason} Export it again.") from error
    if config.preprocess is None:
        raise InputError(f"the metadata of {path} is damaged: preprocess is missing. Export it again.")
    columns = graph.outputs[0].shape[1:] if graph.outputs else ()
    count = config.num_classes or (columns[0] if len(columns) == 1 else None)
    if config.classes or count is None:
        return config
    if count > MAX_CLASSES:
        raise InputError(f"{path} gives {count:,} classes; expected {MAX_CLASSES:,} at most.")
    return config.model_copy(update={"num_classes": count, "classes": list(map(str, range(count)))})


def _check_shapes(graph: GraphFile, config: ModelConfig, takes_bytes: bool, outputs: tuple[str, ...]) -> None:
    """Refuse a graph whose input is another one than the metadata says, or whose classes are others."""
    how: Any = config.preprocess_value
    height, width = getattr(how, "canvas_size", None) or (how.image_size, how.image_size)
    sides = (height, width, COLOURS) if takes_bytes else (COLOURS, height, width)
    expected = f"one input of {'uint8' if takes_bytes else 'float32'} (N, {', '.join(map(str, sides))})"
    fits = len(graph.inputs) == 1 and graph.inputs[0].shape[1:] == sides
    if not fits or (graph.inputs[0].dtype == "uint8") is not takes_bytes:
        raise InputError(
            f"{graph.path} contradicts its metadata: it takes {_list(graph.inputs)}; expected {expected}. Export it "
            "again."
        )
    if len(graph.outputs) != len(outputs):
        raise InputError(
            f"{graph.path} contradicts its metadata: it gives {_list(graph.outputs)}; expected {', '.join(outputs)}."
        )
    columns = graph.outputs[0].shape[1:] if outputs and outputs[0] in OF_CLASSES else (None,)
    if columns not in ((None,), (config.num_classes,)):
        count = " x ".join(map(str, columns)) or "no"
        raise InputError(
            f"{graph.path} contradicts its metadata: it gives {count} classes, and the metadata names "
            f"{config.num_classes}. Export it again."
        )


def _tell_foreign(graph: GraphFile) -> str:
    """Say what is missing of a file that zoo has not written, and how to say it."""
    unknown = f"{graph.path} has no metadata of zoo export"
    side = _find_side(graph)
    if side is None:
        return (
            f"{unknown}, and is no classifier by its shapes: it takes {_list(graph.inputs)} and gives "
            f"{_list(graph.outputs)}; expected (N, 3, H, H) float32 or (N, H, H, 3) uint8 with a fixed H, and one "
            "output (N, C)."
        )
    count = graph.outputs[0].shape[1]
    example = {"preprocess": Preprocess(image_size=side).to_dict(), "export": {"outputs": ["logits"]}}
    return (
        f"{unknown}. By its shapes it is a classifier of {count} classes for images of {side} x {side} pixels, but not "
        "how these are prepared, nor whether it gives logits or probabilities. Write that into "
        f"{graph.path.with_name(CONFIG)}, for example {dump_json(example)}. Without a list of names under "
        f"\"classes\", these are called '0' to '{(count or 0) - 1}'."
    )


def _find_side(graph: GraphFile) -> int | None:
    """Return the side of the square images that a classifier takes; None if it is none by its shapes."""
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        return None
    (taken,), (given,) = graph.inputs, graph.outputs
    is_float = taken.dtype in FLOATS
    if len(taken.shape) != 4 or not (is_float or taken.dtype == "uint8") or len(given.shape) != 2:
        return None
    colours, *sides = taken.shape[1:] if is_float else (taken.shape[3], *taken.shape[1:3])
    fits = colours == COLOURS and sides[0] == sides[1] and given.shape[1] is not None and given.dtype in FLOATS
    return sides[0] if fits else None


def _list(ports: Any) -> str:
    return ", ".join(map(str, ports)) or "nothing"
