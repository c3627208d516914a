"""How long a training step takes compiled and uncompiled: ResNet-18, random images, all layers or the head alone.

Both sides run the same loop on the same batches, in turns of a few steps; the first turn of each is not counted, as it
compiles. The ratio of the medians is what counts; that of the fastest turns suffers less from other work.

    python benchmarks/compiled_step.py [--size 128] [--batch 16] [--steps 3] [--turns 10]
"""

import argparse
import statistics
import time
from collections.abc import Iterator

import torch
from _measure import CONSOLE, save
from torch import Tensor

import zoo
from zoo.engine.accelerator import make_accelerator
from zoo.engine.compile import StepCompiler
from zoo.optim.build import build_optimizer, set_rates
from zoo.optim.freeze import apply_plan
from zoo.training.loop import EpochResult, fit
from zoo.training.position import Position
from zoo.training.step import TrainingStep

CLASSES, LR = 8, 0.001


class RandomBatches:
    """The same random batch again and again."""

    def __init__(self, size: int, batch: int, steps: int) -> None:
        self.steps = steps
        self.images = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
        self.targets = torch.arange(batch) % CLASSES

    def __len__(self) -> int:
        return self.steps

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the rest of an epoch."""
        for _ in range(start_batch, self.steps):
            yield self.images, self.targets


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", type=int, default=128)
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--steps", type=int, default=3)
    options.add_argument("--turns", type=int, default=10)
    chosen = options.parse_args()
    batches = RandomBatches(chosen.size, chosen.batch, chosen.steps)
    results = {mode: compare(mode, batches, chosen.turns) for mode in ("head", "full")}
    report(chosen, results)


def compare(mode: str, batches: RandomBatches, turns: int) -> dict[str, object]:
    """Run both sides in turns; return seconds per step of each turn, and what compiling took."""
    sides = {name: run(mode, batches, turns + 1, compiled=name == "compiled") for name in ("eager", "compiled")}
    began = time.perf_counter()
    for side in sides.values():
        next(side)
    first = time.perf_counter() - began
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(turns):
        for name in sides if turn % 2 else reversed(sides):
            seconds[name].append(next(sides[name]).seconds / len(batches))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ratios = sorted(b / a for a, b in zip(*seconds.values(), strict=True))
    return {
        "seconds_per_step": seconds,
        "medians": medians,
        "ratio_of_medians": medians["compiled"] / medians["eager"],
        "ratio_of_fastest": min(seconds["compiled"]) / min(seconds["eager"]),
        "pairs": [ratios[0], ratios[-1]],
        "first_turns_seconds": first,
    }


def run(mode: str, batches: RandomBatches, epochs: int, *, compiled: bool) -> Iterator[EpochResult]:
    """Train as `zoo.finetune` does, in one process without files."""
    model = zoo.get("resnet18", num_classes=CLASSES).to(memory_format=torch.channels_last)
    plan = zoo.plan(model, LR, mode=mode, epochs=epochs, steps_per_epoch=len(batches))
    apply_plan(model, plan)
    accelerator = make_accelerator("auto")
    network = accelerator.prepare(model)
    optimizer, loss = build_optimizer(model, plan, optimizer="SGD", tensor_rates=compiled), model.loss
    if compiled:
        compiler = StepCompiler(print)
        compiler.compile_optimizer(optimizer, plan)
        network, loss = compiler.compile_network(network), compiler.compile_loss(loss)

    def set_all(position: Position) -> None:
        set_rates(optimizer, plan.rates(position.step))

    step = TrainingStep(network, loss, optimizer, accelerator, set_rates=set_all)
    return fit(step, batches, Position(), epochs=epochs)


def report(chosen: argparse.Namespace, results: dict[str, dict[str, object]]) -> None:
    """Print the table and keep it in `benchmarks/results`."""
    for mode, result in results.items():
        eager, compiled = (1000 * seconds for seconds in result["medians"].values())
        low, high = result["pairs"]
        CONSOLE.print(
            f"{mode:<5} eager {eager:.1f} ms, compiled {compiled:.1f} ms, ratio of medians "
            f"{result['ratio_of_medians']:.3f} (pairs from {low:.3f} to {high:.3f}), of the fastest "
            f"{result['ratio_of_fastest']:.3f}; first turns {result['first_turns_seconds']:.0f} s"
        )
    save("compiled_step", chosen, results)


if __name__ == "__main__":
    main()
