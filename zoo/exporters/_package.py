"""What of a run goes to a Hub: its model and how it was made, without what is the author's own.

Left at home: the state of the optimizer, the environment with its command line, the paths of data and weights. What
goes is written into a folder of its own, loaded from there once, and searched for paths of this machine.
"""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from zoo._model import known_config
from zoo.errors import InputError, LicenceError, WeightsError
from zoo.exporters._card import Trained, write_card
from zoo.files import check_checksum, write_file
from zoo.models import Entry, ModelConfig, describe_model, find_entry, names_repository, take_model
from zoo.training import RunFolder, check_inside, load_model, open_folder, read_run_file
from zoo.weights import find_terms, get_endpoint

RECORDS = ("metrics.jsonl", "evaluation.json", "plan.json", "proof.json", "solution.json")
LOCAL = ("run.json", "data.json")  # what is read here and stays here
CARD = "README.md"
OF_EXPORTS = ("parity.json", "predict.py", "SHA256SUMS")
OWN = (
    "model.safetensors",
    "config.json",
    "preset.yaml",
    *RECORDS,
    *OF_EXPORTS,
    CARD,
)  # what a push may write, beside pictures/
_TRACES = (  # paths of a machine, wherever they stand in a text
    r"(?<![\w.~:/-])/(?:home|Users|root|mnt|media|tmp|var|srv|opt|private|workspace|content)/[^\s\"'`,;)\]]+",
    r"\b[A-Za-z]:\\{1,2}\w[^\s\"'`,;)\]]*",
    r"\bfile://[^\s\"'`,;)\]]+",
)


@dataclass(frozen=True)
class Package:
    """A folder that is ready to go.

    Attributes:
        folder: Where it is.
        files: Path in the repository and size in bytes, of each file.
        model: Registry name.
        licence: Of the weights; None if there is none that binds them.
        notes: What the author should know before it goes.
    """

    folder: Path
    files: tuple[tuple[str, int], ...]
    model: str
    licence: str | None
    notes: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(size for _, size in self.files)


def pack(source: Any, folder: Path, *, repo: str, pictures: bool = True) -> Package:
    """Write what may go of a model into an empty folder.

    Args:
        source: A run, its folder, or a model of `zoo.get`.
        folder: An empty folder.
        repo: Where it will go, `org/name`, for its card.
        pictures: Whether the plots of the run go, too; some show images of the data.

    Raises:
        InputError: It is no finished run or model of the registry, or a text in it tells of this machine.
        LicenceError: The licence of the weights forbids to pass them on.
    """
    target, run = RunFolder(folder), find_run(source)
    source = take_model(source) if isinstance(source, nn.Module) else source
    config = run.read_config() if run else _describe(source)
    entry = _find_entry(config, run)
    check_licence(config, entry, run)
    clean, parents = clean_config(config)
    if run is None:
        target.save_model(source, source.state_dict())
    else:
        check_checksum(run.file("model.safetensors"))
        take_file(run.file("model.safetensors"), target.file("model.safetensors"))
        _copy_records(run, target, clean, pictures)
    target.write_json("config.json", clean.model_dump())
    load_model(folder)  # what goes is whole, and fits
    target.write_text(CARD, _write_card(_gather(repo, clean, entry, parents, run, target)))
    facts = _read_metadata(target.file("model.safetensors"))
    refuse_traces(folder, {"model.safetensors": facts}, run.path if run else None)
    files = tuple(sorted(list_packed(folder)))
    return Package(folder, files, str(config.model), config.licence, tuple(_notes(clean, files)))


def find_run(source: Any) -> RunFolder | None:
    """Return the folder of a finished run; None for a model."""
    path = getattr(source, "folder", source)
    if not isinstance(path, (str, os.PathLike)):
        return None
    run = open_folder(path)
    for name in ("model.safetensors", "config.json", "preset.yaml", *LOCAL):
        check_inside(run.path, name)
    status = run.read_json("run.json") if run.file("run.json").is_file() else {}
    stopped = isinstance(status, dict) and status.get("status", "finished") != "finished"
    if stopped or run.file("state.pt").is_file() or not run.file("model.safetensors").is_file():
        raise InputError(f"the run in {run.path} is not finished. Resume it (zoo finetune --resume), then push it.")
    return run


