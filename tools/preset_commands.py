"""`zoo preset`: look at presets, check them, and write new ones.

Nothing here loads a framework before it must, nor what checks presets before there is one.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo._text import clean, echo, indent
from zoo.errors import InputError, ZooError
from zoo.files import tell_missing, to_path

from .command_line import Command, Group
from .completion import complete_preset, complete_run, complete_setting
from .given_options import refuse_unused, unite_settings
from .listing import AsJson, print_json, print_table

if TYPE_CHECKING:
    from zoo.compat.super_gradients import Translation
    from zoo.settings import Preset, PresetField

HEADS = "classify-heads"
_HEAD = """\
# Fine-tunes {what}. {fields}: zoo preset show --fields
# zoo finetune DATA --preset THIS_FILE
"""
_SG_HEAD = """\
# From {recipe}, a recipe of super-gradients. Fields that are not here have their default: zoo preset show --fields
# Left out: {left_out}
# zoo finetune {model}DATA --preset THIS_FILE
"""

app = typer.Typer(name="preset", cls=Group, help="Show, check and write presets.", no_args_is_help=True)

Output = Annotated[
    str, typer.Option("--output", "-o", "--out", metavar="FILE", help="The file to write.", show_default="print it")
]
Force = Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")]


@app.command(name="list", cls=Command)
def list_command(as_json: AsJson = False) -> None:
    """List the presets and what each is for.

    \b
    Examples:
      zoo preset list
      zoo preset list --json
    """  # noqa: D301
    from zoo.settings import list_presets, read_preset

    names = list_presets()
    if as_json:
        print_json([{"name": name, "purpose": _purpose(read_preset(name))} for name in names])
        return
    width = max(map(len, names), default=0)
    for name in names:
        echo(f"{name:<{width}}  {_purpose(read_preset(name))}")


@app.command(cls=Command)
def show(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(metavar="[PRESET]", help="A preset's name, or a .yaml file.", autocompletion=complete_preset),
    ] = "",
    full: Annotated[bool, typer.Option("--full", help="Also print every field, including defaults.")] = False,
    fields: Annotated[bool, typer.Option("--fields", help="List all fields: default, values, meaning.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print a preset, or list all fields a preset may have.

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
    if as_json:
        refuse_unused(context, {"full"}, "beside --json, which prints every field.")
        _print_json(name, fields=fields)
        return
    if name:
        text = read_preset(name)
        echo(text.removesuffix("\n"), lines=True)
        if full:
            echo(f"\n# All values\n{parse_preset(text, name).to_yaml(full=True)}".removesuffix("\n"), lines=True)
    if fields:
        _print_fields()


@app.command(cls=Command)
def validate(
    files: Annotated[
        list[str],
        typer.Argument(metavar="PRESET...", help="Names of presets, or .yaml files.", autocompletion=complete_preset),
    ],
    as_json: AsJson = False,
) -> None:
    """Check presets and show all errors of each.

    Checks what zoo finetune checks before it reads images: fields and values, and, if the preset names its model, the
    optimizer, the layers and the rates. What this machine lacks is a note, not an error. The exit code is 1 if there
    are errors.

    \b
    Examples:
      zoo preset validate my.yaml
      zoo preset validate my.yaml other.yaml --json
    """  # noqa: D301
    found = [_validate(file) for file in files]
    if as_json:
        print_json(found)
    else:
        for verdict in found:
            echo(indent(verdict["error"] or f"{verdict['preset']}: OK"), lines=True)
            for note in verdict["notes"]:
                echo(indent(f"  note: on this machine, {note}"), lines=True)
    if any(verdict["error"] for verdict in found):
        raise typer.Exit(1)


@app.command(cls=Command)
def export(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|RUN", help="A model's name, or the folder of a run.", autocompletion=complete_run
        ),
    ],
    output: Output = "-",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Change a field; may be repeated.",
            autocompletion=complete_setting,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The preset to start from, for a model.",
            show_default=f"{HEADS}; none for a detector",
            autocompletion=complete_preset,
        ),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Write all fields, including defaults; always so for a run.")
    ] = False,
    force: Force = False,
) -> None:
    """Write a preset file for a model, or one that repeats a run.

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
    fields = "All fields are here" if full else "Fields that are not here have their default"
    text = _HEAD.format(what=result.model or "a model that you bring", fields=fields) + result.to_yaml(full=full)
    if output == "-":
        echo(text.removesuffix("\n"), lines=True)
        return
    _write(to_path(output), text, force=force)
    echo(f"wrote {output}. Use it: zoo finetune DATA --preset {output}")


