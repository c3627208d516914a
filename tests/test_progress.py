import io
import threading
from time import perf_counter

import pytest
from rich.console import Console

from zoo import progress as module
from zoo.errors import StorageError
from zoo.progress import Progress, format_rate, format_seconds, is_main_process

PLAN = [
    {"group": "head", "state": "trained", "parameters": "5,130", "lr": "0.01"},
    {"group": "default", "state": "frozen", "parameters": "11,176,512", "lr": "0"},
]


def pipe(width=80, encoding="utf-8"):
    return Console(file=io.TextIOWrapper(io.BytesIO(), encoding=encoding), width=width)


def terminal(width=80):
    return Console(file=io.StringIO(), width=width, force_terminal=True, force_interactive=True, color_system=None)


def text_of(console):
    file = console.file
    if isinstance(file, io.StringIO):
        return file.getvalue()
    file.flush()
    return file.buffer.getvalue().decode(file.encoding)


def record(epoch, epochs=10, **changes):
    lr = {"head": 0.01 / epoch, "default": 0.0}
    scores = {"val_loss": 2 / epoch, "top1": 1 - 0.6 / epoch, "top5": 0.99}
    speed = {"images_per_second": 1234.4, "waiting": 0.02, "seconds": 3.0, "seconds_left": 42.0 * (epochs - epoch)}
    return {"epoch": epoch, "epochs": epochs, "loss": 2.3 / epoch, "lr": lr} | scores | speed | changes


def print_epochs(console, records):
    with Progress(console=console) as progress:
        run = progress.start(len(records))
        for each in records:
            run.epoch(each)
    return text_of(console).splitlines()


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(module, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_a_notebook_gets_plain_lines(monkeypatch, capsys):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    with Progress() as progress:
        run = progress.start(2)
        for epoch in (1, 2):
            run.epoch(record(epoch, epochs=2))
    assert [line[:9] for line in capsys.readouterr().out.splitlines()] == ["epoch 1/2", "epoch 2/2"]


def test_a_pipe_gets_one_whole_line_per_epoch():
    lines = print_epochs(pipe(), [record(epoch) for epoch in range(1, 11)])
    assert len(lines) == 10
    assert lines[2] == (
        "epoch  3/10  loss 0.767  val 0.667  top-1 80.0 %  lr head 0.00333   1234 img/s  data wait   2 %  left 4:54"
    )
    assert "\x1b" not in "".join(lines)


def test_lines_are_aligned():
    rates = [0.01, 0.00976, 9.05e-4, 1e-5, 0.0]
    records = [record(9 + i, epochs=13, lr={"head": rate}, loss=10.0**-i) for i, rate in enumerate(rates)]
    records[1] |= {"val_loss": None, "top1": None}
    records[2]["top1"] = 1.0
    lines = print_epochs(pipe(), records)
    for word in ("val", "top-1", "lr head", "img/s", "wait", "left"):
        assert len({line.index(word) for line in lines}) == 1, word


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 12])
def test_a_narrow_terminal_gets_columns_that_do_not_wrap(groups):
    names = [f"blocks.{i}." for i in range(groups)]
    records = [record(epoch, lr={name: 0.5**i / epoch for i, name in enumerate(names)}) for epoch in range(1, 11)]
    heading, *lines = print_epochs(terminal(80), records)
    assert len(lines) == 10
    assert max(map(len, [heading, *lines])) <= 80
    assert heading.split()[:4] == ["epoch", "loss", "val", "top-1"]
    assert all(word in heading for word in ("lr", "img/s", "wait", "left"))
    assert {len(line) for line in lines} == {len(heading)}


def test_groups_are_named_up_to_four_and_shown_as_a_range_beyond():
    rates = {f"layer{i}": 10.0**-i for i in range(2, 14)}
    (line,) = print_epochs(pipe(), [record(1, epochs=1, lr=rates)])
    assert "lr of 12 groups   1e-13 to 0.01 " in line
    (line,) = print_epochs(pipe(), [record(1, epochs=1, lr={"a": 1.0, "b": 0.1, "c": 0.01, "d": 1e-4})])
    assert "lr a 1        b 0.1      c 0.01     d 1e-4 " in line
    first, last = print_epochs(pipe(), [record(1, 2), record(2, 2, lr={"head": 0.0, "default": 0.0})])
    assert "default" not in first
    assert "lr head 0 " in last


def test_odd_numbers_and_long_facts_do_not_break_a_line():
    odd = record(1, 1, loss=float("nan"), val_loss=123456.0, images_per_second=0.26, waiting=1.0, seconds_left=1e6)
    (line,) = print_epochs(pipe(), [odd])
    assert "loss   nan  val 1e+05" in line
    assert line.endswith("0.3 img/s  data wait 100 %  left 11 d 13:46")
    lines = print_epochs(terminal(120), [record(1), record(2)])
    assert [line.split()[0] for line in lines] == ["epoch", "epoch"]
    assert max(map(len, lines)) <= 120


