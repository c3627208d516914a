"""Logs a run to the experiment trackers that its preset names, through accelerate's `accelerate.tracking`.

One metric has one name in all of them, that of `metrics.jsonl`, and stands at its epoch. A tracker that fails is told
once and left alone from then on; the run and the other trackers go on. Weights are not sent: they are large, and not
every licence lets them be handed to a service.
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from zoo.files import read_object
from zoo.settings import TRACKERS
from zoo.training.loggers._services import SERVICES, Service
from zoo.training.loggers.base import Logger, RunFacts, RunResult
from zoo.training.report import REPORT

KEYS = "trackers.json"  # what each tracker knows the run by, so that a resumed run goes on there
FILES = (
    "preset.yaml",
    "config.json",
    "plan.json",
    "data.json",
    "metrics.jsonl",
    "evaluation.json",
    "proof.json",
    REPORT,
)
MOST_LETTERS = 200  # of the reason why a tracker failed
COUNTERS = {"epoch", "epochs", "step", "seconds_left"}  # of a record: no metrics


class Trackers(Logger):
    """Sends settings, plan, metrics, plots and records to each tracker."""

    order = 86  # after the plots and the report, which it sends

    @classmethod
    def is_enabled(cls, facts: RunFacts) -> bool:
        """Follow runs whose preset names a tracker."""
        return bool(facts.preset.log)

    def start(self, facts: RunFacts) -> None:
        """Open a run in each tracker, or go on with the one that was begun."""
        self.facts, self.services = facts, dict[str, Service]()
        keys = _read_keys(facts.folder.path)
        values = describe_run(facts)
        for name in facts.preset.log:
            self._survive(name, "could not start", self._open, name, keys.get(name))
            if name in self.services and name not in keys:
                self._survive(name, "failed", self.services[name].configure, values)
        found = {name: service.key for name, service in self.services.items() if service.key}
        if found:
            facts.folder.write_json(KEYS, keys | found)

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Log the metrics of an epoch."""
        values = name_metrics(record)
        for name, service in list(self.services.items()):
            self._survive(name, "failed", service.log, values, record["epoch"])

    def finish(self, result: RunResult) -> None:
        """Log the final scores, plots and files, and close the trackers' runs."""
        folder, epoch = self.facts.folder.path, len(result.records)
        for name, service in list(self.services.items()):
            if result.status == "finished" and not self.facts.is_stopping():
                self._survive(name, "failed", _send_results, service, folder, result, epoch)
        self.close()

    def close(self) -> None:
        """Close the runs that are still open in trackers, also if the run has failed."""
        for name, service in list(self.services.items()):
            self._survive(name, "could not be closed", service.finish)
        self.services = {}

    def _open(self, name: str, key: str | None) -> None:
        service = SERVICES[name](self.facts.folder.path, key)
        self.services[name] = service
        service.key = service.find_key()

    def _survive(self, name: str, what: str, call: Callable[..., None], *args: Any) -> None:
        """Call; if it fails, say so, and leave the tracker alone from then on."""
        try:
            call(*args)
        except (Exception, SystemExit) as error:  # some trackers end the program where they find no account
            reason = str(error).strip().partition("\n")[0].rstrip(".")[:MOST_LETTERS] or type(error).__name__
            self.facts.show.log(f"warning: {TRACKERS[name].title} {what}: {reason}. The run goes on without it.")
            with suppress(Exception, SystemExit):  # what stays open would be taken for the user's by the next run
                self.services.pop(name).finish()


def name_metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of an epoch's record by the names that they have in every tracker."""
    values = {name: value for name, value in record.items() if type(value) in (int, float) and name not in COUNTERS}
    return values | {f"lr/{_clean(group)}": rate for group, rate in record["lr"].items()}


def describe_run(facts: RunFacts) -> dict[str, str]:
    """Return the settings and the plan of a run as texts by name."""
    settings: dict[str, Any] = facts.preset.model_dump()
    values = {
        name: value if isinstance(value, str) else json.dumps(value, default=str) for name, value in settings.items()
    }
    for group in facts.plan.groups if facts.plan else ():
        rate = "" if group.frozen else f", lr {group.full_lr:g}, weight decay {group.weight_decay:g}"
        values[f"plan/{_clean(group.name)}"] = f"{group.state}, {group.parameters:,} parameters{rate}"
    return values


def _send_results(service: Service, folder: Path, result: RunResult, epoch: int) -> None:
    if result.evaluation is not None:
        scores = {f"final/{name}": value for name, value in result.evaluation.record().items() if value is not None}
        service.log(scores, epoch)
    for path in sorted((folder / "pictures").glob("*.png")):
        service.log_image(f"plots/{path.stem}", path, epoch)
    service.log_files([folder / name for name in FILES if (folder / name).is_file()])


def _clean(name: str) -> str:
    """Return the name of a group in letters that every tracker takes."""
    return re.sub(r"[^\w./-]+", "_", name, flags=re.ASCII).strip("_")


def _read_keys(folder: Path) -> dict[str, str]:
    try:
        found = read_object(folder / KEYS)
    except (OSError, ValueError):
        return {}
    return {name: key for name, key in found.items() if isinstance(key, str)}


LOGGER = Trackers
