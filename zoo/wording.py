"""Types, bounds and errors of pydantic fields in words that a reader without pydantic understands."""

from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

_TYPES = {int: "an integer", float: "a number", bool: "true or false", str: "a text", NoneType: "null"}
_BOUNDS = {"ge": "{} or more", "gt": "above {}", "le": "at most {}", "lt": "below {}"}
_LONGEST = 60


def explain(
    error: ValidationError,
    values: Mapping[str, Any],
    fields: Mapping[str, FieldInfo],
    hint: Callable[[str], str],
) -> dict[tuple[str | int, ...], str]:
    """Say what is wrong with each value, and what was expected.

    Args:
        error: What pydantic found.
        values: What it was given.
        fields: The fields of the model.
        hint: Turns an unknown key into ` Did you mean ...?` or nothing.

    Returns:
        One sentence for each wrong value, by the keys and indices that lead to it.
    """
    texts = dict(_sentence(detail, values, fields, hint) for detail in error.errors())
    outer = {path[:length] for path in texts for length in range(len(path))}
    return {path: text for path, text in texts.items() if path not in outer}  # the inner one says more


def in_words(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Put a type and its bounds into words, such as 'a number, above 0, at most 1, or null'."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return in_words(arguments[0], arguments[1:])
    if origin in (Union, UnionType):
        return ", or ".join(in_words(argument, metadata) for argument in arguments)
    if origin is Literal:
        *first, last = map(repr, arguments)
        return f"{', '.join(first)} or {last}" if first else last
    if origin is dict:
        return f"a mapping of names to {in_words(arguments[1])}"
    if annotation in (int, float):
        return ", ".join([_TYPES[annotation], *_bounds_in_words(metadata)])
    return _TYPES.get(annotation, "plain values")


def shown(value: Any) -> str:
    """Return the value as Python writes it, cut if it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _sentence(
    detail: ErrorDetails, values: Mapping[str, Any], fields: Mapping[str, FieldInfo], hint: Callable[[str], str]
) -> tuple[tuple[str | int, ...], str]:
    *keys, last = detail["loc"]
    path, value = _follow(keys[:-1] if last == "[key]" else [*keys, last], values)  # a wrong key is told by its mapping
    name = ".".join(map(str, path))
    if detail["type"] == "extra_forbidden":
        return path, f"unknown key {name!r}.{hint(name)}"
    if detail["type"] == "value_error":
        return path, str(detail["ctx"]["error"])
    field = fields[str(path[0])]
    expected = in_words(field.annotation, field.metadata) if len(path) == 1 else _item_in_words(field.annotation)
    return path, f"{name} is {shown(value)}; expected {expected}."


def _follow(loc: Sequence[str | int], values: Mapping[str, Any]) -> tuple[tuple[str | int, ...], Any]:
    """Follow pydantic's location into the values, leaving out the names of types that it puts between the keys."""
    path: tuple[str | int, ...] = ()
    value: Any = values
    for key in loc:
        if (isinstance(value, Mapping) and key in value) or (isinstance(value, list | tuple) and isinstance(key, int)):
            path, value = (*path, key), value[key]  # type: ignore[index]
    return path, value


def _item_in_words(annotation: Any) -> str:
    mapping = next(part for part in (annotation, *get_args(annotation)) if get_origin(part) is dict)
    return in_words(get_args(mapping)[1])


def _bounds_in_words(metadata: Sequence[Any]) -> list[str]:
    bounds = {name: getattr(item, name) for item in metadata for name in _BOUNDS if hasattr(item, name)}
    if {"ge", "le"} <= bounds.keys():
        return [f"{bounds['ge']} to {bounds['le']}"]
    return [_BOUNDS[name].format(bound) for name, bound in bounds.items()]
