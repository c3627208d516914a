"""Images made on the spot: smoothed noise at several scales with shapes on it, as costly to decode as photographs.

Classes differ by the kind, the colour and the stripes of most shapes; the rest is drawn at random, so that no
classifier is right every time.
"""

import math
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES, SHAPES = 10, 8
BAND = 16  # rows that are computed at a time
OWN_SHARE = 0.6  # of the shapes of an image that are those of its class


def write_folder(
    folder: Path, *, train: int, val: int, width: int = 400, height: int = 300, processes: int = 2
) -> None:
    """Write `train/<class>/*.jpg` and `val/<class>/*.jpg`, quality 90, the same whenever it is called.

    Args:
        folder: Made if it is missing.
        train: Images of all classes together.
        val: Likewise.
        width: In pixels.
        height: In pixels.
        processes: That draw.
    """
    for split in ("train", "val"):
        for label in range(CLASSES):
            (folder / split / f"class{label}").mkdir(parents=True, exist_ok=True)
    places = [(split, number) for split, count in (("train", train), ("val", val)) for number in range(count)]
    write = partial(_write, folder, width, height)
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(write, places, chunksize=min(64, -(-len(places) // (4 * processes)))))


def _write(folder: Path, width: int, height: int, place: tuple[str, int]) -> None:
    split, number = place
    random = np.random.default_rng([number, split == "val"])
    label = number % CLASSES
    image = _background(random, width, height)
    draw = ImageDraw.Draw(image)
    for _ in range(SHAPES):
        kind = label if random.random() < OWN_SHARE else int(random.integers(CLASSES))
        _draw_shape(draw, random, kind, width, height)
    image.save(folder / split / f"class{label}" / f"{number}.jpg", quality=90)


def _background(random: np.random.Generator, width: int, height: int) -> Image.Image:
    """Return noise of five scales, each half as strong as the one before, in a random colour."""
    scales = []
    for octave in range(5):
        cells = 4 * 2**octave
        noise = Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        scales.append(np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC)))
    grain, pixels = random.integers(0, 24, (height, width, 1)), np.empty((height, width, 3), np.uint8)
    for top in range(0, height, BAND):  # what the processor keeps near it: a fraction of the time, for photos
        rows = slice(top, top + BAND)
        total = np.zeros(pixels[rows].shape, np.float32)
        for octave, scale in enumerate(scales):
            total += scale[rows].astype(np.float32) * 0.5**octave
        pixels[rows] = np.clip(total / 1.94 + grain[rows] - 12, 0, 255)
    return Image.fromarray(pixels)


def _draw_shape(draw: ImageDraw.ImageDraw, random: np.random.Generator, kind: int, width: int, height: int) -> None:
    """Draw an ellipse, a box or a triangle with stripes, all of it decided by its class but place and size."""
    x, y = random.uniform(0.1, 0.9) * width, random.uniform(0.1, 0.9) * height
    radius = random.uniform(0.07, 0.18) * height
    angle = kind * math.pi / 5
    colour = tuple(int(128 + 100 * math.cos(angle * 2 + turn) + random.integers(-20, 21)) for turn in (0.0, 2.1, 4.2))
    if kind % 3 == 0:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    else:
        draw.regular_polygon((x, y, radius), n_sides=kind % 3 + 2 + kind // 6, fill=colour)
    dark = tuple(value // 3 for value in colour)
    for stripe in np.linspace(-0.6, 0.6, 2 + kind % 4):
        along, across = radius * 0.7, radius * stripe
        ends = [
            (
                x + side * along * math.cos(angle) - across * math.sin(angle),
                y + side * along * math.sin(angle) + across * math.cos(angle),
            )
            for side in (-1, 1)
        ]
        draw.line(ends, fill=dark, width=max(1, int(radius / 10)))
