"""`zoo report`: a run on one page."""

from pathlib import Path
from typing import Annotated

import typer

from zoo._text import echo
from zoo.errors import InputError
from zoo.files import tell_missing, to_path

from .completion import complete_run_folder


def report(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder of a run.", autocompletion=complete_run_folder)
    ],
) -> None:
    """Write report.html: a whole run on one page.

    Every finished run has the page already; this writes it anew, or for a run that is unfinished or of an earlier
    version. It is one file that loads nothing and runs no script. It shows images of the data and paths of this
    machine.

    \b
    Example:
      zoo report runs/flowers
    """  # noqa: D301
    from zoo.training import summarize_run, write_report

    folder = to_path(run)
    if not folder.is_dir() or summarize_run(folder) is None:
        what = "is not a run folder" if folder.exists() else "does not exist"
        raise InputError(f"{tell_missing(str(run)) or f'{str(run)!r} {what}.'} zoo runs lists all runs.")
    echo(f"report: {write_report(folder)}")
