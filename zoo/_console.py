"""Where tables and bars are printed: a console of rich, whose output may be lost without ending what runs."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import UnsupportedOperation
from typing import Any, TextIO, cast

from rich.console import Console

from zoo.errors import StorageError

WIDTH_OF_FILES = 200


def table_console(*, err: bool = False) -> Console:
    """Return a console for a table that is laid out by hand, whose cells are passed through `zoo._text.clean`."""
    output = Output(sys.stderr if err else sys.stdout)
    return BearingConsole(output, width=None if output.isatty() else WIDTH_OF_FILES, markup=False, highlight=False)


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
