"""How well each way of tuning does on few images: top-1 by images per class, over seeds.

    python benchmarks/transfer.py heads DATA --weights FILE     # pretrained against random weights, 20 / 100 / 500
    python benchmarks/transfer.py modes DATA --weights FILE     # heads, low_lr, full; norm statistics kept or not

DATA is a folder `train/<class>/*`, `val/<class>/*`; the first N files of each class, by name, are trained on.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from _measure import save
from torch import nn

import zoo
from zoo.data.loader import make_loader
from zoo.data.transforms import eval_transform

HEADS: dict[str, Any] = {
    "preset": "classify-heads",
    "epochs": 50,
    "batch_size": 64,
    "weight_decay": 1e-4,
    "evaluate_every": 50,
}
LONG: dict[str, Any] = {"epochs": 3, "batch_size": 32, "evaluate_every": 3, "augment": "none"}
MODES: dict[str, dict[str, Any]] = {
    "heads": {"preset": "classify-heads"},
    "low_lr, norms in eval": {"preset": "classify-low-lr", "freeze_norm_stats": True} | LONG,
    "low_lr, norms in train": {"preset": "classify-low-lr", "freeze_norm_stats": False} | LONG,
    "full, norms in eval": {"preset": "classify-full", "freeze_norm_stats": True} | LONG,
    "full, norms in train": {"preset": "classify-full", "freeze_norm_stats": False} | LONG,
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("what", choices=["heads", "modes"])
    options.add_argument("data", type=Path)
    options.add_argument("--weights", type=Path, required=True)
    options.add_argument("--model", default="mobilenetv2_100")
    options.add_argument("--image-size", type=int, default=128)
    options.add_argument("--per-class", type=int, nargs="+", default=None)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--case", help="only the cases with this word in their name")
    chosen = options.parse_args()
    counts = chosen.per_class or ([20, 100, 500] if chosen.what == "heads" else [100])
    weights = {"pretrained": str(chosen.weights), "random": False}
    cases = (
        [(name, source, HEADS) for name, source in weights.items()]
        if chosen.what == "heads"
        else [(name, str(chosen.weights), settings) for name, settings in MODES.items()]
    )
    cases = [case for case in cases if not chosen.case or chosen.case in case[0]]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            data = Path(folder) / str(count)
            link_images(chosen.data, data, count)
            for name, source, settings in cases:
                began = time.perf_counter()
                scores = [train(chosen, source, data, settings, seed) for seed in range(chosen.seeds)]
                seconds = (time.perf_counter() - began) / chosen.seeds
                result = {"case": name, "per_class": count, "top1": scores, "seconds_per_run": seconds}
                print(f"{count:>4} per class  {name:<24} {spread(scores)}  {seconds:4.0f} s/run", end="", flush=True)
                if chosen.what == "heads":
                    result["top1_by_hand"] = probe_by_hand(chosen, source, data, chosen.seeds)
                    print(f"   by hand {spread(result['top1_by_hand'])}", end="")
                print(flush=True)
                results.append(result)
    counted = "-".join(map(str, counts))
    save(f"transfer-{chosen.what}-{counted}", chosen, results)


def link_images(source: Path, target: Path, count: int) -> None:
    """Make a folder with the first images of each class for training, and all for validation."""
    for split in ("train", "val"):
        for folder in sorted((source / split).iterdir()):
            place = target / split / folder.name
            place.mkdir(parents=True)
            for file in sorted(folder.iterdir())[: count if split == "train" else None]:
                (place / file.name).symlink_to(file.resolve())


def train(chosen: argparse.Namespace, source: str | bool, data: Path, settings: dict[str, Any], seed: int) -> float:
    """Return top-1 in per cent."""
    classes = len(list((data / "train").iterdir()))
    model = zoo.get(chosen.model, pretrained=source, num_classes=classes, seed=seed)
    with tempfile.TemporaryDirectory() as out:
        run = zoo.finetune(
            model, data, out=out, seed=seed, image_size=chosen.image_size, crop_pct=1.0, progress=False, **settings
        )
    return 100 * run.metrics[-1]["top1"]


def probe_by_hand(chosen: argparse.Namespace, source: str | bool, data: Path, seeds: int) -> list[float]:
    """Return top-1 in per cent of a linear layer trained by a plain loop on the same frozen features.

    AdamW at 1e-3, weight decay 1e-4, cosine, 50 epochs, batches of 64, torch's own initialisation.
    """
    scores = []
    for seed in range(seeds):
        model = zoo.get(chosen.model, pretrained=source, num_classes=10, seed=seed)
        transform = eval_transform(model.preprocess.replace(image_size=chosen.image_size, crop_pct=1.0))
        opened = zoo.open_data(data, check=False)
        loaders = (make_loader(images, transform, batch_size=64) for images in (opened.train, opened.val))
        (features, targets), (unseen, truth) = (compute_features(model, loader) for loader in loaders)
        torch.manual_seed(seed)
        layer = nn.Linear(features.shape[1], len(opened.classes))
        optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-3, weight_decay=1e-4)
        steps = HEADS["epochs"] * -(-len(features) // 64)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(HEADS["epochs"]):
            for rows in torch.randperm(len(features)).split(64):
                loss = nn.functional.cross_entropy(layer(features[rows]), targets[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        scores.append(100 * float((layer(unseen).argmax(1) == truth).float().mean()))
    return scores


@torch.no_grad()
def compute_features(model: Any, loader: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features `(N, D)` and targets `(N,)` of all images, in eval mode."""
    model.eval()
    pairs = [(model.trunk(images), targets) for images, targets in loader]
    features, targets = zip(*pairs, strict=True)
    return torch.cat(features), torch.cat(targets)


def spread(scores: list[float]) -> str:
    deviation = statistics.stdev(scores) if len(scores) > 1 else 0.0
    return f"{statistics.mean(scores):5.1f} ± {deviation:.1f} %"


if __name__ == "__main__":
    main()
