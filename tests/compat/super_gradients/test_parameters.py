import re

import numpy as np
import pytest

from zoo.compat.super_gradients.parameters import (
    KNOWN,
    LEFT_OUT,
    READ,
    Book,
    is_number,
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


@pytest.mark.parametrize("text", ["yes", "on", "On", "YES"])
def test_booleans_are_those_of_their_yaml(text: str) -> None:
    assert book(ema=text).flag("ema") is True
    assert book(ema={"yes": "no", "on": "off"}[text.lower()]).flag("ema") is False


@pytest.mark.parametrize("value", [1, 0.0, "true", "maybe", []])
def test_what_is_no_boolean(value: object) -> None:
    with pytest.raises(PresetError, match=r"^ema is .*; expected true or false\.$"):
        book(ema=value).flag("ema")


def test_numbers() -> None:
    assert read_number("x", np.float32(0.5)) == 0.5
    assert book(lr_decay_factor=1).number("lr_decay_factor") == 1.0
    for value in (-0.1, True, "0.1", None, float("nan"), float("inf"), 10**400, -(10**400)):
        assert not is_number(value) or value == -0.1
        with pytest.raises(PresetError, match=r"^x is .*; expected a finite number, 0 or more\.$"):
            read_number("x", value)
    assert book(max_epochs=20.0).whole("max_epochs") == 20
    assert book(max_epochs=np.int64(20)).whole("max_epochs") == 20
    for value in (2.5, -1, 0, True, "20", float("inf"), float("nan")):
        with pytest.raises(PresetError, match=r"^max_epochs is .*; expected a whole number, 1 or more\.$"):
            book(max_epochs=value).whole("max_epochs", 1)
