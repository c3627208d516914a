"""`zoo extend`: more classes for a finished run, and what it forgets of the old ones."""

from pathlib import Path
from typing import Annotated, Any

import typer

import zoo
from zoo._text import echo

from .completion import complete_run_folder
from .listing import AsJson, print_json


def extend(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="The folder of a finished run.", autocompletion=complete_run_folder),
    ],
    data: Annotated[str, typer.Argument(metavar="DATA", help="Images of new classes; and of old ones, if any.")],
    old_data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="The data of the run, if it is not where the run found it."),
    ] = None,
    keep_rows: Annotated[
        bool, typer.Option("--keep-rows", help="Keep the head's rows of old classes, bit for bit; solve new rows only.")
    ] = False,
    max_drop: Annotated[
        float,
        typer.Option(metavar="POINTS", help="Points of top-1 that old classes may lose; else nothing is written."),
    ] = 1.0,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FOLDER", help="Where the model goes.", show_default="a new one in runs/"),
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or mps.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Add classes to a finished classifier.

    The backbone stays as it is. The linear head is solved again for old and new classes, with the cached features of
    the run's data; where that data is gone, or with --keep-rows, only the rows of new classes are. The forgetting
    report shows top-1 of each class before and after, and how many images are taken for a class across the line.

    \b
    Examples:
      zoo extend runs/pets new_pets
      zoo extend runs/pets new_pets --keep-rows --max-drop 0.5 -o runs/more_pets
      zoo extend runs/pets new_pets --old-data /mnt/pets
    """  # noqa: D301
    options: dict[str, Any] = {"old_data": old_data, "keep_rows": keep_rows, "max_drop": max_drop}
    found = zoo.extend(run, data, out=out, device=device, progress=not as_json, **options)
    if as_json:
        facts = {"folder": str(found.folder), "kept_rows": found.kept_rows, "l2": found.l2}
        print_json(facts | {"max_drop": max_drop} | found.forgetting.to_dict())
        return
    echo(str(found.forgetting))
    echo(f"written to {found.folder}")
