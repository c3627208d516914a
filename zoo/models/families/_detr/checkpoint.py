"""Weights as transformers writes them: read and checked here, renamed by it, handed on by their names in memory.

The names in such a file are older than those in memory, and the library holds the table between them. It is given
tensors that were read and checked here, and a configuration that was made here: it opens no file, and of the
repository's `config.json` only whether it is of this size, and the names of the classes are used.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import WeightsError
from zoo.files import read_object, read_shapes, read_tensors
from zoo.models.families._detr.library import Architecture, import_transformers
from zoo.weights import ConvertedCheckpoint

if TYPE_CHECKING:
    from torch import Tensor

CLASS_TENSORS = ("enc_score_head.weight", "class_embed.weight")  # (classes, width); ends of names, the surest first
CATEGORY_ROWS = 91  # numbers of COCO's categories, 0 to 90, of which 80 are in use
MAX_CLASSES = 100_000
MAX_NAME = 1000
COMPARED = (  # what does not show in the shapes of tensors, but changes what comes out
    "activation_function", "decoder_activation_function", "decoder_attention_heads",
    "decoder_cross_attention_heads", "decoder_method", "decoder_offset_scale", "decoder_self_attention_heads",
    "encoder_activation_function", "encoder_attention_heads", "eval_idx", "layer_scale", "learn_initial_query",
    "max_num_bins", "normalize_before", "num_queries", "positional_encoding_temperature", "reg_scale",
    "top_prob_values", "up", "with_box_refine",
)  # fmt: skip
OTHER_NAMES = {  # of six classes of COCO, in the label files that come with many detectors
    "aeroplane": "airplane", "diningtable": "dining table", "motorbike": "motorcycle", "pottedplant": "potted plant",
    "sofa": "couch", "tvmonitor": "tv",
}  # fmt: skip


def read_detr_file(path: Path, architecture: Architecture, classes: tuple[str, ...]) -> ConvertedCheckpoint:
    """Read a safetensors file of transformers, with the `config.json` beside it.

    Args:
        path: The file.
        architecture: What it should be of.
        classes: Names of the classes of COCO; names in the file that mean the same are replaced by them.

    Returns:
        Tensors by their names in memory, floating-point ones in float32; `config` with the classes, if they have
        names.

    Raises:
        WeightsError: It is for another network, or damaged.
    """
    if path.suffix != ".safetensors":
        raise WeightsError(f"{path} cannot be used: {architecture.model_type} needs a safetensors file.")
    raw = _read_config(path.with_name("config.json"))
    shapes = read_shapes(path)
    count = _count_classes(shapes)
    if count is None:
        raise WeightsError(f"{path} has no classification tensors. Expected a transformers detector.")
    _check_config(raw, architecture, path, count)
    tensors = _rename(read_tensors(path), architecture, count, path)
    names = _read_names(raw, count)
    return _drop_empty_slots(tensors, names, architecture, count, classes)


def _read_config(path: Path) -> dict[str, Any]:
    """Return what stands beside the weights; nothing if there is no such file."""
    try:
        return read_object(path) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be used: {error}. Repair or remove it.") from error


def _count_classes(shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Return the classes that the tensors are for."""
    for end in CLASS_TENSORS:
        for name, shape in shapes.items():
            if name.endswith(end) and len(shape) == 2 and 1 <= shape[0] <= MAX_CLASSES:
                return shape[0]
    return None


def _check_config(raw: Mapping[str, Any], architecture: Architecture, path: Path, count: int) -> None:
    """Refuse weights whose configuration says that they are of another network."""
    ours = architecture.make_config(count).to_dict()
    found = raw.get("model_type")
    if found not in (None, architecture.model_type):
        raise WeightsError(f"{path} has model_type {str(found)[:100]!r}; expected {architecture.model_type!r}.")
    differing = [
        f"{key} is {repr(theirs)[:100]}, expected {expected!r}"
        for key, theirs, expected in _compare(raw, ours, architecture)
    ]
    if differing:
        raise WeightsError(
            f"{path} has a different size or variant: {'; '.join(differing[:3])}{'; ...' * (len(differing) > 3)}. "
            "Use the model of that size."
        )


