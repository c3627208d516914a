"""How the command line reads words: its help, and what a wrong command or option was meant to be.

Names of other tools are suggested, never taken: what is typed stands in scripts and must mean one thing.
"""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from zoo.errors import InputError, did_you_mean

USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]  # of whichever click this typer brings

COMMANDS: Mapping[str, str] = {  # what other tools call a command
    "train": "finetune",
    "fit": "finetune",
    "fine-tune": "finetune",
    "tune": "finetune",
    "resume": "finetune --resume RUN",
    "val": "evaluate",
    "validate": "evaluate",
    "test": "evaluate",
    "eval": "evaluate",
    "detect": "predict",
    "classify": "predict",
    "infer": "predict",
    "inference": "predict",
    "info": "describe",
    "show": "describe",
    "list": "models",
    "presets": "preset list",
    "fields": "preset show --fields",
    "check": "data check",
    "download": "weights pull",
    "pull": "weights pull",
    "upload": "push",
    "publish": "push",
    "export": "push, zoo preset export or zoo weights export",
    "version": "--version",
    "doctor": "env",
    "help": "--help",
}
OPTIONS: Mapping[str, str] = {  # what other tools call an option, or where it is said here
    "--learning-rate": "--lr",
    "--output": "--out",
    "--output-dir": "--out",
    "--project": "--out",
    "--checkpoint": "--weights",
    "--pretrained": "--weights",
    "--confidence": "--conf",
    "--threshold": "--conf",
    "--top-k": "--top",
    "--topk": "--top",
    "--plot": "--plot FILE.png",
    "--picture": "--plot FILE.png",
    "--verbose": "zoo --verbose",
}
_ARGUMENTS = {"--model": "MODEL", "--data": "DATA", "--dataset": "DATA", "--source": "SOURCE", "--run": "RUN"}
_SPOKEN: Mapping[str, str] = {  # what messages call by its name in Python, and its name on the command line
    r"zoo\.list_models\(commercial=True\)": "zoo models --commercial",
    r", zoo\.(optim\.)?list_\w+\(\)\)": ")",
    r"\((--[\w-]+), \w+=('[^']*')\)": r"(\1 \2)",
    r"\((--[\w-]+), \w+=(False)?\)": r"(\1)",
    r"(--public) \(private=False\)": r"\1",
    r"\w+=True \((--skip-bad|--keep-rows)\)": r"\1",
    r"\bmax_drop=([\d.]+\d)": r"--max-drop \1",
    r"pretrained=False \((--no-pretrained)\)": r"\1",
    r"pretrained=('[^']*')? ?\((--weights)\)": r"\2 \1",
    r"\bpretrained=False\b": "--no-pretrained",
    r"\bpretrained=('[^']*')": r"--weights \1",
    r"\bpretrained=(?=[ .])": "--weights",
    r"\bdevice='(\w+)'": r"--device \1",
    r"\b(mode|device)=(\w+)": r"--\1 \2",
    r"(?<!--set )\b(image_cache|cache|keep|precision|micro_batch_size|num_workers)='?(\w+)'?": r"--set \1=\2",
}
_TYPE = re.compile(r" <[^<>]*>$")
_DEFAULT = re.compile(r"\[default: \((.*)\)(?=[\];])")


class Command(TyperCommand):
    """A command whose help shows its arguments as they are written."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the line that says how the command is used."""
        arguments = [part for part in self.get_params(ctx) if part.param_type_name == "argument"]
        return ["[OPTIONS]", *(part.metavar or part.name.upper() for part in arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the options."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and parameter.param_type_name == "argument":
                sections["Arguments"].append((_TYPE.sub("", record[0]), _DEFAULT.sub(r"[default: \1", record[1])))
            elif record is not None:
                sections["Options"].append((record[0], _DEFAULT.sub(r"[default: \1", record[1])))
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class Group(TyperGroup):
    """A group of commands that says what a wrong name was meant to be."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the first word names, and the words after it.

        Raises:
            InputError: There is none.
        """
        name = args[0]
        if name.startswith("-") or self.get_command(ctx, name) is not None:
            return super().resolve_command(ctx, args)
        path = ctx.command_path
        meant = COMMANDS.get(name.lower().replace("_", "-"))
        if meant and ctx.parent is not None:  # within a group, its own command
            meant = meant.split()[-1] if meant.split()[-1] in self.commands else None
        hint = f" Did you mean '{meant}'?" if meant else did_you_mean(name, self.commands)
        raise InputError(f"No such command {name!r}.{hint} {path} --help lists all.")


def explain_usage(error: Any) -> str:
    """Return what was wrong with the words of a command, and how it is used."""
    context = getattr(error, "ctx", None)
    if context is None:
        return str(error.format_message())
    path = context.command_path
    option = getattr(error, "option_name", None)
    if option and type(error).__name__ == "NoSuchOption":
        return f"No such option {option}.{_suggest_option(context, option)} {path} --help lists all."
    usage = context.command.get_usage(context).removeprefix("Usage: ")
    return f"{error.format_message()}\nUsage: {usage} ({path} --help says more)"


def speak_commands(text: str) -> str:
    """Return a message of the package in the words of the command line: commands and options."""
    for pattern, spoken in _SPOKEN.items():
        text = re.sub(pattern, spoken, text)
    return re.sub(r"(--weights) (?=[ ,.;)])", r"\1", text)


def _suggest_option(context: Any, option: str) -> str:
    """Return the option, argument or field of a preset that was meant, as the end of a sentence."""
    names = [name for parameter in context.command.params for name in parameter.opts if name.startswith("--")]
    named = option.lower().replace("_", "-")
    if (meant := OPTIONS.get(named)) and (meant.split()[0] in names or meant.startswith("zoo")):
        return f" Did you mean {meant}?"
    if named in _ARGUMENTS:
        return f" {_ARGUMENTS[named]} is an argument: {context.command.get_usage(context).removeprefix('Usage: ')}."
    field = _find_field(named.lstrip("-").replace("-", "_")) if "--set" in names else None
    own = f"--{field}".replace("_", "-")
    if field and own not in names:
        return f" Did you mean --set {field}=VALUE?"
    return f" Did you mean {own}?" if field else did_you_mean(named, names).replace("'", "")


def _find_field(name: str) -> str | None:
    """Return the field of a preset that has this name, here or in other tools, or nearly so."""
    from zoo.settings import FIELD_OF, preset_fields

    known = {name: name for name in preset_fields()} | FIELD_OF
    close = [name] if name in known else get_close_matches(name, known, n=1, cutoff=0.8)
    return known[close[0]] if close else None
