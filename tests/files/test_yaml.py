import math
import random

import pytest
import yaml

from zoo.files.yaml import MAX_DEPTH, Problem, read_yaml, write_yaml

TRAPS = [
    *("1e-3", "1e3", "-1.5E+10", ".5", "5.", "08", "0o7", "0x1F", "1_000", "1:30", "2024-01-01", ".inf", "-.INF"),
    *(".nan", "~", "null", "true", "False", "yes", "no", "on", "off", "<<", "=", "#", "*a", "&a", "@", "`", "%", "{"),
    *("[", "'", '"', "naïve", "图", "😀", "", " ", "- a", "a: b", "a #b", "!!int 3", "tab\t", "two\nlines\n", "\r"),
    *("\x85", "\u2028", "\x07"),
]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("010", 10),
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("1.e+2", 100.0),
        ("+.5", 0.5),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'3'", "3"),
        ('"true"', "true"),
        ("|-\n  3", "3"),
        *(
            (word, word)
            for word in ("yes", "no", "on", "off", "y", "1_000", "0x1F", "1:30", "2024-01-01", "1e", "e3", ".")
        ),
        ("[1, a, {b: 2.0}]", [1, "a", {"b": 2.0}]),
        ("{0: a, 1e-3: b, null: c, true: d}", {"0": "a", "1e-3": "b", "null": "c", "true": "d"}),
    ],
)
def test_what_is_written_is_what_is_read(text: str, value: object) -> None:
    document = read_yaml(text)
    assert document.problems == ()
    assert document.value == value
    assert type(document.value) is type(value)


def test_numbers_of_any_kind_are_read() -> None:
    assert math.isnan(read_yaml(".nan").value)
    assert read_yaml("9" * 10_000).value == math.inf
    source = random.Random(0)
    values = {
        "a": [source.uniform(-1, 1) * 10 ** source.randint(-300, 300) for _ in range(500)] + [0.0, 1.0, 1e-05, 5e-324]
    }
    assert read_yaml(write_yaml(values)).value == values


def test_every_key_and_item_knows_its_line() -> None:
    document = read_yaml("# head\na: 1\n\nb:\n  c: 2\n  d:\n  - 3\n  - e: 4\n")
    assert document.lines == {
        ("a",): 2,
        ("b",): 4,
        ("b", "c"): 5,
        ("b", "d"): 6,
        ("b", "d", 0): 7,
        ("b", "d", 1): 8,
        ("b", "d", 1, "e"): 8,
    }


def test_all_duplicate_keys_are_told_with_both_lines() -> None:
    document = read_yaml("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n'a': 4\n")
    assert document.problems == (
        Problem(4, "b.c is a duplicate key, first on line 3. Remove one of them."),
        Problem(5, "a is a duplicate key, first on line 1. Remove one of them."),
        Problem(6, "a is a duplicate key, first on line 1. Remove one of them."),
    )
    assert document.value == {"a": 1, "b": {"c": 1}}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: &x 2\n", 2, "anchor '&x'; remove it"),
        ("a: 1\n\nb: *x\n", 3, "alias '*x'; write the value itself"),
        ("a: !!python/object:os.system 1\n", 1, "tag 'tag:yaml.org,2002:python/object:os.system'; remove it"),
        ("a: !x 1\n", 1, "tag '!x'; remove it"),
        ("a: 1\n? [b]\n: 2\n", 2, "a list or mapping is used as a key; expected a name."),
        ("a: 1\n\tb: 2\n", 2, "cannot be parsed as 'key: value' lines"),
        ("a: 1\nb: c: d\n", 2, "mapping values are not allowed here"),
        ("a: 'b\n", 2, "cannot be parsed"),
        ("a: 1\n---\nb: 2\n", 2, "another document"),
        ("a: 1\nb: \x00\n", 2, r"character '\x00' is not allowed. Remove it."),
        ("a: " + "[" * (MAX_DEPTH + 1), 1, f"nested more than {MAX_DEPTH} deep"),
        ("[" * 100_000, 1, f"nested more than {MAX_DEPTH} deep"),
    ],
)
def test_what_is_refused_has_a_line_and_a_reason(text: str, line: int, words: str) -> None:
    (problem,) = read_yaml(text).problems
    assert problem.line == line
    assert words in problem.text


def test_a_bomb_of_aliases_is_refused_at_once() -> None:
    bomb = "a: &a [1]\n" + "".join(
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert read_yaml(bomb).value is None


@pytest.mark.parametrize("text", TRAPS)
def test_texts_come_back_as_texts_as_value_key_and_item(text: str) -> None:
    values = {"value": text, text: 1, "items": [text, {text: text}]}
    written = write_yaml(values)
    assert read_yaml(written).value == values
    assert write_yaml(read_yaml(written).value) == written


def test_written_files_are_read_by_others_too() -> None:
    values = {"a": TRAPS, "b": [True, None, 3, 0.5, 1e-05, 1e300], "c": {"d": []}, "e": {}}
    assert yaml.safe_load(write_yaml(values)) == values
    values = {"z": 1, "a": 2, "layer." * 100: 3}
    assert list(read_yaml(write_yaml(values)).value) == list(values)
    items = [0.9, 0.99]
    assert "*" not in write_yaml({"a": items, "b": items})
