"""What has to stand in the records of a run that are read again; a folder may come from anywhere."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class _Form(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Data(_Form):
    source: str
    classes: Annotated[list[str], Field(min_length=1)]
    digest: str | None = None
    files: dict[str, dict[str, str]] = {}


class _Run(_Form):
    status: str = "finished"
    epoch: Annotated[int, Field(ge=0)] = 0
    step: Annotated[int, Field(ge=0)] = 0


class _Epoch(_Form):
    epoch: Annotated[int, Field(ge=1)]


_FORMS: dict[str, type[_Form]] = {"data.json": _Data, "run.json": _Run, "metrics.jsonl": _Epoch}


def check_record(name: str, value: Any) -> None:
    """Check the parsed content of a file; one of another name may be anything.

    Raises:
        ValueError: Something is missing or of another type; the text goes after the name of the file.
    """
    if name not in _FORMS:
        return
    if not isinstance(value, dict):
        raise ValueError("it is JSON, but not an object")
    try:
        _FORMS[name].model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise ValueError(f"{place[:120]}: {first['msg']}") from error
