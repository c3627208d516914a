"""What the files of a run say of it, read without its model and without a framework: for tables of many runs.

The folder may be damaged, or somebody else's: whatever is wrong with it is told, and never raised.
"""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

from zoo.errors import ZooError
from zoo.files import parse_object, read_regular, read_yaml
from zoo.settings import FORMER, Preset
from zoo.tasks import DEFAULT_TASK, find_scores
from zoo.training.run_lock import is_at_work, read_holder
from zoo.training.run_records import MAX_BYTES, check_record
from zoo.training.run_stage import RECORD, Stage, find_stage

Status: TypeAlias = Literal["finished", "interrupted", "running", "not started", "damaged"]

PRESET = "preset.yaml"
_STATUS: Mapping[Stage, Status] = {
    "finished": "finished",
    "undrawn": "finished",
    "training": "interrupted",
    "begun": "not started",
    "claimed": "not started",
    "lost": "damaged",
}


@dataclass(frozen=True)
class RunSummary:
    """What is known of a run.

    Attributes:
        folder: The run's.
        status: Where it stands; `not started`: it was stopped before its first step.
        problem: What is wrong with the folder; empty if nothing is.
        settings: The effective preset as plain values, with today's names; defaults for fields that it does not have.
        config: Of the model.
        data: What it learnt from.
        records: One per finished epoch.
        evaluation: Scores of the weights of a finished run.
        started: When it began, in ISO 8601 with its time zone; None if that is not recorded.
        stopped_early: Why training ended before its last epoch; None: it did not.
    """

    folder: Path
    status: Status
    problem: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    records: tuple[Mapping[str, Any], ...] = ()
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    started: str | None = None
    stopped_early: str | None = None

    @property
    def task(self) -> str:
        """The name of its task."""
        return str(self.config.get("task", DEFAULT_TASK))

    @property
    def model(self) -> str | None:
        """The name of its model; None: a module that the caller brought."""
        name = self.config.get("model") or self.settings.get("model")
        return None if name is None else str(name)

    @property
    def epochs(self) -> int:
        """Finished epochs."""
        return len(self.records)

    @property
    def scores(self) -> dict[str, int | float]:
        """The numbers of its evaluation; of a run that is unfinished or damaged, those of its last scored epoch."""
        found = self.evaluation
        if self.status != "finished":
            scored = [record for record in self.records if "val_loss" in record]
            last = scored[-1] if scored else {}
            keys = (*find_scores().get(self.task, ()), "val_loss")
            found = {key.removeprefix("val_"): last[key] for key in keys if key in last}
        return {key: value for key, value in found.items() if type(value) in (int, float) and math.isfinite(value)}

    @property
    def score(self) -> tuple[str, float] | None:
        """The label and the value (0 to 1) of what ranks the runs of its task; None: it was not scored."""
        for key, label in find_scores().get(self.task, {}).items():
            value = self.scores.get(key)
            return None if value is None else (label, value)
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, without what is as long as the run or its data."""
        return {
            "run": str(self.folder),
            "status": self.status,
            "problem": self.problem,
            "model": self.model,
            "task": self.task,
            "data": self.data.get("source"),
            "epochs": self.epochs,
            "planned_epochs": self.settings.get("epochs"),
            "scores": self.scores,
            "started": self.started,
            "stopped_early": self.stopped_early,
        }


def find_runs(folder: Path) -> Iterator[RunSummary]:
    """Yield the runs in a folder and in those below it, in the order of their names; hidden folders are passed over.

    Args:
        folder: Exists; it may be a run itself.
    """
    seen = set()
    for path, folders, files in os.walk(folder, followlinks=True):
        place, real = Path(path), os.path.realpath(path)
        summary = summarize_run(place) if real not in seen and {RECORD, PRESET} & {*files} else None
        if summary is not None:
            yield summary
        folders[:] = [] if summary or real in seen else sorted(name for name in folders if not name.startswith("."))
        seen.add(real)


def summarize_run(folder: Path) -> RunSummary | None:
    """Return what is known of the run in a folder; None if it is none."""
    try:
        stage = find_stage(folder)
    except OSError as error:
        return RunSummary(folder, "damaged", f"the folder cannot be read: {error.strerror}")
    if stage not in _STATUS:
        return None
    reader = _Reader(folder)
    began = stage != "claimed"
    record = reader.read_object(RECORD)
    found: dict[str, Any] = {
        "settings": reader.read_settings(required=began),
        "config": reader.read_object("config.json", required=began),
        "data": reader.read_object("data.json", required=began),
        "evaluation": reader.read_object("evaluation.json"),
        "records": reader.read_records(required=_STATUS[stage] == "finished"),
        "stopped_early": str(record.get("stopped_early") or "") or None,
        "started": str(reader.read_object("environment.json").get("time") or "") or None,
    }
    if _STATUS[stage] == "finished" and not (folder / "model.safetensors").is_file():
        reader.faults.append("model.safetensors is missing")
    task = found["config"].get("task", DEFAULT_TASK)
    if task not in list(find_scores()):
        reader.faults.append(f"config.json names the unknown task {task!r}")
    if stage == "lost" and record:
        reader.faults.append("state.pt is missing, so the run cannot be resumed")
    elif stage == "lost" and not reader.faults:
        reader.faults.append(f"{RECORD} is missing")
    status: Status = "damaged" if reader.faults else _STATUS[stage]
    if status in ("interrupted", "not started") and (holder := read_holder(folder)) is not None:
        works = is_at_work(holder, folder)
        status = "running" if works else status
        if works is None:
            reader.faults.append(f"it may still be running: {holder} cannot be seen from this machine")
    return RunSummary(folder, status, "; ".join(reader.faults), **found)


class _Reader:
    """Reads the files of a run, and notes what is wrong with them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.faults = folder, list[str]()

    def read_object(self, name: str, *, required: bool = False) -> dict[str, Any]:
        """Return a JSON object; empty if it is not there or damaged."""
        text = self._read(name, required=required)
        if text is None:
            return {}
        try:
            value = parse_object(text)
            check_record(name, value)
        except ValueError as error:
            self._note(name, error)
            return {}
        return value

    def read_records(self, *, required: bool) -> tuple[Mapping[str, Any], ...]:
        """Return the records of the epochs."""
        name = "metrics.jsonl"
        text = self._read(name, required=required)
        try:
            records = tuple(map(parse_object, (text or b"").splitlines()))
            for record in records:
                check_record(name, record)
        except ValueError as error:
            self._note(name, error)
            return ()
        return records

    def read_settings(self, *, required: bool) -> dict[str, Any]:
        """Return the effective preset, whatever it names: a schedule may be registered by code that is not here."""
        text = self._read(PRESET, required=required)
        if text is None:
            return {}
        document = read_yaml(text.decode(errors="replace"))
        if document.problems or not isinstance(document.value, dict):
            first = [f"line {problem.line}: {problem.text}" for problem in document.problems[:1]]
            self._note(PRESET, ValueError(*first or ["it is no preset"]))
            return {}
        said = {str(key): value for key, value in document.value.items()}
        return read_defaults() | {FORMER.get(key, key): value for key, value in said.items()}

    def _read(self, name: str, *, required: bool) -> bytes | None:
        path = self.folder / name
        if not os.path.lexists(path):
            if required:
                self.faults.append(f"{name} is missing")
            return None
        try:
            return read_regular(path, max_bytes=MAX_BYTES)
        except (OSError, ZooError) as error:
            self._note(name, error)
            return None

    def _note(self, name: str, error: Exception) -> None:
        self.faults.append(f"{name} cannot be read: {str(getattr(error, 'strerror', None) or error).rstrip('.')}")


@cache
def read_defaults() -> dict[str, Any]:
    """Return the default of each field of a preset as a file says it."""
    values: dict[str, Any] = read_yaml(Preset().to_yaml(full=True)).value
    return values
