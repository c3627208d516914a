"""The main job on real images that need no download: a pretrained network learns to read handwritten digits."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree
from typing import Any

import zoo
from zoo._text import echo

FOLDER = Path("demo")
MODEL = "efficientnet_lite0"
SIZE = 96  # pixels
EPOCHS = 20


def main(argv: Sequence[str] | None = None) -> int:
    """Write the digits as a folder of images, train a head on them twice, and compare with a plain loop."""
    began = time.perf_counter()
    digits = FOLDER / "digits"
    count = write_digits(digits)
    echo(f"{count:,} handwritten digits (scikit-learn's, 8 x 8 pixels) are in {digits}/train and {digits}/val")
    model = zoo.get(MODEL, pretrained=True, num_classes=10)
    echo(f"pretrained weights: {model.load_report}")
    run, first = _train(model, digits, FOLDER / "run", lr=0.01)
    echo()
    echo("the same again with another learning rate; the features of the backbone are cached:")
    _, second = _train(zoo.get(MODEL, pretrained=True, num_classes=10), digits, FOLDER / "second-run", lr=0.003)
    echo()
    echo("one epoch of a plain loop, which reads every image and runs the whole network again:")
    plain = time_plain_epoch(zoo.get(MODEL, pretrained=True, num_classes=10), digits / "train")
    echo(f"  plain loop: {plain:.1f} s an epoch, so {EPOCHS} epochs take about {EPOCHS * plain:.0f} s")
    for seconds, features in (first, "computed once"), (second, "from the cache"):
        factor = EPOCHS * plain / seconds
        echo(f"  zoo, features {features}: {EPOCHS} epochs in {seconds:.1f} s, {factor:.0f} times as fast")
    echo()
    echo("predictions for six images of the validation split:")
    for answer in run.predict(sorted((digits / "val").glob("*/*.png"))[::60], top_k=2):
        echo(f"  {answer}")
    sheet = _draw(run, sorted((digits / "val").glob("*/*.png"))[::15], FOLDER / "predictions.png")
    echo()
    echo(f"done in {time.perf_counter() - began:.0f} s. Look at {sheet} and {run.folder}/pictures, then try:")
    echo(f"  .venv/bin/zoo predict {run.folder} {digits}/val/7")
    echo(f"  .venv/bin/zoo plan {MODEL} --lr 'classifier=0.01,blocks.6=0.001,default=0'")
    echo(f"  .venv/bin/zoo finetune {MODEL} path/to/your/images")
    return 0


def write_digits(folder: Path) -> int:
    """Write scikit-learn's digits as `train/<digit>/*.png` and `val/<digit>/*.png`, every fifth for `val`."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for index, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        place = folder / ("val" if index % 5 == 0 else "train") / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * (255 / 16)).astype("uint8")).save(place / f"{index:04d}.png")
    return len(digits.images)


def time_plain_epoch(model: Any, folder: Path) -> float:
    """Train the head of a model for one epoch with torch alone; return the seconds.

    The backbone is frozen and in eval mode, the rest is what a tutorial shows: an image folder, a loader, AdamW.
    """
    import torch
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    from zoo.data import eval_transform

    transform = eval_transform(model.preprocess.replace(image_size=SIZE))
    loader = DataLoader(ImageFolder(str(folder), transform), batch_size=32, shuffle=True)
    model.requires_grad_(False).eval()
    head = model.get_head().requires_grad_(True)
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.01)
    began = time.perf_counter()
    for images, targets in loader:
        loss = torch.nn.functional.cross_entropy(model(images), targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return time.perf_counter() - began


def _train(model: Any, data: Path, folder: Path, lr: float) -> tuple[Any, float]:
    """Return a run and its seconds, from the check of the images to the last plot."""
    rmtree(folder, ignore_errors=True)
    began = time.perf_counter()
    run = zoo.finetune(model, data, out=folder, lr=lr, image_size=SIZE, epochs=EPOCHS)
    return run, time.perf_counter() - began


def _draw(run: Any, images: Sequence[Path], target: Path) -> Path:
    """Draw predictions as one sheet."""
    from zoo.data import read_image
    from zoo.tasks.classification.plots import Tile, draw_predictions

    answers = run.predict(images, top_k=1)
    tiles = [
        Tile(read_image(image), answer.name, answer.probability, str(image), image.parent.name)
        for image, answer in zip(images, answers, strict=True)
    ]
    return draw_predictions(tiles, target)


if __name__ == "__main__":
    sys.exit(main())
