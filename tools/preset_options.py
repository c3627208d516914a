"""The options that stand for fields of a preset, and what they say together.

Presets are imported where they are read: the help of a command needs none of what checks them.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.errors import InputError

from .completion import complete_mode, complete_preset, complete_setting
from .given_options import unite_settings

Lr = Annotated[
    str | None,
    typer.Option(
        metavar="RATE",
        help="Learning rate: a number, or rates by layer name, such as 'fc=0.01,layer4=0.001,default=0' (0 freezes; "
        "'@norm' means all norm layers). Settings per layer: '{default: 0, fc: {lr: 0.01, unfreeze_at: 3}}'.",
        show_default="the preset's; 0.01 without one",
    ),
]
Mode = Annotated[
    str | None,
    typer.Option(
        metavar="head|low_lr|full",
        help="What to train: head (the backbone is frozen), low_lr (backbone at 0.1 x lr), full (all at lr).",
        show_default="the preset's; head without one",
        autocompletion=complete_mode,
    ),
]
PresetName = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="NAME",
        help="Settings to start from: a name that zoo preset list shows, or a .yaml file.",
        show_default="none",
        autocompletion=complete_preset,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Set any other field of the preset; may be repeated. zoo preset show --fields lists all.",
        autocompletion=complete_setting,
    ),
]
Epochs = Annotated[
    int | None, typer.Option(metavar="N", help="Epochs to train.", show_default="the preset's; 10 without one")
]
BatchSize = Annotated[
    str | None,
    typer.Option(
        metavar="N|auto",
        help="Images per step; auto: the preset's number, in micro-batches that fit in memory.",
        show_default="the preset's; without one 32, detectors 16",
    ),
]
ImageSize = Annotated[
    int | None, typer.Option(metavar="PIXELS", help="Side of the input images.", show_default="the model's")
]
MultiLabel = Annotated[bool, typer.Option("--multi-label", help="An image has any number of labels, not one class.")]
ImageRoot = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER", help="Folder that the image paths of a table start in.", show_default="that of the table"
    ),
]
Exclude = Annotated[
    Path | None,
    typer.Option(
        "--exclude",
        metavar="FILE",
        help="Leave out the images that a CSV names, such as suspects.csv.",
        show_default="none",
    ),
]
Solver = Annotated[
    str | None,
    typer.Option(
        metavar="exact|prototype|auto",
        help="Solve the head instead of training it in steps: exact (logistic regression), prototype (class means, for "
        "1 to 5 images per class) or auto.",
        show_default="the preset's; steps without one",
    ),
]
L2 = Annotated[
    float | None,
    typer.Option(
        "--l2", metavar="PENALTY", help="L2 penalty of --solver exact.", show_default="chosen by cross-validation"
    ),
]
Seed = Annotated[int | None, typer.Option(metavar="N", help="Seed of everything random.", show_default="0")]
Device = Annotated[str | None, typer.Option(metavar="NAME", help="auto, cpu, cuda or mps.", show_default="auto")]


def read_fields(
    settings: list[str] | None, *, lr: str | None, batch_size: str | None = None, **given: Any
) -> dict[str, Any]:
    """Return the fields of a preset that the command line sets, as overrides of `zoo.finetune` and `zoo.plan`.

    Args:
        settings: What every `--set` said.
        lr: What `--lr` said.
        batch_size: What `--batch-size` said.
        given: Fields that have an option of their own; None: not given.

    Raises:
        InputError: A field is said twice, or a value is not understood.
    """
    from zoo.settings import FORMER, Preset, parse_setting, preset_fields

    given["lr"] = None if lr is None else parse_rates(lr)
    given |= {"micro_batch_size": "auto"} if batch_size == "auto" else {"batch_size": _to_number(batch_size)}
    fields = unite_settings(list(map(parse_setting, settings or [])), given)
    if unknown := {name: value for name, value in fields.items() if name not in {*preset_fields(), *FORMER}}:
        Preset(**unknown)  # raises: else `out` and the like would be taken for arguments of the function
    return fields


def parse_rates(text: str) -> Any:
    """Read what `--lr` says: a number, `key=rate` pairs, or a mapping in YAML; the preset checks the values.

    Raises:
        InputError: It is none of these, or names a key twice.
    """
    from zoo.settings import parse_setting

    if "=" in text and not text.lstrip().startswith("{"):
        return _parse_pairs(text)
    _, value = parse_setting(f"lr={text.strip() or 'null'}")
    if isinstance(value, int | float | dict):
        return value
    raise InputError(
        f"--lr is {text!r}; expected a number such as 0.01, rates by prefix such as 'fc=0.01,layer4=0.001,default=0', "
        "or YAML such as '{default: 0, fc: {lr: 0.01, unfreeze_at: 3}}'."
    )


def _parse_pairs(text: str) -> dict[str, float]:
    rates: dict[str, float] = {}
    for part in text.split(","):
        key, _, value = (word.strip() for word in part.partition("="))
        if key in rates:
            raise InputError(f"--lr names {key!r} twice. Remove one of them.")
        try:
            rates[key] = float(value)
        except ValueError:
            raise InputError(
                f"--lr: {part.strip()!r} is no key=rate. Expected for example 'fc=0.01,layer4=0.001,default=0'."
            ) from None
    return rates


def _to_number(text: str | None) -> int | None:
    if text is not None and not (text.isascii() and text.isdigit()):
        raise InputError(f"--batch-size is {text!r}; expected a number, 1 or more, or auto.")
    return None if text is None else int(text)
