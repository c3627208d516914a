"""The boxes and labels of one sample of a data set, in whatever form they come."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zoo.errors import InputError
from zoo.tasks.detection.annotations import Floats, Key, no_boxes

BOX_KEYS = ("bbox", "bboxes", "boxes", "box")
LABEL_KEYS = ("category", "categories", "label", "labels", "category_id", "class", "classes")
CROWD_KEYS = ("iscrowd", "is_crowd", "crowd")
CROWD = {0: False, 1: True, "0": False, "1": True, "false": False, "true": True, None: False}


class Marks(NamedTuple):
    """The boxes of one sample."""

    boxes: Floats  # (N, 4) x1, y1, x2, y2
    keys: tuple[Key, ...]
    crowd: NDArray[np.bool_]
    size: tuple[int, int] | None = None  # height and width that the sample states


def parse_marks(boxes: Any, labels: Any, crowd: Any, *, written: str = "XYXY") -> Marks:
    """Bring the boxes of a sample into one form, x1, y1, x2, y2.

    Args:
        boxes: `(N, 4)` numbers; those of torchvision say themselves how they are written.
        labels: `(N,)` class numbers or names.
        crowd: `(N,)` whether a box is around many things at once; None if none is.
        written: Else how boxes are written: XYXY, XYWH or CXCYWH.

    Raises:
        InputError: If they are none of this; the text says what the sample has.
    """
    table = _as_table(boxes)
    keys = _as_keys(labels)
    if len(keys) != len(table):
        raise InputError(f"it has {len(table):,} boxes and {len(keys):,} labels; expected a label for each box")
    crowds = np.zeros(len(keys), bool) if crowd is None else _as_crowds(crowd)
    if len(crowds) != len(keys):
        raise InputError(f"it has {len(table):,} boxes and {len(crowds):,} crowd flags; expected one for each box")
    written = getattr(getattr(boxes, "format", None), "name", written)  # of torchvision's BoundingBoxes
    if written == "CXCYWH":
        table[:, :2] -= table[:, 2:] / 2
    if written in ("XYWH", "CXCYWH"):
        table[:, 2:] += table[:, :2]
    elif written != "XYXY":
        raise InputError(f"its box format is {written}; expected XYXY, XYWH or CXCYWH")
    size = getattr(boxes, "canvas_size", None)
    return Marks(table, keys, crowds, None if size is None else (int(size[0]), int(size[1])))


def find_key(mapping: Mapping[str, Any], usual: Sequence[str]) -> str | None:
    """Return the first of the usual keys that a mapping has."""
    return next((key for key in usual if key in mapping), None)


def describe(value: Any) -> str:
    """Say what a value is, for a message that expects something else."""
    if isinstance(value, Mapping):
        return f"a mapping with the keys {', '.join(map(str, value)) or '(none)'}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"of type {type(value).__name__}"


def _as_table(boxes: Any) -> Floats:
    try:
        table = np.array(_plain(boxes), dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"its boxes are not numeric ({error}); expected (N, 4)") from error
    if not table.size:
        return no_boxes()
    if table.ndim != 2 or table.shape[1] != 4:
        raise InputError(f"its boxes have shape {table.shape}; expected (N, 4)")
    return table


def _as_keys(labels: Any) -> tuple[Key, ...]:
    values = _plain(labels)
    values = values.tolist() if isinstance(values, np.ndarray) else values
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise InputError(f"its labels are {describe(values)}; expected one class number or name for each box")
    return tuple(map(_as_key, values))


def _as_key(label: Any) -> Key:
    if isinstance(label, str):
        return label
    try:
        if not isinstance(label, (bool, np.bool_)):
            return operator.index(label)
    except TypeError:
        pass
    raise InputError(f"it has the label {label!r}; expected class numbers or names")


def _as_crowds(crowd: Any) -> NDArray[np.bool_]:
    values = _plain(crowd)
    values = values.reshape(-1).tolist() if isinstance(values, np.ndarray) else values
    values = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else [values]
    for value in values:
        if isinstance(value, (list, dict)) or value not in CROWD:
            raise InputError(f"it has the crowd flag {value!r}; expected 0 or 1")
    return np.array([CROWD[value] for value in values], np.bool_)


def _plain(value: Any) -> Any:
    """Return a tensor as an array, and anything else as it is."""
    if not hasattr(value, "detach"):
        return value
    try:
        return value.detach().cpu().numpy()
    except (TypeError, RuntimeError) as error:  # bfloat16, which would not hold pixels, or a sparse one
        raise InputError(f"it has a tensor that cannot be read ({error}); expected float32 or int64") from error
