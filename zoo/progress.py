"""What a run says while it works: a bar on a terminal, and everywhere one line per epoch.

Nothing here runs in the background: a bar is drawn by the call that brings its news, at most five times a second, so
that a step that is not drawn costs well under a microsecond and no thread is alive when data workers are forked.

Output that cannot be written any more, because the disk is full or nobody reads it, never ends a run.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from types import MappingProxyType, TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from zoo._console import BearingConsole, Output, Rows, lay_out_table
from zoo._text import clean, warn

REDRAW_SECONDS = 0.2
BAR_COLUMNS = (8, 40)  # the narrowest bar worth drawing, and the widest
MOST_GROUPS = 4  # more learning rates than this are shown as a range
LONGEST_GROUP = 16  # letters of a group's name
GAP = "  "
SECONDARY = ("wait", "img/s", "left")  # what a narrow terminal leaves out of the line of an epoch, in this order
ACCURACY: Mapping[str, str] = MappingProxyType({"top1": "top-1"})


class Progress:
    """Says how a run goes; a context manager, so that no bar is left behind when the run fails.

    As a context manager it bears the loss of its output: what cannot be written is dropped, and told at the end on
    standard error. Else it raises what `zoo._text.echo` does.

    Args:
        enabled: False says nothing at all, for example in all processes but the first.
        console: Where to print; by default standard output. Bars are drawn only if it is a terminal.
        err: Print to standard error instead.
    """

    def __init__(self, *, enabled: bool = True, console: Console | None = None, err: bool = False) -> None:
        self._output = Output(sys.stderr if err else sys.stdout)
        self.console = console or _standard_output(self._output)
        self.enabled = enabled
        self._bars = enabled and self.console.is_interactive
        self._live: Live | None = None
        self._next_draw = 0.0
        self._has_run = False

    def __enter__(self) -> Self:
        self._output.may_be_lost = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()
        lost, self._output.lost = self._output.lost, None
        if lost is not None and (self._has_run or not isinstance(lost, BrokenPipeError)):
            reason = lost.strerror or lost
            warn(f"note: some of the output could not be written ({reason}); that did not stop the work")

    def log(self, text: str) -> None:
        """Print one line: no markup, no wrapping, and a line break in a name does not make a second one."""
        self.print(Text(self.clean(text)))

    def table(
        self,
        rows: Rows,
        *,
        title: str = "",
        totals: Mapping[str, str] | None = None,
        secondary: Sequence[str] = (),
        in_full: str = "a wider terminal",
    ) -> None:
        """Print rows of texts as a table; its columns are the keys, in the order in which they appear.

        The first column names the rows and is never cut. On a terminal that is too narrow the secondary columns are
        left out, then each row is printed as a few lines; elsewhere a line is as long as it has to be.

        Args:
            rows: One mapping per row, from column to text; a missing key leaves the cell empty.
            title: A line above the table.
            totals: A last row, set apart.
            secondary: Columns that may be left out, the least important first.
            in_full: What shows the columns that are left out, for example `zoo models --json`.
        """
        if not self.enabled:
            return
        lines, left_out = lay_out_table(rows, totals, console=self.console, secondary=secondary, clean=self.clean)
        for line in [Text(self.clean(title), style="bold")] * bool(title) + lines:
            self.print(line)
        if left_out:
            self.log(f"left out at this width: {', '.join(left_out)} (see {in_full})")

    @contextmanager
    def counting(self, description: str, total: int = 0, speed: str = "") -> Iterator[Callable[[int, int], None]]:
        """Show a bar for something that is counted, such as checking files; without a terminal, say only that it began.

        Args:
            description: What is being done, for example `checking images`.
            total: How many there are; 0 if that is not known yet.
            speed: The unit of the speed to show, such as `img/s`. Then nothing is said without a terminal, as what is
                done has lines of its own.

        Yields:
            A function to call with the number done and the total.
        """
        if not self._bars and not speed:
            self.log(f"{description} ({total:,})" if total else description)
        started = monotonic()

        def count(done: int, total: int) -> None:
            if self.is_due():
                facts = _describe_count(done, total, monotonic() - started, speed)
                self.draw(Text(self.clean(description)), done, total, facts)

        try:
            if total:
                count(0, total)
            yield count
        finally:
            self.clear()

    def start(
        self,
        epochs: int,
        start_epoch: int = 0,
        steps_per_epoch: int = 0,
        columns: Mapping[str, str] = ACCURACY,
    ) -> "EpochLines":
        """Return what shows the epochs of a run; the arguments are those of `EpochLines`."""
        self._has_run = True
        return EpochLines(self, epochs, start_epoch, steps_per_epoch, columns)

    def finish(self, facts: Mapping[str, str] | None = None) -> None:
        """End the run: take the bar away and print what came of it.

        Args:
            facts: Lines of a name and a text, for example `{"best": "epoch 8, top-1 87.3 %", "folder": "runs/3"}`.
        """
        self.clear()
        names = {name: self.clean(name) for name in facts or {}}
        width = max(map(len, names.values()), default=0)
        for name, text in (facts or {}).items():
            self.print(Text.assemble((f"{names[name]:<{width}}", "dim"), GAP, self.clean(text)))

    def is_due(self) -> bool:
        """Return whether to draw the bar now: there is a terminal, and the last drawing is a moment ago."""
        if not self._bars:
            return False
        now = monotonic()
        if now < self._next_draw:
            return False
        self._next_draw = now + REDRAW_SECONDS
        return True

    def draw(self, name: Text, done: int, total: int, facts: Sequence["_Cell"]) -> None:
        """Draw a bar with its name before it and facts behind it."""
        text = Text(GAP).join(fact.sentence() for fact in facts)
        room = self.console.width - name.cell_len - text.cell_len - 2 * len(GAP)
        line = Table.grid(padding=(0, len(GAP), 0, 0))
        if room >= BAR_COLUMNS[0]:
            width = min(room, BAR_COLUMNS[1])
            bar = ProgressBar(total or None, done, width=width, complete_style="cyan", finished_style="cyan")
            line.add_row(name, bar, text)
        else:
            line.add_row(Text.assemble(name, GAP, text, no_wrap=True, overflow="ellipsis"))
        if self._live is None:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(line, refresh=True)

    def clear(self) -> None:
        """Take the bar away."""
        live, self._live = self._live, None
        self._next_draw = 0.0
        if live is not None:
            live.stop()

    def clean(self, text: str) -> str:
        """Return a name with `?` for letters that the output cannot carry, or that would steer the terminal."""
        return clean(text).encode(self.console.encoding, "replace").decode(self.console.encoding)

    def print(self, line: Text) -> None:
        """Print a line above the bar."""
        if self.enabled:
            self.console.print(line, soft_wrap=True, highlight=False)


class EpochLines:
    """Shows the epochs of a run: a bar in each, and a line after it.

    Args:
        show: The terminal.
        epochs: Epochs of the whole run.
        start_epoch: Epochs that were done before, when a run is resumed.
        steps_per_epoch: Calls of `step` in one epoch; 0 draws no bar.
        columns: Scores in the line of an epoch: label by key of the record; the best of the first is marked.
    """

    def __init__(
        self, show: Progress, epochs: int, start_epoch: int, steps_per_epoch: int, columns: Mapping[str, str]
    ) -> None:
        self._show, self._columns = show, columns
        self._epochs, self._epoch, self._steps_per_epoch = epochs, start_epoch + 1, steps_per_epoch
        self._steps_before = start_epoch * steps_per_epoch
        self._started = monotonic()
        self._groups: dict[str, None] = {}  # names of the groups that have ever moved, in order
        self._widths: list[int] | None = None  # widths, once the lines have proved too long for the terminal
        self._best = float("-inf")

    def step(self, step: int, loss: float | None, images_per_second: float, waiting: float) -> None:
        """Move the bar of the epoch; nearly free, as it seldom draws.

        Args:
            step: Steps done in this epoch, from 1.
            loss: Training loss; None if it is not at hand.
            images_per_second: Speed of late.
            waiting: Share of the time spent waiting for data, from 0 to 1.
        """
        if not self._steps_per_epoch or not self._show.is_due():
            return
        done = (self._epoch - 1) * self._steps_per_epoch + step - self._steps_before
        still = self._epochs * self._steps_per_epoch - self._steps_before - done
        facts = [
            _Cell("", f"{step:>{len(str(self._steps_per_epoch))}}/{self._steps_per_epoch}"),
            _Cell("loss", _format_loss(loss)),
            _Cell("", f"{_format_speed(images_per_second):>5}", "img/s"),
            _Cell("data wait", f"{waiting:4.0%}".replace("%", " %"), title="wait"),
            _Cell("left", format_seconds((monotonic() - self._started) / max(done, 1) * still)),
        ]
        name = _Cell("epoch", f"{self._epoch:>{len(str(self._epochs))}}/{self._epochs}")
        self._show.draw(name.sentence(), step, self._steps_per_epoch, facts)

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Print the line of an epoch that is over.

        Args:
            record: `epoch` (from 1), `epochs`, `loss`, `lr` (rate of each group), `images_per_second`, `waiting`
                (0 to 1), `seconds_left`, and, if the epoch was evaluated, `val_loss` and the scores (0 to 1).
        """
        self._epoch = record["epoch"] + 1
        if not self._show.enabled:
            return
        if record["epoch"] >= record["epochs"]:
            self._show.clear()
        self._best = max(self._best, record.get(next(iter(self._columns)), None) or 0.0)
        self._groups |= dict.fromkeys(name for name, rate in record["lr"].items() if rate)
        rates = {name: record["lr"].get(name, 0.0) for name in self._groups}
        cells = self._describe(record, rates)
        if self._widths is None and self._show.console.is_interactive and _length(cells) > self._show.console.width:
            self._widths = []
        if self._widths is None:
            self._show.print(Text(GAP).join(cell.sentence() for cell in cells))
            return
        if sum(len(GAP) + cell.width for cell in cells) > self._show.console.width:
            cells = self._describe(record, rates, short=True)
        self._print_columns(_leave_out(cells, self._show.console.width))

    def _describe(self, record: Mapping[str, Any], rates: Mapping[str, float], *, short: bool = False) -> list["_Cell"]:
        """The cells of an epoch's line, each as wide in every epoch."""
        epochs, first = str(record["epochs"]), next(iter(self._columns))
        best = "bold green" if record.get(first) == self._best else "bold"
        return [
            _Cell("epoch", f"{record['epoch']:>{len(epochs)}}/{epochs}"),
            _Cell("loss", _format_loss(record["loss"])),
            _Cell("val", _format_loss(record.get("val_loss"))),
            *(
                _Cell(label, _format_percent(record.get(key)), style=best if key == first else "bold")
                for key, label in self._columns.items()
            ),
            *_describe_rates(rates, short=short),
            _Cell("", f"{_format_speed(record['images_per_second']):>5}", "img/s"),
            _Cell("data wait", f"{record['waiting']:4.0%}".replace("%", " %"), title="wait"),
            _Cell("left", format_seconds(record["seconds_left"])),
        ]

    def _print_columns(self, cells: Sequence["_Cell"]) -> None:
        widths = [cell.width for cell in cells]
        if self._widths is None or len(widths) != len(self._widths):
            self._widths = widths
            headings = (f"{cell.heading:>{width}}" for cell, width in zip(cells, widths, strict=True))
            self._show.print(Text(GAP.join(headings), style="dim"))
        values = (Text(f"{cell.value:>{width}}", cell.style) for cell, width in zip(cells, self._widths, strict=True))
        self._show.print(Text(GAP).join(values))


