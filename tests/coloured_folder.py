"""A small image folder that can be learnt: each class is noise around a colour of its own."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 50, 50)}


def write_coloured(root: Path, *, noise: int = 60, size: int = 32, **counts: int) -> Path:
    """Write so many images per class into each split, for example `train=8, val=4`; all of them differ."""
    for split, count in counts.items():
        for number in range(count):
            for colour, mean in COLOURS.items():
                seed = [*map(ord, split + colour), number]
                shifts = np.random.default_rng(seed).normal(0, noise, (size, size, 3))
                path = root / split / colour / f"{number:02}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.clip(shifts + mean, 0, 255).astype(np.uint8)).save(path)
    return root
