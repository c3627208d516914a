"""JSON objects from files that anybody may have written."""

import json
import os
from collections.abc import Iterable
from typing import Any


def read_object(path: str | os.PathLike[str], *, max_bytes: int = 1_000_000) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Args:
        path: The file.
        max_bytes: Longer files are refused before they are parsed.

    Raises:
        ValueError: The file is too long, or as `parse_object`.
        OSError: It cannot be read.
    """
    with open(path, "rb") as file:
        text = file.read(max_bytes + 1)
    if len(text) > max_bytes:
        raise ValueError(f"it is longer than {max_bytes:,} bytes")
    return parse_object(text)


def parse_object(text: bytes) -> dict[str, Any]:
    """Parse one JSON object, whose keys are all different: readers disagree on which of two equal ones counts.

    Raises:
        ValueError: It is something else, not UTF-8, not JSON, or nested too deeply.
    """
    try:
        value = json.loads(text.decode(), object_pairs_hook=_unite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"it is JSON, but not an object: {type(value).__name__}")
    return value


def _unite(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key!r} stands in it twice")
        found[key] = value
    return found
