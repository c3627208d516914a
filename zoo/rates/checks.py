"""The fields of a preset that say rates: what their types alone cannot check, and what a file can hold of them.

Python may give more than YAML: functions, torch schedulers, `Settings`, tuples. Whatever a file can hold becomes what
the file gives back, so that a run and its saved preset agree; a function that nobody registered stays as it is.
"""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import JsonValue, TypeAdapter, ValidationError

from zoo._fields import Params, Path, refuse, shown, tuples_to_lists
from zoo.errors import InputError, PlanError
from zoo.rates.schedules.base import Curve
from zoo.rates.schedules.parse import Schedule, parse_schedule
from zoo.rates.schedules.super_gradients import Reference
from zoo.rates.spec import DEFAULT, GroupSettings, parse_key

Complaints = list[tuple[Path, str]]
Handler = Callable[[Any], Any]  # pydantic's own check

# What a bare function or torch scheduler leaves open.
_SHARED = {*Curve.model_fields, *Reference.model_fields, "compat"}
_SCHEDULES = ("schedule", "weight_decay_schedule")
_PARAMS = TypeAdapter[dict[str, Any]](Params)
_PLAIN = TypeAdapter[Any](JsonValue)


def check_rates(lr: Any, handler: Handler, compat: str | None) -> Any:
    """Check a rate, or a mapping of keys to rates and settings, from within a validator of pydantic.

    Args:
        lr: What was given.
        handler: Checks the types.
        compat: As in `parse_schedule`.

    Raises:
        ValidationError: With everything that is wrong.
    """
    if not isinstance(lr, dict):
        return handler(lr)
    complaints: Complaints = []
    given = {key: _check_rate(key, value, compat, complaints) for key, value in lr.items()}
    if DEFAULT not in lr:
        complaints.append(((), "lr has no 'default', the learning rate of all other parameters. Add it; 0 freezes."))
    return _run(handler, given, complaints)


def check_schedule(schedule: Any, compat: str | None) -> Any:
    """Return a schedule as a name or mapping, or as it is if no file can hold it.

    Raises:
        ValidationError: With everything that is wrong.
    """
    complaints: Complaints = []
    read = _read_schedule("schedule", (), schedule, compat, complaints)
    if complaints:
        refuse(complaints)
    return read


def check_unfreezing(unfreeze: Any, handler: Handler) -> Any:
    """Check epochs and prefixes; the epochs may be numbers, and become texts.

    Raises:
        ValidationError: With everything that is wrong.
    """
    if not isinstance(unfreeze, dict):
        return handler(unfreeze)
    complaints: Complaints = []
    given: dict[Any, Any] = {}
    for epoch, prefixes in unfreeze.items():
        is_whole = not isinstance(epoch, bool) and isinstance(epoch, int | str) and str(epoch).isdecimal()
        if not is_whole:
            hint = " with a space after the colon" if ":" in str(epoch) else ""
            text = (
                f"unfreeze: {shown(epoch)} is not a whole number of epochs. Expected, for example, {{3: "
                f"[layer4]}}{hint}."
            )
            complaints.append(((epoch,), text))
            continue
        text = str(int(epoch))
        if text in given:
            complaints.append(((epoch,), f"unfreeze names epoch {text} twice. Put all of its prefixes into one list."))
        if prefixes in ("", [], ()) or (isinstance(prefixes, list | tuple) and "" in prefixes):
            complaints.append(((epoch,), f"unfreeze.{text} names no prefix. Expected, for example, {{3: [layer4]}}."))
        given[text] = tuples_to_lists(prefixes)
    return _run(handler, given, complaints)


def rates_for_file(lr: Any, compat: str | None) -> Any:
    """Return rates as plain values: of settings only what was said."""
    if not isinstance(lr, dict):
        return lr
    return {
        key: _settings_for_file(item, compat) if isinstance(item, GroupSettings) else item for key, item in lr.items()
    }


