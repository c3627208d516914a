"""`zoo data split`: draw labelled images into train, val and test, and write that down as a table."""

from pathlib import Path
from typing import Annotated, Any

import typer

from zoo._text import echo
from zoo.errors import DataError, InputError

from .listing import print_table
from .preset_options import ImageRoot, MultiLabel


# Long: an option takes several lines.
def split(
    path: Annotated[
        str, typer.Argument(metavar="DATA", help="A folder of class folders without splits, or a table of images.")
    ],
    val: Annotated[float, typer.Option(metavar="SHARE", help="Share of the images for validation.")] = 0.2,
    test: Annotated[float, typer.Option(metavar="SHARE", help="Share of the images for the test.")] = 0.0,
    stratified: Annotated[
        bool, typer.Option("--stratified", help="Give each class the same shares in each split.")
    ] = False,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Keep images together in whose paths this finds the same text, such as 'patient[0-9]+'; with "
            "parentheses, the same text in the first of them.",
            show_default="the column 'group' of a table",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the draw.")] = 0,
    image_root: ImageRoot = None,
    multi_label: MultiLabel = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="The table.", show_default="NAME-split.csv beside DATA"),
    ] = None,
) -> None:
    """Draw images into splits: writes a table, moves nothing.

    The table has the columns image, label, split and, with groups, group; zoo finetune trains on it. The same images,
    shares and seed give the same table.

    \b
    Examples:
      zoo data split flowers --val 0.2 --test 0.1 --stratified
      zoo data split scans --stratified --group-by '(patient[0-9]+)'
      zoo data split labels.csv --image-root photos --seed 1 -o labels-1.csv
    """  # noqa: D301
    from zoo.files import to_path
    from zoo.tasks.classification import draw_split_table

    data = to_path(path).absolute()
    target = data.with_name(f"{data.stem if data.is_file() else data.name}-split.csv") if out is None else out
    options: dict[str, Any] = {"stratified": stratified, "group_by": group_by, "seed": seed, "image_root": image_root}
    options["labels"] = "multi" if multi_label else "single"
    _refuse_boxes(path)
    table = draw_split_table(path, {"val": val, "test": test}, **options)
    is_beside = table.write(target)
    counts = table.count()
    rows = [{"class": name} | {split: f"{of[name]:,}" for split, of in counts.items()} for name in table.classes]
    print_table(rows, "images", totals={"class": "all"} | {split: f"{of['']:,}" for split, of in counts.items()})
    if table.groups is not None:
        echo(f"groups: {len(set(table.groups)):,}, each in one split")
    echo(f"written: {target}")
    root = "" if is_beside else f" --image-root {table.root}"
    echo(f"train on it with: zoo finetune MODEL {target}{root}")


def _refuse_boxes(path: str) -> None:
    """Say that data with boxes is not split here, if it is such data."""
    from zoo.tasks.detection.formats import read_box_folder

    try:
        form = read_box_folder(path).form
    except (DataError, InputError):
        return
    raise InputError(
        f"{path} has boxes ({form}), which zoo data split does not split yet. zoo finetune holds out a fifth of the "
        "images where there is no val split (--set val_fraction=0.2)."
    )