@app.command(name="import-sg", cls=Command)
def import_sg(
    context: typer.Context,
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE.yaml", help="A whole recipe, or its training parameters alone.")
    ],
    output: Output = "-",
    clean: Annotated[
        bool,
        typer.Option(
            "--clean", help="Use this tool's schedules instead of reproducing super-gradients' exact learning rates."
        ),
    ] = False,
    force: Force = False,
) -> None:
    """Convert a super-gradients recipe to a preset.

    Lists what became of every key. Files that the recipe includes are read if they lie beside it as in the folder of
    recipes. No code in it is run.

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


def _validate(file: str) -> dict[str, Any]:
    """Return what is wrong with a preset on any machine, and what this one lacks for it."""
    from zoo.settings import check_file, find_missing

    try:
        findings = check_file(file)
        findings.refuse()
    except ZooError as error:
        text = str(error)
        return {"preset": file, "error": text if text.startswith("preset") else f"{file}: {text}", "notes": []}
    find_missing(findings)
    return {"preset": file, "error": None, "notes": [str(lack) for _, lack in findings.errors]}


def _purpose(text: str) -> str:
    first = text.partition("\n")[0].strip()
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def _print_json(name: str, *, fields: bool) -> None:
    """Print a preset with all its fields, or what there is to know of every field."""
    from zoo.settings import list_fields, list_settings, load_preset

    preset = load_preset(name).model_dump(mode="json") if name else None
    listed = {"fields": [field._asdict() for field in list_fields()], "lr": [f._asdict() for f in list_settings()]}
    print_json(preset if not fields else listed if preset is None else {"preset": preset, **listed})


def _print_fields() -> None:
    from zoo.settings import list_fields, list_settings

    print_table(_rows(list_fields()), "fields")
    echo()
    print_table(
        _rows(list_settings()), "settings of one key of lr, such as lr: {default: 0, fc: {lr: 0.01, unfreeze_at: 3}}"
    )


def _rows(fields: "Sequence[PresetField]") -> list[dict[str, str]]:
    return [
        {"field": field.name, "default": field.default, "values": field.expected, "meaning": field.meaning}
        for field in fields
    ]


def _head_of_translation(recipe: Path, translation: "Translation") -> str:
    left_out = ", ".join(map(clean, translation.left_out)) or "nothing"
    model = "" if translation.preset.model else "MODEL "
    return _SG_HEAD.format(recipe=clean(recipe.name), left_out=left_out, model=model)


def _print_translation(translation: "Translation", *, to_stderr: bool) -> None:
    from zoo.progress import Progress

    show = Progress(err=to_stderr)
    heads = {"keys": ("theirs", "value", "ours", "our value", "remark"), "left out": ("key", "why")}
    for (title, head), rows in zip(heads.items(), (translation.lines, translation.left_out.items()), strict=True):
        found = [dict(zip(head, map(str, row), strict=True)) for row in rows]
        if found:
            show.table(found, title=title)


def _start(source: str, preset: str | None) -> "Preset":
    """Return the preset of a run, or the one that a model starts from."""
    from zoo.models import find_entry
    from zoo.settings import Preset, load_preset
    from zoo.tasks import DEFAULT_TASK, task_of

    if os.path.isdir(to_path(source)):
        if preset is not None:
            raise InputError(f"'{source}' is a folder, so its own preset is taken. Leave out --preset.")
        return load_preset(to_path(source) / "preset.yaml")
    if missing := tell_missing(source):
        raise InputError(missing)
    entry = find_entry(source)
    if preset is None and entry.task != DEFAULT_TASK:
        return Preset(**task_of(entry.task).defaults).replace(model=entry.name)
    return load_preset(preset or HEADS).replace(model=entry.name)


def _write(path: Path, text: str, *, force: bool) -> None:
    try:
        with path.open("w" if force else "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError as error:
        raise InputError(f"'{path}' exists. Choose another name, or replace it with --force.") from error
    except OSError as error:
        raise InputError(f"'{path}' cannot be written: {error.strerror}.") from error
