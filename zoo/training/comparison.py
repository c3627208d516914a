"""What tells several runs apart: their settings and scores, and the spread of runs that differ only in their seed."""

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.errors import InputError
from zoo.files import dump_json
from zoo.training.run_summary import RunSummary

SEEDS = ("seed", "init_seed", "split_seed")


@dataclass(frozen=True)
class Spread:
    """The scores of finished runs that differ only in their seed.

    Attributes:
        runs: Two or more.
        scores: Mean and sample standard deviation of each score that all of them have.
    """

    runs: tuple[RunSummary, ...]
    scores: Mapping[str, tuple[float, float]]


def check_comparable(runs: Sequence[RunSummary]) -> None:
    """Refuse runs that have nothing to compare.

    Raises:
        InputError: One is damaged or took no step, or they are of different tasks.
    """
    for run in runs:
        if run.status == "damaged":
            raise InputError(f"the run in {run.folder} is damaged: {run.problem}.")
        if run.status == "not started":
            raise InputError(f"the run in {run.folder} was stopped before its first step: it has no scores.")
    tasks = {run.task: run.folder for run in runs}
    if len(tasks) > 1:
        told = ", ".join(f"{folder} ({task})" for task, folder in tasks.items())
        raise InputError(f"runs of different tasks have no score in common: {told}. Compare runs of one task.")


def find_differences(runs: Sequence[RunSummary]) -> dict[str, list[Any]]:
    """Return the settings that differ: the value in each run by the name of the field, dotted inside mappings.

    A key that a run does not have is None there.
    """
    flat = [dict(_flatten(run.settings)) for run in runs]
    fields = list(dict.fromkeys(name for run in runs for name in run.settings))
    names = dict.fromkeys(name for values in flat for name in values)
    names = dict.fromkeys(sorted(names, key=lambda name: fields.index(name.partition(".")[0])))
    found = {name: [values.get(name) for values in flat] for name in names}
    return {name: values for name, values in found.items() if len(set(map(dump_json, values))) > 1}


def find_spreads(runs: Sequence[RunSummary]) -> list[Spread]:
    """Return the scores of each group of finished runs whose settings and data differ only in their seed."""
    groups: dict[str, list[RunSummary]] = {}
    for run in runs:
        if run.status == "finished":
            settings = {name: value for name, value in run.settings.items() if name not in SEEDS}
            groups.setdefault(dump_json([settings, run.config.get("model"), *_describe_data(run)]), []).append(run)
    return [_measure(group) for group in groups.values() if len(group) > 1]


def tell_doubts(runs: Sequence[RunSummary]) -> Iterator[str]:
    """Yield what limits the comparison of scores, one sentence each."""
    images = [_validation_images(run) for run in runs]
    unknown = [str(run.folder) for run, known in zip(runs, images, strict=True) if known is None]
    if unknown:
        yield f"it is not recorded which validation images these runs were scored on: {', '.join(unknown)}"
    elif len({dump_json(known) for known in images}) > 1:
        yield "the runs were not scored on the same validation images, so a difference may come from the images"
    unfinished = [str(run.folder) for run in runs if run.status != "finished"]
    if unfinished:
        yield f"the scores of unfinished runs are those of their last scored epoch: {', '.join(unfinished)}"


def _measure(group: Sequence[RunSummary]) -> Spread:
    scores = [run.scores for run in group]
    shared = [key for key in scores[0] if key != "images" and all(key in other for other in scores)]
    columns = {key: [values[key] for values in scores] for key in shared}
    return Spread(
        tuple(group), {key: (statistics.fmean(values), statistics.stdev(values)) for key, values in columns.items()}
    )


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _describe_data(run: RunSummary) -> tuple[Any, ...]:
    """What tells the data of runs apart even where each seed makes a split of its own."""
    counts = run.data.get("counts")
    splits = [split for split in counts.values() if isinstance(split, dict)] if isinstance(counts, dict) else []
    total: Counter[str] = sum(map(Counter, splits), Counter())
    return run.data.get("source"), run.data.get("classes"), sorted(total.items())


def _validation_images(run: RunSummary) -> Any:
    """What tells the validation images of runs apart; None if their folders do not say."""
    files = run.data.get("files", {}).get("val")
    return sorted(files.items()) if files else run.data.get("digest")