@dataclass(frozen=True)
class _Cell:
    """One fact of a line: `label value unit`, or a value under a heading."""

    label: str
    value: str
    unit: str = ""
    style: str = ""
    title: str = ""

    @property
    def heading(self) -> str:
        return self.title or self.label or self.unit

    @property
    def width(self) -> int:
        return max(len(self.value), len(self.heading))

    def sentence(self) -> Text:
        parts = [(self.label, "dim"), (self.value, self.style), (self.unit, "dim")]
        return Text(" ").join(Text(text, style) for text, style in parts if text)


def is_main_process() -> bool:
    """Whether this process, of those that a launcher started, is the one that writes and prints."""
    return int(os.environ.get("RANK", "0")) == 0


def format_seconds(seconds: float | None) -> str:
    """Write a time as `0:42`, `1:02:33` or `2 d 03:15`; `-` if it is not known."""
    if seconds is None or not 0 <= seconds < float("inf"):
        return "-"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour:02}:{minute:02}"
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def format_rate(rate: float) -> str:
    """Write a learning rate in seven letters at most, if it is 1e-9 or more: `0.01`, `0.00976`, `9.05e-4`."""
    if rate == 0 or 1e-3 <= abs(rate) < 1e4:
        return f"{rate:.3g}"
    digits, _, exponent = f"{rate:.2e}".partition("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"


def _standard_output(output: Output) -> Console:
    """Colours may be forced by the environment, for example in a build's log; bars are only for a real terminal.

    A notebook gets plain lines: rich would make each of them an output of its own.
    """
    return BearingConsole(output, force_interactive=None if output.isatty() else False, force_jupyter=False)


def _describe_count(done: int, total: int, seconds: float, speed: str) -> list[_Cell]:
    facts = [_Cell("", f"{done:,}/{total:,}" if total else f"{done:,}")]
    facts += [_Cell("", f"{done / max(seconds, 1e-9):.3g}", speed)] * bool(speed)
    return facts + [_Cell("left", format_seconds(seconds / max(done, 1) * (total - done)))] * bool(total)


def _describe_rates(rates: Mapping[str, float], *, short: bool) -> list[_Cell]:
    if len(rates) <= (1 if short else MOST_GROUPS):
        cells: list[_Cell] = []
        for name, rate in rates.items():
            title = f"lr {_cut(name, LONGEST_GROUP)}"
            label = title.removeprefix("lr ") if cells else title
            cells.append(_Cell(label, f"{format_rate(rate):<7}", title=title))
        return cells or [_Cell("lr", "0")]
    low, high = format_rate(min(rates.values())), format_rate(max(rates.values()))
    return [_Cell(f"lr of {len(rates)} groups", f"{low:>7} to {high:<7}")]


def _format_loss(loss: float | None) -> str:
    if loss is None:
        return "    -"
    size = abs(loss)
    if size >= 1000 or 0 < size < 5e-4:
        return f"{loss:>5.0e}"
    return f"{loss:5.{3 if size < 10 else 2 if size < 100 else 1}f}"


def _format_percent(share: float | None) -> str:
    if share is None:
        return "     -"
    return " 100 %" if share >= 0.9995 else f"{100 * share:4.1f} %"


def _format_speed(images_per_second: float) -> str:
    return f"{images_per_second:.{1 if images_per_second < 10 else 0}f}"


def _length(cells: Sequence[_Cell]) -> int:
    return sum(len(GAP) + cell.sentence().cell_len for cell in cells) - len(GAP)


def _leave_out(cells: Sequence[_Cell], width: int) -> list[_Cell]:
    """Return the cells of a line that fit."""
    kept = list(cells)
    for heading in SECONDARY:
        if sum(len(GAP) + cell.width for cell in kept) - len(GAP) > width:
            kept = [cell for cell in kept if cell.heading != heading]
    return kept


def _cut(name: str, longest: int) -> str:
    """The end of a long name: parameters' names differ there."""
    return name if len(name) <= longest else f"..{name[2 - longest :]}"
