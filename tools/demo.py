"""The main job on real images that need no download: handwritten digits, from nothing to a run one can look at."""

import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree
from typing import Any

import zoo
from zoo._text import echo
from zoo.errors import WeightsError

FOLDER = Path("demo")
HUB_SECONDS = 3.0


def main(argv: Sequence[str] | None = None) -> int:
    """Write the digits as a folder of images, fine-tune a model on them, and say what to type next."""
    began = time.perf_counter()
    digits, run_folder = FOLDER / "digits", FOLDER / "run"
    rmtree(run_folder, ignore_errors=True)
    count = write_digits(digits)
    echo(f"{count:,} handwritten digits (scikit-learn's, 8 x 8 pixels) are in {digits}/train, val")
    name, preset = "mobilenetv2_100", "classify-heads"
    options: dict[str, Any] = {"image_size": 64, "epochs": 20}
    try:
        if not hub_answers():
            raise WeightsError("it does not answer")
        model = zoo.get(name, pretrained=True, num_classes=10)
        echo(f"pretrained weights: {model.load_report}")
    except WeightsError as error:
        echo(f"no pretrained weights from the Hub ({str(error).splitlines()[0]}): training a small model from scratch")
        name, preset = "resnet18", "classify-full"
        options = {"image_size": 32, "epochs": 4, "lr": 0.05, "augment": "none", "crop_pct": 1.0}
        model = zoo.get(name, num_classes=10)
    run = zoo.finetune(model, digits, preset=preset, out=run_folder, **options)
    some = sorted((digits / "val").glob("*/*.png"))[::60]
    echo()
    echo("the model on six images that it was not trained on:")
    for answer in run.predict(some, top_k=2):
        echo(f"  {answer}")
    echo()
    echo(f"done in {time.perf_counter() - began:.0f} s. Look at {run_folder}/plots, then try:")
    echo(f"  .venv/bin/zoo predict {run_folder} {digits}/val/7")
    echo("  .venv/bin/zoo plan resnet50 --lr 'fc=0.01,layer4=0.001,default=0'")
    echo("  .venv/bin/zoo finetune resnet18 path/to/your/images --preset classify-heads")
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


def hub_answers() -> bool:
    """Return whether the Hub can be reached, within a few seconds."""
    from huggingface_hub import constants

    try:
        urllib.request.urlopen(constants.ENDPOINT, timeout=HUB_SECONDS).close()
    except urllib.error.HTTPError:  # an answer all the same
        return True
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
