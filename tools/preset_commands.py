"""`zoo preset`: look at presets, check them, and write new ones.

Nothing here loads a framework before it must, nor what checks presets before there is one.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo._text import clean, echo, indent
from zoo.errors import InputError, ZooError
from zoo.files import to_path

from .given_options import refuse_unused, unite_settings

if TYPE_CHECKING:
    from rich.table import Table

    from zoo.compat.super_gradients import Translation
    from zoo.settings import Preset, PresetField

DEFAULT_PRESET = "classify-heads"
_HEAD = """\
# Fine-tunes {what}. Fields that are not here have their default: zoo preset show --fields
# zoo finetune DATA --preset THIS_FILE
"""
_SG_HEAD = """\
# From {recipe}, a recipe of super-gradients. Fields that are not here have their default: zoo preset show --fields
# Left out: {left_out}
# zoo finetune {model}DATA --preset THIS_FILE
"""

app = typer.Typer(name="preset", help="Look at presets, check them, and write your own.", no_args_is_help=True)


@app.command(name="list")
def list_command() -> None:
    """Name all presets and say what each is for.

    Example: zoo preset list
    """
    from zoo.settings import list_presets, read_preset

    names = list_presets()
    width = max(map(len, names), default=0)
    for name in names:
        echo(f"{name:<{width}}  {_purpose(read_preset(name))}")


@app.command()
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A preset's name, or a .yaml file.")] = "",
    full: Annotated[bool, typer.Option("--full", help="Then print the value of every field.")] = False,
    fields: Annotated[bool, typer.Option("--fields", help="List every field: default, values, meaning.")] = False,
) -> None:
    """Print a preset.

    \b
    Examples:
      zoo preset show classify-heads
      zoo preset show classify-heads --full
      zoo preset show --fields
    """  # noqa: D301
    from zoo.settings import parse_preset, read_preset

    if not (name or fields):
        raise InputError("no preset is named. zoo preset list names all; --fields lists what a preset may hold.")
    if not name:
        refuse_unused(context, {"full"}, "without the name of a preset.")
    if name:
        text = read_preset(name)
        echo(text.removesuffix("\n"), lines=True)
        if full:
            echo(f"\n# All values\n{parse_preset(text, name).to_yaml(full=True)}".removesuffix("\n"), lines=True)
    if fields:
        _print_fields()


@app.command()
def validate(files: Annotated[list[str], typer.Argument(help=".yaml files, or names of presets.")]) -> None:
    """Check presets and report all errors of each.

    A preset that names a model is held against it. What this machine lacks is a note, not an error. The exit code is 1
    if there are errors.

    Example: zoo preset validate my.yaml other.yaml
    """
    from zoo.settings import Findings, find_faults, find_missing, load_preset

    wrong = 0
    for file in files:
        try:
            findings = Findings(load_preset(file))
            find_faults(findings)
            findings.refuse()
        except ZooError as error:
            wrong += 1
            text = str(error)
            echo(indent(text if text.startswith("preset") else f"{file}: {text}"), lines=True)
            continue
        echo(f"{file}: OK")
        find_missing(findings)
        for _, lack in findings.errors:
            echo(indent(f"  note: on this machine, {lack}"), lines=True)
    if wrong:
        raise typer.Exit(1)


@app.command()
def export(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="MODEL_OR_RUN", help="A model's name, or the folder of a run.")],
    output: Annotated[str, typer.Option("--output", "-o", help="The file to write; - prints it.")] = "-",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a field; may be repeated.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help=f"What to start from, for a model. Without it, {DEFAULT_PRESET}.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Write all fields, also those that have their default.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if there is one.")] = False,
) -> None:
    """Write a preset of your own, for a model or from a finished run.

    \b
    Examples:
      zoo preset export resnet50 -o my.yaml --set lr=0.005
      zoo preset export runs/flowers -o my.yaml
    """  # noqa: D301
    from zoo.settings import parse_setting

    if output == "-":
        refuse_unused(context, {"force"}, "where no file is written; that takes -o.")
    start = _start(source, preset)
    result = start.replace(**unite_settings(list(map(parse_setting, settings or [])), {}))
    full = full or os.path.isdir(to_path(source))  # what repeats a run must not depend on defaults
    text = _HEAD.format(what=result.model or "a model that you bring") + result.to_yaml(full=full)
    if output == "-":
        echo(text.removesuffix("\n"), lines=True)
        return
    _write(to_path(output), text, force=force)
    echo(f"wrote {output}. Use it: zoo finetune DATA --preset {output}")


@app.command(name="import-sg")
def import_sg(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(help="A .yaml file: a whole recipe, or training parameters alone.")],
    output: Annotated[str, typer.Option("--output", "-o", help="The file to write; - prints it.")] = "-",
    clean: Annotated[
        bool, typer.Option("--clean", help="Keep what is meant, not the exact sequence of rates with its defects.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if there is one.")] = False,
) -> None:
    """Translate a recipe of super-gradients, and tell what became of every key.

    Files that it includes are read if they lie beside it as in the folder of recipes. Nothing in it is run.

    \b
    Examples:
      zoo preset import-sg recipe.yaml -o preset.yaml
      zoo preset import-sg recipe.yaml -o preset.yaml --clean
    """  # noqa: D301
    from zoo.compat.super_gradients import translate_recipe

    if output == "-":
        refuse_unused(context, {"force"}, "where no file is written; that takes -o.")
    translation = translate_recipe(recipe, exact=not clean)
    model = translation.preset.model
    text = _head_of_translation(recipe, translation) + translation.preset.to_yaml()
    _print_translation(translation, to_stderr=output == "-")
    if output == "-":
        echo(text.removesuffix("\n"), lines=True)
        return
    _write(to_path(output), text, force=force)
    echo(f"wrote {output}. See what learns: zoo plan {model or 'MODEL'} --preset {output}")


def _purpose(text: str) -> str:
    first = text.partition("\n")[0].strip()
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def _print_fields() -> None:
    from zoo._console import table_console
    from zoo.settings import list_fields, list_settings

    console = table_console()
    console.print(_as_table(list_fields()))
    console.print(" Settings of one key of lr, for example lr: {default: 0, fc: {lr: 0.01, unfreeze_at: 3}}")
    console.print(_as_table(list_settings()))


def _as_table(fields: "Sequence[PresetField]") -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table

    whole = Column("field", no_wrap=True, min_width=max(len(field.name) for field in fields))
    table = Table(whole, Column("default", no_wrap=True), "values", "meaning", box=SIMPLE_HEAD)
    for field in fields:
        table.add_row(field.name, field.default, field.expected, field.meaning)
    return table


def _head_of_translation(recipe: Path, translation: "Translation") -> str:
    left_out = ", ".join(map(clean, translation.left_out)) or "nothing"
    model = "" if translation.preset.model else "MODEL "
    return _SG_HEAD.format(recipe=clean(recipe.name), left_out=left_out, model=model)


def _print_translation(translation: "Translation", *, to_stderr: bool) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table

    from zoo._console import table_console

    console = table_console(err=to_stderr)
    heads = [("theirs", "value", "ours", "value", "remark"), ("left out", "why")]
    for head, rows in zip(heads, (translation.lines, translation.left_out.items()), strict=True):
        table = Table(*(Column(name, overflow="fold") for name in head), box=SIMPLE_HEAD)  # nothing is cut off
        for row in rows:
            table.add_row(*map(clean, row))
        if table.row_count:
            console.print(table)


def _start(source: str, preset: str | None) -> "Preset":
    """Return the preset of a run, or the one that a model starts from."""
    from zoo.models import find_entry
    from zoo.settings import load_preset

    if os.path.isdir(to_path(source)):
        if preset is not None:
            raise InputError(f"'{source}' is a folder, so its own preset is taken. Leave out --preset.")
        return load_preset(to_path(source) / "preset.yaml")
    return load_preset(preset or DEFAULT_PRESET).replace(model=find_entry(source).name)


def _write(path: Path, text: str, *, force: bool) -> None:
    try:
        with path.open("w" if force else "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError as error:
        raise InputError(f"'{path}' exists. Choose another name, or replace it with --force.") from error
    except OSError as error:
        raise InputError(f"'{path}' cannot be written: {error.strerror}.") from error
