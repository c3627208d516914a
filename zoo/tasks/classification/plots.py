"""Sheets of images with their predicted classes; plain values in, one PNG out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from zoo._figures import (
    GREY,
    INK,
    PALE,
    VERMILION,
    entitle,
    log,
    look,
    make_figure,
    place,
    save,
    shorten,
)

MOST_LEGEND_LINES = 20
MOST_TILES = 24  # images on one sheet
THUMBNAIL = 240  # pixels of the longer side of a tile


@dataclass(frozen=True, eq=False)
class Tile:
    """One image of a sheet.

    Attributes:
        image: The image as read.
        predicted: Name of the predicted class, or of the class to be learnt.
        confidence: Probability of `predicted`, 0 to 1; None if nothing was predicted.
        name: Path, or name of the sample; a sheet shows the file with its folder. Empty: none is shown.
        truth: Name of the true class; None if it is unknown.
        others: Further classes of the image, with their shares.
        called: What stands before `truth`.
    """

    image: Image.Image
    predicted: str
    confidence: float | None = None
    name: str = ""
    truth: str | None = None
    others: tuple[tuple[str, float], ...] = ()
    called: str = "true"


def draw_mistakes(
    mistakes: Sequence[Tile],
    path: str | Path,
    *,
    total: int | None = None,
    what: str = "predicted class, confidence / true class / file",
) -> Path:
    """Draw a sheet of the most confident mistakes, at most 24.

    Args:
        mistakes: In any order, any number.
        path: The PNG to write.
        total: Number of all mistakes, if `mistakes` holds only the most confident ones.
        what: The lines below an image.

    Returns:
        The path.
    """
    worst = sorted(mistakes, key=lambda tile: -(tile.confidence or 0))
    with look():
        return save(_draw_sheet("Most confident mistakes", what, worst, total), path)


def draw_suspects(suspects: Sequence[Tile], path: str | Path, *, total: int) -> Path:
    """Draw a sheet of images that a check of data found, at most 24; the arguments are as above."""
    with look():
        what = "likely class, or what else is wrong / given class / file"
        return save(_draw_sheet("Suspects", what, suspects, total), path)


def draw_predictions(predictions: Sequence[Tile], path: str | Path, *, total: int | None = None) -> Path:
    """Draw a sheet of the first images with their predicted classes, at most 24; the arguments are as above."""
    with look():
        return save(_draw_sheet("Predictions", "predicted class, confidence / file", predictions, total), path)


def draw_neighbours(query: Tile, neighbours: Sequence[Tile], path: str | Path) -> Path:
    """Draw an image, and then those that are most like it, at most 23; `confidence` is their similarity, 0 to 1."""
    with look():
        return save(_draw_sheet("Nearest images", "class, similarity / file", [query, *neighbours], 0), path)


def draw_batch(images: npt.ArrayLike, names: Sequence[str | Mapping[str, float]], path: str | Path) -> Path:
    """Draw the first images of a training batch as the network sees them, at most 24.

    Args:
        images: `(B, 3, H, W)` uint8; an array, or a tensor on the CPU.
        names: Class of each image, or its classes with their shares, the largest first.
        path: The PNG to write.

    Returns:
        The path.
    """
    pixels = np.asarray(images).transpose(0, 2, 3, 1)
    shown = zip(pixels[:MOST_TILES], names, strict=False)
    tiles = [_make_tile(Image.fromarray(np.ascontiguousarray(image)), name) for image, name in shown]
    what = f"class{', share' * any(tile.others for tile in tiles)}; {pixels.shape[2]} x {pixels.shape[1]} pixels"
    with look():
        return save(_draw_sheet("Training images as the network sees them", what, tiles, len(pixels)), path)


def _make_tile(image: Image.Image, name: str | Mapping[str, float]) -> Tile:
    if isinstance(name, str):
        return Tile(image, name)
    (first, share), *others = name.items()
    return Tile(image, first, share if others else None, others=tuple(others))


def _draw_sheet(title: str, what: str, tiles: Sequence[Tile], total: int | None = None) -> Figure:
    is_counted, total = total != 0, total or len(tiles)
    tiles = tiles[:MOST_TILES]
    across = min(6, max(3, len(tiles)))
    lines = -(-len(tiles) // across)
    width, height = 1.75 * across + 0.1, 0.7 + max(2.2 * lines, 1)
    figure = make_figure(width, height)
    of = f" of {total:,}" if total > len(tiles) else ""
    entitle(figure, f"{title}: {len(tiles)}{of}" if tiles and is_counted else title)
    if not tiles:
        return log(figure, "none")
    sheet = place(figure, 0, 0, width, height)
    sheet.set_axis_off()
    sheet.set(xlim=(0, width), ylim=(0, height), autoscale_on=False)
    sheet.text(0.12, height - 0.36, what, color=GREY, va="top", size=8)
    for i, tile in enumerate(tiles):
        line, column = divmod(i, across)
        _draw_tile(sheet, 0.12 + 1.75 * column, height - 0.7 - 2.2 * line, tile)
    return figure


def _draw_tile(sheet: Axes, left: float, top: float, tile: Tile) -> None:
    side, dots = 1.6, sheet.get_window_extent().width / sheet.get_xlim()[1]
    sheet.imshow(_fit(tile.image), extent=(left, left + side, top - side, top))
    sheet.add_patch(Rectangle((left, top - side), side, side, fill=False, edgecolor="#B0B0B0", linewidth=0.6))
    confidence = "" if tile.confidence is None else f" {100 * tile.confidence:.0f} %"
    predicted = f"{shorten(tile.predicted, 16)}{confidence}"
    others = [(f"{shorten(other, 16)} {100 * share:.0f} %", 8.0, INK) for other, share in tile.others]
    colour = INK if tile.truth in (None, tile.predicted) else VERMILION
    truth = [] if tile.truth is None else [(f"{tile.called}: {shorten(tile.truth, 18)}", 8.0, INK)]
    name = shorten("/".join(Path(tile.name).parts[-2:]), 28)
    top -= side + 0.05
    for text, size, shade in [(predicted, 8.0, colour), *others, *truth, (name, 6.5, GREY)]:
        weight = "bold" if text is predicted else "normal"
        line = sheet.text(left, top, text, va="top", size=size, color=shade, fontweight=weight)
        line.set_fontsize(size * min(1, side * dots / max(line.get_window_extent().width, 1)))
        top -= 0.155


def _fit(image: Image.Image) -> Image.Image:
    """The image on a square of one size: small ones enlarged with their pixels kept square, large ones reduced."""
    image = image.convert("RGB")
    scale = THUMBNAIL / max(image.size)
    width, height = (max(1, round(scale * side)) for side in image.size)
    way = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    square = Image.new("RGB", (THUMBNAIL, THUMBNAIL), PALE)
    square.paste(
        image.resize((width, height), way, reducing_gap=2.0), ((THUMBNAIL - width) // 2, (THUMBNAIL - height) // 2)
    )
    return square
