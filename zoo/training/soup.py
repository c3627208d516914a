"""The mean of the weights of several runs of one model, known as a model soup.

Source: Wortsman et al., Model soups: averaging weights of multiple fine-tuned models improves accuracy without
increasing inference time, ICML 2022.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from zoo._model import ask
from zoo.engine import load_to_score, make_accelerator, recompute_norms
from zoo.errors import InputError
from zoo.files import digest_file, to_path
from zoo.models import Model
from zoo.progress import Progress, is_main_process
from zoo.tasks import AnyEvaluation, task_of
from zoo.training.evaluation import score_split
from zoo.training.run_claim import claimed, leaving_nothing, new_folder, open_folder
from zoo.training.run_data import reopen_data
from zoo.training.run_folder import RunFolder, split_run
from zoo.training.run_model import adopt_weights, load_model, save_made
from zoo.training.run_stage import find_stage

AVERAGE = "average.json"
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # buffers of a batch norm


@dataclass(frozen=True)
class Member:
    """A run whose weights may be part of a mean.

    Attributes:
        run: Its folder, or the file of weights that was named.
        evaluation: Of the run alone, on the validation images of the mean; None without such images.
        is_used: Whether its weights are part of it.
    """

    run: Path
    evaluation: AnyEvaluation | None
    is_used: bool = True


@dataclass(frozen=True)
class Average:
    """The mean of the weights of several runs.

    Attributes:
        folder: Where its model is; `zoo.load` opens it.
        model: In eval mode.
        evaluation: Scores on the validation images; None without such images.
        members: The runs, the best first.
        norms: How many batch norms have new statistics.
    """

    folder: Path
    model: Model
    evaluation: AnyEvaluation | None
    members: tuple[Member, ...]
    norms: int


def average(
    runs: Sequence[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str] | None = None,
    data: Any = None,
    greedy: bool = False,
    device: str = "auto",
    progress: bool = True,
) -> Average:
    """Average the weights of finished runs of one model on the same data, and score the mean beside each run.

    Args:
        runs: Their folders; `runs/a/last.safetensors` takes the last epoch of a run instead of its best.
        out: The new folder, with `model.safetensors`, `config.json` and `average.json`; None: one in `runs`.
        data: The data of the runs in another place; None: from where the first run found it.
        greedy: Begin with the best run, and add a run only if the mean does not score worse with it; else all are used.
        device: `auto`, `cpu`, `cuda` or `mps`.
        progress: Whether to show what happens.

    Returns:
        The mean. Batch norms whose statistics differ between the runs get new ones from the training images; those that
        were frozen keep theirs, and tensors that are the same in all runs stay as they are, bit for bit.

    Raises:
        InputError: A run is not finished, or the runs differ in their network, classes, preprocessing or data.
    """
    with Progress(enabled=progress and is_main_process()) as show:
        folders = _open_all(runs)
        first, network = folders[0], load_model(runs[0])
        states = [_copy(network), *(_copy(load_model(run)) for run in runs[1:])]
        _check_alike(folders, states)
        with claimed(new_folder(out, network, "average"), show.log, is_new=True) as place, leaving_nothing(place):
            opened = reopen_data(first, data, task_of(network), first.load_preset(), show)
            soup = _Soup(network, states, opened, device, show)
            scored = [Member(to_path(run), soup.score(index)) for index, run in enumerate(runs)]
            order = sorted(range(len(scored)), key=lambda index: _score(scored[index].evaluation), reverse=True)
            used, evaluation = soup.grow(order) if greedy else (order, soup.mix(order))
            members = tuple(replace(scored[index], is_used=index in used) for index in order)
            norms = soup.norms if len(used) > 1 else []
            _write(place, network, members, evaluation, norms)
        adopt_weights(network, place)
        return Average(place.path, cast(Model, network.eval()), evaluation, members, len(norms))


class _Soup:
    """Mixes the weights of several runs in one network.

    Args:
        network: Takes the weights.
        states: Weights of each run, on the CPU.
        opened: Data of all of them.
        device: To score on.
        show: Told what happens.
    """

    def __init__(
        self, network: nn.Module, states: Sequence[Mapping[str, Tensor]], opened: Any, device: str, show: Progress
    ) -> None:
        self.network, self.states, self.opened, self.device, self.show = network, states, opened, device, show
        self.norms = _find_moved_norms(states)
        self.has_val = opened.val is not None or "val" in (opened.loaders or {})

    def score(self, index: int) -> AnyEvaluation | None:
        """Score a run by itself."""
        self.network.load_state_dict(self.states[index])
        return self._score()

    def mix(self, chosen: Sequence[int]) -> AnyEvaluation | None:
        """Load the mean of some runs, and score it."""
        self.network.load_state_dict(mean_of([self.states[index] for index in chosen]))
        if len(chosen) > 1:
            recompute_norms(self.network, self._run_through, self.norms)
        return self._score()

    def grow(self, order: Sequence[int]) -> tuple[list[int], AnyEvaluation | None]:
        """Add one run after the other, the best first, and leave out those with which the mean scores worse."""
        used = [order[0]]
        best = self.mix(used)
        for index in order[1:]:
            tried = self.mix([*used, index])
            if _score(tried) >= _score(best):
                used, best = [*used, index], tried
        return used, self.mix(used)

    def _score(self) -> AnyEvaluation | None:
        if not self.has_val:
            return None
        evaluation, _ = score_split(
            self.network, task_of(self.network), self.opened, "val", self.show, device=self.device
        )
        return cast(AnyEvaluation, evaluation)

    @torch.no_grad()
    def _run_through(self) -> None:
        """Pass the training images, not augmented, through the network in training mode."""
        task, accelerator = task_of(self.network), make_accelerator(self.device)
        if self.opened.train is None:
            raise InputError(
                f"{len(self.norms)} batch norms have other statistics in each run, and their mean needs new ones from "
                "the training images, but the data comes from loaders. Pass data= with images."
            )
        source = task.make_scoring_source(self.network, self.opened.train)
        options: dict[str, Any] = {"batch_size": task.scoring_batch, "num_workers": 0}
        self.network.to(accelerator.device)
        for inputs, targets in load_to_score(source, accelerator, **options):
            self.network(inputs, targets) if ask(self.network, "takes_targets", False) else self.network(inputs)


def mean_of(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of each tensor, computed in float64; what is the same in all stays, and whole numbers do."""
    return {name: _mean([state[name] for state in states]) for name in states[0]}


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    first = tensors[0]
    if not first.is_floating_point() or all(torch.equal(first, other) for other in tensors[1:]):
        return first
    return torch.stack([tensor.double() for tensor in tensors]).mean(0).to(first.dtype)


