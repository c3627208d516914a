"""A run is one folder: this file knows its names, and writes each of them whole or not at all.

`model.safetensors` and `config.json` are the model; `preset.yaml`, `plan.json`, `data.json` and `environment.json` what
it was made with; `metrics.jsonl`, `rates.csv`, `evaluation.json`, `proof.json` and `pictures/` what came out;
`state.pt` is there as long as the run is not finished, and says what it belongs to. `SHA256SUMS` has the digests of the
model's two files.
"""

import contextlib
import csv
import json
import os
import platform
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from zoo._model import known_config, set_fact
from zoo.errors import InputError, WeightsError
from zoo.files import (
    check_checksum,
    digest_file,
    drop_checksums,
    dump_json,
    read_object,
    read_regular,
    save_tensors,
    to_path,
    write_checksums,
    write_file,
)
from zoo.models import (
    ModelConfig,
    describe_model,
    find_saved_entry,
    from_config,
    names_repository,
    open_saved,
    take_model,
)
from zoo.settings import Preset, load_preset
from zoo.training.record_forms import check_record
from zoo.training.run_identity import check_identity, read_identity
from zoo.training.run_lock import LOCK, RunLock, refuse_if_held
from zoo.training.run_stage import RECORD, START, STATE, find_stage, sweep_left_over
from zoo.training.state_checks import check_form
from zoo.training.state_file import read_state, write_state
from zoo.weights import Found, LoadReport, find_weights, load_into

_WRAPPER = re.compile(r"(?<![^.])(_orig_mod|module)\.")
MAX_JSON_BYTES = 64_000_000
BEGINNING = (  # what is there before the first step
    "preset.yaml",
    "config.json",
    "plan.json",
    "data.json",
    "features.json",
    "environment.json",
    "pictures/first_batch.png",
    START,
    STATE,
    RECORD,  # the last to be removed: without it the others are somebody's files
)


