"""Presets as YAML files: those that come with the package, those of a path, and single settings."""

import os
from pathlib import Path
from typing import Any

from zoo._fields import shown
from zoo.errors import PresetError, did_you_mean
from zoo.files import open_regular, read_yaml, to_path
from zoo.settings.fields import complete, refusal
from zoo.settings.preset import Preset

MAX_BYTES = 100_000
SUFFIXES = (".yaml", ".yml")


def presets_folder() -> Path:
    """Return the folder of presets that belongs to this very copy of the package."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "presets"
    return inside if inside.is_dir() else package.parent / "presets"


def list_presets() -> list[str]:
    """Return the names of all presets that come with the package."""
    return sorted(path.stem for path in presets_folder().glob("*.yaml"))


def load_preset(name_or_path: str | os.PathLike[str]) -> Preset:
    """Return the preset of that name, or of a `.yaml` file.

    Raises:
        PresetError: There is no such preset, or something in it is wrong.
    """
    return parse_preset(read_preset(name_or_path), str(name_or_path))


def read_preset(name_or_path: str | os.PathLike[str]) -> str:
    """Return the text of a preset file, comments included, without a look at its meaning."""
    try:
        with open_regular(_find(name_or_path)) as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        reason = error.strerror or error
        text = f"preset '{name_or_path}' cannot be read: {reason}.{_did_you_mean_preset(name_or_path)}"
        raise PresetError(text) from error
    if len(data) > MAX_BYTES:
        raise PresetError(f"preset '{name_or_path}' is larger than {MAX_BYTES:,} bytes. Is it a preset?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        text = f"preset '{name_or_path}' is not UTF-8 text (byte {error.start}). Save it as UTF-8."
        raise PresetError(text) from error


def parse_preset(text: str, origin: str) -> Preset:
    """Return the preset that a YAML text describes.

    Args:
        text: Lines of `key: value`.
        origin: Where the text comes from, for the errors.

    Raises:
        PresetError: With everything that is wrong, and the lines.
    """
    where = f"preset '{origin}'"
    document = read_yaml(text)
    values = document.value
    if not isinstance(values, dict):
        if document.problems:
            raise refusal(where, document.problems)
        found = "is empty" if values is None else f"holds {shown(values)}"
        raise PresetError(f"{where} {found}; expected lines such as 'epochs: 20', or {{}} for all defaults.")
    return Preset.checked(complete(values), where, document.lines, document.problems)


def parse_setting(setting: str) -> tuple[str, Any]:
    """Return key and value of a text such as `lr=1e-3` or `lr={default: 0, head: 0.01}`; the value is read as YAML."""
    key, equals, text = (part.strip() for part in setting.partition("="))
    if not (key and equals):
        raise PresetError(f"cannot parse setting {setting!r}; expected key=value, such as lr=0.005.")
    document = read_yaml(text)
    if document.problems:
        raise refusal(f"setting {setting!r}", document.problems)
    return key, document.value


def _find(name_or_path: str | os.PathLike[str]) -> Path:
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise PresetError(f"preset is a {type(name_or_path).__name__}; expected a name, a .yaml file or a Preset.")
    path = to_path(name_or_path)
    if path.suffix in SUFFIXES:
        return path
    if str(name_or_path) in list_presets():
        return presets_folder() / f"{name_or_path}.yaml"
    if path.is_file():
        raise PresetError(f"preset '{name_or_path}' is a file without the suffix .yaml. Rename it.")
    if (path / "preset.yaml").is_file():
        raise PresetError(f"preset '{name_or_path}' is a run folder. Its preset is '{path / 'preset.yaml'}'.")
    raise PresetError(
        f"unknown preset '{name_or_path}'.{_did_you_mean_preset(name_or_path)} There are {len(list_presets())} (`zoo "
        "preset list`, zoo.list_presets()); a preset file needs the suffix .yaml."
    )


def _did_you_mean_preset(name_or_path: str | os.PathLike[str]) -> str:
    return did_you_mean(Path(name_or_path).stem, list_presets())