def schedule_for_file(schedule: Any, compat: str | None) -> Any:
    """Return a schedule as plain values.

    Of a function that is not registered that is its name; reading it back is an error that says what to do.
    """
    if isinstance(schedule, str) or _is_plain(schedule):
        return schedule
    everything = parse_schedule(schedule, {}, compat).to_dict()
    if isinstance(schedule, Schedule):
        return everything
    said = schedule if isinstance(schedule, Mapping) else {}
    return {key: value for key, value in everything.items() if key in said or key == "kind" or key not in _SHARED}


def _check_rate(key: Any, value: Any, compat: str | None, complaints: Complaints) -> Any:
    """Return a rate or settings as a file holds them, and add to the complaints what is wrong."""
    if isinstance(key, str):
        try:
            parse_key(key)
        except PlanError as error:
            text = str(error)
            complaints.append(((key,), f"lr: {text}" if text.endswith(("?", ".")) else f"lr: {text}."))
    if isinstance(value, GroupSettings):
        value = {name: getattr(value, name) for name in GroupSettings.model_fields if name in value.model_fields_set}
    if isinstance(value, list | tuple):  # one rate per step
        value = {"lr": value}
    if not isinstance(value, dict):
        return value
    read = {name: tuples_to_lists(item) for name, item in value.items()}
    for name in _SCHEDULES:
        if read.get(name) is not None:
            system = compat if name == "schedule" else None
            read[name] = _read_schedule(f"lr.{key}.{name}", (key, name), value[name], system, complaints)
    if read.get("optimizer_params") is not None and not _is_plain(read["optimizer_params"], _PARAMS):
        name, found = f"lr.{key}.optimizer_params", shown(value["optimizer_params"])
        complaints.append(
            ((key, "optimizer_params"), f"{name} is {found}; expected a mapping of names to plain values.")
        )
    return read


def _read_schedule(name: str, path: Path, schedule: Any, compat: str | None, complaints: Complaints) -> Any:
    """Return a schedule as a file holds it, if one can, and add to the complaints what is wrong."""
    if isinstance(schedule, Mapping) and _is_plain(listed := tuples_to_lists(dict(schedule))):
        schedule = listed
    try:
        parse_schedule(schedule, {}, compat)
    except InputError as error:
        complaints += [((*path, *inner), text) for inner, text in _sentences(name, error)]
        return schedule
    written = schedule_for_file(schedule, compat)
    try:
        parse_schedule(written, {}, compat)
    except InputError:
        return schedule
    is_bare = isinstance(written, dict) and list(written) == ["kind"] and not isinstance(schedule, Mapping)
    return written["kind"] if is_bare else written


def _sentences(name: str, error: InputError) -> Complaints:
    """Return what is wrong with a schedule, one sentence for each of its keys if they are to blame."""
    first, *texts = str(error).splitlines()
    cause = error.__cause__
    if isinstance(cause, ValidationError) and len(texts) == cause.error_count():
        places = [detail["loc"][:1] for detail in cause.errors()]
        return [(place, f"{name}: {text.strip()}") for place, text in zip(places, texts, strict=True)]
    text = "\n  ".join([first, *texts])
    return [((), f"{name}{text.removeprefix('schedule')}" if text.startswith("schedule ") else f"{name}: {text}")]


def _run(handler: Handler, given: Any, complaints: Complaints) -> Any:
    """Check the types too, and raise all that is wrong."""
    try:
        checked = handler(given)
    except ValidationError as error:
        refuse(complaints, error)
    if complaints:
        refuse(complaints)
    return checked


def _settings_for_file(settings: GroupSettings, compat: str | None) -> dict[str, Any]:
    said: dict[str, Any] = settings.model_dump(exclude_unset=True)
    for name in _SCHEDULES:
        if said.get(name) is not None:
            said[name] = schedule_for_file(getattr(settings, name), compat if name == "schedule" else None)
    return said


def _is_plain(value: Any, kind: TypeAdapter[Any] = _PLAIN) -> bool:
    try:
        kind.validate_python(value, strict=True)
    except ValidationError:
        return False
    return True
