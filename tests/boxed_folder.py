"""A small data set with boxes in YOLO layout: coloured squares on noise, every box around one of them."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 220), "red": (220, 50, 50)}


def write_boxed(root: Path, *, side: int = 64, **counts: int) -> Path:
    """Write so many images into each split, for example `train=8, val=4`; all differ, and the last has no box."""
    names = sorted(COLOURS)
    for split, count in counts.items():
        random = np.random.default_rng([*map(ord, split)])
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels, lines = random.integers(90, 130, (side, side, 3)), []
            for column in range(2 if number < count - 1 else 0):
                label, size = int(random.integers(2)), int(random.integers(12, 26))
                x, y = column * side // 2 + int(random.integers(0, 6)), int(random.integers(0, side - size))
                pixels[y : y + size, x : x + size] = COLOURS[names[label]]
                shares = ((x + size / 2) / side, (y + size / 2) / side, size / side, size / side)
                lines.append(f"{label} " + " ".join(map(str, shares)) + "\n")
            Image.fromarray(pixels.astype(np.uint8)).save(root / "images" / split / f"{number:02}.png")
            (root / "labels" / split / f"{number:02}.txt").write_text("".join(lines))
    splits = "".join(f"{split}: images/{split}\n" for split in counts)
    (root / "data.yaml").write_text(f"{splits}names: [{', '.join(names)}]\n")
    return root
