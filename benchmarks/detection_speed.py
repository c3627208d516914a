"""YOLO-NAS: seconds per training step, peak memory, and the folded network against the unfolded one.

python benchmarks/detection_speed.py [--sizes s m l] [--side 640] [--batch 8] [--steps 3]

Each size and mode runs in a process of its own, so that its peak memory is its own. A step is forward, loss, backward
and AdamW, on random images with 12 boxes each, channels last; the first step is not counted. Forward passes of the
two networks are interleaved, and the median of their ratios is told.
"""

import argparse
import os
import time
from statistics import median

import torch
from _measure import CONSOLE, main_or_part, run_part, save

import zoo
from zoo.data.loader import lay_channels_last
from zoo.optim.build import build_optimizer
from zoo.optim.freeze import apply_plan

BOXES = 12
MODES = ("head", "full")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["s", "m", "l"])
    parser.add_argument("--side", type=int, default=640)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    chosen = parser.parse_args()
    rows = []
    for size in chosen.sizes:
        for what in (*MODES, "forward"):
            options = {"size": size, "what": what, "side": chosen.side, "batch": chosen.batch, "steps": chosen.steps}
            rows.append({"size": size, "what": what, **run_part("measure", options, threads=chosen.threads)})
            CONSOLE.print(rows[-1])
    save("detection_speed", chosen, rows)


def measure(*, size: str, what: str, side: int, batch: int, steps: int) -> dict[str, float]:
    """Return the seconds of one size in one mode, or of the forward passes."""
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
    return {"step_seconds": median(times[1:])}


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


if __name__ == "__main__":
    main_or_part(main, {"measure": measure})
