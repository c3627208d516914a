"""Text that goes to a terminal: names come from files, and must neither steer it nor make lines of their own."""

import sys
from typing import TextIO


def clean(text: str, *, keep: str = "") -> str:
    """Replace control characters, escapes, marks of direction and lone surrogates by `?`, and line breaks by a space.

    Args:
        text: For example a class name, a file name or a licence that somebody else wrote.
        keep: Characters that stay, for example a line break, in a text whose lines are the program's own.
    """
    return "".join(
        letter if letter in keep or letter.isprintable() else " " if letter in "\n\r\t\v\f\x85\u2028\u2029" else "?"
        for letter in text
    )


def echo(text: str = "", *, err: bool = False) -> None:
    """Print lines to standard output, or to standard error, in letters that it can carry.

    Args:
        text: Its line breaks are kept; names within it are passed through `clean` by whoever puts them in.
        err: Print to standard error.
    """
    stream: TextIO = sys.stderr if err else sys.stdout
    encoding = stream.encoding or "utf8"
    stream.write(clean(text, keep="\n\t").encode(encoding, "replace").decode(encoding) + "\n")
    stream.flush()
