import io
import os

import pytest

from zoo._console import WIDTH_OF_FILES, BearingConsole, Output, table_console
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


def test_a_table_in_a_file_is_wide(capsys):
    console = table_console(err=True)
    console.print("[bold]" + "x" * (WIDTH_OF_FILES - 6))
    assert capsys.readouterr().err == "[bold]" + "x" * (WIDTH_OF_FILES - 6) + os.linesep
