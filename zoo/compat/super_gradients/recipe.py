"""A recipe file of super-gradients → a preset: its training parameters, and what it says of model and batches.

Recipes are made for hydra, which puts files together and fills in references. Files that a recipe includes are read if
they lie where they do in the library's own folder of recipes, and references to single values are followed; what else
hydra would do is told.

Source of the layout: Deci-AI/super-gradients, release 3.7.1, `recipes/`; order
of files: hydra.cc, "The Defaults List".
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo._fields import shown
from zoo.compat.super_gradients import Translation, translate
from zoo.compat.super_gradients.parameters import LEFT_OUT, Line, join_names
from zoo.errors import PresetError
from zoo.files import open_regular, read_yaml, to_path
from zoo.settings import MAX_BYTES

_SECTIONS = ("training_hyperparams", "training_params")
_ENOUGH = ("initial_lr", "lr_mode", "max_epochs")  # one of them makes a file one of training parameters alone
_SHORTCUTS = {  # names at the top of a recipe that hydra copies to where they belong
    "lr": "initial_lr",
    "epochs": "max_epochs",
    "ema": "ema",
    "resume": "resume",
}
_MODELS = {  # architectures that are known here, and what their parts are called
    "resnet18": ("resnet18", "fc; in super-gradients: linear"),
    "resnet34": ("resnet34", "fc; in super-gradients: linear"),
    "resnet50": ("resnet50", "fc; in super-gradients: linear"),
    "resnet101": ("resnet101", "fc; in super-gradients: linear"),
    "mobilenet_v2": ("mobilenetv2_100", "blocks and conv_head; in super-gradients: features"),
}
_DATA = "images come from the given data; see image_size, augment, batch_size and num_workers"
_PROCESSES = "start several processes with accelerate launch"
_WEIGHTS = "the initial weights are those of the given model, or of pretrained"
_REASONS = {
    "arch_params": "arguments of super-gradients' model; the number of classes comes from the data",
    "checkpoint_params": _WEIGHTS,
    "dataset_params": _DATA,
    "experiment_name": "zoo finetune --out sets the run folder",
    "load_checkpoint": _WEIGHTS,
    "multi_gpu": _PROCESSES,
    "num_gpus": _PROCESSES,
    "train_dataloader": _DATA,
    "val_dataloader": _DATA,
}
_RESOLVE = "python -m super_gradients.train_from_recipe --config-name=NAME --cfg job --resolve > whole.yaml"
_REFERENCE = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")
_LONGEST_CHAIN = 10  # references that lead to references
_LEAST = {"batch_size": 1, "num_workers": 0}  # what is taken from the loader of the training data
_KNOWN_FILES = ("default_train_params", "variable_setup")  # the defaults of the library, and names without a value
_INCLUDE = re.compile(r"[\w-]+(/[\w-]+)*")
_MOST_FILES = 50
_MOST_LISTED = 10


def translate_recipe(path: str | Path, *, exact: bool = True) -> Translation:
    """Translate a recipe.

    Args:
        path: A YAML file: a whole recipe, or training parameters alone.
        exact: As for `translate`.

    Returns:
        The translation; the keys of the training parameters stand as they are, those around them beside them.

    Raises:
        PresetError: The file cannot be read, holds no training parameters, or something in them is wrong.
    """
    files = _Files()
    recipe = files.gather(to_path(path), "")
    section = next((name for name in _SECTIONS if name in recipe), None)
    if section is None and not any(name in recipe for name in _ENOUGH):
        raise PresetError(f"recipe '{path}' has no training_hyperparams.{_advise(files.missing)}")
    values = recipe if section is None else recipe[section]
    if not isinstance(values, dict):
        raise PresetError(f"recipe '{path}': {section} is {shown(values)}; expected names and values.")
    around = {} if section is None else {key: value for key, value in recipe.items() if key != section}
    shortcuts = {_SHORTCUTS[key]: value for key, value in around.items() if key in _SHORTCUTS and value is not None}
    try:
        inner = translate({key: _resolve(value, recipe) for key, value in (values | shortcuts).items()}, exact=exact)
    except PresetError as error:
        raise PresetError(f"recipe '{path}': {error}{_advise(files.missing)}") from error
    return _add_files(_add_rest(inner, {key: _resolve(value, recipe) for key, value in around.items()}), files)


class _Files:
    """The files that a recipe is made of.

    Attributes:
        read: Those that were read, the recipe itself first.
        known: Names of those that need not be read.
        missing: Names of those that were not found.
    """

    def __init__(self) -> None:
        self.read: list[str] = []
        self.known: list[str] = []
        self.missing: list[str] = []

    def gather(self, path: Path, name: str) -> dict[str, Any]:
        """Return what a file and those that it includes say together; what comes later in its `defaults` counts."""
        if len(self.read) == _MOST_FILES:
            raise PresetError(
                f"recipe '{self.read[0]}' includes more than {_MOST_FILES} files. Does one include itself?"
            )
        self.read.append(name or str(path))
        own = _read(path)
        whole: dict[str, Any] = {}
        for group, included in _read_defaults(own.pop("defaults", None)):
            label = f"{group}/{included}".lstrip("/")
            file = path.parent / f"{label}.yaml"
            if included == "_self_":
                whole = _merge(whole, own)
            elif included in _KNOWN_FILES:
                self.known.append(label)
            elif _INCLUDE.fullmatch(label) and file.is_file():
                inner = self.gather(file, label)
                for key in reversed(group.split("/")) if group else ():
                    inner = {key: inner}
                whole = _merge(whole, inner)
            else:
                self.missing.append(label)
        return whole


def _read_defaults(defaults: Any) -> list[tuple[str, str]]:
    """Return group and name of every included file in hydra's order; `_self_` is the file itself."""
    entries = defaults if isinstance(defaults, list) else [] if defaults is None else [defaults]
    pairs = [pair for entry in entries for pair in (entry if isinstance(entry, dict) else {"": entry}).items()]
    named = [(group, str(name)) for group, name in pairs]
    return named if ("", "_self_") in named else [*named, ("", "_self_")]


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Put a mapping over another, and mappings inside over their like."""
    merged = dict(under)
    for key, value in over.items():
        is_both = isinstance(value, dict) and isinstance(under.get(key), dict)
        merged[key] = _merge(under[key], value) if is_both else value
    return merged


def _read(path: str | Path) -> dict[str, Any]:
    """Return what a file holds; what is wrong with it is told at once, with the lines."""
    try:
        with open_regular(to_path(path)) as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PresetError(f"recipe '{path}' cannot be read: {error.strerror or error}.") from error
    if len(data) > MAX_BYTES:
        raise PresetError(f"recipe '{path}' is larger than {MAX_BYTES:,} bytes. Is it a recipe?")
    try:
        document = read_yaml(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise PresetError(f"recipe '{path}' is not UTF-8 text (byte {error.start}). Is it a YAML file?") from error
    if document.problems:
        listed = [f"line {problem.line}: {problem.text}" for problem in document.problems[:_MOST_LISTED]]
        count = f"{len(document.problems)} error{'s' * (len(document.problems) > 1)}"
        raise PresetError("\n  ".join([f"recipe '{path}': {count}.", *listed]))
    if not isinstance(document.value, dict):
        found = "is empty" if document.value is None else f"holds {shown(document.value)}"
        raise PresetError(f"recipe '{path}' {found}; expected names and values, such as training_hyperparams.")
    return document.value


def _advise(missing: Sequence[str]) -> str:
    """Return what to do about files that were not found, with a space before it, or nothing."""
    return (
        f" It includes {join_names(missing)}, not found beside it. Create a single resolved file first: {_RESOLVE}"
        if missing
        else ""
    )


def _resolve(value: Any, recipe: Mapping[str, Any], chain: int = _LONGEST_CHAIN) -> Any:
    """Follow references to single values of the recipe, `${a.b}`; what cannot be followed stays as it is."""
    if isinstance(value, dict):
        return {key: _resolve(item, recipe) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, recipe) for item in value]
    reference = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    if reference is None or chain == 0:
        return value
    found: Any = recipe
    for key in reference[1].split("."):
        if not isinstance(found, dict) or key not in found:
            return value
        found = found[key]
    return value if isinstance(found, dict | list) else _resolve(found, recipe, chain - 1)


def _add_rest(inner: Translation, around: Mapping[str, Any]) -> Translation:
    """Add what the recipe says beside its training parameters."""
    fields: dict[str, Any] = {}
    lines: list[Line] = []
    left_out: dict[str, str] = {}
    for key, value in around.items():
        if _SHORTCUTS.get(key) == key and value is not None:
            continue  # told of with the training parameters
        if value in (None, {}, []):
            lines.append(Line(key, shown(value), "-", "-", "no effect"))
        elif key == "architecture" and str(value) in _MODELS:
            fields["model"], names = _MODELS[str(value)]
            lines.append(Line(key, shown(value), "model", fields["model"], f"its parameters have other names: {names}"))
        elif key == "architecture":
            left_out[key] = f"unknown model {shown(value)}; `zoo models` lists the known ones"
        elif key in _SHORTCUTS:
            lines.append(Line(key, shown(value), "-", "-", f"copied to {_SHORTCUTS[key]}"))
        elif key not in _LEAST:
            left_out[key] = _REASONS.get(key) or LEFT_OUT.get(key, (None, "it is not a training parameter"))[1]
    for field, least in _LEAST.items():
        place, count = _find_count(around, field)
        if type(count) is int and count >= least:
            fields[field] = count
            lines.append(Line(place, str(count), field, str(count), "per process, as in super-gradients"))
        elif count is not None:
            left_out[place] = f"{shown(count)} is not a whole number, {least} or more"
    preset = inner.preset
    if "model" in fields and preset.training_params and preset.mode is None and not isinstance(preset.lr, dict):
        fields["mode"] = "full"
        lines.append(Line("architecture", shown(around["architecture"]), "mode", "full", "the model has no hooks"))
    return Translation(preset.replace(**fields), inner.lines + tuple(lines), {**inner.left_out, **left_out})


def _find_count(around: Mapping[str, Any], name: str) -> tuple[str, Any]:
    """Return where a count of the training data's loader stands, and the count or None."""
    data = around.get("dataset_params")
    data = data if isinstance(data, dict) else {}
    loader = data.get("train_dataloader_params")
    loader = loader if isinstance(loader, dict) else {}
    places = {
        name: around.get(name),
        f"dataset_params.train_dataloader_params.{name}": loader.get(name),
        f"dataset_params.{name}": data.get(name),
    }
    return next(((place, count) for place, count in places.items() if count is not None), (name, None))


def _add_files(translation: Translation, files: _Files) -> Translation:
    """Tell which files were read and which were not, also wherever a default was taken that these might change."""
    unless = "unless a missing file overrides it"
    lines = translation.lines
    if names := [*files.read[1:], *files.known]:
        lines = (*lines, Line("defaults", join_names(names), "-", "-", "read as well, or a file of the library"))
    if not files.missing:
        return replace(translation, lines=lines)
    lines = tuple(
        line._replace(remark="; ".join(filter(None, (line.remark, unless))))
        if line.value.endswith("(default)")
        else line
        for line in lines
    )
    reason = f"not found beside it: {join_names(files.missing)}. Create a single resolved file first: {_RESOLVE}"
    return replace(translation, lines=lines, left_out={"defaults": reason, **translation.left_out})
