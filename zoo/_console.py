"""Where tables and bars are printed: a console of rich, whose output may be lost without ending what runs.

A table fits its terminal: the first column names the rows and is never cut, secondary columns are left out, and where
even that is not enough, each row becomes a few lines.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import UnsupportedOperation
from typing import Any, NamedTuple, TextIO, TypeAlias, cast

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from zoo.errors import StorageError

GAPS = (3, 2)  # blanks between two columns, where there is room and where there is not
READABLE, READABLE_NAME = 24, 40  # letters: sentences, and long names, are not squeezed below that
NUMBER = re.compile(r"[-+<]? ?[\d.,]+(e[-+]?\d+)?( ?(%|M|MB|px))?|-")

Rows: TypeAlias = Sequence[Mapping[str, str]]


class Columns(NamedTuple):
    """The columns of a table that fit.

    Attributes:
        widths: Letters of each column that is shown, by its name.
        gap: Blanks between two of them.
        left_out: Names of the columns for which there is no room.
    """

    widths: dict[str, int]
    gap: int
    left_out: tuple[str, ...] = ()


def lay_out_table(
    rows: Rows,
    totals: Mapping[str, str] | None,
    *,
    console: Console,
    secondary: Sequence[str],
    clean: Callable[[str], str],
) -> tuple[list[Text], tuple[str, ...]]:
    """Return the lines of a table, and the columns for which there is no room.

    Args:
        rows: From column to text.
        totals: A last row, set apart.
        console: Whose width a table on a terminal has to fit; elsewhere a line is as long as it has to be.
        secondary: Columns that may be left out, the least important first.
        clean: Makes a text one that the console can print.
    """
    rows = [{clean(name): clean(text) for name, text in row.items()} for row in rows]
    totals = None if totals is None else {clean(name): clean(text) for name, text in totals.items()}
    everything = rows if totals is None else [*rows, totals]
    columns = fit_columns(everything, secondary=secondary, room=console.width if console.is_interactive else None)
    if columns is None:
        return list(draw_records(everything, console.width)), ()
    width = sum(columns.widths.values()) + columns.gap * len(columns.widths)
    lines = []
    table, options = draw_table(rows, columns, totals), console.options.update(width=width)
    for segments in console.render_lines(table, options, pad=False):
        lines.append(Text.assemble(*((segment.text, segment.style or "") for segment in segments)))
        lines[-1].rstrip()
    return lines, columns.left_out


def fit_columns(rows: Rows, *, secondary: Sequence[str] = (), room: int | None) -> Columns | None:
    """Choose what of a table fits; no name of a row, no number and no word is cut.

    Args:
        rows: From column to text; the columns of the first row, and of each row what the others lack.
        secondary: Columns that may be left out, the least important first.
        room: Letters of a line; None: as many as it takes.

    Returns:
        The columns; None if even the important ones do not fit side by side.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    wanted = {name: max(map(cell_len, (name, *_texts(rows, name)))) for name in names}
    if room is None:
        return Columns(wanted, GAPS[0])
    least = {name: _least_width(name, _texts(rows, name), READABLE) for name in names[1:]}
    least = {name: _least_width(name, _texts(rows, name), READABLE_NAME) for name in names[:1]} | least

    def spare(shown: Sequence[str], gap: int) -> int:
        return room - sum(least[name] for name in shown) - gap * (len(shown) - 1)

    kept, dropped = names, [name for name in secondary if name in names]
    left_out: list[str] = []
    while spare(kept, GAPS[-1]) < 0:
        if not dropped:
            return None
        left_out.append(dropped.pop(0))
        kept = [name for name in names if name not in left_out]
    for name in left_out[::-1]:  # a wide column that went last may have made room for others
        wider = [other for other in names if other in kept or other == name]
        kept = wider if spare(wider, GAPS[-1]) >= 0 else kept
    gap = next(gap for gap in GAPS if spare(kept, gap) >= 0)
    widths = _share_out(spare(kept, gap), {name: least[name] for name in kept}, wanted)
    return Columns(widths, gap, tuple(name for name in names if name not in kept))


