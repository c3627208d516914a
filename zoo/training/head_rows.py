"""What the linear head of a model is shown: the features of all training images, as rows that a solver reads."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data import SplitSource
from zoo.engine import TrainingInputs, load_to_score
from zoo.engine.frozen import HeadOnly, KeptFeatures
from zoo.errors import InputError
from zoo.optim.solvers import FeatureRows
from zoo.training.setup import RunParts

TOLERANCE = 1e-3  # of the largest logit: what a linear layer gives, and what the whole head gives


def read_rows(parts: RunParts, linear: nn.Linear) -> tuple[FeatureRows, Tensor]:
    """Return the features of the training images as rows, and which image each row is of, `(N,)`.

    They come from the cached features, of which the largest stay in their files; else from one pass over the images,
    without random changes, in eval mode.

    Args:
        parts: Of the run.
        linear: The layer that is solved.

    Raises:
        InputError: The outputs of the model are not what the layer gives.
    """
    if parts.supply.kept:
        return _read_kept(parts.supply, parts.model, linear)
    if parts.preset.solver and parts.preset.views > 1:
        raise InputError(
            f"views is {parts.preset.views}, but features of this model and data are not cached (see above), so each "
            "image has one version. Leave views out."
        )
    features, labels = collect(parts, linear)
    labels = labels.to(find_device(linear))
    return FeatureRows.of(features, labels), torch.arange(len(labels), device=labels.device)


def find_device(linear: nn.Linear) -> torch.device:
    """Return where to solve: where the layer is, or on the CPU if that cannot compute in float64."""
    return torch.device("cpu") if linear.weight.device.type == "mps" else linear.weight.device


def _read_kept(supply: TrainingInputs, model: nn.Module, linear: nn.Linear) -> tuple[FeatureRows, Tensor]:
    kept, engine, source = supply.kept[0], supply.engine, supply.source
    assert engine is not None
    assert source is not None
    device, images, there = find_device(linear), len(source), linear.weight.device
    head = HeadOnly(model).eval()

    def read(start: int, stop: int) -> Tensor:
        parts, _ = kept.take(torch.arange(start, stop))
        return seen_by(linear, partial(head, engine.join([part.to(there) for part in parts])))

    numbers = torch.arange(kept.count)
    return FeatureRows(read, _labels_of(kept, source).to(device)), (numbers % images).to(device)


def _labels_of(kept: KeptFeatures, source: SplitSource) -> Tensor:
    indices = torch.arange(kept.count, device=kept.device)
    rows = kept.rows
    return torch.as_tensor(source.unpack_targets(rows.values, rows.counts, indices % len(source))).long()


@torch.no_grad()
def collect(parts: RunParts, linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """Return what the layer is shown of each training image, `(N, D)`, and the classes, `(N,)`."""
    network = parts.accelerator.unwrap_model(parts.network).eval()
    found: list[tuple[Tensor, Tensor]] = []
    for inputs, targets in _list_batches(parts):
        found.append((seen_by(linear, partial(network, inputs)), targets))
    features, labels = (torch.cat(column) for column in zip(*found, strict=True))
    return features, labels


def _list_batches(parts: RunParts) -> Iterator[tuple[Any, Any]]:
    if parts.data.train is None:
        yield from parts.supply.train.epoch(0)
        return
    source = parts.task.make_scoring_source(parts.model, parts.data.train, parts.preset.seed)
    options = {"batch_size": parts.task.scoring_batch, "num_workers": parts.preset.num_workers or 0}
    yield from load_to_score(source, parts.accelerator, **options)


def seen_by(linear: nn.Linear, call: Any) -> Tensor:
    """Return what a layer is shown in a call that returns its outputs, `(n, D)`.

    Raises:
        InputError: The call does not return what the layer gives.
    """
    seen: list[tuple[Tensor, Tensor]] = []
    handle = linear.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    try:
        with torch.no_grad():
            outputs = call()
    finally:
        handle.remove()
    if len(seen) != 1 or seen[0][0].ndim != 2 or outputs.shape != seen[0][1].shape or not _agree(outputs, seen[0][1]):
        raise InputError(
            "the head cannot be solved: the model changes or combines what its last linear layer gives, so it is more "
            "than one linear layer. Train it in steps, without solver."
        )
    return seen[0][0]


def _agree(outputs: Tensor, given: Tensor) -> bool:
    return bool((outputs - given).abs().max() <= TOLERANCE * given.abs().max().clamp_min(1))
