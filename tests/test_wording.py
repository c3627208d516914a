from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, ValidationError, field_validator

from zoo.wording import explain, in_words, shown


class Oven(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    degrees: Annotated[int, Ge(50), Le(250)] = 180
    fan: bool = False
    zones: NonNegativeFloat | dict[str, NonNegativeFloat] = 1.0
    racks: dict[str, list[int]] = {}
    dish: Literal["bread", "cake"] = "bread"

    @field_validator("dish")
    @classmethod
    def _no_cake(cls, dish: str) -> str:
        if dish == "cake":
            raise ValueError("dish is 'cake', which is a lie.")
        return dish


def explained(**values: Any) -> dict[tuple[str | int, ...], str]:
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
        (bool | str | None, [], "true or false, or a text, or null"),
        (Literal["a"], [], "'a'"),
        (Literal["a", "b", "c"], [], "'a', 'b' or 'c'"),
        (dict[str, NonNegativeFloat], [], "a mapping of names to a number, 0 or more"),
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


def test_a_validator_speaks_for_itself() -> None:
    assert explained(dish="cake") == {("dish",): "dish is 'cake', which is a lie."}


def test_of_a_mapping_only_the_wrong_entries_are_told() -> None:
    assert explained(zones={"top": -1.0, "bottom": 1.0, "side": "x"}) == {
        ("zones", "top"): "zones.top is -1.0; expected a number, 0 or more.",
        ("zones", "side"): "zones.side is 'x'; expected a number, 0 or more.",
    }


def test_a_wrong_type_of_a_union_is_told_once() -> None:
    words = "zones is [1]; expected a number, 0 or more, or a mapping of names to a number, 0 or more."
    assert explained(zones=[1]) == {("zones",): words}


def test_a_wrong_key_is_told_by_its_mapping() -> None:
    assert list(explained(racks={1: []})) == [("racks",)]


def test_an_item_of_a_list_has_its_index() -> None:
    assert list(explained(racks={"a": [1, "x"]})) == [("racks", "a", 1)]


def test_long_values_are_cut() -> None:
    assert shown("short") == "'short'"
    assert len(shown("x" * 1000)) == 60