def _compare(raw: Mapping[str, Any], ours: Mapping[str, Any], architecture: Architecture) -> Iterator[tuple[Any, ...]]:
    """Yield key, their value and ours where the two differ."""
    for key in (*architecture.settings, *COMPARED):
        if key in raw and key in ours and key != "backbone_config" and not _same(raw[key], ours[key]):
            yield key, raw[key], ours[key]
    theirs, backbone = raw.get("backbone_config"), architecture.settings.get("backbone_config", {})
    for key in backbone:
        known = ours["backbone_config"].get(key)
        if isinstance(theirs, dict) and key in theirs and known is not None and not _same(theirs[key], known):
            yield f"backbone_config.{key}", theirs[key], known


def _same(theirs: Any, ours: Any) -> bool:
    """Whether two values are equal; JSON has lists where Python may have tuples."""
    return bool(theirs == (list(ours) if isinstance(ours, tuple) else ours))


def _rename(tensors: "Mapping[str, Tensor]", architecture: Architecture, count: int, path: Path) -> "dict[str, Tensor]":
    """Return the tensors by the names that they have in memory."""
    import torch

    with _silence(import_transformers(architecture.model_type)), torch.random.fork_rng(devices=[]):
        try:
            network, told = architecture.network_class().from_pretrained(
                None,
                config=architecture.make_config(count),
                state_dict=dict(tensors),
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # they are refused below, with their names
                output_loading_info=True,
            )
        except (RuntimeError, ValueError, KeyError) as error:
            raise WeightsError(f"{path} does not fit {architecture.model_type}: {_shorten(str(error))}") from error
    problems = {
        "missing": [name for name in told["missing_keys"] if not name.endswith("num_batches_tracked")],
        "not expected": list(told["unexpected_keys"]),
        "with a different shape": [
            f"{name} (file {list(a)}, model {list(b)})" for name, a, b in told["mismatched_keys"]
        ],
    }
    if any(problems.values()):
        listed = "; ".join(f"{len(names)} {what}: {_list(names)}" for what, names in problems.items() if names)
        raise WeightsError(
            f"{path} does not fit {architecture.model_type}: {listed}. Expected weights of this size, as saved by "
            "transformers."
        )
    state = network.state_dict()
    return {name: tensor for name, tensor in state.items() if not name.startswith(architecture.second_names)}


@contextmanager
def _silence(library: Any) -> Iterator[None]:
    """Keep transformers from drawing a progress bar and a table of what it found; both are told in our words."""
    log = library.utils.logging
    draws, level = log.is_progress_bar_enabled(), log.get_verbosity()
    log.disable_progress_bar()
    log.set_verbosity_error()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if draws:
            log.enable_progress_bar()


def _read_names(raw: Mapping[str, Any], count: int) -> list[str] | None:
    """Return the names of the classes; None if there are none, or only numbered ones."""
    table = raw.get("id2label")
    if not isinstance(table, dict) or len(table) > MAX_CLASSES:
        return None
    names = [table.get(str(number)) for number in range(count)]
    if not all(isinstance(name, str) and 0 < len(name) <= MAX_NAME for name in names):
        return None
    if all(name == f"LABEL_{number}" for number, name in enumerate(names)):
        return None
    return [str(name) for name in names]


def _drop_empty_slots(
    tensors: "dict[str, Tensor]",
    names: list[str] | None,
    architecture: Architecture,
    count: int,
    classes: tuple[str, ...],
) -> ConvertedCheckpoint:
    """Return the tensors with one row for each class, where the file has one for each number of a COCO category."""
    slots = architecture.category_slots
    usual = [OTHER_NAMES.get(name, name) for name in names or ()]
    if usual == list(classes):
        return ConvertedCheckpoint(tensors, {"classes": usual})
    if count != CATEGORY_ROWS or not slots or (names and [usual[slot] for slot in slots] != list(classes)):
        unique = names if names and len(set(names)) == len(names) else None
        return ConvertedCheckpoint(tensors, {"classes": unique} if unique else {"num_classes": count})
    rows = list(slots)
    kept = {
        name: tensor[rows].clone() if "class_embed" in name and tensor.shape[:1] == (CATEGORY_ROWS,) else tensor
        for name, tensor in tensors.items()
    }
    note = f"kept the {len(slots)} used rows of COCO's {CATEGORY_ROWS} category ids"
    return ConvertedCheckpoint(kept, {"classes": list(classes)}, (note,))


def _list(names: list[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")


def _shorten(text: str) -> str:
    return " ".join(text.split())[:300]
