"""The options `--preset`, `--lr`, `--mode` and `--set`, and the preset that they make together.

Presets are imported where they are made: the help of a command needs none of what checks them.
"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.errors import InputError

from .given_options import unite_settings

if TYPE_CHECKING:
    from zoo.settings import Preset

Lr = Annotated[
    str | None,
    typer.Option(
        metavar="RATE",
        help="One rate, rates by prefix ('fc=0.01,layer4=0.001,default=0'; 0 freezes) and kind of layer "
        "('@norm=0.001'), or YAML with settings: '{default: 0, fc: {lr: 0.01, unfreeze_at: 3}}'.",
    ),
]
Mode = Annotated[str | None, typer.Option(help="head: the head learns. low_lr: the rest at a tenth. full: all.")]
PresetName = Annotated[str | None, typer.Option("--preset", help="A name of `zoo preset list`, or a .yaml file.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Any field of `zoo preset show --fields`; may be repeated."),
]


def choose_preset(
    preset: str | None, lr: str | None, mode: str | None, settings: list[str] | None, **given: Any
) -> "Preset":
    """Return a preset with everything changed that the command line says.

    Args:
        preset: Name or file; None: all defaults.
        lr: What `--lr` said.
        mode: What `--mode` said.
        settings: What every `--set` said.
        given: Fields that have an option of their own; None: not given.
    """
    from zoo.settings import Preset, load_preset, parse_setting

    start = load_preset(preset) if preset else Preset()
    rates = None if lr is None else parse_rates(lr)
    said = list(map(parse_setting, settings or []))
    return start.replace(**unite_settings(said, given | {"mode": mode, "lr": rates}))


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
