"""Tiny networks, batches and gradients that any language can make to the last bit, and the checksums of their weights.

Weights, images, labels and gradients come from a 32-bit integer mix, one multiplication in double precision and one
rounding to float32. The recorded runs in `fixtures/layered_lr` were made with these numbers in other systems.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parent / "fixtures" / "layered_lr"
STEPS, BATCH, CLASSES = 30, 8, 3
RECORDED_STEPS = (1, 5, 10, 30)
SAMPLE_TOLERANCE, NORM_TOLERANCE = 5e-6, 2e-5  # absolute; relative
SEEDS = {"tinynet": 7000, "tinybn": 8000, "tinymobile": 9000}
IMAGE_SHAPES = {"tinynet": (1, 8, 8), "tinybn": (2, 8, 8), "tinymobile": (3, 8, 8)}


def make_net(name: str) -> nn.Module:
    """Return `tinynet`, `tinybn` or `tinymobile` with its recorded first weights."""
    net = {"tinynet": TinyNet, "tinybn": TinyBN, "tinymobile": TinyMobile}[name]()
    owners = dict(net.named_modules())
    with torch.no_grad():
        for index, (full_name, parameter) in enumerate(net.named_parameters()):
            owner = owners[full_name.rpartition(".")[0]]
            parameter.copy_(_first_values(owner, full_name, parameter, SEEDS[name] + 10 + index))
    return net


def make_batch(name: str, step: int) -> tuple[Tensor, Tensor]:
    """Return images `(8, C, 8, 8)` and labels `(8,)` of an optimizer step, counted from 1."""
    images = uniform(SEEDS[name] + 100_000 + step, (BATCH, *IMAGE_SHAPES[name]), 1.0)
    labels = (words(SEEDS[name] + 200_000 + step, BATCH) >> 8) % CLASSES
    return images, torch.from_numpy(labels.astype(np.int64))


def prescribe_gradients(name: str, net: nn.Module, step: int) -> None:
    """Give every parameter the gradient of a step, counted from 1; no batch is involved."""
    for index, parameter in enumerate(net.parameters()):
        seed = SEEDS[name] + 300_000 + 1000 * index + step
        parameter.grad = uniform(seed, tuple(parameter.shape), 0.5)


def read_case(name: str) -> dict[str, Any]:
    """Return a recorded run of `fixtures/layered_lr` by its file's name."""
    return json.loads((FOLDER / f"{name}.json").read_text("utf8"))


def snapshot(net: nn.Module) -> dict[str, dict[str, Any]]:
    """Return the checksums of all parameters by name."""
    return {name: checksum(parameter) for name, parameter in net.named_parameters()}


def checksum(values: Tensor) -> dict[str, Any]:
    """Return sum, Euclidean norm and eight samples, spread evenly over the flat tensor, in double precision."""
    flat = values.detach().double().flatten()
    places = [k * (flat.numel() - 1) // 7 for k in range(8)]
    return {"sum": float(flat.sum()), "l2": float(flat.norm()), "samples": [float(flat[place]) for place in places]}


def differences(ours: Mapping[str, Any], recorded: Mapping[str, Any]) -> tuple[float, float]:
    """Return the greatest absolute difference of the samples and relative difference of the norms of two snapshots."""
    assert list(ours) == list(recorded)
    samples = norms = 0.0
    for name, expected in recorded.items():
        pairs = zip(ours[name]["samples"], expected["samples"], strict=True)
        samples = max(samples, *(abs(mine - other) for mine, other in pairs))
        norms = max(norms, abs(ours[name]["l2"] - expected["l2"]) / max(expected["l2"], 1e-12))
    return samples, norms


def uniform(seed: int, shape: tuple[int, ...], scale: float) -> Tensor:
    """Return float32 values in `[-scale, scale)`."""
    mixed = words(seed, math.prod(shape)).astype(np.float64) / 2**32
    return torch.from_numpy(((mixed - 0.5) * (2.0 * scale)).astype(np.float32)).reshape(shape)


def words(seed: int, count: int) -> np.ndarray:
    """Return 32-bit words, held in uint64: two rounds of multiplying and shifting of the index and the seed."""
    low = np.uint64(2**32 - 1)
    word = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(2_654_435_761)
    word = (word + np.uint64((seed * 40_503 + 12_345) % 2**32)) & low
    for shift, factor in ((16, 2_246_822_519), (13, 3_266_489_917)):
        word = ((word ^ (word >> np.uint64(shift))) * np.uint64(factor)) & low
    return word ^ (word >> np.uint64(16))


class TinyNet(nn.Module):
    """Two convolutions and two dense layers with ReLU, `(B, 1, 8, 8)` to `(B, 3)`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3)
        self.fc1, self.fc2 = nn.Linear(96, 12), nn.Linear(12, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv2(self.conv1(images).relu()).relu()
        return self.fc2(self.fc1(maps.flatten(1)).relu())


class TinyBN(nn.Module):
    """Convolution, batch norm, SiLU, mean over the map, dense layer: `(B, 2, 8, 8)` to `(B, 3)`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.fc1 = nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = nn.functional.silu(self.bn1(self.conv1(images)))
        return self.fc1(maps.mean((2, 3)))


class TinyMobile(nn.Module):
    """A stem and a depthwise convolution with batch norms, and a classifier: `(B, 3, 8, 8)` to `(B, 3)`."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.classifier = nn.Module(), nn.Module()
        self.features.stem = nn.Module()
        self.features.stem.conv = nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False)
        self.features.stem.bn = nn.BatchNorm2d(6)
        self.features.dw = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
        self.features.bn = nn.BatchNorm2d(6)
        self.classifier.fc = nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        stem, features = self.features.stem, self.features
        maps = nn.functional.silu(stem.bn(stem.conv(images)))
        maps = nn.functional.silu(features.bn(features.dw(maps)))
        return self.classifier.fc(maps.mean((2, 3)))


def _first_values(owner: nn.Module, name: str, parameter: Tensor, seed: int) -> Tensor:
    """Return what the network begins with: by the inputs of one output, or around 1 and 0 for a batch norm."""
    if isinstance(owner, nn.BatchNorm2d):
        values = uniform(seed, tuple(parameter.shape), 0.25)
        return (1.0 + values.double()).float() if name.endswith("weight") else values
    return uniform(seed, tuple(parameter.shape), 1.0 / math.sqrt(owner.weight[0].numel()))
