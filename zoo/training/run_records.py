"""Files of a run's folder that leave this machine: each a file of the folder itself, and what its name says.

The folder may be somebody else's. A link in it could name any file of this machine, a private key for example, and
nobody looks into a file that is called `metrics.jsonl`.
"""

import io
import os
from pathlib import Path
from typing import Any, NoReturn

from PIL import Image

from zoo.errors import InputError
from zoo.files import open_inside, parse_object, read_bounded

MAX_BYTES = 64_000_000


def check_inside(folder: Path, name: str) -> None:
    """Refuse a file of a folder that is a link, a pipe or a device; one that is not there is left to its reader.

    Raises:
        InputError: Naming it.
    """
    if os.path.lexists(folder / name):
        try:
            with open_inside(folder, name):
                pass
        except (OSError, ValueError) as error:
            _refuse(folder / name, error)


def read_run_file(folder: Path, name: str) -> bytes:
    """Read a record of a run: JSON, JSON lines or a PNG, as its name says.

    Raises:
        InputError: It is none of the folder's own files, or something else than its name says.
    """
    path = folder / name
    try:
        with open_inside(folder, name) as file:
            content = read_bounded(file, MAX_BYTES)
        _CHECKS[path.suffix.lower()](content)
    except (OSError, ValueError, SyntaxError) as error:  # SyntaxError: of Pillow, of a broken PNG
        _refuse(path, error)
    return content


def _check_json(content: bytes) -> None:
    parse_object(content, strict=True)


def _check_lines(content: bytes) -> None:
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            parse_object(line, strict=True)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error


def _check_png(content: bytes) -> None:
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        image.verify()


def _refuse(path: Path, error: Exception) -> NoReturn:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    raise InputError(
        f"{str(path)!r} is not sent: {reason}. Expected the file that the run wrote. Remove it, or send the model "
        "alone: zoo.push(zoo.load(folder), ...)."
    ) from error


_CHECKS: dict[str, Any] = {".json": _check_json, ".jsonl": _check_lines, ".png": _check_png}
