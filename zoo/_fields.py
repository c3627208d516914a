"""Checked options: their types, bounds and errors in words that a reader without pydantic understands."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NoReturn, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, JsonValue, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from zoo.errors import did_you_mean

Path = tuple[str | int, ...]

_TYPES = {int: "an integer", float: "a number", bool: "true or false", str: "a string", NoneType: "null"}
_PLURALS = {int: "integers", float: "numbers", str: "strings"}
_BOUNDS = {"ge": "{} or more", "gt": "above {}", "le": "at most {}", "lt": "below {}"}
CLOSE = 0.7  # of a value to a choice: of such short words, 'gpu' would mean 'cpu'
_LONGEST = 60
_MOST_SETTINGS = 3


class Options(BaseModel):
    """Options that a person sets: checked once, then frozen; unknown names, other types and NaN are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def tuples_to_lists(value: Any) -> Any:
    """Make Python values what YAML gives back."""
    if isinstance(value, dict):
        return {key: tuples_to_lists(item) for key, item in value.items()}
    return [tuples_to_lists(item) for item in value] if isinstance(value, list | tuple) else value


Params = Annotated[dict[str, JsonValue], BeforeValidator(tuples_to_lists)]  # arguments by name, as plain values


@dataclass(frozen=True)
class Words:
    """What a type is called, as an annotation of it, where its structure does not say it well."""

    text: str


def explain(
    error: ValidationError,
    values: Mapping[str, Any],
    fields: Mapping[str, FieldInfo],
    hint: Callable[[str], str],
) -> list[tuple[Path, str]]:
    """Say what is wrong with each value, and what was expected.

    Args:
        error: What pydantic found.
        values: What it was given.
        fields: The fields of the model.
        hint: Turns an unknown key into ` Did you mean ...?` or nothing.

    Returns:
        For each wrong value the keys and indices that lead to it, and a sentence.
    """
    found = [(_find(detail, values), detail) for detail in error.errors()]
    outer = {path[:length] for path, detail in found for length in range(len(path) + (detail["type"] == "missing"))}
    told = [
        (path, _sentence(path, detail, values, fields, hint))
        for path, detail in found
        if path not in outer or _speaks_for_itself(detail)  # of two that pydantic tells, the inner one says more
    ]
    return list(dict.fromkeys(told))


def refuse(complaints: Sequence[tuple[Path, str]], also: ValidationError | None = None) -> NoReturn:
    """Raise sentences about parts of a value, and what pydantic has found there, from within a validator.

    Args:
        complaints: Keys and indices that lead to a part, and a sentence.
        also: What pydantic has found.

    Raises:
        ValidationError: With all of them.
    """
    ours = [
        InitErrorDetails(type=PydanticCustomError("value_error", "{error}", {"error": text}), loc=path, input=None)
        for path, text in complaints
    ]
    theirs: list[Any] = [] if also is None else also.errors(include_url=False)
    raise ValidationError.from_exception_data("value", [*theirs, *ours])


