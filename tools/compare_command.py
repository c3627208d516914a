"""`zoo compare`: what several runs have done differently, and what came of it."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo._text import echo
from zoo.errors import InputError
from zoo.files import tell_missing, to_path

from .completion import complete_run_folder
from .listing import AsJson, print_json, print_table
from .places import check_plot
from .runs_command import describe_epochs

if TYPE_CHECKING:
    from zoo.tasks import PairedTest
    from zoo.training import RunSummary, Spread

_COUNTS = {"images", "boxes"}


def compare(
    folders: Annotated[
        list[str],
        typer.Argument(metavar="RUN RUN...", help="Folders of runs.", autocompletion=complete_run_folder),
    ],
    plot: Annotated[
        Path | None,
        typer.Option("--plot", "--out", "-o", metavar="FILE.png", help="Also draw the curves of all runs."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare runs: the settings that differ, and the scores.

    Scores are those of the saved weights. Finished runs whose settings differ only in seed, init_seed or split_seed
    also get the mean and the sample standard deviation of each score.

    Each run is also compared with the first one on the validation images that both have scored: top-1 by McNemar's
    exact test, mAP50 by a paired bootstrap over the images. The 95 % interval is that of the difference for these
    weights; it does not tell how much another seed would change them.

    \b
    Examples:
      zoo compare runs/first runs/second
      zoo compare runs/* --plot curves.png
      zoo compare runs/first runs/second --json
    """  # noqa: D301
    from zoo.training import check_comparable, compare_with_first, find_differences, find_spreads, tell_doubts

    if plot is not None:
        plot = check_plot(to_path(plot))
    runs = _open(folders)
    check_comparable(list(runs.values()))
    found = list(runs.values())
    settings, spreads, paired = find_differences(found), find_spreads(found), list(compare_with_first(found))
    if as_json:
        print_json(
            {
                "runs": [run.to_dict() for run in found],
                "settings": {name: dict(zip(runs, values, strict=True)) for name, values in settings.items()},
                "seeds": [_spread_to_dict(spread) for spread in spreads],
                "paired": [_paired_to_dict(str(found[0].folder), str(run.folder), test) for run, test in paired],
                "notes": list(tell_doubts(found)),
            }
        )
    else:
        _print(runs, settings, spreads)
        _print_paired({id(run): name for name, run in runs.items()}, next(iter(runs)), paired)
        for doubt in tell_doubts(found):
            echo(f"note: {doubt}")
    if plot is not None:
        _draw(runs, plot)
        if not as_json:
            echo(f"plot: {plot}")


def _open(folders: Sequence[str]) -> "dict[str, RunSummary]":
    """Return the runs by their shortest names that differ."""
    from zoo.training import summarize_run

    paths = [to_path(folder) for folder in folders]
    if len({path.resolve() for path in paths}) < max(len(paths), 2):
        raise InputError("expected two different runs or more. For example: zoo compare runs/first runs/second")
    found = []
    for folder, path in zip(folders, paths, strict=True):
        run = summarize_run(path) if path.is_dir() else None
        if run is None:
            what = "is not a run folder" if path.exists() else "does not exist"
            raise InputError(f"{tell_missing(folder) or f'{folder!r} {what}.'} zoo runs lists all runs.")
        found.append(run)
    above = os.path.commonpath([path.resolve().parent for path in paths])
    return dict(zip((os.path.relpath(path.resolve(), above) for path in paths), found, strict=True))


def _print(
    runs: "Mapping[str, RunSummary]", settings: Mapping[str, Sequence[Any]], spreads: "Sequence[Spread]"
) -> None:
    if settings:
        rows = [
            {"setting": name} | {run: _format_value(value) for run, value in zip(runs, values, strict=True)}
            for name, values in settings.items()
        ]
        print_table(rows, "settings that differ", in_full="zoo compare --json")
    else:
        echo("no setting differs")
    echo()
    scores = [
        {"run": name, "status": run.status, "epochs": describe_epochs(run)}
        | {_label(run, key): _format_score(key, value) for key, value in run.scores.items()}
        for name, run in runs.items()
    ]
    print_table(scores, "scores", secondary=("boxes", "images", "epochs"), in_full="zoo compare --json")
    names = {id(run): name for name, run in runs.items()}
    for spread in spreads:
        told = ", ".join(names[id(run)] for run in spread.runs)
        rows = [
            {"score": _label(spread.runs[0], key), "mean": f"{mean:.4f}", "standard deviation": f"{deviation:.4f}"}
            for key, (mean, deviation) in spread.scores.items()
        ]
        echo()
        print_table(rows, f"{len(spread.runs)} runs that differ only in their seed: {told}")


def _print_paired(
    names: Mapping[int, str], first: str, paired: "Sequence[tuple[RunSummary, PairedTest | str]]"
) -> None:
    tests = [(run, test) for run, test in paired if not isinstance(test, str)]
    rows = [
        {
            "run": names[id(run)],
            "score": test.score,
            "difference": f"{test.difference:+.4f}",
            "95 % interval": f"{test.low:+.4f} to {test.high:+.4f}",
            "p": "-" if test.p is None else f"{test.p:.2g}",
            **{name: f"{count:,}" for name, count in test.counts.items()},
            "images": f"{test.images:,}",
        }
        for run, test in tests
    ]
    if rows:
        echo()
        secondary = ("images", *(tests[0][1].counts))
        print_table(rows, f"compared with {first} on the same images ({tests[0][1].method})", secondary=secondary)
    for run, why in paired:
        if isinstance(why, str):
            echo(f"note: {names[id(run)]} cannot be compared with {first} image by image: {why}")


def _paired_to_dict(first: str, second: str, test: "PairedTest | str") -> dict[str, Any]:
    named = {"first": first, "second": second}
    return named | ({"reason": test} if isinstance(test, str) else {**vars(test), "counts": dict(test.counts)})


def _spread_to_dict(spread: "Spread") -> dict[str, Any]:
    scores = {key: {"mean": mean, "standard_deviation": spent} for key, (mean, spent) in spread.scores.items()}
    return {"runs": [str(run.folder) for run in spread.runs], "scores": scores}


def _label(run: "RunSummary", key: str) -> str:
    from zoo.tasks import find_scores

    return find_scores().get(run.task, {}).get(key, key)


def _format_score(key: str, value: float) -> str:
    return f"{value:,}" if key in _COUNTS else f"{value:.4f}"


def _format_value(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _draw(runs: "Mapping[str, RunSummary]", plot: Path) -> None:
    from zoo.tasks import find_scores
    from zoo.training import draw_comparison

    task = next(iter(runs.values())).task
    score = next(iter(find_scores().get(task, {}).items()))
    draw_comparison({name: run.records for name, run in runs.items()}, plot, score=score)
