"""What commands list: a table for people, or JSON for programs, alone on standard output."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from zoo._text import echo
from zoo.files import dump_json

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def print_json(value: Any) -> None:
    """Print plain values as JSON."""
    echo(dump_json(value, indent=1), lines=True)


def print_table(
    rows: Sequence[Mapping[str, str]],
    title: str,
    *,
    totals: Mapping[str, str] | None = None,
    secondary: Sequence[str] = (),
    in_full: str = "a wider terminal",
) -> None:
    """Print a table that fits the terminal; the arguments are those of `zoo.progress.Progress.table`."""
    from zoo.progress import Progress

    Progress().table(rows, title=title, totals=totals, secondary=secondary, in_full=in_full)
