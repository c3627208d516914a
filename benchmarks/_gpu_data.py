"""What the checks of a machine train on, and how much of it: images with boxes, made on the spot."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

CLASSES = 10
KINDS = ("circle", "square", "stripe")


@dataclass(frozen=True)
class Scale:
    """How much work a check does.

    Attributes:
        device: `cuda` or `cpu`.
        classifier: A name of timm, as `zoo.get` takes it.
        classifier_size: Side of its input, in pixels.
        detector_size: Side of the detector's input, in pixels.
        batch: Images per step of the classifier.
        detector_batch: Images per step of the detector.
        steps: Of one run.
        skip: First steps that are not counted.
        rounds: Runs of each contender, in turns.
    """

    device: str
    classifier: str
    classifier_size: int
    detector_size: int
    batch: int
    detector_batch: int
    steps: int
    skip: int
    rounds: int

    @property
    def precision(self) -> str:
        """Return `bf16` on a GPU; float32 on a CPU, where most do not compute in bf16."""
        return "bf16" if self.device == "cuda" else "no"


GPU = Scale("cuda", "resnet50", 224, 640, 128, 16, steps=40, skip=10, rounds=2)
CPU = Scale("cpu", "resnet18", 64, 128, 4, 2, steps=5, skip=2, rounds=1)
QUICK = Scale("cpu", "timm/test_resnet", 32, 64, 2, 2, steps=3, skip=1, rounds=1)
SCALES = {"gpu": GPU, "cpu": CPU, "quick": QUICK}


def write_boxed_folder(folder: Path, *, train: int, val: int, size: int) -> None:
    """Write JPEGs with one to five boxes each as a Pascal VOC folder, the same whenever it is called."""
    import numpy as np

    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("val", val)):
        names = [f"{split}{number}" for number in range(count)]
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
        draws = [np.random.default_rng([number, split == "val"]) for number in range(count)]
        with ThreadPoolExecutor() as pool:
            list(pool.map(partial(_write_boxed, folder, size), names, draws))


def _write_boxed(folder: Path, size: int, name: str, random: Any) -> None:
    import numpy as np
    from PIL import Image

    pixels = np.asarray(
        Image.fromarray(random.integers(0, 255, (12, 12, 3), dtype=np.uint8)).resize((size, size))
    ).copy()
    objects = []
    for _ in range(int(random.integers(1, 6))):
        kind, side = int(random.integers(len(KINDS))), int(random.integers(size // 8, size // 2))
        left, top = (int(random.integers(0, size - side)) for _ in range(2))
        pixels[top : top + side, left : left + side] = (80 * kind, 255 - 80 * kind, 128)
        corners = zip(("xmin", "ymin", "xmax", "ymax"), (left + 1, top + 1, left + side, top + side), strict=True)
        box = "".join(f"<{corner}>{value}</{corner}>" for corner, value in corners)
        objects.append(f"<object><name>{KINDS[kind]}</name><difficult>0</difficult><bndbox>{box}</bndbox></object>")
    Image.fromarray(pixels).save(folder / "JPEGImages" / f"{name}.jpg", quality=90)
    sides = f"<size><width>{size}</width><height>{size}</height><depth>3</depth></size>"
    text = f"<annotation><filename>{name}.jpg</filename>{sides}{''.join(objects)}</annotation>\n"
    (folder / "Annotations" / f"{name}.xml").write_text(text)
