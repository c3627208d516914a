import ast
import os
from io import StringIO
from pathlib import Path

import pytest

from zoo._text import clean, drop_unwritten, echo, indent, warn
from zoo.errors import StorageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b]0;title\x07", "?]0;title?"),
        ("a\nb\r\nc", "a b  c"),
        ("\x9b31m", "?31m"),
        ("\u202eexe.jpg", "?exe.jpg"),
        ("\ud800", "?"),
        ("Übung 狗 [red]", "Übung 狗 [red]"),
        ("a\u00a0b\u3000c\x1cd", "a b c d"),
        ("क्\u200dष \U0001f468\u200d\U0001f469", "क्\u200dष \U0001f468\u200d\U0001f469"),
        ("a\u2066b\u200fc", "a?b?c"),
    ],
)
def test_what_would_steer_a_terminal_is_replaced(text, expected):
    assert clean(text) == expected


def test_line_breaks_of_names_make_no_lines_and_those_of_the_program_do(capsys):
    echo("class a\nerror: fake")
    assert capsys.readouterr().out == "class a error: fake\n"
    echo("one\n\ttwo\x1b[2J", lines=True)
    assert capsys.readouterr().out == "one\n\ttwo?[2J\n"
    assert indent("error: a\nerror: fake\n  line 2: b") == "error: a\n  error: fake\n  line 2: b"
    echo("wrong", err=True)
    assert capsys.readouterr() == ("", "wrong\n")


@pytest.mark.parametrize("tty", [True, False])
def test_colour_is_for_terminals(tty, monkeypatch):
    stream = StringIO()
    stream.isatty = lambda: tty
    monkeypatch.setattr("sys.stderr", stream)
    echo("wrong", err=True, colour="red")
    assert stream.getvalue() == ("\x1b[31mwrong\x1b[0m\n" if tty else "wrong\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_full_disk_is_an_error_in_words(monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        with pytest.raises(StorageError, match="standard output cannot be written: No space left on device"):
            echo("a line")
        monkeypatch.setattr("sys.stderr", full)
        warn("this is lost, without an error")
        drop_unwritten()  # else closing would fail


def test_a_program_without_a_console(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    echo("nobody reads this")
    drop_unwritten()


ROOT = Path(__file__).parents[1]
PRINTERS = {"_console.py", "progress.py", "_text.py"}  # what is printed passes `clean` there
PRINTERS |= {"_predict.py"}  # is copied beside exported models, where this package is not


def calls(path):
    """Yield the names of what a file calls, with their last two parts."""
    for node in ast.walk(ast.parse(path.read_text("utf8"))):
        if isinstance(node, ast.Call):
            yield ".".join(ast.unparse(node.func).split(".")[-2:])


@pytest.mark.parametrize("folder", ["zoo", "tools"])
def test_one_function_prints(folder):
    """Names from files reach a terminal through `clean` only."""
    forbidden = {"print", "typer.echo", "typer.secho", "click.echo", "click.secho", "rich.print", "Console",
                 "stdout.write", "stderr.write", "console.Console"}  # fmt: skip
    for path in (ROOT / folder).rglob("*.py"):
        if path.name not in PRINTERS:
            assert not forbidden & set(calls(path)), path