def test_the_bar_says_where_the_run_is(clock):
    console = terminal(100)
    with Progress(console=console) as progress:
        run = progress.start(4, start_epoch=2, steps_per_epoch=100)
        clock.now += 10
        run.step(50, 0.5, 1234.0, 0.034)
        text = text_of(console)
    assert "epoch 3/4" in text
    assert " 50/100  loss 0.500   1234 img/s  data wait   3 %  left 0:30" in text
    assert "━━━━━━━━" in text
    assert text_of(console).endswith("\x1b[?25h\r\x1b[1A\x1b[2K")  # cursor shown, bar taken away


def test_the_bar_fits_a_narrow_terminal(clock):
    console = terminal(44)
    with Progress(console=console) as progress:
        run = progress.start(4, steps_per_epoch=100)
        run.step(50, None, 1234.0, 0.034)
    assert "epoch 1/4" in text_of(console)
    assert "…" in text_of(console)


def test_the_bar_is_drawn_at_most_five_times_a_second(clock, monkeypatch):
    draws = []
    monkeypatch.setattr(Progress, "draw", lambda self, *args: draws.append(clock.now))
    with Progress(console=terminal()) as progress:
        run = progress.start(1, steps_per_epoch=2000)
        for step in range(2000):
            clock.now += 0.001
            run.step(step + 1, 0.1, 1.0, 0.0)
    assert 9 <= len(draws) <= 10


def test_a_step_costs_less_than_twenty_microseconds():
    steps = 50_000
    with Progress(console=terminal()) as progress:
        run = progress.start(1, steps_per_epoch=steps)
        start = perf_counter()
        for step in range(steps):
            run.step(step + 1, 0.1, 1000.0, 0.01)
        assert (perf_counter() - start) / steps < 20e-6


def test_no_bar_and_no_control_codes_in_a_pipe():
    console = pipe()
    with Progress(console=console) as progress:
        run = progress.start(1, steps_per_epoch=10)
        run.step(1, 0.1, 1000.0, 0.01)
    assert text_of(console) == ""


def test_lines_go_above_the_bar_and_no_thread_is_left(clock):
    console, threads = terminal(120), threading.active_count()
    with Progress(console=console) as progress:
        run = progress.start(2, steps_per_epoch=10)
        run.step(1, 0.1, 1000.0, 0.01)
        assert threading.active_count() == threads
        run.epoch(record(1, 2))
        assert "\x1b[2Kepoch 1/2  loss 2.300  val 2.000" in text_of(console)
        run.epoch(record(2, 2))
        assert (
            text_of(console).splitlines()[-1].startswith("\x1b[1A\x1b[2Kepoch 2/2")
        )  # the last line: the bar has gone