class RunFolder:
    """The folder of one run.

    Args:
        path: An existing run's folder; `RunFolder.create` makes a new one.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = to_path(path)
        self._identity: dict[str, Any] | None = None
        self.undrawn: dict[str, str] = {}  # pictures that could not be drawn, and why
        self.has_steps = False  # whether this process has trained for it
        self._made: list[Path] = []  # folders that this run has made, from the outermost
        self._is_claimed = False

    @classmethod
    def create(cls, path: str | os.PathLike[str] | None, default_name: str) -> "RunFolder":
        """Make a new, empty folder; nothing that exists is ever written over.

        A folder in which a run was stopped before its first step may be used again: `claimed` empties it.

        Args:
            path: Where; None: `runs/<default_name>`, with a number if that exists.
            default_name: Name of the folder if no path is given.
        """
        if path is not None:
            folder = cls(path)
            if folder.path.is_dir():
                refuse_if_held(folder.path)
            folder._refuse_used()
            folder._make(exist_ok=True, advice="Choose another.")
            return folder
        number = 1
        while True:
            folder = cls(Path("runs") / (default_name if number == 1 else f"{default_name}-{number}"))
            try:
                folder._make(exist_ok=False, advice="Pass out=.")
            except FileExistsError:
                number += 1
            else:
                return folder

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "RunFolder":
        """Return an existing run's folder.

        Raises:
            InputError: If it is not one.
        """
        folder = cls(path)
        if not folder.path.is_dir():
            raise InputError(f"{folder.path} is not a folder. Expected the folder of a run.")
        if find_stage(folder.path) == "claimed":
            raise InputError(
                f"the run in {folder.path} was stopped before anything was trained. Give the same finetune command "
                "again: it may use this folder."
            )
        if not (folder.path / "config.json").is_file():
            present = ", ".join(sorted(file.name for file in folder.path.iterdir())[:8]) or "nothing"
            raise InputError(f"{folder.path} is not a run: it has no config.json (there is: {present}).")
        return folder

    @contextmanager
    def claimed(self, say: Callable[[str], None], *, is_new: bool) -> Iterator[None]:
        """Keep every other process out of the folder, and remove what killed ones have left half written.

        Args:
            say: Called with what was found there.
            is_new: A run is to begin here: what one that was stopped before its first step has left is removed.

        Raises:
            InputError: Another process works in it, or it is not free for a new run.
            StorageError: It cannot be written to.
        """
        if self._is_claimed:  # by the caller, before there were data and a model
            yield
            return
        lock = RunLock.take(self.path, say)
        self._is_claimed = True
        try:
            for folder in (self.path, self.path / "pictures"):
                sweep_left_over(folder)
            if is_new:
                self._refuse_used()
                if find_stage(self.path) != "empty":
                    say(f"note: the run in {self.path} was stopped before its first step; it begins anew")
                    self._remove_beginning()
                self.write_json(RECORD, {"status": "beginning"})
            yield
        finally:
            self._is_claimed = False
            lock.release()

    def discard(self) -> None:
        """Remove the folder of a run that took no step; what is not one of a run's own files stays, and so does it."""
        if not self.path.is_dir():
            return
        self._remove_beginning()
        if all(path.name == LOCK for path in self.path.iterdir()):
            with contextlib.suppress(OSError):  # somebody else may be quick to use it
                self.file(LOCK).unlink(missing_ok=True)
                self.path.rmdir()
                for folder in reversed(self._made):
                    folder.rmdir()

    def _refuse_used(self) -> None:
        """Refuse what is not free for a new run."""
        path = self.path
        stage = find_stage(path) if path.is_dir() else "foreign" if os.path.lexists(path) else "empty"
        if stage in ("empty", "claimed", "begun"):
            return
        if stage == "training":
            raise InputError(
                f"{path} holds a run that is not finished, and a run is never written over. Go on with it: zoo "
                f"finetune --resume {shlex.quote(str(path))}; or choose another folder."
            )
        raise InputError(
            f"{path} exists and is not empty; a run is never written over. Choose another folder"
            + (", or go on with that run by resuming it." if stage == "undrawn" else ".")
        )

    def _make(self, *, exist_ok: bool, advice: str) -> None:
        """Make the folder, and those it is in."""
        missing = [folder for folder in self.path.parents if not folder.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=exist_ok)
        except OSError as error:
            if not exist_ok and isinstance(error, FileExistsError) and self.path.parent.is_dir():
                raise
            raise InputError(f"the run folder {self.path} cannot be made: {error.strerror}. {advice}") from error
        self._made = missing[::-1]

    def _remove_beginning(self) -> None:
        for name in BEGINNING:
            if name == RECORD and self.file("pictures").is_dir() and not any(self.pictures.iterdir()):
                self.pictures.rmdir()
            self.file(name).unlink(missing_ok=True)

    def file(self, name: str) -> Path:
        """Return where a file of the run is."""
        return self.path / name

    @property
    def pictures(self) -> Path:
        """The folder of pictures, made if needed."""
        folder = self.path / "pictures"
        folder.mkdir(exist_ok=True)
        return folder

    def draw(self, name: str, draw: Callable[[Path], Any]) -> None:
        """Draw a picture; one that cannot be drawn is noted in `undrawn`, and is no reason to stop.

        Args:
            name: Of the file in `pictures`.
            draw: Called with the path of the file.
        """
        try:
            draw(self.pictures / name)
        except Exception as error:
            self.undrawn[name] = str(error) or type(error).__name__

    def write_json(self, name: str, value: Any) -> None:
        """Write plain values."""
        self.write_text(name, to_text(value))

    def write_text(self, name: str, text: str) -> None:
        """Write a text file."""
        write_file(self.file(name), text)

    def read_json(self, name: str) -> Any:
        """Read plain values.

        Raises:
            InputError: If the file is missing, too large, not JSON, or lacks what is read of it.
        """
        with _reading(self.file(name)) as text:
            value = json.loads(text)
            check_record(name, value)
            return value

    def read_config(self) -> ModelConfig:
        """Return what the run says of its model: untrusted, as any folder may come from elsewhere.

        Raises:
            InputError: If the file is missing, too large or not JSON.
            WeightsError: If it says something that is unknown or out of range, or is not what was saved.
        """
        path = self.file("config.json")
        check_checksum(path)
        try:
            raw = read_object(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read: {error}. It is part of every run; use a whole folder.") from error
        return ModelConfig.parse(raw, str(self.path))

    def write_metrics(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write one line per epoch."""
        self.write_text("metrics.jsonl", "".join(dump_json(record) + "\n" for record in records))

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return one record per finished epoch.

        Raises:
            InputError: As `read_json`.
        """
        path = self.file("metrics.jsonl")
        if not os.path.lexists(path):
            return []
        with _reading(path) as text:
            records = [json.loads(line) for line in text.splitlines()]
            for record in records:
                check_record(path.name, record)
            return records

    def write_rates(self, rates: Mapping[str, Sequence[float]]) -> None:
        """Write the rate of every group at every optimizer step."""
        names = list(rates)
        lines = [",".join(["step", *(f'"{name}"' for name in names)])]
        columns = (rates[name] for name in names)
        lines += [",".join([str(step), *map(repr, row)]) for step, row in enumerate(zip(*columns, strict=True))]
        self.write_text("rates.csv", "\n".join(lines) + "\n")

    def read_rates(self) -> dict[str, list[float]]:
        """Return the rate of every group at every optimizer step.

        Raises:
            InputError: As `read_json`.
        """
        with _reading(self.file("rates.csv")) as text:
            names, *rows = csv.reader(StringIO(text, newline=""))
            columns = zip(*rows, strict=True) if rows else [()] * len(names)
            return {name: list(map(float, column)) for name, column in list(zip(names, columns, strict=True))[1:]}

    def save_model(self, model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> str:
        """Write weights and configuration of a model; return the SHA-256 of the weights. `seal` is to follow."""
        config = model_config(model)
        drop_checksums(self.path)
        self.write_json("config.json", config.model_dump())
        facts = {"format": "pt", "library": "zoo", "model": config.model or "", "licence": config.licence or ""}
        return save_tensors(tensors, self.file("model.safetensors"), facts)

    def seal(self) -> None:
        """Write down the digests of weights and configuration; from then on each reader checks them."""
        write_checksums(self.path, ("config.json", "model.safetensors"))

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write what a resumed run needs: tensors and plain values only."""
        if self._identity is None:  # of the run as it began: its files may be edited while it goes on
            self._identity = read_identity(self.path)
        write_state(self.file(STATE), {**state, "run": self._identity})

    def load_state(self) -> dict[str, Any]:
        """Read what `save_state` wrote, as data only.

        Raises:
            InputError: It is not there, damaged, of another form, or of a run with other settings.
        """
        path = self.file(STATE)
        if not path.is_file():
            raise InputError(f"{self.path} has no state.pt: {self._why_no_state()}")
        state = read_state(path)
        check_form(state)
        check_identity(self.path, state.get("run"))
        return state

    def drop_start(self) -> None:
        """Remove the weights that a run has begun with."""
        self.file(START).unlink(missing_ok=True)

    def drop_state(self) -> None:
        """Remove the state of a finished run."""
        self.file(STATE).unlink(missing_ok=True)

    def _why_no_state(self) -> str:
        has_weights = self.file("model.safetensors").is_file()
        start = f"A new run can start from its weights with pretrained={str(self.path)!r}."
        if find_stage(self.path) in ("finished", "undrawn"):
            return f"the run is finished. zoo.load gives its model. {start}"
        lost = "the run is not finished, but the file is gone, and without it the run cannot go on."
        return f"{lost} {start}" if has_weights else f"{lost} Begin a new one."

    def load_preset(self) -> Preset:
        """Return the effective preset of the run."""
        return load_preset(str(self.file("preset.yaml")))


@contextmanager
def _reading(path: Path) -> Iterator[str]:
    """Yield the text of a file of a run; what is wrong with it, also when it is parsed, is told in one sentence."""
    try:
        yield read_regular(path, max_bytes=MAX_JSON_BYTES).decode()
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read: {reason}. It is part of every run; use a whole folder.") from error


def to_text(value: Any) -> str:
    """Return plain values as the text of a JSON file."""
    return dump_json(value, indent=1, ascii_only=False) + "\n"


def model_config(model: nn.Module) -> ModelConfig:
    """Return the configuration that a checkpoint of this model carries."""
    return describe_model(model)


def load_model(
    path: str | os.PathLike[str],
    model: nn.Module | None = None,
    *,
    cache_dir: str | None = None,
    token: str | bool | None = None,
) -> nn.Module:
    """Return the model of a run, a checkpoint folder or a repository, in eval mode: the same logits, bit for bit.

    Args:
        path: The folder; or `org/name`, `org/name@revision` of a repository on the Hub, where there is no such folder.
        model: A network to load into, for a run of a class that is not in the registry.
        cache_dir: Where downloads are kept; None: the Hub client's own cache.
        token: For private or gated repositories; None: the client's saved one.
    """
    is_remote = names_repository(path) and not os.path.exists(to_path(path))
    if is_remote:
        config, found = _fetch(str(path), cache_dir, token)
    else:
        folder = RunFolder.open(path)
        config = folder.read_config()
        _check_buildable(folder, config, model)
        found = _find_weights(folder, config)
    network: Any = from_config(config) if model is None else take_model(model)
    if model is not None:
        _set_facts(network, config)
    report = load_into(network, _without_wrappers(found, network), head=(), keep_head=True)
    if facts := known_config(network):
        network.load_report = report
        place = f"{str(path).partition('@')[0]}@{found.revision}" if is_remote else str(Path(found.origin).absolute())
        tell_origin(facts, found, place)
    loaded: nn.Module = network.eval()
    return loaded


def tell_origin(facts: dict[str, Any], found: Found, place: str) -> None:
    """Say in a model's configuration where its weights are; what a file says of that itself is not followed.

    Args:
        facts: The configuration, changed in place.
        found: The weights.
        place: What to pass as `pretrained` to have them again.
    """
    told = {"weights": found.origin, "revision": found.revision, "sha256": found.sha256, "pretrained": place}
    facts["origin"] = facts["origin"] | told


def adopt_weights(model: nn.Module, folder: RunFolder) -> None:
    """Say of a model that has learnt that its weights are those of its run, as if it had been loaded from there."""
    facts, weights = known_config(model), folder.file("model.safetensors")
    if not facts:
        return
    digest = digest_file(weights) if weights.is_file() else ""
    place = str(folder.path.absolute())
    found = Found(weights, None, place, None, digest, facts.get("licence"), pinned=True)
    tell_origin(facts, found, place)
    cast(Any, model).load_report = LoadReport(
        place, tuple(model.state_dict()), (), (), sha256=digest, revision=None, licence=found.licence, pinned=True
    )


def build_network(folder: RunFolder, model: nn.Module | None = None) -> tuple[nn.Module, ModelConfig]:
    """Return the network of a run, its weights still to be loaded, and its configuration.

    Args:
        folder: The run's.
        model: The network, if its class is not in the registry.
    """
    config = folder.read_config()
    _check_buildable(folder, config, model)
    return (from_config(config) if model is None else take_model(model)), config


def describe_environment(device: str) -> dict[str, Any]:
    """Return what the result may depend on: versions, processor, device, threads, command."""
    packages = ("torch", "torchvision", "timm", "accelerate", "safetensors", "numpy", "pillow", "zoo-finetune")
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "versions": {name: _version(name) for name in packages},
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
        "threads": torch.get_num_threads(),
    }


def _fetch(repo: str, cache_dir: str | None, token: str | bool | None) -> tuple[ModelConfig, Found]:
    """Bring configuration and weights of a repository, of one commit."""
    saved = open_saved(repo, cache_dir=cache_dir, token=token)
    name = find_saved_entry(saved).name
    found = find_weights(saved.source, None, name=name, cache_dir=cache_dir, token=token)
    return saved.config.model_copy(update={"model": name}), found


def _set_facts(model: nn.Module, config: ModelConfig) -> None:
    """Give a network that the user built the classes and the preprocessing of the run."""
    if config.names is not None:
        set_fact(model, "classes", config.names)
    if config.preprocess_value is not None:
        set_fact(model, "preprocess", config.preprocess_value)


def _check_buildable(folder: RunFolder, config: ModelConfig, model: nn.Module | None) -> None:
    if model is None and config.model is None:
        raise WeightsError(
            f"{folder.path} holds a model of a class that is not in the registry. Build it yourself and pass it as "
            "model=, for example zoo.load(folder, model=...)."
        )


def _find_weights(folder: RunFolder, config: ModelConfig) -> Found:
    weights = folder.file("model.safetensors")
    if not weights.is_file():
        left = "it was interrupted; resume it" if folder.file(STATE).is_file() else "the folder is not whole"
        raise WeightsError(f"{folder.path} has no model.safetensors: {left}.")
    check_checksum(weights)
    return Found(weights, None, str(folder.path), None, digest_file(weights), config.licence, pinned=True)


def _without_wrappers(found: Found, network: nn.Module) -> Found:
    """Take off what `torch.compile` and `DataParallel` put into the names of runs that earlier versions saved."""
    own = network.state_dict().keys()
    named = {name: name if name in own else _WRAPPER.sub("", name) for name in found.shapes()}
    if all(name == given for name, given in named.items()) or not own >= set(named.values()):
        return found
    tensors = {named[name]: tensor for part in found.parts() for name, tensor in part.items()}
    return replace(found, foreign=tensors) if len(tensors) == len(named) else found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
