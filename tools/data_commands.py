"""`zoo data`: look at data with boxes before anything is trained on it."""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo._text import clean, echo

from .command_line import Command, Group
from .listing import AsJson, print_json, print_table
from .preset_options import ImageRoot, MultiLabel
from .split_command import split

if TYPE_CHECKING:
    from zoo.tasks.detection import BoxReport

COLOURS = {"error": "red", "warning": "yellow", "note": "dim"}

app = typer.Typer(name="data", cls=Group, help="Check or split a data set before training.", no_args_is_help=True)


@app.callback()
def _data() -> None:
    """Check or split a data set before training."""


app.command(cls=Command)(split)


@app.command(cls=Command)
def check(
    path: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A folder of Pascal VOC, COCO or YOLO, its data.yaml, a folder of classes, or a table of images.",
        ),
    ],
    split: Annotated[
        str, typer.Option(metavar="NAME", help="Check one split only: train, val or test.", show_default="all")
    ] = "",
    image_root: ImageRoot = None,
    multi_label: MultiLabel = False,
    as_json: AsJson = False,
) -> None:
    """Check a data set: images per class, unreadable files, wrong boxes.

    Every image is decoded. Annotation errors are shown with file and line. The exit code is 1 if something cannot be
    used: what zoo finetune --skip-bad would leave out.

    \b
    Examples:
      zoo data check cells
      zoo data check flowers
      zoo data check labels.csv --image-root photos
      zoo data check cells/data.yaml --split val
      zoo data check cells --json
    """  # noqa: D301
    from zoo.data import is_table
    from zoo.files import to_path
    from zoo.progress import Progress
    from zoo.tasks.detection import check_box_data
    from zoo.tasks.detection.formats import NoBoxesError

    labels = "multi" if multi_label else "single"
    if multi_label or image_root is not None or is_table(to_path(path)):
        _check_classes(path, split, as_json, image_root, labels)
        return
    try:
        with Progress(enabled=not as_json) as show, show.counting("checking images") as count:
            report = check_box_data(path, only=split or None, on_progress=count)
    except NoBoxesError:
        if not _has_classes(path):
            raise
        _check_classes(path, split, as_json, image_root, labels)
        return
    if as_json:
        print_json(report.to_dict())
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


def _check_classes(path: str, split: str, as_json: bool, image_root: str | None, labels: str) -> None:
    """Check the images of a folder with a folder for each class, or of a table."""
    from zoo.progress import Progress
    from zoo.tasks.classification import open_data

    with Progress(enabled=not as_json) as show, show.counting("checking images") as count:
        options: dict[str, Any] = {
            "only": split or None,
            "evaluation": bool(split),
            "image_root": image_root,
            "labels": labels,
        }
        data = open_data(path, skip_bad=True, on_progress=count, **options)
    found = data.describe()
    if as_json:
        print_json(found)
    else:
        echo(f"{'tables' if data.notes else 'folders'} of classes, without boxes: {data.source}")
        for note in data.notes:
            echo(note)
        counts = found["counts"]
        rows = [{"class": name} | {key: f"{of[name]:,}" for key, of in counts.items()} for name in data.classes]
        images = found.get("images")  # where they are not as many as the labels
        totals = {key: f"{count:,}" for key, count in images.items()} if images else _sums(counts)
        print_table(rows, "images", totals={"class": "images" if images else "all"} | totals)
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
    echo(f"{report.form}, {report.where}")
    if report.splits:
        secondary, in_full = report.secondary, "zoo data check --json"
        print_table(report.rows(), "boxes and images", totals=report.totals(), secondary=secondary, in_full=in_full)
    if report.class_map:
        numbers = {name: number for number, name in enumerate(report.classes)}
        rows = [
            {"in the data": str(key), "number": str(numbers[name]), "class": name} for key, name in report.class_map
        ]
        print_table(rows, "classes")
    _print_findings(report)
    counts = Counter(finding.level for finding in report.findings)
    told = [f"{count:,} {level}{'s' * (count > 1)}" for level, count in counts.items()]
    echo(", ".join(told) or "no problems found")


def _print_findings(report: "BoxReport") -> None:
    """Print each kind of finding with its first places, and the text of the first one."""
    from rich.text import Text

    from zoo.progress import Progress

    show = Progress()
    for group in report.groups():
        count = f"{len(group.findings):,} × " if len(group.findings) > 1 else ""
        show.print(Text.assemble((group.level, COLOURS[group.level]), f": {count}{clean(group.kind)}"))
        first, *others = [finding.place for finding in group.findings[:1]] + group.first_places[1:]
        show.log(f"  {first}: {group.findings[0].text}" if first else f"  {group.findings[0].text}")
        if others:
            show.log(f"  also in {', '.join(others)}")