def in_words(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Put a type and its bounds into words, such as 'a number, above 0, at most 1, or null'."""
    metadata = [part for item in metadata for part in (item.metadata if isinstance(item, FieldInfo) else [item])]
    if said := [item.text for item in metadata if isinstance(item, Words)]:
        return said[0]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return in_words(arguments[0], [*arguments[1:], *metadata])
    if origin in (Union, UnionType):
        return ", or ".join(in_words(argument, metadata) for argument in arguments)
    if origin is Literal:
        *first, last = map(repr, arguments)
        return f"{', '.join(first)} or {last}" if first else last
    if origin is dict:
        return f"a mapping of names to {', or to '.join(map(in_words, _options(arguments[1])))}"
    if origin is list:
        return f"a list of {_many_in_words(arguments[0])}"
    if _is_model(annotation):
        names = list(annotation.model_fields)
        return f"settings ({', '.join(names[:_MOST_SETTINGS])}{', ...' if len(names) > _MOST_SETTINGS else ''})"
    if annotation in (int, float):
        return ", ".join([_TYPES[annotation], *_bounds_in_words(metadata)])
    return _TYPES.get(annotation, "plain values")


def shown(value: Any) -> str:
    """Return the value as Python writes it, cut if it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _find(detail: ErrorDetails, values: Mapping[str, Any]) -> Path:
    """Follow pydantic's location into the values, leaving out the names of types that it puts between the keys."""
    *keys, last = detail["loc"]
    wrong_key = last == "[key]" and not _speaks_for_itself(detail)  # it may be anything, so its mapping tells it
    path: Path = ()
    value: Any = values
    for key in keys[:-1] if wrong_key else detail["loc"]:
        if (isinstance(value, Mapping) and key in value) or (isinstance(value, list | tuple) and isinstance(key, int)):
            path, value = (*path, key), value[key]  # type: ignore[index]
    return path


def _speaks_for_itself(detail: ErrorDetails) -> bool:
    return detail["type"] in ("value_error", "extra_forbidden", "missing")


def _sentence(
    path: Path,
    detail: ErrorDetails,
    values: Mapping[str, Any],
    fields: Mapping[str, FieldInfo],
    hint: Callable[[str], str],
) -> str:
    name = ".".join(map(str, path))
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    if detail["type"] == "missing":
        whole = (*path, str(detail["loc"][-1]))
        return f"{'.'.join(map(str, whole))} is missing; expected {_expected(whole, fields)}."
    if detail["type"] == "extra_forbidden":
        near = hint(name) if len(path) == 1 else did_you_mean(str(path[-1]), _siblings(path, fields))
        return f"unknown key {name!r}.{near}"
    value: Any = values
    for key in path:
        value = value[key]
    near = did_you_mean(value, _choices(path, fields), cutoff=CLOSE) if isinstance(value, str) else ""
    return f"{name} is {shown(value)}; expected {_expected(path, fields)}.{near}"


def _expected(path: Path, fields: Mapping[str, FieldInfo]) -> str:
    """Put into words what is expected where a path leads to."""
    return in_words(*_follow(path, fields))


def _choices(path: Path, fields: Mapping[str, FieldInfo]) -> list[str]:
    """Return the words among which a value may be chosen where a path leads to."""
    literals = [option for option in _options(_follow(path, fields)[0]) if get_origin(option) is Literal]
    return [choice for literal in literals for choice in get_args(literal) if isinstance(choice, str)]


def _follow(path: Path, fields: Mapping[str, FieldInfo]) -> tuple[Any, list[Any]]:
    """Return the type and metadata of what a path leads to."""
    field = fields[str(path[0])]
    annotation, metadata = field.annotation, list(field.metadata)
    for key in path[1:]:
        annotation, metadata = _step_into(annotation, key)
    return annotation, metadata


def _siblings(path: Path, fields: Mapping[str, FieldInfo]) -> list[str]:
    """Return the names that the last key of a path could have had."""
    annotation: Any = fields[str(path[0])].annotation
    for key in path[1:-1]:
        annotation, _ = _step_into(annotation, key)
    return [name for model in filter(_is_model, _options(annotation)) for name in model.model_fields]


def _step_into(annotation: Any, key: str | int) -> tuple[Any, list[Any]]:
    """Return type and metadata of one entry of a mapping, list or model; of anything else plain values."""
    for option in _options(annotation):
        arguments = get_args(option)
        if _is_model(option) and key in option.model_fields:
            field = option.model_fields[key]
            return field.annotation, list(field.metadata)
        if get_origin(option) is (list if isinstance(key, int) else dict):
            return arguments[-1], []
    return Any, []


def _options(annotation: Any) -> list[Any]:
    """Return the types of a union, or the one that it is."""
    if get_origin(annotation) is Annotated and get_origin(get_args(annotation)[0]) in (Union, UnionType):
        annotation = get_args(annotation)[0]
    return list(get_args(annotation)) if get_origin(annotation) in (Union, UnionType) else [annotation]


def _is_model(annotation: Any) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, BaseModel)


def _many_in_words(annotation: Any) -> str:
    arguments = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    bounds = _bounds_in_words(arguments[1:])
    return ", ".join([_PLURALS.get(arguments[0], "plain values"), *bounds])


def _bounds_in_words(metadata: Sequence[Any]) -> list[str]:
    bounds = {name: getattr(item, name) for item in metadata for name in _BOUNDS if hasattr(item, name)}
    if {"ge", "le"} <= bounds.keys():
        return [f"{bounds['ge']} to {bounds['le']}"]
    return [_BOUNDS[name].format(bound) for name, bound in bounds.items()]
