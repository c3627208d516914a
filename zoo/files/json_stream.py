"""Large JSON objects made of lists: entry by entry, with line numbers, and never all of them in memory."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")


class Entry(NamedTuple):
    """An entry of a list in a JSON object, or a whole value: an empty list, or what is no list.

    Attributes:
        key: The list's, or the value's.
        line: On which it begins, from 1.
        value: What it is.
        number: In its list, from 0; None for a whole value.
    """

    key: str
    line: int
    value: Any
    number: int | None


def read_lists(text: str) -> Iterator[Entry]:
    """Parse a JSON object, and yield what is in it, in its order.

    Raises:
        ValueError: It is not JSON (then it is a `JSONDecodeError`, with the line), or not an object.
        RecursionError: It is nested too deeply.
    """
    place = _skip(text, 0)
    if text[place : place + 1] != "{":
        raise ValueError("expected a JSON object")
    lines = _Lines(text)
    place = _skip(text, place + 1)
    while text[place : place + 1] != "}":
        key, place = _read_key(text, place)
        if text[place : place + 1] == "[":
            place, number = _skip(text, place + 1), 0
            if text[place : place + 1] == "]":
                yield Entry(key, lines.at(place), [], None)
            while text[place : place + 1] != "]":
                value, end = _DECODER.raw_decode(text, place)
                yield Entry(key, lines.at(place), value, number)
                place, number = _next(text, end, "]"), number + 1
            place += 1
        else:
            value, end = _DECODER.raw_decode(text, place)
            yield Entry(key, lines.at(place), value, None)
            place = end
        place = _next(text, place, "}")
    if (end := _skip(text, place + 1)) < len(text):
        raise json.JSONDecodeError("Extra data", text, end)


class _Lines:
    """Counts lines from place to later place, so that all of them together cost one pass."""

    def __init__(self, text: str) -> None:
        self.text, self.place, self.line = text, 0, 1

    def at(self, place: int) -> int:
        """Return the line of a place, which is not before the last one."""
        self.line += self.text.count("\n", self.place, place)
        self.place = place
        return self.line


def _skip(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return match.end() if match else place


def _next(text: str, place: int, bracket: str) -> int:
    """Return where the next item begins, or the bracket is."""
    place = _skip(text, place)
    if text[place : place + 1] == bracket:
        return place
    if text[place : place + 1] != ",":
        raise json.JSONDecodeError(f"Expecting ',' or '{bracket}'", text, place)
    after = _skip(text, place + 1)
    if text[after : after + 1] == bracket:
        raise json.JSONDecodeError(f"Expecting something between ',' and '{bracket}'", text, place)
    return after


def _read_key(text: str, place: int) -> tuple[str, int]:
    """Return a key, and where its value begins."""
    if text[place : place + 1] != '"':
        raise json.JSONDecodeError("Expecting a key in double quotes", text, place)
    key, place = _DECODER.raw_decode(text, place)
    place = _skip(text, place)
    if text[place : place + 1] != ":":
        raise json.JSONDecodeError("Expecting ':'", text, place)
    return key, _skip(text, place + 1)
