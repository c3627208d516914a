"""`zoo data`: look at data with boxes before anything is trained on it."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo._text import clean, echo

from .check_classes import check_classes
from .command_line import Command, Group
from .completion import complete_run
from .listing import AsJson, print_json, print_table
from .preset_options import ImageRoot, ImageSize, MultiLabel
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
# Long: an option takes several lines.
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
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Also find wrong labels and outliers, by the features of this model or run.",
            show_default="none",
            autocompletion=complete_run,
        ),
    ] = None,
    image_size: ImageSize = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="For --model: auto, cpu, cuda or mps.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FOLDER", help="Write suspects.csv and suspects.png.", show_default="none"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a data set for broken files, copies, leaks and wrong labels.

    Every image is decoded. Annotation errors are shown with file and line. Images of classes are compared with one
    another; with --model their labels are checked too. Nothing is deleted or moved. The exit code is 1 if something
    cannot be used: what zoo finetune --skip-bad would leave out.

    \b
    Examples:
      zoo data check cells
      zoo data check flowers
      zoo data check flowers --model resnet18 -o checked
      zoo data check labels.csv --image-root photos
      zoo data check cells/data.yaml --split val
      zoo data check cells --json
    """  # noqa: D301
    from zoo.data import is_table
    from zoo.errors import InputError
    from zoo.files import to_path
    from zoo.progress import Progress
    from zoo.tasks.detection import check_box_data
    from zoo.tasks.detection.formats import NoBoxesError

    labels = "multi" if multi_label else "single"
    wanted: dict[str, Any] = {"model": model, "image_size": image_size, "device": device}
    opening: dict[str, Any] = {"image_root": image_root, "labels": labels}
    if split:
        opening |= {"only": split, "evaluation": True}
    is_classes = multi_label or image_root is not None or is_table(to_path(path)) or model is not None
    if is_classes:
        check_classes(path, out, as_json, **wanted, **opening)
        return
    try:
        with Progress(enabled=not as_json) as show, show.counting("checking images") as count:
            report = check_box_data(path, only=split or None, on_progress=count)
    except NoBoxesError:
        if not _has_classes(path):
            raise
        check_classes(path, out, as_json, **wanted, **opening)
        return
    if out is not None:
        raise InputError("--out writes the suspects among images of classes; this data has boxes. Leave it out.")
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
