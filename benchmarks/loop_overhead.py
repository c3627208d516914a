"""What `zoo.finetune` costs over a hand-written loop that does the same work: ResNet-18, all layers, 128 px.

Both read the same JPEG files with the same transforms, batch size, optimizer and schedule, score the validation images
after each epoch and write the weights at the end. Runs are interleaved; the ratio of the medians is what counts.

    python benchmarks/loop_overhead.py [--images 384] [--epochs 2] [--repeats 5]
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from _measure import ratio, save, show, spread
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

import zoo
from zoo.data.transforms import eval_transform

SIZE, BATCH, CLASSES, LR = 128, 32, 8, 0.01


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=384)
    options.add_argument("--epochs", type=int, default=2)
    options.add_argument("--repeats", type=int, default=5)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_images(place / "data", chosen.images)
        runs = {"hand-written": [], "zoo.finetune": []}
        for repeat in range(chosen.repeats + 1):
            order = [("hand-written", by_hand), ("zoo.finetune", by_finetune)]
            for name, function in order if repeat % 2 else reversed(order):
                model = zoo.get("resnet18", num_classes=CLASSES)
                began = time.perf_counter()
                function(model, place / "data", place / f"{name}-{repeat}", chosen.epochs)
                if repeat:  # the first round warms caches and allocators up
                    runs[name].append(time.perf_counter() - began)
    report(chosen, runs)


def write_images(folder: Path, count: int) -> None:
    """Write JPEG files of smoothed noise, 160 x 160 pixels, a quarter as many for validation."""
    random = np.random.default_rng(0)
    for split, images in (("train", count), ("val", count // 4)):
        for index in range(images):
            place = folder / split / f"class{index % CLASSES}"
            place.mkdir(parents=True, exist_ok=True)
            noise = Image.fromarray(random.integers(0, 255, (20, 20, 3), dtype=np.uint8))
            noise.resize((160, 160), Image.Resampling.BICUBIC).save(place / f"{index}.jpg", quality=90)


def by_hand(model: nn.Module, data: Path, out: Path, epochs: int) -> None:
    """Train and score as most tutorials do."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    transform = eval_transform(model.preprocess.replace(image_size=SIZE))
    train = DataLoader(ImageFolder(data / "train", transform), batch_size=BATCH, shuffle=True)
    val = DataLoader(ImageFolder(data / "val", transform), batch_size=BATCH)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(train))
    for _ in range(epochs):
        model.train()
        for images, targets in train:
            loss = nn.functional.cross_entropy(model(images.to(device)), targets.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        model.eval()
        right = 0
        with torch.no_grad():
            for images, targets in val:
                right += int((model(images.to(device)).argmax(1).cpu() == targets).sum())
        print(f"epoch: loss {loss.item():.3f}, top-1 {right / len(val.dataset):.1%}")
    torch.save(model.state_dict(), out)


def by_finetune(model: nn.Module, data: Path, out: Path, epochs: int) -> None:
    """Train and score by this package, everything on: plan, proof, progress, checkpoints, images."""
    zoo.finetune(
        model,
        data,
        lr=LR,
        mode="full",
        optimizer="SGD",
        weight_decay=0.0,
        epochs=epochs,
        batch_size=BATCH,
        image_size=SIZE,
        augment="none",
        num_workers=0,
        out=out,
    )


def report(chosen: argparse.Namespace, runs: dict[str, list[float]]) -> None:
    """Print the table and keep it in `benchmarks/results`."""
    hand = runs["hand-written"]
    rows = [(name, f"{spread(times):.2f}", f"{ratio(times, hand):.3f}") for name, times in runs.items()]
    show("the whole call", ("contender", "seconds", "over hand-written"), rows)
    save("loop_overhead", chosen, runs)


if __name__ == "__main__":
    main()
