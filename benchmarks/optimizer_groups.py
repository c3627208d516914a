"""What the plan's groups cost: an optimizer's step, the rates of each step, and the plan itself.

Each optimizer is built from a plan, and by hand with the groups that a plan makes of it; both take the same steps with
new rates at each. Steps are interleaved; the median of the ratios of neighbouring steps is what counts. Then plans of
100, 2,000 and 20,000 parameters are made.

    python benchmarks/optimizer_groups.py [--model resnet50] [--steps 200] [--repeats 5]
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import timm
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import zoo
from zoo.optim import build_optimizer, set_rates

OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "SGD": (torch.optim.SGD, {"momentum": 0.9}),
    "AdamW": (torch.optim.AdamW, {}),
}
DECAY, SIZES = 1e-4, (100, 2_000, 20_000)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="resnet50", help="a name of timm")
    options.add_argument("--steps", type=int, default=200)
    options.add_argument("--repeats", type=int, default=5)
    chosen = options.parse_args()
    steps = {name: time_steps(chosen, name) for name in OPTIMIZERS}
    plans = {size: time_plan(size, chosen.repeats) for size in SIZES}
    report(chosen, steps, plans)


def time_steps(chosen: argparse.Namespace, name: str) -> dict[str, float]:
    """Return the seconds of a step: from a plan, by hand, by hand with one group per tensor; and the first's ratio."""
    made = {kind: make_steps(chosen, name, kind) for kind in ("plan", "by hand", "a group per tensor")}
    seconds: dict[str, list[float]] = {kind: [] for kind in made}
    for step in range(chosen.steps):
        order = list(made) if step % 2 else list(reversed(made))
        for kind in order:
            began = time.perf_counter()
            made[kind](step)
            seconds[kind].append(time.perf_counter() - began)
    warm = {kind: times[chosen.steps // 10 :] for kind, times in seconds.items()}
    ratios = [ours / theirs for ours, theirs in zip(warm["plan"], warm["by hand"], strict=True)]
    return {kind: statistics.median(times) for kind, times in warm.items()} | {"ratio": statistics.median(ratios)}


def make_steps(chosen: argparse.Namespace, name: str, kind: str) -> Callable[[int], None]:
    """Return a function that sets the rates of a step and takes it."""
    model = timm.create_model(chosen.model, num_classes=10)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    if kind == "plan":
        return steps_of_plan(model, name, chosen.steps)
    head = next(reversed(dict(model.named_parameters()))).split(".")[0]
    parts = [(0.1 if key.startswith(head) else 0.01, value.ndim > 1, value) for key, value in model.named_parameters()]
    if kind == "by hand":
        keys = dict.fromkeys((rate, decays) for rate, decays, _ in parts)
        groups = [
            {"params": [value for *key, value in parts if tuple(key) == (rate, decays)], "lr": rate} | decay_of(decays)
            for rate, decays in keys
        ]
    else:
        groups = [{"params": [value], "lr": rate} | decay_of(decays) for rate, decays, value in parts]
    return steps_by_hand(groups, name, chosen.steps)


def decay_of(decays: bool) -> dict[str, float]:
    return {"weight_decay": DECAY if decays else 0.0}


def steps_of_plan(model: nn.Module, name: str, steps: int) -> Callable[[int], None]:
    """One group per tensor in the plan, with the rate of the head or the backbone: the optimizer merges them."""
    head = next(reversed(dict(model.named_parameters()))).split(".")[0]
    rates = {key: 0.1 if key.startswith(head) else 0.01 for key, _ in model.named_parameters()}
    settings = {"schedule": "cosine", "warmup_epochs": 0.0, "weight_decay": DECAY, "epochs": 1, "optimizer": name}
    plan = zoo.plan(model, rates | {"default": 0.01}, steps_per_epoch=steps, unmatched="ignore", **settings)
    optimizer = build_optimizer(model, plan, optimizer=name)
    rates_of_steps = [plan.rates(step) for step in range(steps)]  # the plan's own work; its time is measured apart

    def take(step: int) -> None:
        set_rates(optimizer, rates_of_steps[step])
        optimizer.step()

    return take


def steps_by_hand(groups: list[dict[str, Any]], name: str, steps: int) -> Callable[[int], None]:
    kind, settings = OPTIMIZERS[name]
    optimizer = kind(groups, **settings)
    base = [group["lr"] for group in optimizer.param_groups]

    def take(step: int) -> None:
        factor = 0.5 * (1 + math.cos(math.pi * step / steps))
        for group, rate in zip(optimizer.param_groups, base, strict=True):
            group["lr"] = rate * factor
        optimizer.step()

    return take


def time_plan(size: int, repeats: int) -> dict[str, float]:
    """Return the seconds that a plan of that many parameters takes, and the rates of one step."""
    model = nn.ModuleList(
        nn.ModuleDict({"layer": nn.Linear(1, 1), "norm": nn.LayerNorm(1)}) for _ in range(size // 4)
    )  # four parameters each
    rates = {f"{index}.": 0.01 * (index + 1) for index in range(0, size // 4, 10)} | {"default": 0.01}
    building, asking = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        plan = zoo.plan(model, rates, weight_decay=DECAY, steps_per_epoch=100)
        building.append(time.perf_counter() - began)
        began = time.perf_counter()
        plan.rates(50)
        asking.append(time.perf_counter() - began)
    return {
        "parameters": len(list(model.parameters())),
        "groups": len(plan.groups),
        "plan": statistics.median(building),
        "rates of a step": statistics.median(asking),
    }


def report(chosen: argparse.Namespace, steps: dict[str, dict[str, float]], plans: dict[int, dict[str, float]]) -> None:
    """Print both tables and keep them in `benchmarks/results`."""
    console = Console()
    table = Table("optimizer", "plan, ms", "by hand, ms", "a group per tensor, ms", "ratio to by hand")
    for name, seconds in steps.items():
        *milliseconds, ratio = (1e3 * value for value in seconds.values())
        table.add_row(name, *(f"{value:.3f}" for value in milliseconds), f"{ratio / 1e3:.3f}")
    console.print(table)
    table = Table("parameters", "groups", "plan, ms", "rates of a step, ms")
    for timed in plans.values():
        table.add_row(
            f"{timed['parameters']:,}",
            f"{timed['groups']:,}",
            f"{1e3 * timed['plan']:.1f}",
            f"{1e3 * timed['rates of a step']:.2f}",
        )
    console.print(table)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    result = {
        "benchmark": "optimizer_groups",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": f"{os.cpu_count()}-core-cpu",
        "platform": f"{platform.system()} {platform.machine()}",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "commit": commit,
        "options": vars(chosen),
        "seconds of a step": steps,
        "seconds of a plan": list(plans.values()),
    }
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "optimizer_groups.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
