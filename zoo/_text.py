"""Text that goes to a terminal: names come from files, and must neither steer it nor make lines of their own."""

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import TextIO

from zoo.errors import StorageError

_COLOURS = {"": "", "red": "\x1b[31m"}
_JOINERS = "\u200c\u200d"
_RESET = "\x1b[0m"


def clean(text: str, *, keep: str = "") -> str:
    """Replace control characters, escapes, marks of direction and lone surrogates by `?`, and white space by a space.

    The joiners of Indian and Arabic scripts and of emoji stay: they move nothing.

    Args:
        text: For example a class name, a file name or a licence that somebody else wrote.
        keep: Characters that stay, for example a line break, in a text whose lines are the program's own.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in keep or letter in _JOINERS else " " if letter.isspace() else "?"
        for letter in text
    )


def shorten(names: Sequence[str], most: int = 3) -> str:
    """List the first of several names, cleaned, with dots for the rest."""
    return clean(", ".join(names[:most]) + (", ..." if len(names) > most else ""))


def indent(text: str) -> str:
    """Indent every line after the first, so that a line break inside a name cannot begin a line of the program."""
    first, *others = text.split("\n")
    return "\n".join([first, *(line if line.startswith("  ") else f"  {line}" for line in others)])


def echo(text: str = "", *, lines: bool = False, err: bool = False, colour: str = "") -> None:
    """Print one line to standard output, or to standard error, in letters that it can carry.

    Args:
        text: What a terminal would obey is replaced, and a line break in a name does not make a second line.
        lines: Keep the line breaks, of a text that is laid out, such as JSON.
        err: Print to standard error.
        colour: `red`, if this is a terminal; empty for none.

    Raises:
        BrokenPipeError: Nobody reads the output any more.
        StorageError: It cannot be written, for example because the disk is full.
    """
    stream: TextIO | None = sys.stderr if err else sys.stdout
    if stream is None:  # a program without a console
        return
    encoding = stream.encoding or "utf8"
    text = clean(text, keep="\n\t" if lines else "").encode(encoding, "replace").decode(encoding)
    if colour and stream.isatty():
        text = f"{_COLOURS[colour]}{text}{_RESET}"
    try:
        stream.write(text + "\n")
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        name = "standard error" if err else "standard output"
        raise StorageError(f"{name} cannot be written: {error.strerror or error}.") from error


def warn(text: str) -> None:
    """Print a line to standard error, if it can be printed there: a warning must not end what it warns of."""
    with contextlib.suppress(OSError):
        echo(text, err=True)


def drop_unwritten() -> None:
    """Let the interpreter end quietly after output was lost: it would try once more to write the rest, and complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def list_lines(lines: Sequence[str], most: int) -> str:
    """Return lines for a message, indented, each after a line break; only the first where there are many."""
    more = f"\n  ... and {len(lines) - most:,} more" if len(lines) > most else ""
    return "".join(f"\n  {line}" for line in lines[:most]) + more
