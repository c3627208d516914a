"""`zoo runs`: which runs there are, where each stands, and what it scored."""

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo._text import echo
from zoo.errors import InputError, did_you_mean
from zoo.files import tell_missing, to_path

from .listing import AsJson, print_json, print_table

if TYPE_CHECKING:
    from zoo.training import RunSummary

_KEYS: Mapping[str, Callable[["RunSummary"], Any]] = {  # column → what it is sorted by; None comes last
    "run": lambda run: run.folder,
    "model": lambda run: run.model,
    "data": lambda run: run.data.get("source"),
    "epochs": lambda run: run.epochs,
    "status": lambda run: run.status,
    "score": lambda run: run.score and run.score[1],
    "started": lambda run: _read_time(run.started),
}
_FALLING = {"epochs", "score", "started"}  # the most, the best and the newest first


def runs(
    folder: Annotated[
        str, typer.Argument(metavar="[FOLDER]", help="Where the runs are.", show_default="runs")
    ] = "runs",
    sort: Annotated[
        str, typer.Option("--sort", metavar="COLUMN", help=f"One of {', '.join(_KEYS)}.", show_default="newest first")
    ] = "started",
    as_json: AsJson = False,
) -> None:
    """List the runs in a folder and below it.

    A score is that of the saved weights; of an unfinished or damaged run, that of its last scored epoch. What is
    damaged is said below the table. The weights are not read.

    \b
    Examples:
      zoo runs
      zoo runs experiments --sort score
      zoo runs --json
    """  # noqa: D301
    from zoo.training import find_runs

    if sort not in _KEYS:
        raise InputError(f"unknown column {sort!r}.{did_you_mean(sort, _KEYS)} --sort takes {', '.join(_KEYS)}.")
    path = to_path(folder)
    if not path.is_dir():
        missing = f"{folder!r} is a file." if path.exists() else tell_missing(folder)
        raise InputError(f"{missing or f'there is no folder {folder!r}.'} Expected a folder with runs: zoo runs FOLDER")
    found = sort_runs(find_runs(path), sort)
    if as_json:
        print_json([run.to_dict() for run in found])
        return
    if not found:
        echo(f"no runs in {folder} or below it")
        return
    print_table(list(map(_row, found)), "runs", secondary=("started", "data"), in_full="zoo runs --json")
    for run in found:
        if run.problem:
            echo(f"{run.folder}: {run.problem}")


def sort_runs(found: Any, column: str) -> "list[RunSummary]":
    """Return runs in the order of a column; those that have nothing in it come last."""
    named = sorted(found, key=lambda run: run.folder)
    key = _KEYS[column]
    known = sorted((run for run in named if key(run) is not None), key=key, reverse=column in _FALLING)
    if column == "score":  # of several tasks: a mAP is neither better nor worse than a top-1
        known.sort(key=lambda run: run.task)
    return [*known, *(run for run in named if key(run) is None)]


def describe_score(run: "RunSummary") -> str:
    """Return what ranks a run, as text."""
    return "-" if run.score is None else f"{run.score[0]} {100 * run.score[1]:.1f} %"


def describe_epochs(run: "RunSummary") -> str:
    """Return how many epochs are finished, of how many, and whether training stopped early."""
    return f"{run.epochs}/{run.settings.get('epochs', '?')}" + " (stopped early)" * bool(run.stopped_early)


def _row(run: "RunSummary") -> dict[str, str]:
    source, started = run.data.get("source"), _read_time(run.started)
    return {
        "run": str(run.folder),
        "model": run.model or "-",
        "data": (Path(source).name or source) if source else "-",
        "epochs": describe_epochs(run),
        "status": run.status,
        "score": describe_score(run),
        "started": "-" if started is None else f"{started:%Y-%m-%d %H:%M}",
    }


def _read_time(text: str | None) -> datetime | None:
    """Return a time on the clock of this machine; None if it is not known."""
    try:
        return datetime.fromisoformat(text or "").astimezone()
    except (ValueError, OverflowError, OSError):
        return None
