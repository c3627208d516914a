"""What the plan's groups cost in an optimizer's step; `scaling.py` measures what the plan itself costs.

Each optimizer is built from a plan, and by hand with the groups that a plan makes of it; both take the same steps with
new rates at each. Steps are interleaved; the median of the ratios of neighbouring steps is what counts.

    python benchmarks/optimizer_groups.py [--model resnet50] [--steps 200]
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import timm
import torch
from _measure import save, show
from torch import nn

import zoo
from zoo.optim.build import build_optimizer, set_rates

OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "SGD": (torch.optim.SGD, {"momentum": 0.9}),
    "AdamW": (torch.optim.AdamW, {}),
}
DECAY = 1e-4


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="resnet50", help="a name of timm")
    options.add_argument("--steps", type=int, default=200)
    chosen = options.parse_args()
    steps = {name: time_steps(chosen, name) for name in OPTIMIZERS}
    report(chosen, steps)


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


def report(chosen: argparse.Namespace, steps: dict[str, dict[str, float]]) -> None:
    """Print the table and keep it in `benchmarks/results`."""
    rows = []
    for name, seconds in steps.items():
        *times, ratio = seconds.values()
        rows.append((name, *(f"{1e3 * value:.3f}" for value in times), f"{ratio:.3f}"))
    columns = ("optimizer", "plan, ms", "by hand, ms", "a group per tensor, ms", "ratio to by hand")
    show("a step of the optimizer", columns, rows)
    save("optimizer_groups", chosen, steps)


if __name__ == "__main__":
    main()
