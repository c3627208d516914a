"""Scaling: heads-only training against the number of images, and plans against the number of parameters.

    python benchmarks/scaling.py [--images 1000 10000] [--parameters 100 1000 10000 20000] [--runs 5] [--full]

Images are JPEGs of 64 x 64 px, made on the spot; a ResNet-18 looks at them at 32 px for two epochs, first with nothing
kept, then once more. Counted is the training call, in a fresh process that has trained on a few images before. The
slope is that of time over number, both as logarithms, between neighbouring lines: 1 is linear, less is better. A plan
is of a network with four parameters per layer, with a rate for every tenth layer. `--full`: 100,000 images, too.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from math import log
from pathlib import Path
from statistics import median
from typing import Any

from _classifiers import train, write_start
from _images import write_folder
from _measure import Result, common_options, in_turns, main_or_part, run_part, save, show, spread, values_of

SIDE, SIZE, EPOCHS, BATCH = 64, 32, 2, 64
MODEL, LAYERS_PER_RATE = "resnet18", 10
FIRST, AGAIN = "{:,} images", "{:,} images, again"


def main() -> None:
    parser = common_options(__doc__)
    parser.add_argument("--images", nargs="*", type=int, default=None)
    parser.add_argument("--parameters", nargs="*", type=int, default=[100, 1000, 10_000, 20_000])
    chosen = parser.parse_args()
    if chosen.images is None:
        chosen.images = [1000, 10_000, 100_000] if chosen.full else [1000, 10_000]
    with tempfile.TemporaryDirectory() as folder:
        heads = measure_heads(Path(folder), chosen) if chosen.images else {}
    plans = measure_plans(chosen) if chosen.parameters else {}
    save("scaling", chosen, {"heads": heads, "plans": plans})


def measure_heads(place: Path, chosen: argparse.Namespace) -> dict[str, list[Result]]:
    """Train heads on folders of every size, and print time and memory of both kinds of run."""
    write_folder(place / "few", train=20, val=10, width=SIDE, height=SIDE, processes=1)
    start = {"model": MODEL, "data": str(place / "few"), "size": SIZE, "out": str(place / "start.safetensors")}
    run_part("start", start, threads=chosen.threads)
    for count in chosen.images:
        sides = {"width": SIDE, "height": SIDE}
        write_folder(place / str(count), train=count, val=100, processes=chosen.threads, **sides)

    def run(name: str, number: int) -> Result:
        cache = place / "cache"
        if not name.endswith("again"):
            shutil.rmtree(cache, ignore_errors=True)
        data = place / name.split()[0].replace(",", "")
        job = {"model": MODEL, "weights": start["out"], "data": str(data), "size": SIZE, "epochs": EPOCHS}
        options = {"contender": "zoo", "job": job | {"batch": BATCH}, "first": str(place / "few")}
        return run_part("train", options, threads=chosen.threads, cache=cache)

    groups = [[FIRST.format(count), AGAIN.format(count)] for count in chosen.images]
    results = in_turns(groups, chosen.runs, run)
    for kind in (FIRST, AGAIN):
        names = [kind.format(count) for count in chosen.images]
        seconds = [spread(values_of(results[name], "seconds")) for name in names]
        memory = [spread(values_of(results[name], "peak_mb")) for name in names]
        rows = [
            (name, f"{second:.2f}", f"{1000 * second.median / count:.2f}", slope, f"{peak:,.0f}")
            for name, count, second, slope, peak in zip(
                names, chosen.images, seconds, slopes(chosen.images, [s.median for s in seconds]), memory, strict=True
            )
        ]
        title = f"heads only, {MODEL} at {SIZE} px, {EPOCHS} epochs, batches of {BATCH}"
        show(title, ("images", "seconds", "ms per image", "slope", "peak, MB"), rows)
    return results


def measure_plans(chosen: argparse.Namespace) -> dict[str, list[Result]]:
    """Make plans of every number of parameters."""
    names = [f"{count:,}" for count in chosen.parameters]

    def run(name: str, number: int) -> Result:
        return run_part("plan", {"parameters": int(name.replace(",", ""))}, threads=chosen.threads)

    results = in_turns([[name] for name in names], chosen.runs, run)
    seconds = [spread(values_of(results[name], "seconds")) for name in names]
    steps = [spread(values_of(results[name], "rates_seconds")) for name in names]
    rows = [
        (name, f"{1000 * second.median:.1f}", slope, f"{1000 * step.median:.2f}", f"{spread(peaks).median:,.0f}")
        for name, second, slope, step, peaks in zip(
            names,
            seconds,
            slopes(chosen.parameters, [second.median for second in seconds]),
            steps,
            [values_of(results[name], "peak_mb") for name in names],
            strict=True,
        )
    ]
    show("a plan", ("parameters", "plan, ms", "slope", "rates of a step, ms", "peak, MB"), rows)
    return results


def slopes(numbers: Sequence[int], seconds: Sequence[float]) -> list[str]:
    """Return how the logarithm of time rises with that of the number, from each line to the next."""
    pairs = list(zip(numbers, seconds, strict=True))
    steps = [log(after[1] / before[1]) / log(after[0] / before[0]) for before, after in pairwise(pairs)]
    return ["–", *(f"{step:.2f}" for step in steps)]


def make_plan(*, parameters: int, repeats: int = 5) -> Result:
    """Make a plan of a network with that many parameters, and ask for the rates of a step; return median seconds."""
    from torch import nn

    import zoo

    layers = parameters // 4
    network = nn.ModuleList(nn.ModuleDict({"layer": nn.Linear(1, 1), "norm": nn.LayerNorm(1)}) for _ in range(layers))
    rates: dict[str, Any] = {f"{index}.": 0.01 * (index + 1) for index in range(0, layers, LAYERS_PER_RATE)}
    zoo.plan(nn.Linear(1, 1), {"default": 0.01}, steps_per_epoch=100)  # imports
    making, asking = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        plan = zoo.plan(network, rates | {"default": 0.01}, weight_decay=1e-4, steps_per_epoch=100)
        making.append(time.perf_counter() - began)
        began = time.perf_counter()
        plan.rates(50)
        asking.append(time.perf_counter() - began)
    return {"seconds": median(making), "rates_seconds": median(asking), "groups": len(plan.groups)}


if __name__ == "__main__":
    main_or_part(main, {"train": train, "start": write_start, "plan": make_plan})