def _describe(model: Any) -> ModelConfig:
    if not callable(getattr(model, "state_dict", None)):
        raise InputError(
            f"a {type(model).__name__} cannot be pushed; expected a run, a run folder, or a model from zoo.get."
        )
    return describe_model(model) if known_config(model) else ModelConfig(model=None)


def _find_entry(config: ModelConfig, run: RunFolder | None) -> Entry:
    """Return what the registry knows of the model: what it does not know, nobody could load."""
    what = str(run.path) if run else "this model"
    if config.model is None:
        raise InputError(
            f"{what} has a class that is not registered, so zoo.get could not rebuild it. Register the class with "
            "@zoo.register_model(), create the model with zoo.get(its name), and fine-tune that."
        )
    try:
        return find_entry(config.model)
    except InputError as error:
        raise InputError(
            f"{what} is a {config.model!r}, which is not registered in this process. Import the module that "
            "registers it with @zoo.register_model(), then push again."
        ) from error


def check_licence(config: ModelConfig, entry: Entry | None, run: RunFolder | None) -> None:
    """Refuse weights that may not be passed on, by any of the places that tell their licence.

    Raises:
        LicenceError: One of these licences forbids it.
    """
    stated = {config.licence}
    if entry is not None and entry.weights is not None and config.origin.get("sha256") == entry.weights.sha256:
        stated.add(entry.weights.licence)
    if run is not None:
        stated.add(_read_metadata(run.file("model.safetensors")).get("licence"))
    for licence in sorted(filter(None, stated)):
        terms = find_terms(licence)
        if not terms.may_pass_on:
            link = f" ({terms.link})" if terms.link else ""
            raise LicenceError(
                f"this model was fine-tuned from weights under the {terms.name}: {terms.words}{link}. It cannot be "
                "uploaded, not even to a private repository. Fine-tune from weights that allow redistribution, or "
                "from random weights (--no-pretrained, pretrained=False)."
            )


def clean_config(config: ModelConfig) -> tuple[ModelConfig, tuple[str, ...]]:
    """Return the configuration without paths of this machine, and the repositories that its weights are from."""
    origin, weights = dict(config.origin), config.origin.get("weights")
    if weights is None:
        return config.model_copy(update={"origin": _only_flags(origin)}), ()
    match = re.fullmatch(r"https?://[^\s@]+?/([^\s/]+/[^\s/]+)", str(weights))
    if match is None:
        name = re.split(r"[/\\]", str(weights).rstrip("/\\"))[-1]
        return config.model_copy(update={"origin": _only_flags(origin) | {"weights": f"a local file, {name}"}}), ()
    return config, (match[1],) if str(weights).startswith(f"{get_endpoint()}/") else ()


def _only_flags(origin: dict[str, Any]) -> dict[str, Any]:
    """Leave out where the weights were asked from: that is a path here."""
    is_place = isinstance(origin.get("pretrained"), str)
    return {key: value for key, value in origin.items() if key != "pretrained" or not is_place}


def take_file(file: Path, target: Path) -> None:
    """Bring a large file into the folder, without a second copy where the system allows that."""
    try:
        target.symlink_to(file.resolve())
    except OSError:
        shutil.copyfile(file, target)


def _copy_records(run: RunFolder, target: RunFolder, config: ModelConfig, pictures: bool) -> None:
    if run.file("preset.yaml").is_file():
        preset = run.load_preset()
        if isinstance(preset.pretrained, str) and not _is_place_of(preset.pretrained, config):
            preset = preset.replace(pretrained=None)
        preset = preset.replace(image_root=None, exclude=None)  # paths here
        target.write_text("preset.yaml", preset.to_yaml(full=True))
    for name in RECORDS:
        if os.path.lexists(run.file(name)):
            write_file(target.file(name), read_run_file(run.path, name))
    if pictures and run.file("pictures").is_dir():
        for plot in sorted(run.file("pictures").glob("*.png")):
            write_file(target.pictures / plot.name, read_run_file(run.path, f"pictures/{plot.name}"))


