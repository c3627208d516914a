"""`zoo preset`: look at presets, check them, and write new ones. Nothing here loads a framework before it must."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from zoo.errors import InputError, PresetError
from zoo.preset import Preset, list_fields, list_presets, load_preset, parse_preset, parse_setting, read_preset

DEFAULT_PRESET = "classify-heads"
WIDTH_OF_FILES = 200
_HEAD = """\
# Fine-tunes {what}. Fields that are not here have their default: zoo preset show --fields
# zoo finetune DATA --preset THIS_FILE
"""

app = typer.Typer(name="preset", help="Look at presets, check them, and write your own.", no_args_is_help=True)


@app.command(name="list")
def list_command() -> None:
    """Name all presets and say what each is for.

    Example: zoo preset list
    """
    names = list_presets()
    width = max(map(len, names), default=0)
    for name in names:
        typer.echo(f"{name:<{width}}  {_purpose(read_preset(name))}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A preset's name, or a .yaml file.")] = "",
    full: Annotated[bool, typer.Option("--full", help="Then print the value of every field.")] = False,
    fields: Annotated[bool, typer.Option("--fields", help="List every field: default, values, meaning.")] = False,
) -> None:
    """Print a preset.

    Examples:
      zoo preset show classify-heads
      zoo preset show classify-heads --full
      zoo preset show --fields
    """
    if not (name or fields):
        raise InputError("no preset is named. zoo preset list names all; --fields lists what a preset may hold.")
    if name:
        text = read_preset(name)
        typer.echo(text, nl=not text.endswith("\n"))
        if full:
            typer.echo(f"\n# All values\n{parse_preset(text, name).to_yaml(full=True)}", nl=False)
    if fields:
        _print_fields()


@app.command()
def validate(files: Annotated[list[str], typer.Argument(help=".yaml files, or names of presets.")]) -> None:
    """Check presets and report all errors of each.

    The exit code is 1 if there are any.

    Example: zoo preset validate my.yaml other.yaml
    """
    wrong = 0
    for file in files:
        try:
            load_preset(file)
            typer.echo(f"{file}: OK")
        except PresetError as error:
            wrong += 1
            typer.echo(str(error))
    if wrong:
        raise typer.Exit(1)


@app.command()
def export(
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

    Examples:
      zoo preset export resnet50 -o my.yaml --set lr=0.005
      zoo preset export runs/flowers -o my.yaml
    """
    start = _start(source, preset)
    result = start.replace(**dict(map(parse_setting, settings or [])))
    full = full or Path(source).is_dir()  # what repeats a run must not depend on defaults
    text = _HEAD.format(what=result.model or "a model that you bring") + result.to_yaml(full=full)
    if output == "-":
        typer.echo(text, nl=False)
        return
    _write(Path(output), text, force=force)
    typer.echo(f"wrote {output}. Use it: zoo finetune DATA --preset {output}")


def _purpose(text: str) -> str:
    first = text.partition("\n")[0].strip()
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def _print_fields() -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table("field", "default", "values", "meaning", box=SIMPLE_HEAD)
    for field in list_fields():
        table.add_row(field.name, field.default, field.expected, field.meaning)
    Console(width=None if sys.stdout.isatty() else WIDTH_OF_FILES, markup=False, highlight=False).print(table)


def _start(source: str, preset: str | None) -> Preset:
    """Return the preset of a run, or the one that a model starts from."""
    if Path(source).is_dir():
        if preset is not None:
            raise InputError(f"'{source}' is a folder, so its own preset is taken. Leave out --preset.")
        return load_preset(Path(source) / "preset.yaml")
    from zoo.models import find_entry

    return load_preset(preset or DEFAULT_PRESET).replace(model=find_entry(source).name)


def _write(path: Path, text: str, *, force: bool) -> None:
    try:
        with path.open("w" if force else "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError as error:
        raise InputError(f"'{path}' exists. Choose another name, or replace it with --force.") from error
    except OSError as error:
        raise InputError(f"'{path}' cannot be written: {error.strerror}.") from error
