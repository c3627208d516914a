"""Records of a run that are read again: what has to stand in them, and which of them may leave this machine.

The folder may be somebody else's. A link in it could name any file of this machine, a private key for example, and
nobody looks into a file that is called `metrics.jsonl`.
"""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, NoReturn

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zoo.errors import InputError
from zoo.files import open_inside, parse_object, read_bounded

MAX_BYTES = 64_000_000


class _Form(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Data(_Form):
    source: str
    classes: Annotated[list[str], Field(min_length=1)]
    digest: str | None = None
    files: dict[str, dict[str, str]] = {}


class _Run(_Form):
    status: str = "finished"
    epoch: Annotated[int, Field(ge=0)] = 0
    step: Annotated[int, Field(ge=0)] = 0


class _Epoch(_Form):
    epoch: Annotated[int, Field(ge=1)]


class _Kept(_Form):
    epochs: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]
    chosen_by: str | None
    moving_average: bool


class _Evaluation(_Form):
    weights: dict[str, _Kept] = {}


_FORMS: dict[str, type[_Form]] = {
    "data.json": _Data,
    "run.json": _Run,
    "metrics.jsonl": _Epoch,
    "evaluation.json": _Evaluation,
}


def check_record(name: str, value: Any) -> None:
    """Check the parsed content of a file; one of another name may be anything.

    Raises:
        ValueError: Something is missing or of another type; the text goes after the name of the file.
    """
    if name not in _FORMS:
        return
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")
    try:
        _FORMS[name].model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise ValueError(f"{place[:120]}: {first['msg']}") from error


def dump_rates(rates: Mapping[str, Sequence[float]]) -> str:
    """Return the rate of every group at every optimizer step as the text of `rates.csv`."""
    names = list(rates)
    lines = [",".join(["step", *(f'"{name}"' for name in names)])]
    columns = (rates[name] for name in names)
    lines += [",".join([str(step), *map(repr, row)]) for step, row in enumerate(zip(*columns, strict=True))]
    return "\n".join(lines) + "\n"


def parse_rates(text: str) -> dict[str, list[float]]:
    """Return what `dump_rates` was given.

    Raises:
        ValueError, csv.Error: It is not such a text.
    """
    names, *rows = csv.reader(StringIO(text, newline=""))
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    return {name: list(map(float, column)) for name, column in list(zip(names, columns, strict=True))[1:]}


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
        f"{str(path)!r} cannot be uploaded: {reason}. Expected the file written by the run. Remove it, or upload the "
        "model alone: zoo.push(zoo.load(folder), ...)."
    ) from error


_CHECKS: dict[str, Any] = {".json": _check_json, ".jsonl": _check_lines, ".png": _check_png}
