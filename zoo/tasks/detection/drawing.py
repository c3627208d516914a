"""Boxes with names and scores on an image, drawn by supervision.

Its annotators draw lines, grounds and letters; the places of the names are chosen here, so that none leaves the image
and few lie on each other.
"""

import warnings
from collections.abc import Sequence
from colorsys import hls_to_rgb
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageFont

from zoo.errors import InputError

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

SMALLEST_LETTERS, LARGEST_LETTERS = 10, 40  # pixels
MOST_COLUMNS = 28  # of a name; what is longer loses its middle
MOST_COVERED = 0.2  # of a name's ground may lie on other names
BRIGHT = 150  # of 255: names on brighter colours are black


def import_supervision() -> Any:
    """Return the library supervision, without its remark that OpenCV is missing, which is not needed here.

    Raises:
        InputError: If it cannot be imported.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"OpenCV .*is not installed", category=UserWarning)
            import supervision
    except ImportError as error:
        raise InputError(
            f"drawing boxes needs supervision, which cannot be imported ({error}). Install it: pip install "
            "'zoo-finetune[detection]'"
        ) from error
    return supervision


def draw_boxes(
    image: Image.Image,
    boxes: ArrayLike,
    labels: ArrayLike,
    classes: Sequence[str],
    scores: ArrayLike | None = None,
    *,
    names: Sequence[str] | None = None,
) -> Image.Image:
    """Return a copy of an image with boxes in the colours of their classes, and with their names.

    Names are shortened to fit into the image; those that would hide others are left out.

    Args:
        image: RGB.
        boxes: `(N, 4)` xyxy in pixels of the image, from 0 at its left upper corner.
        labels: `(N,)` class numbers.
        classes: Class names.
        scores: `(N,)` 0 to 1, written after the names; surer boxes lie above others.
        names: What to write at each of the N boxes instead of the name of its class.

    Raises:
        InputError: If lengths or class numbers do not fit, a box is not finite, or supervision is not installed.
    """
    boxes, labels = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(labels, np.int64).reshape(-1)
    values = np.ones(len(boxes)) if scores is None else np.asarray(scores, np.float64).reshape(-1)
    _check(boxes, labels, values, names, len(classes))
    drawn = image.convert("RGB") if image.mode != "RGB" else image.copy()
    if len(boxes) == 0:
        return drawn
    names = [classes[label] for label in labels] if names is None else names
    ends = ["" if scores is None else f" {value:.2f}" for value in values]
    order = np.argsort(values, kind="stable")
    pixels, labels = _to_pixels(boxes[order], drawn.size), labels[order]
    colours = class_colours(len(classes))
    _draw_lines(drawn, pixels, labels, colours)
    _draw_names(drawn, pixels, labels, colours, [(names[i], ends[i]) for i in order])
    return drawn


def class_colours(number: int) -> tuple[str, ...]:
    """Return a colour like `#0072B2` for each class: up to six that stay apart for all eyes, beyond them hues."""
    from zoo._figures import LINES

    if number <= len(LINES):
        return tuple(LINES[:number])
    # Steps of the golden angle: neighbouring numbers have hues far apart, however many there are.
    hues = [(0.56 + 0.381966 * place) % 1 for place in range(number)]
    shades = [hls_to_rgb(hue, (0.45, 0.6, 0.35)[place % 3], 0.85) for place, hue in enumerate(hues)]
    return tuple("#" + "".join(f"{round(255 * part):02X}" for part in shade) for shade in shades)


def _check(boxes: Floats, labels: Integers, scores: Floats, names: Sequence[str] | None, classes: int) -> None:
    numbers = {"labels": len(labels), "scores": len(scores), "names": len(boxes) if names is None else len(names)}
    for what, number in numbers.items():
        if number != len(boxes):
            raise InputError(f"there are {len(boxes)} boxes but {number} {what}; expected the same number.")
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise InputError(f"labels are {labels.min()} to {labels.max()}; expected 0 to {classes - 1}.")
    if not np.isfinite(boxes).all():
        raise InputError("a box has a coordinate that is not finite.")


def _to_pixels(boxes: Floats, size: tuple[int, int]) -> Integers:
    """Return columns and rows of the first and last pixel that each box covers, within the image."""
    last = np.array([*size, *size]) - 1
    ends = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:]) - 1], axis=1)
    pixels: Integers = np.clip(ends, 0, last).astype(np.int64)
    return pixels


def _draw_lines(image: Image.Image, pixels: Integers, labels: Integers, colours: Sequence[str]) -> None:
    supervision = import_supervision()
    palette = supervision.ColorPalette.from_hex(list(colours))
    width = max(1, round(min(image.size) / 240))
    found = supervision.Detections(xyxy=pixels.astype(np.float64), class_id=labels)
    supervision.BoxAnnotator(color=palette, thickness=width).annotate(image, found)


def _draw_names(
    image: Image.Image,
    pixels: Integers,
    labels: Integers,
    colours: Sequence[str],
    names: Sequence[tuple[str, str]],
) -> None:
    """Write names, each with its end, which is never shortened."""
    supervision = import_supervision()
    letters = int(np.clip(round(min(image.size) / 40), SMALLEST_LETTERS, LARGEST_LETTERS))
    margin, path = max(2, letters // 5), _find_font("".join(sorted({letter for name, _ in names for letter in name})))
    font = ImageFont.truetype(path, letters)
    texts = [_fit(name, end, font, image.width - 2 * margin - 1) for name, end in names]
    sizes = np.array([_measure(text, font, margin) for text in texts])
    shown, corners = _place(pixels, sizes, image.size)
    annotator = supervision.RichLabelAnnotator(
        color=supervision.ColorPalette.from_hex(list(colours)),
        text_color=supervision.ColorPalette.from_hex([_ink(colour) for colour in colours]),
        font_path=path,
        font_size=letters,
        text_padding=margin,
        text_position=supervision.Position.BOTTOM_LEFT,  # the ground begins at this corner of the box given here
    )
    anchors = np.concatenate([corners, corners], axis=1) + np.array([0.0, -1, 1, 0])
    given = supervision.Detections(xyxy=anchors, class_id=labels[shown])
    annotator.annotate(image, given, labels=[texts[i] for i in shown])


def _fit(name: str, end: str, font: ImageFont.FreeTypeFont, room: int) -> str:
    """The name and what follows it, shortened to so many pixels if that is possible."""
    from zoo._figures import columns, shorten

    longest = min(columns(name), MOST_COLUMNS)
    while font.getlength(text := shorten(name, longest) + end) > room and longest > 1:
        longest -= 1
    return text


def _measure(text: str, font: ImageFont.FreeTypeFont, margin: int) -> tuple[int, int]:
    """Width and height of the ground that supervision draws under a text."""
    left, top, right, bottom = font.getbbox(text)
    return int(right - left + 2 * margin) + 1, int(bottom - top + 2 * margin) + 1


def _place(pixels: Integers, sizes: Integers, size: tuple[int, int]) -> tuple[list[int], Integers]:
    """Return which names are shown, and the left upper corners of their grounds, `(N, 2)`.

    Names stand above their boxes, or at another corner where they cover less of names that have their place. Boxes that
    are drawn last choose first; names that do not fit into the image, or would hide others, are left out.
    """
    shown, grounds = [], np.zeros((0, 4), np.int64)
    for i in reversed(range(len(pixels))):
        corners = _list_corners(pixels[i], sizes[i], size)
        choices = np.concatenate([corners, corners + sizes[i]], axis=1)
        covered = [_cover(choice, grounds) for choice in choices]
        if covered and min(covered) <= MOST_COVERED * sizes[i].prod():
            shown.append(i)
            grounds = np.concatenate([grounds, choices[[int(np.argmin(covered))]]])
    return shown[::-1], grounds[::-1, :2]


def _list_corners(box: Integers, ground: Integers, size: tuple[int, int]) -> Integers:
    """Where the left upper corner of a name may lie, `(N, 2)`, best first; none if it is larger than the image."""
    (left, top, right, bottom), (width, height) = box, ground
    columns, rows = (left, right + 1 - width), (top - height, top, bottom + 1, bottom + 1 - height)
    corners = np.array([(column, row) for row in rows for column in columns])
    corners[:, 0] = np.clip(corners[:, 0], 0, max(size[0] - width, 0))
    inside: Integers = corners[(corners[:, 1] >= 0) & (corners[:, 1] + height <= size[1]) & (width <= size[0])]
    return inside


def _cover(ground: Integers, others: Integers) -> int:
    """How many pixels of a ground, xyxy, lie on others."""
    sides = np.minimum(ground[2:], others[:, 2:]) - np.maximum(ground[:2], others[:, :2])
    return int(np.clip(sides, 0, None).prod(axis=1).sum())


def _ink(colour: str) -> str:
    """Black or white, whichever is easier to read on a colour."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > BRIGHT else "#FFFFFF"


@cache
def _find_font(letters: str) -> str:
    """The path of DejaVu Sans, or of the installed font that has more of the letters."""
    import matplotlib
    from matplotlib.font_manager import fontManager
    from matplotlib.ft2font import FT2Font

    from zoo._figures import FALLBACK_FONTS

    paths = [str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))]
    if all(ord(letter) in FT2Font(paths[0]).get_charmap() for letter in letters):
        return paths[0]
    paths += [font.fname for font in fontManager.ttflist if font.name in FALLBACK_FONTS]
    return max(paths, key=lambda path: sum(ord(letter) in FT2Font(path).get_charmap() for letter in letters))
