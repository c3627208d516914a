"""`zoo data check` of images of classes: what was counted and found, as tables and lines."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import zoo
from zoo._text import echo

from .listing import print_json, print_table

if TYPE_CHECKING:
    from zoo.analysis import DataCheck

MOST_SHOWN = 3  # images of one kind that are named


def check_classes(path: str, out: Path | None, as_json: bool, **options: Any) -> None:
    """Check the images of a folder with a folder for each class, or of a table; print what was found.

    Args:
        path: Of the data.
        out: Where suspects are written; None: nowhere.
        as_json: Whether to print JSON alone.
        options: Of `zoo.check_data`.
    """
    if isinstance(options.get("model"), str):
        from .places import load_model

        options["model"] = load_model(options["model"], device=options["device"])
    found = zoo.check_data(path, progress=not as_json, **{k: v for k, v in options.items() if v is not None})
    files = () if out is None else found.write(out)
    if as_json:
        print_json(found.to_dict())
    else:
        _print(found, files)
    if found.data.skipped:
        raise typer.Exit(1)


def _print(found: "DataCheck", files: Sequence[Path]) -> None:
    data = found.data
    counted = data.describe()
    echo(f"{'tables' if data.notes else 'folders'} of classes, without boxes: {data.source}")
    for note in [*data.notes, *found.notes]:
        echo(note)
    counts, images = counted["counts"], counted.get("images")  # where they are not as many as the labels
    rows = [{"class": name} | {split: f"{of[name]:,}" for split, of in counts.items()} for name in data.classes]
    totals = {split: f"{count:,}" for split, count in images.items()} if images else _sums(counts)
    print_table(rows, "images", totals={"class": "images" if images else "all"} | totals)
    for split, sizes in found.sizes.items():
        least, median, most = (f"{width} x {height}" for width, height in sizes)
        echo(f"{split}: images of {least} to {most} pixels, median {median}{_tell_balance(counts.get(split, {}))}")
    _print_findings(found)
    for problem in data.skipped:
        echo(f"cannot be used: {problem.name}: {problem.reason}")
    for problem in data.remarks:
        echo(f"odd: {problem.name}: {problem.reason}")
    echo(f"{len(data.skipped):,} images cannot be used" if data.skipped else "every image can be used")
    if files:
        echo(f"written: {', '.join(map(str, files))}")
    elif found.suspects:
        echo("--out FOLDER writes the suspects as a table and a sheet; zoo finetune --exclude leaves them out")


def _print_findings(found: "DataCheck") -> None:
    """Print a line for each kind of suspect and of odd image, with the first ones."""
    from zoo.analysis import ODD, REASONS

    for reason, text in REASONS.items():
        same = [suspect for suspect in found.suspects if suspect.reason == reason]
        shown = [f"{one.path}{f' ({one.given}; {one.likely}?)' if reason == 'label' else ''}" for one in same]
        shown = [f"{text} = {one.other}" if one.other else text for text, one in zip(shown, same, strict=True)]
        _print_some(text, shown)
    _print_some("near duplicates within a class", [f"{copy.first.name} ~ {copy.second.name}" for copy in found.near])
    for kind, names in found.odd.items():
        _print_some(f"odd, {kind} ({ODD[kind]})", names)


def _print_some(what: str, shown: Sequence[str]) -> None:
    if shown:
        more = ", ..." if len(shown) > MOST_SHOWN else ""
        echo(f"{what}: {len(shown):,}: {', '.join(shown[:MOST_SHOWN])}{more}")


def _tell_balance(counts: Mapping[str, int]) -> str:
    present = [count for count in counts.values() if count]
    if not present or max(present) == min(present):
        return ""
    return f"; the largest class has {max(present) / min(present):.3g} times the images of the smallest"


def _sums(counts: Mapping[str, Mapping[str, int]]) -> dict[str, str]:
    return {split: f"{sum(of.values()):,}" for split, of in counts.items()}
