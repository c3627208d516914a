import io

import pytest

from zoo._console import BearingConsole, Output, draw_records, fit_columns
from zoo.errors import StorageError


class Failing(io.StringIO):
    """A stream that the system refuses to write to."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error


FULL = OSError(28, "No space left on device")


def test_a_full_disk_is_an_error_in_words_and_a_closed_pipe_is_none():
    with pytest.raises(StorageError, match="the output cannot be written: No space left on device"):
        BearingConsole(Output(Failing(FULL))).print("a line")
    with pytest.raises(BrokenPipeError):
        BearingConsole(Output(Failing(BrokenPipeError(32, "Broken pipe")))).print("a line")


@pytest.mark.parametrize("error", [FULL, BrokenPipeError(32, "Broken pipe")])
def test_a_loss_may_be_borne(error):
    output = Output(Failing(error))
    output.may_be_lost = True
    BearingConsole(output).print("a line")
    assert output.lost is error


def test_what_is_written_arrives():
    stream = io.StringIO()
    BearingConsole(Output(stream)).print("a line")
    assert stream.getvalue() == "a line\n"
    assert not Output(stream).isatty()


def test_a_program_without_a_console():
    output = Output(None)
    assert output.write("nobody reads this") == 17
    assert output.encoding == "utf-8"
    with pytest.raises(io.UnsupportedOperation):
        output.fileno()


ROWS = [
    {
        "model": "mobilenetv2_100",
        "parameters": "3.50",
        "score": "top-1 72.97 %",
        "about": "of few multiplications",
    },
    {"model": "resnet18", "parameters": "11.69", "score": "top-1 71.50 %", "about": "of eighteen layers"},
]


def test_secondary_columns_are_left_out_in_their_order_and_no_name_is_cut():
    assert fit_columns(ROWS, secondary=("about", "parameters"), room=None).left_out == ()
    left_out = {room: columns and columns.left_out for room in (100, 80, 60, 35, 10) for columns in [fit(room)]}
    assert left_out == {100: (), 80: (), 60: ("about",), 35: ("parameters", "about"), 10: None}
    for room in (100, 80, 60, 35):
        columns = fit(room)
        assert columns.widths["model"] >= len("mobilenetv2_100")
        assert columns.widths["score"] >= len("top-1 72.97 %")
        assert sum(columns.widths.values()) + columns.gap * (len(columns.widths) - 1) <= room


def fit(room):
    return fit_columns(ROWS, secondary=("about", "parameters"), room=room)


def test_a_row_that_fits_nowhere_becomes_lines():
    lines = [line.plain for line in draw_records(ROWS, 30)]
    assert max(map(len, lines)) <= 30
    assert lines[:2] == ["mobilenetv2_100", "  parameters 3.50"]
    text = " ".join(" ".join(lines).split())
    assert all(value in text for row in ROWS for value in row.values())