def _is_place_of(pretrained: str, config: ModelConfig) -> bool:
    """Whether it names the repository that the weights came from, and no path."""
    return names_repository(pretrained) and f"/{pretrained.partition('@')[0]}" in str(config.origin.get("weights"))


def _gather(
    repo: str, config: ModelConfig, entry: Entry, parents: tuple[str, ...], run: RunFolder | None, target: RunFolder
) -> Trained:
    """Return what the card tells, read from the files that go; only the counts of the data are read at home."""
    preset = target.load_preset() if target.file("preset.yaml").is_file() else None
    pictures = target.file("pictures")
    names = sorted(f"pictures/{file.name}" for file in pictures.iterdir()) if pictures.is_dir() else []
    return Trained(
        repo=repo,
        config=config,
        entry=entry,
        parents=parents,
        preset=preset,
        plan=_read(target, "plan.json"),
        proof=_read(target, "proof.json"),
        data={} if run is None else _read(run, "data.json"),
        evaluation=_read(target, "evaluation.json"),
        pictures=tuple(names),
    )


def _write_card(trained: Trained) -> str:
    try:
        return write_card(trained)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"the records of the run are not in the format of zoo.finetune ({error}). Push an unmodified run folder, "
            "or the model alone: zoo.push(zoo.load(folder), ...)."
        ) from error


def _read(folder: RunFolder, name: str) -> dict[str, Any]:
    value = folder.read_json(name) if folder.file(name).is_file() else {}
    if not isinstance(value, dict):
        raise InputError(
            f"{folder.file(name)} is not a JSON object. Every run folder has this file; use a complete run folder."
        )
    return value


def refuse_traces(folder: Path, facts: Mapping[str, Mapping[str, str]], source: Path | None) -> None:
    """Refuse to upload a text that tells of this machine.

    Args:
        folder: What would go.
        facts: The metadata of its binary files, by name.
        source: The folder that it was taken from.

    Raises:
        InputError: Naming the first one.
    """
    places = {str(Path.home()), str(Path.cwd())} | ({str(source.resolve())} if source else set())
    own = [re.escape(place) for place in places if len(place) > 5]
    pattern = re.compile("|".join([*own, *_TRACES]))
    texts = {name: (folder / name).read_text("utf8", "replace") for name, _ in list_packed(folder) if _is_text(name)}
    for name, known in facts.items():
        texts[f"the metadata of {name}"] = "\n".join(f"{key}: {value}" for key, value in known.items())
    for name, text in texts.items():
        for number, line in enumerate(text.splitlines(), start=1):
            if match := pattern.search(line):
                raise InputError(
                    f"{name}, line {number}, holds {match[0]!r}, which looks like a local path. Nothing was "
                    "uploaded. Remove it from that file of the run, and push again."
                )


def _is_text(name: str) -> bool:
    return name.endswith((".json", ".jsonl", ".yaml", ".md"))


def _read_metadata(file: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as content:
            return content.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{file} is not a valid safetensors file: {error}. Push a complete run folder.") from error


def list_packed(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield the path of each file in a folder, and its size in bytes."""
    for file in folder.rglob("*"):
        if file.is_file():
            yield file.relative_to(folder).as_posix(), file.stat().st_size


def _notes(config: ModelConfig, files: tuple[tuple[str, int], ...]) -> Iterator[str]:
    if config.origin.get("weights") and config.licence in (None, "unknown"):
        yield "the licence of the pretrained weights is unknown; make sure that you may redistribute them"
    if config.origin.get("registered"):
        yield f"{config.model} is a custom model class; to load it, others must import the module that registers it"
    if any(name.startswith("pictures/") for name, _ in files):
        yield "some plots show images of the data (to exclude plots: --no-pictures, pictures=False)"
