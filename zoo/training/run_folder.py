"""A run is one folder: this file knows its names, and writes each of them whole or not at all.

`model.safetensors` and `config.json` are the model; `preset.yaml`, `plan.json`, `data.json` and `environment.json` what
it was made with; `metrics.jsonl`, `rates.csv`, `evaluation.json`, `solution.json` of a head that was solved,
`answers.safetensors`, `proof.json`, `pictures/` and `report.html` what came out; `state.pt` is there as long as the run
is not finished, and says what it belongs to.
`SHA256SUMS` has the digests of the model's two files.
"""

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo._model import ask
from zoo.errors import InputError
from zoo.files import (
    check_checksum,
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
)
from zoo.settings import FORMER, Preset, load_preset
from zoo.training.kept_weights import KeptWeights
from zoo.training.run_identity import check_identity, read_identity
from zoo.training.run_records import check_record, dump_rates, parse_rates
from zoo.training.run_stage import START, STATE, find_stage
from zoo.training.state_checks import check_form
from zoo.training.state_file import read_state, write_state

MAX_JSON_BYTES = 64_000_000
WEIGHTS = "model.safetensors"
EVALUATION = "evaluation.json"
SOLUTION = "solution.json"  # of a head that was solved
LAST = "last.safetensors"  # weights of the last epoch, where `model.safetensors` has those of the best


def split_run(path: str | os.PathLike[str]) -> tuple[Path, str]:
    """Return the folder of a run and the name of its weights: `runs/a` and `runs/a/last.safetensors` both name one."""
    place = to_path(path)
    is_file = place.name in (WEIGHTS, LAST) and (place.parent / "config.json").is_file()
    return (place.parent, place.name) if is_file else (place, WEIGHTS)


def describe_weights(path: Path, name: str = WEIGHTS) -> str | None:
    """Say which epoch a file of a run's weights is of, such as `epoch 3, best top-1`; None if the run does not tell."""
    folder = RunFolder(path)
    known = folder.read_json(EVALUATION) if folder.file(EVALUATION).is_file() else {}
    kept = KeptWeights.find(known, name)
    return None if kept is None else str(kept)


class RunFolder:
    """The folder of one run.

    Args:
        path: It may be missing; `create_folder` makes one.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = to_path(path)
        self._identity: dict[str, Any] | None = None
        self.undrawn: dict[str, str] = {}  # plots that could not be drawn, and why
        self.caption = ""  # below each plot
        self.has_steps = False  # whether this process has trained for it
        self.made: list[Path] = []  # folders around it that were made for it, from the outermost

    def file(self, name: str) -> Path:
        """Return where a file of the run is."""
        return self.path / name

    @property
    def pictures(self) -> Path:
        """The folder of plots, made if needed."""
        folder = self.path / "pictures"
        folder.mkdir(exist_ok=True)
        return folder

    def draw(self, name: str, draw: Callable[[Path], Any]) -> None:
        """Draw a plot; one that cannot be drawn is noted in `undrawn`, and is no reason to stop.

        Args:
            name: Of the file in `plots`.
            draw: Called with the path of the file.
        """
        from zoo._figures import captioned

        try:
            with captioned(self.caption):
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
            raise InputError(
                f"{path} cannot be read: {error}. Every run folder has this file; use a complete run folder."
            ) from error
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
        self.write_text("rates.csv", dump_rates(rates))

    def read_rates(self) -> dict[str, list[float]]:
        """Return the rate of every group at every optimizer step.

        Raises:
            InputError: As `read_json`.
        """
        with _reading(self.file("rates.csv")) as text:
            return parse_rates(text)

    def save_model(self, model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> str:
        """Write weights and configuration of a model; return the SHA-256 of the weights. `seal` is to follow."""
        config = describe_model(model)
        drop_checksums(self.path)
        self.write_json("config.json", config.model_dump())
        facts = {"format": "pt", "library": "zoo", "model": config.model or "", "licence": config.licence or ""}
        return save_tensors(tensors, self.file(WEIGHTS), facts)

    def seal(self) -> None:
        """Write down the digests of weights and configuration; from then on each reader checks them."""
        names = ("config.json", WEIGHTS, LAST)
        write_checksums(self.path, [name for name in names if self.file(name).is_file()])

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
            raise InputError(f"{self.path} has no state.pt: {_why_no_state(self.path)}")
        state = read_state(path)
        state = {FORMER.get(key, key): value for key, value in state.items()}
        check_form(state)
        check_identity(self.path, state.get("run"))
        return state

    def drop_start(self) -> None:
        """Remove the weights that a run has begun with."""
        self.file(START).unlink(missing_ok=True)

    def drop_state(self) -> None:
        """Remove the state of a finished run."""
        self.file(STATE).unlink(missing_ok=True)

    def load_preset(self) -> Preset:
        """Return the effective preset of the run."""
        return load_preset(str(self.file("preset.yaml")))


def make_caption(model: nn.Module, source: str, folder: Path) -> str:
    """Return the line below each plot of a run: model, data and run.

    Args:
        model: It is called by its registry name, or by its class.
        source: Where the data came from; of a path its last part is written.
        folder: Of the run.
    """
    name = (ask(model, "config") or {}).get("model") or type(model).__name__
    return f"{name}  ·  {Path(source).name or source}  ·  {folder.absolute().name}"


def _why_no_state(folder: Path) -> str:
    has_weights = (folder / WEIGHTS).is_file()
    start = f"To start a new run from its weights: --weights {folder}, or pretrained={str(folder)!r}."
    if find_stage(folder) in ("finished", "undrawn"):
        return f"the run is finished. Load its model with zoo.load. {start}"
    lost = "the run is unfinished, but this file is missing, and the run cannot be resumed without it."
    return f"{lost} {start}" if has_weights else f"{lost} Start a new run."


@contextmanager
def _reading(path: Path) -> Iterator[str]:
    """Yield the text of a file of a run; what is wrong with it, also when it is parsed, is told in one sentence."""
    try:
        yield read_regular(path, max_bytes=MAX_JSON_BYTES).decode()
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{path} cannot be read: {reason}. Every run folder has this file; use a complete run folder."
        ) from error


def to_text(value: Any) -> str:
    """Return plain values as the text of a JSON file."""
    return dump_json(value, indent=1, ascii_only=False) + "\n"
