"""Where the run in a folder stands, told by its files: a process that was killed could say nothing any more."""

import contextlib
import json
import re
from pathlib import Path
from typing import Any, Literal, TypeAlias

from zoo.files import is_draft, open_regular
from zoo.training.run_lock import LOCK

Stage: TypeAlias = Literal["empty", "claimed", "begun", "training", "undrawn", "finished", "lost", "foreign"]

RECORD = "run.json"  # says `status`: beginning, training, interrupted, finished; and whether `plots` are drawn
START = "start.safetensors"  # the weights that a run begins with, until `state.pt` has them
STATE = "state.pt"
PARENT = "parent.json"  # the run that this one goes on from, for other epochs
NEEDED_TO_BEGIN = ("preset.yaml", "config.json", "data.json", START)
MAX_BYTES = 1_000_000

_FORMER_DRAFT = re.compile(r"\.(state\.pt|[\w-]+\.(json|jsonl|yaml|csv))\.[a-z0-9_]{8}")  # of versions up to 0.1


def find_stage(folder: Path) -> Stage:
    """Return where the run stands.

    Returns:
        `empty`: nothing is there. `claimed`: a run was stopped before all was written that it begins with. `begun`:
        all of that is there, and no step was taken. `training`: it can go on from its state. `undrawn`: only plots
        are missing. `finished`. `lost`: it is not finished, and its state is gone. `foreign`: this is no run.
    """
    names = {path.name for path in folder.iterdir() if path.name != LOCK and not _is_left_over(path.name)}
    record = read_record(folder)
    status = record.get("status")
    if not names:
        return "empty"
    if STATE in names:
        return "training"
    if status == "finished":
        return "finished" if record.get("pictures", True) else "undrawn"
    if status == "beginning":
        return "begun" if names.issuperset(NEEDED_TO_BEGIN) else "claimed"
    return "lost" if names.issuperset(("preset.yaml", "config.json", "data.json")) else "foreign"


def read_record(folder: Path) -> dict[str, Any]:
    """Return what `run.json` says; empty if it is not there or cannot be read."""
    try:
        with open_regular(folder / RECORD) as file:
            record = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def sweep_left_over(folder: Path) -> None:
    """Remove what killed processes had not finished writing into a run's folder; the caller holds its lock."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if _is_left_over(path.name):
                with contextlib.suppress(OSError):
                    path.unlink()


def _is_left_over(name: str) -> bool:
    return is_draft(name) or _FORMER_DRAFT.fullmatch(name) is not None
