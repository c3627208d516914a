"""Images that are probably wrong, why, and how they are shown: a table and a sheet of the worst."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from zoo.errors import DataError
from zoo.files import write_file
from zoo.tasks.classification import MOST_TILES, Tile, draw_suspects

REASONS = {
    "label": "labels that are probably wrong",
    "two classes": "copies of an image in two classes",
    "leak": "images of one split that are in another, too",
    "copy": "copies within a class",
    "outlier": "images unlike all others",
}
SIDE = 160  # pixels of each half of a pair


class Suspect(NamedTuple):
    """An image that is probably wrong.

    Attributes:
        path: Its name in the data.
        split: Where it is.
        given: Its class.
        likely: The class that is more probable; empty where that is not asked.
        score: How sure that is, 0 to 1: of a label 1 - probability of the given class / that of the likely
            one; of copies the share
            of equal bits of the perceptual hashes; of an outlier 1 - the mean cosine to its nearest images.
        reason: One of `REASONS`.
        other: The image that it is a copy of; else empty.
    """

    path: str
    split: str
    given: str
    likely: str
    score: float
    reason: str
    other: str = ""


def write_table(suspects: Sequence[Suspect], path: Path) -> None:
    """Write one line for each suspect, as `exclude` reads it."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(Suspect._fields)
    table.writerows([*suspect[:4], f"{suspect.score:.4f}", *suspect[5:]] for suspect in suspects)
    write_file(path, text.getvalue())


def draw_sheet(suspects: Sequence[Suspect], images: Mapping[str, Any], path: Path) -> None:
    """Draw the worst of each reason; copies stand beside what they are copies of.

    Args:
        suspects: The worst of each reason first.
        images: By split.
        path: The PNG.
    """
    places = {(split, name): i for split, part in images.items() for i, name in enumerate(part.names)}
    where = {name: (part, places[split, name]) for split, part in images.items() for name in part.names}
    tiles = []
    for suspect in _choose(suspects):
        try:
            part = images[suspect.split]
            image = part.read(places[suspect.split, suspect.path])[0]
            if suspect.other:
                other, place = where[suspect.other]
                image = _pair(image, other.read(place)[0])
        except DataError:  # it was there a moment ago
            continue
        text = f"{suspect.likely}?" if suspect.reason == "label" else suspect.reason
        tiles.append(Tile(image, text, name=suspect.path, truth=suspect.given, called="given"))
    draw_suspects(tiles, path, total=len(suspects))


def _choose(suspects: Sequence[Suspect]) -> list[Suspect]:
    """Return the worst of each reason in turn, as many as a sheet holds, by reason."""
    queues = [[suspect for suspect in suspects if suspect.reason == reason] for reason in REASONS]
    turns = [(place, number) for number, queue in enumerate(queues) for place in range(len(queue))]
    chosen = sorted(turns)[:MOST_TILES]
    return [queues[number][place] for place, number in sorted(chosen, key=lambda turn: turn[::-1])]


def _pair(first: Image.Image, second: Image.Image) -> Image.Image:
    pair = Image.new("RGB", (2 * SIDE + 4, SIDE), "white")
    for left, image in ((0, first), (SIDE + 4, second)):
        scale = SIDE / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        way = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
        pair.paste(image.resize(size, way), (left + (SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return pair
