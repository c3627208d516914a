"""16-bit images become 8-bit ones: what Pillow leaves to its caller, or does for 8 bits alone.

Values are spread over the range that the file states, 0 to 65,535 for most, so equal values of two images stay equal;
nothing depends on what else is in an image. An image that uses only a small part of the range is told: 12-bit values in
a 16-bit file would be 0 to 16 of 255.
"""

from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FULL = 65_535
DIM = FULL // 4  # an image whose values all lie up to this uses 14 of 16 bits or fewer
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # a tag of TIFF, and its value for negatives
FACTORS = {"L;2": 85, "L;4": 17}  # by which Pillow multiplies gray values of few bits, but not the transparent one
RANGES = {"I;12": 4_095}  # of the raw modes that do not use 16 bits


def is_deep_gray(image: Image.Image) -> bool:
    """Tell whether an image has one channel of 16 bits."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def raw_mode(image: Image.Image) -> str:
    """Return how the pixels of an image are stored in its file; only known before they are loaded."""
    tile = getattr(image, "tile", None)
    args = tile[0][3] if tile else ""
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def gray_to_rgb(image: Image.Image, raw: str = "") -> tuple[Image.Image, str]:
    """Return a 16-bit gray image as 8-bit RGB, its transparent value white, and what is odd about it.

    Args:
        image: One of which `is_deep_gray` is true, loaded.
        raw: Its `raw_mode`.
    """
    values, full = np.asarray(image), RANGES.get(raw, FULL)
    inverted = _is_white_zero(image)
    gray = spread(full - values if inverted else values, full)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        gray[values == clear] = 255
    return Image.fromarray(gray).convert("RGB"), find_dim(int(values.max()), full, white=inverted)


def spread(values: NDArray[Any], full: int = FULL) -> NDArray[np.uint8]:
    """Return values from 0 to `full` as values from 0 to 255, rounded."""
    return ((values.astype(np.uint32) * 255 + full // 2) // full).astype(np.uint8)


def find_dim(largest: int, full: int = FULL, *, white: bool = False) -> str:
    """Say that an image of this largest value is almost black, or nothing."""
    if not 0 < largest <= DIM * full // FULL:
        return ""
    bits, size = largest.bit_length(), full.bit_length()
    read = int(spread(np.array([largest]), full)[0])
    shown = f"{255 - read if white else read} of 255"
    colour = "white" if white else "black"
    return (
        f"its largest value is {largest:,} of {full:,}, which is read as {shown}: almost {colour}. If its values "
        f"have {bits} bits, multiply them by {2 ** (size - bits)}, or rescale the relevant range to 0 to {full:,}, "
        "and save it again"
    )


def find_dim_colours(image: Image.Image, raw: str) -> str:
    """Say that an image of 16 bits for each colour is almost black; Pillow keeps the upper half of each value."""
    if image.mode not in ("RGB", "RGBA", "LA") or not raw.endswith((";16B", ";16L", ";16N")):
        return ""
    bands = image.getextrema()[:3] if image.mode != "LA" else image.getextrema()[:1]
    highest = max(int(high) for _, high in bands)  # type: ignore[misc]
    return find_dim(highest << 8 | 0xFF) if highest else ""


def find_clear_colour(image: Image.Image, raw: str, stream: IO[bytes]) -> Image.Image | None:
    """Return the mask of the transparent colour of a 16-bit RGB PNG, 0 where it is; None if there is none.

    Pillow compares the colour, of 16 bits, with the upper halves of the values. Both halves are read here.
    """
    clear = image.info.get("transparency")
    if image.format != "PNG" or raw != "RGB;16B" or not isinstance(clear, tuple):
        return None
    stream.seek(0)
    again = Image.OPEN["PNG"][0](stream, "")
    again.tile = [tile._replace(args="RGB;16L") for tile in again.tile]  # the other order of bytes: the lower halves
    again.load()
    values = np.asarray(image).astype(np.uint16) << 8 | np.asarray(again)
    return Image.fromarray(np.where((values == clear).all(axis=2), 0, 255).astype(np.uint8))


def _is_white_zero(image: Image.Image) -> bool:
    tags = getattr(image, "tag_v2", None)
    return tags is not None and tags.get(PHOTOMETRIC) == WHITE_IS_ZERO