def test_a_failing_run_leaves_no_bar():
    console = terminal()

    def fail():
        with Progress(console=console) as progress:
            run = progress.start(1, steps_per_epoch=10)
            run.step(1, 0.1, 1.0, 0.0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert text_of(console).endswith("\x1b[?25h\r\x1b[1A\x1b[2K")


def test_disabled_says_nothing():
    for console in (pipe(), terminal()):
        with Progress(enabled=False, console=console) as progress:
            progress.log("hello")
            progress.table(PLAN, title="Plan")
            run = progress.start(1, steps_per_epoch=10)
            with progress.counting("checking", 3) as count:
                count(1, 3)
            run.step(1, 0.1, 1.0, 0.0)
            run.epoch(record(1, 1))
            progress.finish({"folder": "runs/1"})
        assert text_of(console) == ""


def test_the_default_output_is_standard_output(capsys):
    with Progress() as progress:
        run = progress.start(1, steps_per_epoch=1)
        run.step(1, 0.1, 1.0, 0.0)
        progress.log("done")
    assert capsys.readouterr().out == "done\n"


def test_counting_draws_a_bar_with_the_time_left(clock):
    console = terminal()
    with Progress(console=console) as progress, progress.counting("checking images", 4000) as count:
        clock.now += 10
        count(1000, 4000)
    assert "checking images" in text_of(console)
    assert "1,000/4,000  left 0:30" in text_of(console)


def test_counting_in_a_pipe_says_what_begins():
    console = pipe()
    with Progress(console=console) as progress:
        with progress.counting("checking images", 4000) as count:
            count(1000, 4000)
        with progress.counting("looking around") as count:
            count(0, 0)
    assert text_of(console).splitlines() == ["checking images (4,000)", "looking around"]


def test_counting_shows_the_speed_of_what_has_lines_of_its_own(clock):
    for total, text in ((200, "20/200  2 img/s  left 1:30"), (0, "20  2 img/s")):
        console = terminal()
        with Progress(console=console) as progress, progress.counting("predicting", total, "img/s") as count:
            clock.now += 10
            count(20, total)
        assert text in text_of(console)
    with Progress(console=pipe()) as progress, progress.counting("predicting", 4, "img/s"):
        assert text_of(progress.console) == ""


def test_counting_may_learn_the_total_later(clock):
    console = terminal()
    with Progress(console=console) as progress, progress.counting("checking images") as count:
        count(0, 0)
        clock.now += 1
        count(3, 7)
    assert "3/7" in text_of(console)


def test_texts_are_printed_as_they_are_and_cannot_steer_the_terminal():
    console = pipe(width=20)
    long = "saved [bold]epoch 3[/bold] :smile: in a folder whose name is long"
    Progress(console=console).log(long)
    assert text_of(console) == f"{long}\n"
    console = terminal()
    Progress(console=console).log("class \x1b[2Jcat\x07")
    assert text_of(console) == "class ?[2Jcat?\n"


def test_letters_that_the_output_lacks_become_question_marks():
    console = pipe(encoding="ascii")
    with Progress(console=console) as progress:
        progress.log("Кошка")
        progress.table([{"class": "日本"}], title="été")
        progress.finish({"é": "ü"})
    said, title, *rows, last = text_of(console).splitlines()
    assert (said, title, last) == ("?????", "?t?", "?  ?")
    assert "??" in rows[-1]


def test_a_table_has_columns_rows_and_totals():
    console = pipe()
    Progress(console=console).table(PLAN, title="Plan", totals={"group": "total", "parameters": "11,181,642"})
    title, heading, _, head, default, _, totals = text_of(console).splitlines()
    assert title == "Plan"
    assert heading.split() == ["group", "state", "parameters", "lr"]
    assert head.split() == ["head", "trained", "5,130", "0.01"]
    assert totals.split() == ["total", "11,181,642"]
    ends = {line.index(number) + len(number) for line, number in [(head, "5,130"), (default, "11,176,512")]}
    assert len(ends) == 1  # numbers end in one column


def test_a_wide_table_is_whole_in_a_pipe_and_folded_on_a_terminal():
    rows = [{"class": "a very long name of a class " * 4, "images": "1,234", "right": "99.1 %"}]
    wide, narrow = pipe(), terminal()
    for console in (wide, narrow):
        Progress(console=console).table(rows, title="Classes")
    assert rows[0]["class"].strip() in text_of(wide)
    lines = text_of(narrow).splitlines()
    assert max(map(len, lines)) <= 80
    assert any("1,234" in line and "99.1 %" in line for line in lines)


def test_rows_may_miss_columns_and_a_table_may_be_empty():
    console = pipe()
    progress = Progress(console=console)
    progress.table([{"a": "1"}, {"b": "[red]x"}], title="Ragged")
    progress.table([], title="Empty")
    assert "[red]x" in text_of(console)
    assert "Empty" in text_of(console)


def test_finish_prints_facts_one_below_the_other():
    console = pipe()
    Progress(console=console).finish({"best": "epoch 8, top-1 87.3 %", "folder": "runs/3"})
    assert text_of(console).splitlines() == ["best    epoch 8, top-1 87.3 %", "folder  runs/3"]
    bare = record(1, 1, lr={"default": 0.0}, seconds_left=None)
    for key in ("val_loss", "top1", "top5"):
        del bare[key]
    (line,) = print_epochs(pipe(), [bare])
    assert " ".join(line.split()) == "epoch 1/1 loss 2.300 val - top-1 - lr 0 1234 img/s data wait 2 % left -"
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system="standard", no_color=False)
    lines = print_epochs(console, [record(1, 3), record(2, 3, top1=None), record(3, 3, top1=0.1)])
    green = "\x1b[1;32m"
    assert [green in line for line in lines] == [True, False, False]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (42.4, "0:42"), (59.6, "1:00"), (3753, "1:02:33"), (184500, "2 d 03:15"), (-1, "-"), (None, "-")],
)
def test_format_seconds(seconds, text):
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (0.0, "0"),
        (0.01, "0.01"),
        (0.009756, "0.00976"),
        (1, "1"),
        (9.05e-4, "9.05e-4"),
        (1e-5, "1e-5"),
        (2e-10, "2e-10"),
    ],
)
def test_format_rate(rate, text):
    assert format_rate(rate) == text


@pytest.mark.parametrize(("rank", "expected"), [(None, True), ("0", True), ("3", False)])
def test_one_process_prints(monkeypatch, rank, expected):
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert is_main_process() == expected


def test_a_line_break_in_a_name_makes_no_line():
    console = pipe()
    show = Progress(console=console)
    show.log("class a\nerror: fake")
    show.table([{"cl\nass": "a\nerror: fake", "images": "3"}], title="sco\nres", totals={"cl\nass": "a\nll"})
    show.finish({"fol\nder": "runs/a\nerror: fake\x1b[2J"})
    text = text_of(console)
    assert "\x1b" not in text
    assert not [line for line in text.splitlines() if line.startswith("error")]
    assert len([line for line in text.splitlines() if "error: fake" in line]) == 3


class Full(io.StringIO):
    """A disk without room."""

    def write(self, text):
        raise OSError(28, "No space left on device")


def test_a_run_bears_the_loss_of_its_output(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout", Full())
    with Progress() as show:
        show.start(1).epoch(record(1, 1))
        show.finish({"folder": "runs/1"})
    assert capsys.readouterr().err == (
        "note: some of the output could not be written (No space left on device); that did not stop the work\n"
    )
    with pytest.raises(StorageError, match="No space left on device"):
        Progress().log("a list")