def _open_all(runs: Sequence[str | os.PathLike[str]]) -> list[RunFolder]:
    """Return the folders of finished runs."""
    if len({to_path(run).absolute() for run in runs}) < max(2, len(runs)):
        raise InputError("expected two different runs or more to average.")
    folders = [open_folder(split_run(run)[0]) for run in runs]
    for folder in folders:
        if find_stage(folder.path) not in ("finished", "undrawn"):
            raise InputError(f"the run in {folder.path} is not finished. Resume it first, or leave it out.")
    return folders


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def _check_alike(folders: Sequence[RunFolder], states: Sequence[Mapping[str, Tensor]]) -> None:
    """Refuse runs whose weights have no mean, or that were trained on other images."""
    first, digest = folders[0].read_config(), folders[0].read_json("data.json").get("digest")
    shapes = {name: value.shape for name, value in states[0].items()}
    for folder, state in zip(folders[1:], states[1:], strict=True):
        config, path = folder.read_config(), f"{folder.path} and {folders[0].path}"
        for what in ("model", "classes", "options", "preprocess", "postprocess"):
            if getattr(config, what) != getattr(first, what):
                raise InputError(
                    f"{path} differ in {what}: {getattr(config, what)} and {getattr(first, what)}. Average runs of "
                    "one model with the same classes and preprocessing."
                )
        if {name: value.shape for name, value in state.items()} != shapes:
            raise InputError(f"the tensors of {path} have different shapes. Average runs of one model.")
        if folder.read_json("data.json").get("digest") != digest:
            raise InputError(
                f"{path} were trained on different images or another split, so images that one is scored on may be "
                "those that the other was trained on. Average runs on the same data with the same split_seed."
            )


def _find_moved_norms(states: Sequence[Mapping[str, Tensor]]) -> list[str]:
    """Return the names of the batch norms whose statistics are not the same in all runs."""
    names = (name.rpartition(".") for name in states[0])
    norms = dict.fromkeys(owner for owner, _, buffer in names if buffer in _STATISTICS)
    return [
        norm
        for norm in norms
        if any(not torch.equal(states[0][key], other[key]) for key in _buffers(norm, states[0]) for other in states[1:])
    ]


def _buffers(norm: str, state: Mapping[str, Tensor]) -> Iterator[str]:
    return (key for name in _STATISTICS if (key := f"{norm}.{name}" if norm else name) in state)


def _score(evaluation: AnyEvaluation | None) -> float:
    return -math.inf if evaluation is None else evaluation.score


def _write(
    place: RunFolder,
    network: nn.Module,
    members: Sequence[Member],
    evaluation: AnyEvaluation | None,
    norms: Sequence[str],
) -> None:
    """Write the model, its scores, and what it is the mean of."""
    told = [
        {
            "run": str(member.run),
            "sha256": digest_file(Path(*split_run(member.run))),
            "is_used": member.is_used,
            "scores": None if member.evaluation is None else member.evaluation.record(),
        }
        for member in members
    ]
    scores = None if evaluation is None else evaluation.record()
    save_made(place, network, evaluation, {AVERAGE: {"runs": told, "recomputed_norms": [*norms], "scores": scores}})