def draw_table(rows: Rows, columns: Columns, totals: Mapping[str, str] | None) -> Table:
    """Return the table of the columns that fit."""
    padding = (0, 1) if columns.gap == GAPS[0] else (0, 1, 0, 0)
    shows_totals = totals is not None
    table = Table(box=box.SIMPLE, padding=padding, pad_edge=False, show_edge=False, show_footer=shows_totals)
    table.header_style = "dim"
    for name, width in columns.widths.items():
        texts = _texts(rows, name)
        numeric = bool(texts) and all(NUMBER.fullmatch(text) for text in texts)
        table.add_column(
            Text(name),
            footer=Text((totals or {}).get(name, ""), style="bold"),
            justify="right" if numeric else "left",
            overflow="fold",
            width=width,
        )
    for row in rows:
        table.add_row(*(Text(row.get(name, "")) for name in columns.widths))
    return table


def draw_records(rows: Rows, room: int) -> Iterator[Text]:
    """Yield the lines of rows that are too wide for a table: the name of each, and below it what else it has."""
    for row in rows:
        (_, title), *facts = row.items()
        yield from Text(title, style="bold").wrap(Console(width=room), room, overflow="fold")
        line = Text()
        for name, text in facts:
            fact = Text.assemble((name, "dim"), " ", text)
            if text and line and line.cell_len + fact.cell_len + GAPS[0] > room - 2:
                yield from _indent(line, room)
                line = Text()
            if text:
                line = Text.assemble(line, " " * GAPS[0], fact) if line else fact
        yield from _indent(line, room)


def _texts(rows: Rows, name: str) -> list[str]:
    return [row[name] for row in rows if row.get(name)]


def _least_width(name: str, texts: Sequence[str], readable: int) -> int:
    """Return how narrow a column may be: a number is in one piece, a sentence is broken between its words."""
    if all(NUMBER.fullmatch(text) for text in texts):
        return max(map(cell_len, (*name.split(), *texts)))
    words = (word for text in (name, *texts) for word in text.split())
    return max(max(map(cell_len, words)), min(readable, max(map(cell_len, texts))))


def _share_out(spare: int, least: dict[str, int], wanted: Mapping[str, int]) -> dict[str, int]:
    """Widen columns as far as there is room, those that lack least first."""
    widths, waiting = dict(least), len(least)
    for name in sorted(least, key=lambda name: wanted[name] - least[name]):
        more = min(max(wanted[name] - least[name], 0), spare // waiting)
        widths[name] += more
        spare, waiting = spare - more, waiting - 1
    return widths


def _indent(line: Text, room: int) -> Iterator[Text]:
    for part in line.wrap(Console(width=room), max(room - 2, 1), overflow="fold"):
        part.rstrip()
        yield Text.assemble("  ", part)


class Output:
    """A stream whose loss may be borne.

    Args:
        stream: Where it goes; None: nowhere, as in a program without a console.

    Attributes:
        may_be_lost: Whether an error is kept in `lost` instead of raised.
        lost: The last error that was borne.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.may_be_lost = False
        self.lost: OSError | None = None

    @property
    def encoding(self) -> str:
        """What its letters become."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        """Return the number that the system knows it by."""
        if self._stream is None:
            raise UnsupportedOperation("fileno")
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write a text; return its length, as if it had been written, where the loss is borne."""
        with self._bearing_loss():
            if self._stream is not None:
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Hand everything to the system."""
        with self._bearing_loss():
            if self._stream is not None:
                self._stream.flush()

    @contextmanager
    def _bearing_loss(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if self.may_be_lost:
                self.lost = error
            elif isinstance(error, BrokenPipeError):
                raise
            else:
                raise StorageError(f"the output cannot be written: {error.strerror or error}.") from error


class BearingConsole(Console):
    """Raises what its stream raises, where rich would end the program.

    Args:
        output: Where it prints.
        options: Of rich.
    """

    def __init__(self, output: Output, **options: Any) -> None:
        super().__init__(file=cast(TextIO, output), **options)

    def on_broken_pipe(self) -> None:
        """Let the error pass."""
        raise  # it is called while the error is handled
