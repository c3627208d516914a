"""Fine-tune a detector on real images that need no download: handwritten digits scattered over canvases."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

import zoo
from zoo._text import echo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FOLDER = Path("demo")
SIDE = 160  # of a canvas, pixels
SIDES = (26, 52)  # of a digit on it
PER_CANVAS = (5, 9)
COUNTS = {"train": 384, "val": 64}
BATCH_SIZE, LR = 8, 0.002
TRIES = 20  # to find a free place for a digit


def main(argv: Sequence[str] | None = None) -> int:
    """Write the canvases, fine-tune YOLO-NAS S on them, and say what to look at and what to type next."""
    began = time.perf_counter()
    data, run_folder = FOLDER / "scenes", FOLDER / "detection-run"
    rmtree(run_folder, ignore_errors=True)
    digits = write_scenes(data)
    echo(f"{digits:,} handwritten digits (scikit-learn's, 8 x 8 pixels) lie on the images in {data}, in YOLO layout")
    model = zoo.get("yolo_nas_s", num_classes=10)
    options: dict[str, Any] = {"image_size": SIDE, "epochs": 4, "batch_size": BATCH_SIZE, "lr": LR, "augment": "none"}
    run = zoo.finetune(model, data, preset="detection-full", out=run_folder, **options)
    found = run.predict(sorted((data / "images" / "val").glob("*.png"))[:4], conf=0.4)
    echo()
    echo("the model on four images that it was not trained on:")
    for result in found:
        echo(f"  {result}")
        result.save(run_folder / "predictions")
    echo()
    echo(f"done in {time.perf_counter() - began:.0f} s. Look at {run_folder}/pictures/predictions.png, then try:")
    echo(f"  .venv/bin/zoo predict {run_folder} {data}/images/val -o demo/found")
    echo("  .venv/bin/zoo data check path/to/your/data")
    echo("  .venv/bin/zoo finetune yolo_nas_s path/to/your/data --preset detection-low-lr")
    return 0


def write_scenes(folder: Path) -> int:
    """Write images with digits and their boxes in YOLO layout; return how many digits there are.

    Every fifth of scikit-learn's digits is kept for the images of `val`. The same call writes the same images.
    """
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits, random, total = load_digits(), np.random.default_rng(0), 0
    places = np.arange(len(digits.images))
    for split, count in COUNTS.items():
        chosen = places[(places % 5 == 0) == (split == "val")]
        images, labels = (folder / kind / split for kind in ("images", "labels"))
        for path in (images, labels):
            path.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            some = random.choice(chosen, random.integers(*PER_CANVAS), replace=False)
            canvas, lines = _scatter(digits.images[some], digits.target[some], random)
            Image.fromarray(canvas).save(images / f"{number:03d}.png")
            (labels / f"{number:03d}.txt").write_text("".join(f"{line}\n" for line in lines))
            total += len(lines)
    names = "".join(f"  {digit}: '{digit}'\n" for digit in range(10))
    (folder / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames:\n{names}")
    return total


def _scatter(
    images: "NDArray[Any]", labels: "NDArray[Any]", random: "np.random.Generator"
) -> "tuple[NDArray[np.uint8], list[str]]":
    """Return a canvas with digits in free places, and a line of text for each: class, centre, width and height."""
    import numpy as np
    from PIL import Image

    canvas = np.full((SIDE, SIDE, 3), random.integers(0, 70, 3), np.uint8)
    taken, lines = np.zeros((SIDE, SIDE), bool), []
    for image, label in zip(images, labels, strict=True):
        ink = np.argwhere(image > 2)
        (top, left), (bottom, right) = ink.min(0), ink.max(0) + 1
        scale = random.integers(*SIDES) / 8
        height, width = (round(side * scale) for side in (bottom - top, right - left))
        small = Image.fromarray(image[top:bottom, left:right].astype(np.float32) / 16)
        share = np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))[..., None]
        for _ in range(TRIES):
            y, x = random.integers(0, SIDE - height + 1), random.integers(0, SIDE - width + 1)
            if not taken[y : y + height, x : x + width].any():
                break
        else:
            continue
        taken[y : y + height, x : x + width] = True
        part = canvas[y : y + height, x : x + width]
        part[:] = part * (1 - share) + random.integers(140, 256, 3) * share
        shares = ((x + width / 2) / SIDE, (y + height / 2) / SIDE, width / SIDE, height / SIDE)
        lines.append(f"{label} " + " ".join(f"{value:.6f}" for value in shares))
    return canvas, lines


if __name__ == "__main__":
    sys.exit(main())
