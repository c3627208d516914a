"""The exact head beside the best of twelve AdamW runs on the same features: top-1 and seconds, by images per class.

    python benchmarks/exact_head.py DATA --model mobilenetv2_100 --weights FILE

DATA is a folder `train/<class>/*`, `val/<class>/*`. Each draw takes other training images at random. The best of the
AdamW runs is chosen by the validation images, which favours it; the exact head never sees them.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from _measure import save
from torch import Tensor, nn
from transfer import spread

import zoo
from zoo.analysis import embed_splits
from zoo.optim.solvers import Basis, FeatureRows, choose_l2, make_folds, solve_head
from zoo.progress import Progress
from zoo.settings import Preset

RATES, DECAYS, EPOCHS, BATCH = (3e-4, 1e-3, 3e-3, 1e-2), (0.01, 0.1, 1.0), 50, 64


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("data", type=Path)
    options.add_argument("--model", default="mobilenetv2_100")
    options.add_argument("--weights", default=None, help="a file; default: the model's published weights")
    options.add_argument("--image-size", type=int, default=128)
    options.add_argument("--crop-pct", type=float, default=1.0)
    options.add_argument("--per-class", type=int, nargs="+", default=[20, 100, 500])
    options.add_argument("--draws", type=int, default=3)
    chosen = options.parse_args()
    model = zoo.get(chosen.model, pretrained=chosen.weights or True)
    preset = Preset(image_size=chosen.image_size, crop_pct=chosen.crop_pct)
    with Progress() as show:
        splits = embed_splits(model, zoo.open_data(chosen.data), preset, show)
    train, val = splits["train"], splits["val"]
    results = []
    for count in chosen.per_class:
        rows: list[dict[str, Any]] = []
        for draw in range(chosen.draws):
            places = _draw(train.labels, count, draw)
            rows.append(_compare(train.vectors[places], train.labels[places], val.vectors, val.labels))
        exact, grid = ([100 * row[key] for row in rows] for key in ("exact", "grid"))
        seconds = {key: statistics.mean(row[key] for row in rows) for key in ("exact_seconds", "grid_seconds")}
        ratio = seconds["grid_seconds"] / seconds["exact_seconds"]
        print(
            f"{count:>4} per class  exact {spread(exact)} in {seconds['exact_seconds']:.1f} s   best of "
            f"{len(RATES) * len(DECAYS)} AdamW {spread(grid)} in {seconds['grid_seconds']:.1f} s ({ratio:.0f} times)",
            flush=True,
        )
        results.append({"per_class": count, "draws": rows})
    save(f"exact-head-{chosen.model}", chosen, results)


def _draw(labels: Tensor, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    return torch.cat([order[labels[order] == number][:count] for number in labels.unique()])


def _compare(features: Tensor, labels: Tensor, unseen: Tensor, truth: Tensor) -> dict[str, Any]:
    classes, began = int(truth.max()) + 1, time.perf_counter()
    rows = FeatureRows.of(features, labels)
    basis, costs = Basis.of(rows), torch.eye(classes, dtype=torch.float64)
    choice = choose_l2(rows, costs, make_folds(labels, 5), basis=basis)
    head = solve_head(rows, costs, choice.l2, basis=basis, start=choice.start).head
    exact_seconds = time.perf_counter() - began
    found = {"exact": _score(head(unseen), truth), "l2": choice.l2, "exact_seconds": exact_seconds}
    began = time.perf_counter()
    grid = {f"{lr:g}, {decay:g}": _step(features, labels, unseen, truth, lr, decay) for lr in RATES for decay in DECAYS}
    return found | {"grid": max(grid.values()), "grid_seconds": time.perf_counter() - began, "all": grid}


def _step(features: Tensor, labels: Tensor, unseen: Tensor, truth: Tensor, lr: float, decay: float) -> float:
    """Return top-1 of a linear layer trained with AdamW and a cosine."""
    torch.manual_seed(0)
    layer = nn.Linear(features.shape[1], int(truth.max()) + 1)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=lr, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * -(-len(features) // BATCH))
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(features)).split(BATCH):
            loss = nn.functional.cross_entropy(layer(features[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        return _score(layer(unseen), truth)


def _score(logits: Tensor, truth: Tensor) -> float:
    return float((logits.argmax(1) == truth).double().mean())


if __name__ == "__main__":
    main()
