"""YOLO-NAS: seconds per training step, peak memory, and the folded network against the unfolded one.

python benchmarks/detection_speed.py [--sizes s m l] [--side 640] [--batch 8] [--steps 3] [--out FILE.json]

Each size and mode runs in a process of its own, so that its peak memory is its own. A step is forward, loss, backward
and AdamW, on random pictures with 12 boxes each, channels last; the first step is not counted. Forward passes of the
two networks are interleaved, and the median of their ratios is told.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import torch

import zoo
from zoo.freezing import apply_plan
from zoo.loader import lay_channels_last
from zoo.optim import build_optimizer

BOXES = 12
MODES = ("head", "full")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["s", "m", "l"])
    parser.add_argument("--side", type=int, default=640)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--part", nargs=2, metavar=("SIZE", "WHAT"), help="measure this alone, and print it")
    chosen = parser.parse_args()
    if chosen.part:
        print(json.dumps(measure(*chosen.part, chosen.side, chosen.batch, chosen.steps)))
        return
    rows = []
    for size in chosen.sizes:
        for what in (*MODES, "forward"):
            numbers = [f"--{name}={getattr(chosen, name)}" for name in ("side", "batch", "steps")]
            command = [sys.executable, __file__, *numbers, "--part", size, what]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:  # for lack of memory, say
                row = {"failed": done.returncode, "text": done.stderr[-200:]}
            else:
                row = json.loads(done.stdout.splitlines()[-1])
            rows.append({"size": size, "what": what, **row})
            print(rows[-1], flush=True)
    report = {"side": chosen.side, "batch": chosen.batch, "steps": chosen.steps, "rows": rows, **describe()}
    if chosen.out:
        chosen.out.write_text(json.dumps(report, indent=1) + "\n")


def measure(size: str, what: str, side: int, batch: int, steps: int) -> dict[str, float]:
    """Return seconds and GiB of one size in one mode, or of the forward passes."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = zoo.get(f"yolo_nas_{size}").to(device, memory_format=torch.channels_last)
    images = lay_channels_last(torch.rand(batch, 3, side, side, device=device))
    if what == "forward":
        return compare_forward(model, images, steps, device)
    plan = zoo.plan(model, 1e-4, mode=what, optimizer="AdamW")
    apply_plan(model, plan)
    optimizer = build_optimizer(model, plan, optimizer="AdamW")
    rows = make_rows(batch, side).to(device)
    model.train()
    times = []
    for _ in range(steps + 1):
        began = now(device)
        model.loss(model(images), rows).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(now(device) - began)
    return {"step_seconds": median(times[1:]), "peak_gib": peak_gib(device)}


def compare_forward(model: torch.nn.Module, images: torch.Tensor, steps: int, device: torch.device) -> dict[str, float]:
    """Return seconds of a forward pass, and the ratio of the unfolded to the folded network."""
    plain, folded = model.eval(), model.fuse().to(memory_format=torch.channels_last)
    times: dict[str, list[float]] = {"plain": [], "fused": []}
    with torch.inference_mode():
        for _ in range(max(5, steps) + 1):
            for name, network in (("plain", plain), ("fused", folded)):
                began = now(device)
                network(images)
                times[name].append(now(device) - began)
    ratios = [one / other for one, other in zip(times["plain"][1:], times["fused"][1:], strict=True)]
    return {
        "plain_seconds": median(times["plain"][1:]),
        "fused_seconds": median(times["fused"][1:]),
        "ratio": median(ratios),
        "ratio_least": min(ratios),
        "ratio_most": max(ratios),
    }


def make_rows(batch: int, side: int) -> torch.Tensor:
    """Return boxes `(N, 6)` of all sizes, of class 0 to 79."""
    count = batch * BOXES
    images = torch.arange(batch).repeat_interleave(BOXES)[:, None]
    sizes = (torch.rand(count, 2) * 0.4 + 0.02) * side
    centres = sizes / 2 + torch.rand(count, 2) * (side - sizes)
    return torch.cat([images, torch.randint(80, (count, 1)), centres, sizes], 1)


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_gib(device: torch.device) -> float:
    """Return the peak memory of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def describe() -> dict[str, object]:
    """Return what the numbers depend on."""
    cuda = torch.cuda.is_available()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "device": torch.cuda.get_device_name() if cuda else f"{platform.processor() or platform.machine()} CPU",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()
