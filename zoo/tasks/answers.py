"""What the command `zoo predict` hands to a task, and how the task's answers are printed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo._text import echo, warn
from zoo.errors import InputError
from zoo.files import dump_json, make_folder, to_path, write_file

PREDICTIONS = "predictions.json"


@dataclass(frozen=True, kw_only=True)
class PredictFlags:
    """What was said on the command line; None where nothing was.

    Attributes:
        out: A folder for what is drawn.
        conf: The least score.
        iou: The overlap from which two boxes are one thing.
        top_k: Names per image.
        as_json: Print the answers as data.
        options: Of `predict`, for a model of any task.
    """

    out: Path | None
    conf: float | None
    iou: float | None
    top_k: int | None
    as_json: bool
    options: Mapping[str, Any]


@contextmanager
def printing_records(as_json: bool) -> Iterator[list[dict[str, Any]]]:
    """Print the records as data when the block ends, also by an error: what was found is found."""
    records: list[dict[str, Any]] = []
    try:
        yield records
    finally:
        if as_json:
            echo(dump_json(records, indent=1), lines=True)


def open_answers(out: Path) -> Path:
    """Return the folder for images and predictions, made if need be; those of an earlier command are kept."""
    folder = make_folder(to_path(out))
    if (folder / PREDICTIONS).exists():
        raise InputError(f"{folder / PREDICTIONS} already exists. Choose another folder, or remove it.")
    return folder


@contextmanager
def writing_records(records: list[dict[str, Any]], out: Path | None, as_json: bool) -> Iterator[None]:
    """Write the records into a folder when the block ends; if an error ends it, what there is until then."""
    if out is None:
        yield
        return
    try:
        yield
    except BaseException:
        if records:
            write_file(out / PREDICTIONS, dump_json(records, indent=1) + "\n")
            warn(f"stopped early; {len(records):,} predictions are saved in {out / PREDICTIONS}")
        raise
    write_file(out / PREDICTIONS, dump_json(records, indent=1) + "\n")
    echo(f"written to {out}: {PREDICTIONS} and images", err=as_json)
