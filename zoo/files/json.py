"""JSON: objects from files that anybody may have written, and text that every reader takes."""

import json
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from zoo.files.regular_file import read_regular


def read_object(path: str | os.PathLike[str], *, max_bytes: int = 1_000_000) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Args:
        path: The file.
        max_bytes: Longer files are refused before they are parsed.

    Raises:
        ValueError: The file is too long, a pipe or a device, or as `parse_object`.
        OSError: It cannot be read.
    """
    return parse_object(read_regular(path, max_bytes=max_bytes))


def parse_object(text: bytes, *, strict: bool = False) -> dict[str, Any]:
    """Parse one JSON object, whose keys are all different: readers disagree on which of two equal ones counts.

    Args:
        text: UTF-8.
        strict: Refuse `NaN` and `Infinity`, which Python writes and other readers of JSON refuse.

    Raises:
        ValueError: It is something else, not UTF-8, not JSON, or nested too deeply.
    """
    try:
        value = json.loads(text.decode(), object_pairs_hook=_unite, parse_constant=_refuse if strict else None)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {type(value).__name__}")
    return value


def dump_json(value: Any, *, indent: int | None = None, ascii_only: bool = True) -> str:
    """Return JSON that every reader takes: numbers that are not finite become `null`, other objects their text."""
    return json.dumps(_finite(value), indent=indent, ensure_ascii=ascii_only, default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it contains {constant}, which is not valid JSON")


def _unite(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"duplicate key {key!r}")
        found[key] = value
    return found
