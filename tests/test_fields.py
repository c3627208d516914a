from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt, ValidationError, field_validator

from zoo._fields import Path, Words, explain, in_words, refuse, shown


class Timer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    minutes: Annotated[int, Field(ge=1)]
    bells: list[NonNegativeFloat] | None = None
    name: str = "timer"
    loud: bool = True


class Oven(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    degrees: Annotated[int, Ge(50), Le(250)] = 180
    fan: bool = False
    zones: NonNegativeFloat | dict[str, NonNegativeFloat] = 1.0
    racks: dict[str, list[int]] = {}
    timers: dict[str, PositiveInt | Timer] = {}
    rules: dict[str, int] = {}
    dish: Literal["bread", "cake"] = "bread"

    @field_validator("dish")
    @classmethod
    def _no_cake(cls, dish: str) -> str:
        if dish == "cake":
            raise ValueError("dish is 'cake', which is a lie.")
        return dish

    @field_validator("rules", mode="wrap")
    @classmethod
    def _no_odd_rules(cls, rules: Any, handler: Any) -> Any:
        complaints: list[tuple[Path, str]] = [((key,), f"{key} is odd.") for key in rules if len(key) % 2]
        try:
            checked = handler(rules)
        except ValidationError as error:
            refuse([*complaints, ((), "rules are wrong.")], error)
        if complaints:
            refuse(complaints)
        return checked


def explained(**values: Any) -> dict[Path, str]:
    told = complaints(**values)
    assert len(dict(told)) == len(told)
    return dict(told)


def complaints(**values: Any) -> list[tuple[Path, str]]:
    with pytest.raises(ValidationError) as caught:
        Oven(**values)
    return explain(caught.value, values, Oven.model_fields, lambda key: f" Not {key}?")


@pytest.mark.parametrize(
    ("annotation", "metadata", "words"),
    [
        (int, [Ge(1)], "an integer, 1 or more"),
        (int, [Ge(8), Le(4096)], "an integer, 8 to 4096"),
        (float, [Gt(0), Le(1)], "a number, above 0, at most 1"),
        (float | None, [Ge(0), Lt(1)], "a number, 0 or more, below 1, or null"),
        (bool | str | None, [], "true or false, or a string, or null"),
        (Literal["a"], [], "'a'"),
        (Literal["a", "b", "c"], [], "'a', 'b' or 'c'"),
        (dict[str, NonNegativeFloat], [], "a mapping of names to a number, 0 or more"),
        (dict[str, str | list[str]], [], "a mapping of names to a string, or to a list of strings"),
        (list[str], [], "a list of strings"),
        (list[NonNegativeFloat], [], "a list of numbers, 0 or more"),
        (list[dict[str, int]], [], "a list of plain values"),
        (Annotated[float, Field(gt=0)] | None, [], "a number, above 0, or null"),
        (Timer | None, [], "settings (minutes, bells, name, ...), or null"),
        (Annotated[Any, Words("a kind of bread")], [], "a kind of bread"),
        (dict[str, Any], [Words("a kind of bread")], "a kind of bread"),
        (object, [], "plain values"),
    ],
)
def test_types_and_bounds_in_words(annotation: object, metadata: list[object], words: str) -> None:
    assert in_words(annotation, metadata) == words


def test_all_errors_are_explained_by_where_they_are() -> None:
    assert explained(degrees=300, fan=1, dish="pie", timer=3) == {
        ("degrees",): "degrees is 300; expected an integer, 50 to 250.",
        ("fan",): "fan is 1; expected true or false.",
        ("dish",): "dish is 'pie'; expected 'bread' or 'cake'.",
        ("timer",): "unknown key 'timer'. Not timer?",
    }
    assert shown("short") == "'short'"
    assert len(shown("x" * 1000)) == 60


def test_a_validator_speaks_for_itself_beside_what_pydantic_finds() -> None:
    assert explained(dish="cake") == {("dish",): "dish is 'cake', which is a lie."}
    assert complaints(rules={"a": 1, "bb": 2}) == [(("rules", "a"), "a is odd.")]
    assert complaints(rules={"a": "x", "bbb": 1}) == [
        (("rules", "a"), "rules.a is 'x'; expected an integer."),
        (("rules", "a"), "a is odd."),
        (("rules", "bbb"), "bbb is odd."),
        (("rules",), "rules are wrong."),
    ]


def test_wrong_parts_are_told_by_their_place() -> None:
    words = "zones is [1]; expected a number, 0 or more, or a mapping of names to a number, 0 or more."
    assert explained(zones=[1]) == {("zones",): words}
    assert list(explained(racks={1: []})) == [("racks",)]
    assert list(explained(racks={"a": [1, "x"]})) == [("racks", "a", 1)]
    assert explained(zones={"top": -1.0, "bottom": 1.0, "side": "x"}) == {
        ("zones", "top"): "zones.top is -1.0; expected a number, 0 or more.",
        ("zones", "side"): "zones.side is 'x'; expected a number, 0 or more.",
    }


def test_what_is_wrong_inside_of_settings_is_told_by_the_whole_path() -> None:
    timers = {"a": {"minutes": 0, "bell": [], "bells": [1.0, -1]}, "b": {}, "c": 0, "d": Timer(minutes=3)}
    assert explained(timers=timers) == {
        ("timers", "a", "minutes"): "timers.a.minutes is 0; expected an integer, 1 or more.",
        ("timers", "a", "bell"): "unknown key 'timers.a.bell'. Did you mean 'bells'?",
        ("timers", "a", "bells", 1): "timers.a.bells.1 is -1; expected a number, 0 or more.",
        ("timers", "b"): "timers.b.minutes is missing; expected an integer, 1 or more.",
        ("timers", "c"): "timers.c is 0; expected an integer, above 0, or settings (minutes, bells, name, ...).",
    }
