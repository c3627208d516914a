import json
from typing import Any

import pytest

from zoo.files.json_stream import read_lists


def entries(text: str) -> list[tuple[str, int, Any, int | None]]:
    return [tuple(entry) for entry in read_lists(text)]


def test_entries_come_in_order_with_their_lines() -> None:
    text = (
        '{"info": {"a": [1, 2]},\n "images": [\n  {"id": 1},\n\n  {"id":\n 2}, 3\n ],\n "empty": [ ],\n "n": null }\n'
    )
    assert entries(text) == [
        ("info", 1, {"a": [1, 2]}, None),
        ("images", 3, {"id": 1}, 0),
        ("images", 5, {"id": 2}, 1),
        ("images", 6, 3, 2),
        ("empty", 8, [], None),
        ("n", 9, None, None),
    ]
    assert entries(" { } ") == []
    with pytest.raises(RecursionError):
        entries('{"a": [' + "[" * 100_000)


@pytest.mark.parametrize("indent", [None, 0, 2])
def test_it_reads_what_json_reads(indent: int | None) -> None:
    value = {"a": [{"x": [1, [2.5]], "y": "],}"}, "text", True], "b": {"c": []}, "d": [[], [[1]]], "é": 'quote " \\'}
    text = json.dumps(value, indent=indent)
    found: dict[str, Any] = {}
    for entry in read_lists(text):
        if entry.number is not None:
            found.setdefault(entry.key, []).append(entry.value)
        else:
            found[entry.key] = entry.value
    assert found == value


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ('{"a": [1, 2', 1, "Expecting ',' or '\\]'"),
        ('{"a": [1,\n 2 3]}', 2, "Expecting ',' or '\\]'"),
        ('{"a": [1,\n]}', 1, "Expecting something between ',' and '\\]'"),
        ('{"a": 1,}', 1, "Expecting something between"),
        ('{"a": [\n\n{"b" 1}]}', 3, "Expecting ':' delimiter"),
        ('{"a"\n 1}', 2, "Expecting ':'"),
        ("{a: 1}", 1, "Expecting a key in double quotes"),
        ('{"a": 1}\n{"b": 2}', 2, "Extra data"),
        ("{", 1, "Expecting a key"),
        ('{"a": [', 1, "Expecting value"),
    ],
)
def test_what_is_not_json_has_a_line(text: str, line: int, problem: str) -> None:
    with pytest.raises(json.JSONDecodeError, match=problem) as caught:
        entries(text)
    assert caught.value.lineno == line


@pytest.mark.parametrize("text", ["", "[1, 2]", "3", "null"])
def test_what_is_not_an_object(text: str) -> None:
    with pytest.raises(ValueError, match="expected a JSON object"):
        entries(text)
