"""What freezing the front of a network saves: seconds per training step and peak memory.

python benchmarks/partly_frozen.py [--models resnet50 yolo_nas_s] [--steps 3] [--out FILE.json]

Three plans for each model: all of it learns; the last stage, what follows it and the head; the head alone. A step is
one of the loop that `zoo.finetune` runs, on random images (resnet50: 32 of 224 px; yolo_nas_s: 8 of 320 px with 12
boxes each), with SGD. Each measurement has a process of its own, so that its memory is its own; its first step is not
timed. `kept` is what forward keeps for backward, counted once per block of memory, without the weights.
"""

import argparse
import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.loader import lay_channels_last
from zoo.engine.accelerator import make_accelerator
from zoo.engine.memory import peak_memory
from zoo.models.build import get
from zoo.optim.build import build_optimizer
from zoo.optim.freeze import apply_plan
from zoo.settings.preset import Preset
from zoo.settings.resolve import plan_rates
from zoo.tasks.detection.batches import BoxTargets
from zoo.training.loop import fit
from zoo.training.position import Position
from zoo.training.step import TrainingStep

BOXES = 12
SIZES = {"resnet50": (32, 224), "yolo_nas_s": (8, 320)}  # images per batch, pixels
LEARNING = {
    "resnet50": {"last stage": ("layer4", "fc"), "head": ("fc",)},
    "yolo_nas_s": {"last stage": ("backbone.stage4", "neck", "heads"), "head": ("heads",)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--part", nargs=2, metavar=("MODEL", "WHAT"), help="measure this alone, and print it")
    chosen = parser.parse_args()
    if chosen.part:
        print(json.dumps(measure(*chosen.part, chosen.steps)))
        return
    rows = []
    for model in chosen.models:
        for what in ("all", *LEARNING[model]):
            command = [sys.executable, __file__, "--steps", str(chosen.steps), "--part", model, what]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr)
            rows.append({"model": model, "learns": what, **json.loads(done.stdout.splitlines()[-1])})
            print(rows[-1], flush=True)
    if chosen.out:
        chosen.out.write_text(json.dumps({"rows": rows, **describe()}, indent=1) + "\n")


class Same:
    """The same batch again and again."""

    def __init__(self, images: Tensor, targets: Any, count: int) -> None:
        self.pair, self.count = (images, targets), count

    def __len__(self) -> int:
        return self.count

    def epoch(self, epoch: int, start_batch: int = 0) -> Any:
        """Iterate over the batch."""
        return iter([self.pair] * (self.count - start_batch))


def measure(name: str, what: str, steps: int) -> dict[str, float]:
    """Return seconds and GiB of one model, of which some part learns."""
    batch, side = SIZES[name]
    accelerator = make_accelerator()
    device = accelerator.device
    torch.manual_seed(0)
    model: Any = get(name, pretrained=False).to(device, memory_format=torch.channels_last)
    rates = {"default": 1e-3} if what == "all" else {"default": 0} | dict.fromkeys(LEARNING[name][what], 1e-3)
    plan = plan_rates(model, Preset(lr=rates))
    apply_plan(model, plan)
    images = lay_channels_last(torch.rand(batch, 3, side, side, device=device))
    if name.startswith("yolo"):
        targets: Any = BoxTargets(make_rows(batch, side).to(device), torch.arange(batch))
        loss: Any = lambda outputs, targets: model.loss(outputs, targets.rows)  # noqa: E731
    else:
        targets, loss = torch.arange(batch, device=device), nn.functional.cross_entropy
    times = []
    optimizer = accelerator.prepare(build_optimizer(model, plan, optimizer="SGD"))
    step = TrainingStep(model, loss, optimizer, accelerator, set_rates=lambda position: None)

    def after_step(position: Position, value: float | None) -> bool:
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter())
        return False

    kept = count_kept(model, images)
    with peak_memory(device) as peak:
        list(fit(step, Same(images, targets, steps + 1), Position(), epochs=1, after_step=after_step))
    seconds = median(later - earlier for earlier, later in pairwise(times))
    return {"step_seconds": seconds, "peak_gib": (peak.bytes - peak.start) / 2**30, "kept_gib": kept / 2**30}


def count_kept(model: nn.Module, images: Tensor) -> int:
    """Return the bytes that a forward pass keeps for the backward pass."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that no other takes its place
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = model(images)  # noqa: F841 (it holds the graph)
    return sum(storage.nbytes() for storage in kept.values())


def make_rows(batch: int, side: int) -> Tensor:
    """Return boxes `(N, 6)` of all sizes, of class 0 to 79."""
    count = batch * BOXES
    images = torch.arange(batch).repeat_interleave(BOXES)[:, None]
    sizes = (torch.rand(count, 2) * 0.4 + 0.02) * side
    centres = sizes / 2 + torch.rand(count, 2) * (side - sizes)
    return torch.cat([images, torch.randint(80, (count, 1)), centres, sizes], 1)


def describe() -> dict[str, object]:
    """Return what the numbers depend on."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()
