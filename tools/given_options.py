"""The options that were given, and the refusal of those that would have no effect: nothing that is said is ignored."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import typer

from zoo.errors import InputError


def given_options(context: typer.Context) -> dict[str, str]:
    """Return the options that stand on the command line: how each is written, by its parameter's name."""
    found = {}
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if parameter.param_type_name == "option" and source is not None and source.name == "COMMANDLINE":
            found[str(parameter.name)] = max(parameter.opts, key=len)
    return found


def refuse_unused(context: typer.Context, unused: Collection[str], why: str) -> None:
    """Raise if an option was given that has no effect beside the others.

    Args:
        context: Of the command.
        unused: Names of the parameters that have no effect.
        why: The end of the sentence `--lr has no effect ...`, and what to do instead.

    Raises:
        InputError: Naming all of them.
    """
    found = [written for name, written in given_options(context).items() if name in unused]
    if found:
        names = found[0] if len(found) == 1 else f"{', '.join(found[:-1])} and {found[-1]}"
        has, them = ("has", "it") if len(found) == 1 else ("have", "them")
        raise InputError(f"{names} {has} no effect {why} Leave {them} out.")


def unite_settings(settings: Sequence[tuple[str, Any]], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `--set` and the options that stand for a field of their own say together.

    Args:
        settings: Field and value of each `--set`.
        given: Values of options, by field; None: not given.

    Raises:
        InputError: A field is said twice.
    """
    changes: dict[str, Any] = {}
    for key, value in settings:
        if key in changes:
            raise InputError(f"--set gives {key} twice. Remove one of them.")
        changes[key] = value
    for key, value in given.items():
        if value is None:
            continue
        if key in changes:
            raise InputError(f"{key} is given twice: by --set, and by an option or argument of its own. Remove one.")
        changes[key] = value
    return changes
