"""In which numbers a frozen backbone runs on a CPU: bfloat16 where it was measured to be faster and to change little.

Some processors compute bfloat16 several times as fast as float32 and others much slower; some networks hardly notice
its 8 bits, and the features of others change by a fifth (MobileNetV2, which then loses a point of top-1). So both are
tried, where a run is long enough for it to matter; a second run of the same backbone does not try again.
"""

import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.engine.frozen.backbone import BackboneEngine
from zoo.engine.frozen.keys import find_versions, make_key
from zoo.files import cache_folder, read_note, write_note

MOST_CHANGE = 0.01  # of the features' norm
LEAST_GAIN = 1.25  # times as fast: less is not worth other numbers
LEAST_IMAGES = 500  # that a run shows to the backbone: with fewer there is little to gain
LEAST_SECONDS = 3.0  # that they take in float32: likewise
TRIALS = 2


def choose_engine(
    make: Callable[[torch.dtype], BackboneEngine], images: Tensor, count: int, log: Callable[[str], None]
) -> BackboneEngine:
    """Return the engine of a backbone in float32, or in bfloat16 if that is clearly faster here and nearly the same.

    Args:
        make: Makes an engine for numbers of a type.
        images: `(B, 3, H, W)`, as the network takes them, to try it with.
        count: Images that the run shows to the backbone.
        log: Told if it is bfloat16.
    """
    exact = make(torch.float32)
    if count < LEAST_IMAGES:
        return exact
    note = cache_folder() / "speeds" / f"{_key(exact, images)[:32]}.json"
    gain = _recall(note)
    if gain is None:
        expected = exact(images)  # the first pass prepares weights
        seconds = _time(exact, images)
        if seconds / len(images) * count < LEAST_SECONDS:
            return exact
        rounded = make(torch.bfloat16)
        gain = 0.0
        if _change(rounded(images), expected) <= MOST_CHANGE:
            pairs = [(_time(exact, images), _time(rounded, images)) for _ in range(TRIALS)]
            gain = min(first for first, _ in pairs) / min(second for _, second in pairs)
        write_note(note, {"gain": round(gain, 3)})
    if gain < LEAST_GAIN:
        return exact
    log(
        f"running the frozen backbone in bfloat16, {gain:.1f}x as fast as float32 on this CPU "
        "(backbone_precision=no: float32)"
    )
    return make(torch.bfloat16)


def _change(parts: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the greatest change of a part, as a share of its norm."""
    return max(float((part - exact).norm() / exact.norm()) for part, exact in zip(parts, expected, strict=True))


def _time(engine: BackboneEngine, images: Tensor) -> float:
    began = time.perf_counter()
    engine(images)
    return time.perf_counter() - began


def _key(engine: BackboneEngine, images: Tensor) -> str:
    facts: dict[str, Any] = {
        "trunk": engine.digest(),
        "engine": engine.describe(),
        "images": list(images.shape),
        "processor": [platform.machine(), platform.processor(), torch.backends.cpu.get_cpu_capability()],
        "cores": [os.cpu_count(), torch.get_num_threads()],
        "versions": find_versions(),
    }
    return make_key(facts)


def _recall(note: Path) -> float | None:
    gain = (read_note(note) or {}).get("gain")
    return gain if isinstance(gain, float) else None
