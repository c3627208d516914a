"""`zoo data`: look at data with boxes before anything is trained on it."""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from zoo._text import clean, echo
from zoo.files import dump_json

if TYPE_CHECKING:
    from zoo.tasks.detection import BoxReport

COLOURS = {"error": "red", "warning": "yellow", "note": "dim"}

app = typer.Typer(name="data", help="Check images with boxes before training.", no_args_is_help=True)


@app.callback()
def _data() -> None:
    """Check images with boxes before training."""  # typer makes a group of a single command only if there is this


@app.command()
def check(
    path: Annotated[
        str, typer.Argument(help="A folder in the layout of Pascal VOC, COCO or YOLO, or its data.yaml; or of classes.")
    ],
    split: Annotated[str, typer.Option(help="Look at one split only: train, val or test.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print everything found as data.")] = False,
) -> None:
    """Hold boxes against their images: counts, and everything that is odd, with file and line.

    Of a folder with a folder for each class, the images are checked. Every image is decoded. The exit code is 1 if
    data would be lost: what --skip-bad would leave out.

    \b
    Examples:
      zoo data check cells
      zoo data check cells/data.yaml --split val
      zoo data check cells --json
    """  # noqa: D301
    from zoo.progress import Progress
    from zoo.tasks.detection import check_box_data
    from zoo.tasks.detection.formats import NoBoxesError

    try:
        with Progress(enabled=not as_json) as show, show.counting("checking images") as count:
            report = check_box_data(path, only=split or None, on_progress=count)
    except NoBoxesError:
        if not _has_classes(path):
            raise
        _check_classes(path, split, as_json)
        return
    if as_json:
        echo(dump_json(report.to_dict(), indent=1), lines=True)
    else:
        _print(report)
    if report.errors:
        raise typer.Exit(1)


def _has_classes(path: str) -> bool:
    from zoo.data import scan_folder
    from zoo.errors import DataError
    from zoo.files import to_path

    try:
        return bool(scan_folder(to_path(path)))
    except DataError:
        return False


def _check_classes(path: str, split: str, as_json: bool) -> None:
    """Check the images of a folder with a folder for each class."""
    from zoo.progress import Progress
    from zoo.tasks.classification import open_data

    with Progress(enabled=not as_json) as show, show.counting("checking images") as count:
        data = open_data(path, skip_bad=True, only=split or None, evaluation=bool(split), on_progress=count)
    found = data.describe()
    if as_json:
        echo(dump_json(found, indent=1), lines=True)
    else:
        echo(f"folders of classes, without boxes: {data.source}")
        counts = found["counts"]
        rows = [{"class": name} | {key: f"{of[name]:,}" for key, of in counts.items()} for name in data.classes]
        Progress().table(rows, title="images", totals={"class": "all"} | _sums(counts))
        for problem in data.skipped:
            echo(f"cannot be used: {problem.name}: {problem.reason}")
        for problem in data.remarks:
            echo(f"odd: {problem.name}: {problem.reason}")
        echo(f"{len(data.skipped):,} images cannot be used" if data.skipped else "every image can be used")
    if data.skipped:
        raise typer.Exit(1)


def _sums(counts: Mapping[str, Mapping[str, int]]) -> dict[str, str]:
    return {split: f"{sum(of.values()):,}" for split, of in counts.items()}


def _print(report: "BoxReport") -> None:
    from zoo.progress import Progress

    echo(f"{report.form}, {report.where}")
    if report.splits:
        Progress().table(report.rows(), title="boxes and images", totals=report.totals())
    if report.class_map:
        numbers = {name: number for number, name in enumerate(report.classes)}
        rows = [
            {"in the data": str(key), "number": str(numbers[name]), "class": name} for key, name in report.class_map
        ]
        Progress().table(rows, title="classes")
    _print_findings(report)
    counts = Counter(finding.level for finding in report.findings)
    told = [f"{count:,} {level}{'s' * (count > 1)}" for level, count in counts.items()]
    echo(", ".join(told) or "nothing odd was found")


def _print_findings(report: "BoxReport") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table
    from rich.text import Text

    from zoo._console import table_console

    head = (
        Column("level", no_wrap=True),
        Column("count", justify="right", no_wrap=True),
        Column("found", max_width=26),
    )
    table = Table(*head, Column("where first, and what there", overflow="fold"), box=SIMPLE_HEAD)
    for group in report.groups():
        what = "\n".join(map(clean, [*group.first_places, group.findings[0].text]))
        cells = (f"{len(group.findings):,}", clean(group.kind), what)
        table.add_row(Text(group.level, style=COLOURS[group.level]), *map(Text, cells))
    if table.row_count:
        table_console().print(table)
