import pytest

from zoo.terminal import clean, echo


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b]0;title\x07", "?]0;title?"),
        ("a\nb\r\nc", "a b  c"),
        ("\x9b31m", "?31m"),
        ("\u202eexe.jpg", "?exe.jpg"),
        ("\ud800", "?"),
        ("Übung 狗 [red]", "Übung 狗 [red]"),
    ],
)
def test_what_would_steer_a_terminal_is_replaced(text, expected):
    assert clean(text) == expected


def test_lines_of_the_program_stay_lines(capsys):
    echo("one\n\ttwo\x1b[2J")
    assert capsys.readouterr().out == "one\n\ttwo?[2J\n"


def test_standard_error(capsys):
    echo("wrong", err=True)
    assert capsys.readouterr() == ("", "wrong\n")
