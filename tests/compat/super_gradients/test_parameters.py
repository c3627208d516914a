import re

import numpy as np
import pytest

from zoo.compat.super_gradients.parameters import (
    KNOWN,
    LEFT_OUT,
    READ,
    Book,
    Line,
    fuzzy,
    is_number,
    join_names,
    read_number,
)
from zoo.errors import PresetError


def book(**values: object) -> Book:
    return Book(values, exact=True)


def test_every_parameter_is_read_or_left_out() -> None:
    assert not READ.keys() & LEFT_OUT.keys()
    assert READ.keys() | LEFT_OUT.keys() == KNOWN
    for _, reason in LEFT_OUT.values():
        assert re.fullmatch(r"[a-z].*[^.]", reason), "reasons are clauses, put behind a key and a colon"


def test_what_is_not_given_has_their_default() -> None:
    assert book().get("seed") == book(seed=None).get("seed") == 42
    assert book(seed=0).get("seed") == 0


def test_a_default_gets_a_line_only_if_it_is_not_ours_too() -> None:
    kept = book()
    kept.put("batch_accumulate", {"accumulate": 1})
    assert kept.lines == []
    kept.put("seed", {"seed": 42})
    assert kept.lines == [Line("seed", "42 (default)", "seed", "42")]
    assert kept.fields == {"compat": "super-gradients", "accumulate": 1, "seed": 42}


def test_what_is_given_gets_a_line() -> None:
    kept = book(batch_accumulate=1, optimizer_params={})
    kept.put("batch_accumulate", {"accumulate": 1}, "why")
    kept.put("optimizer_params", {"optimizer_params": {}, "weight_decay": 0.5})
    assert kept.lines == [
        Line("batch_accumulate", "1", "accumulate", "1", "why"),
        Line("optimizer_params", "{}", "optimizer_params, weight_decay", "{}, 0.5"),
    ]


def test_has_knows_lines_and_what_is_left_out() -> None:
    kept = book(seed=1)
    assert not kept.has("seed")
    kept.note("seed")
    kept.leave("sync_bn", "why")
    assert kept.has("seed")
    assert kept.has("sync_bn")
    assert kept.lines == [Line("seed", "1", "-", "-")]


@pytest.mark.parametrize("text", ["yes", "on", "On", "YES"])
def test_booleans_are_those_of_their_yaml(text: str) -> None:
    assert book(ema=text).flag("ema") is True
    assert book(ema={"yes": "no", "on": "off"}[text.lower()]).flag("ema") is False


@pytest.mark.parametrize("value", [1, 0.0, "true", "maybe", []])
def test_what_is_no_boolean(value: object) -> None:
    with pytest.raises(PresetError, match=r"^ema is .*; expected true or false\.$"):
        book(ema=value).flag("ema")


def test_whole_numbers_may_be_written_as_others() -> None:
    assert book(max_epochs=20.0).whole("max_epochs") == 20
    assert book(max_epochs=np.int64(20)).whole("max_epochs") == 20
    for value in (2.5, -1, 0, True, "20", float("inf"), float("nan")):
        with pytest.raises(PresetError, match=r"^max_epochs is .*; expected a whole number, 1 or more\.$"):
            book(max_epochs=value).whole("max_epochs", 1)


def test_numbers() -> None:
    assert read_number("x", np.float32(0.5)) == 0.5
    assert book(lr_decay_factor=1).number("lr_decay_factor") == 1.0
    for value in (-0.1, True, "0.1", None, float("nan"), float("inf"), 10**400, -(10**400)):
        assert not is_number(value) or value == -0.1
        with pytest.raises(PresetError, match=r"^x is .*; expected a finite number, 0 or more\.$"):
            read_number("x", value)


def test_mappings_are_copied() -> None:
    given = {"momentum": 0.9}
    taken = book(optimizer_params=given).params("optimizer_params")
    taken.clear()
    assert given == {"momentum": 0.9}
    with pytest.raises(PresetError, match=r"^optimizer_params is 3; expected a mapping of names to values\.$"):
        book(optimizer_params=3).params("optimizer_params")


def test_names() -> None:
    assert fuzzy("RMS-prop_TF ") == "rmsproptf"
    assert join_names(["a", 1]) == "a, 1"
