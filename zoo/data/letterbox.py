"""Images of any shape on the canvas of a detector, and boxes to the canvas and back.

Resizing gives the bytes of OpenCV's bilinear `resize` (versions 4 and 5, 8-bit), which detectors were trained with; it
neither blurs before shrinking, as Pillow does, nor rounds alike. Sources: fixed-point arithmetic of OpenCV's
`modules/imgproc/src/resize.cpp`, 11 bits per weight; rules of places and rounding as in super-gradients 3.7.1
(Deci-AI/super-gradients, commit e0ccacf).
"""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo.data.decode import FULL, Decoding, Need
from zoo.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

Position: TypeAlias = Literal["center", "top-left"]
Channels: TypeAlias = Literal["rgb", "bgr"]
Bytes: TypeAlias = NDArray[np.uint8]
Integers: TypeAlias = NDArray[np.int32]

WEIGHT_BITS = 11
LARGEST = 8192  # pixels


@dataclass(frozen=True)
class Placement:
    """Where an image lies on the canvas.

    Attributes:
        height: Of the resized image, in pixels of the canvas.
        width: The same.
        top: Rows above it.
        left: Columns left of it.
        scale_y: Pixels of the canvas per pixel of the image, from top to bottom.
        scale_x: The same, from left to right.
    """

    height: int
    width: int
    top: int
    left: int
    scale_y: float
    scale_x: float

    def to_canvas(self, boxes: "Tensor") -> "Tensor":
        """Move `(..., 4)` floating-point xyxy boxes from pixels of the image to pixels of the canvas."""
        return boxes * boxes.new_tensor(self._scales) + boxes.new_tensor(self._shifts)

    def to_image(self, boxes: "Tensor") -> "Tensor":
        """Move `(..., 4)` floating-point xyxy boxes from the canvas to the image; they are not clipped to it."""
        factors = [1 / scale for scale in self._scales]
        return (boxes - boxes.new_tensor(self._shifts)) * boxes.new_tensor(factors)

    @property
    def _scales(self) -> list[float]:
        return [self.scale_x, self.scale_y] * 2

    @property
    def _shifts(self) -> list[int]:
        return [self.left, self.top] * 2


@dataclass(frozen=True, kw_only=True)
class Letterbox:
    """How an image comes onto the canvas; the defaults are those of the COCO weights of YOLO-NAS.

    Sizes are height and width in pixels.

    Attributes:
        canvas_size: What the network takes.
        content_size: What the image is resized to fit in, smaller images too; at most the canvas.
        keep_ratio: Whether it keeps its proportions, or fills the content size.
        position: `center`, or `top-left`, which pads at the bottom and on the right alone.
        fill: Value of the canvas around it, 0 to 255.
        channels: Order in which the network takes colours.
        max_value: What pixel values 0 to 255 are divided by, above 0.
        mean: Then subtracted from each of the network's three channels, in their order.
        std: What each is then divided by, above 0.
        decode: `full`: every pixel of a file is decoded; `fast`: of large JPEGs only so many that resizing has twice
            as many as it needs at least.
    """

    kind: ClassVar[str] = "letterbox"

    canvas_size: tuple[int, int] = (640, 640)
    content_size: tuple[int, int] = (636, 636)
    keep_ratio: bool = True
    position: Position = "center"
    fill: int = 114
    channels: Channels = "rgb"
    max_value: float = 255.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    decode: Decoding = "full"

    def __post_init__(self) -> None:
        for name in ("canvas_size", "content_size"):
            object.__setattr__(self, name, _two_sides(name, getattr(self, name)))
        if self.content_size[0] > self.canvas_size[0] or self.content_size[1] > self.canvas_size[1]:
            raise InputError(f"content_size is {self.content_size}; expected at most the canvas, {self.canvas_size}.")
        if type(self.keep_ratio) is not bool:
            raise InputError(f"keep_ratio is {self.keep_ratio!r}; expected true or false.")
        if type(self.fill) is not int or not 0 <= self.fill <= 255:
            raise InputError(f"fill is {self.fill!r}; expected an integer from 0 to 255.")
        _check_choice("position", self.position, get_args(Position))
        _check_choice("channels", self.channels, get_args(Channels))
        _check_choice("decode", self.decode, get_args(Decoding))
        if not _is_number(self.max_value) or self.max_value <= 0:
            raise InputError(f"max_value is {self.max_value!r}; expected a number above 0.")
        for name in ("mean", "std"):
            object.__setattr__(self, name, _three_numbers(name, getattr(self, name)))
        if min(self.std) <= 0:
            raise InputError(f"std is {self.std}; expected three numbers above 0.")

    @property
    def resized_side(self) -> float:
        """The longer side that an image is resized to fit in, in pixels."""
        return max(self.content_size)

    @property
    def need(self) -> Need | None:
        """What `decode_image` is told of the pixels that are needed; None: all."""
        return self.need_enlarged()

    def need_enlarged(self, factor: float = 1.0) -> Need | None:
        """Return the `need` of images, parts of which come onto the canvas so many times larger than usual."""
        return partial(self._resized_size, factor=factor) if self.decode == "fast" else None

    def _resized_size(self, width: int, height: int, *, factor: float) -> tuple[float, float]:
        place = self.place(height, width)
        return place.width * factor, place.height * factor

    def describe(self) -> str:
        """Return what becomes of an image, in words."""
        height, width = self.canvas_size
        how = "fitted into" if self.keep_ratio else "stretched to"
        return f"{how} {width} × {height} pixels, {self.channels.upper()}"

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some values changed."""
        return replace(self, **changes)

    def resized(self, side: int, *, step: int = 1) -> Self:
        """Return the same with a square canvas of another side; images keep their distance from its border.

        Raises:
            InputError: If the side, in pixels, is no multiple of the step.
        """
        if type(side) is not int or side < step or side % step:
            raise InputError(f"image_size is {side!r}; expected a multiple of {step} pixels, such as {10 * step}.")
        (height, width), (rows, columns) = self.canvas_size, self.content_size
        return self.replace(canvas_size=(side, side), content_size=(side - (height - rows), side - (width - columns)))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; `kind` tells them from those of other preprocessing.

        `decode` is among them only where it is not `full`, as files were before there was a choice.
        """
        values = {name: value for name, value in asdict(self).items() if (name, value) != FULL}
        lists = {name: list(value) for name, value in values.items() if isinstance(value, tuple)}
        return {"kind": self.kind} | values | lists

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make it again of what `to_dict` gave.

        Raises:
            InputError: If a key is missing or unknown, or a value is out of range.
        """
        if not isinstance(values, Mapping) or values.get("kind") != cls.kind:
            raise InputError(f"preprocess is {values!r}; expected a mapping with kind: {cls.kind}.")
        names = [field.name for field in fields(cls)]
        for key in values:
            if key not in ("kind", *names):
                hint = did_you_mean(str(key), names)
                raise InputError(f"preprocess: unknown key {key!r}.{hint} Expected kind, {', '.join(names)}.")
        if missing := [name for name in names if name not in values and name != "decode"]:
            raise InputError(f"preprocess: {', '.join(missing)} missing. Expected kind, {', '.join(names)}.")
        return cls(**{name: values[name] for name in names if name in values})

    def place(self, height: int, width: int) -> Placement:
        """Return where an image of this height and width comes to lie.

        A side that would be rounded to nothing has one pixel.
        """
        scale_y, scale_x = self.content_size[0] / height, self.content_size[1] / width
        if self.keep_ratio:
            scale_y = scale_x = min(scale_y, scale_x)
        rows, columns = max(1, round(height * scale_y)), max(1, round(width * scale_x))
        top, left = 0, 0
        if self.position == "center":
            top, left = (self.canvas_size[0] - rows) // 2, (self.canvas_size[1] - columns) // 2
        return Placement(rows, columns, top, left, scale_y, scale_x)


def fit_image(
    image: "Image.Image | Bytes", letterbox: Letterbox, size: tuple[int, int] | None = None
) -> "tuple[Tensor, Placement]":
    """Put an RGB image onto the canvas.

    Args:
        image: RGB, `(H, W, 3)` uint8 if it is an array.
        letterbox: How.
        size: Height and width in pixels of which the image is a reduced version: it comes to lie where the whole one
            would, and the placement is that of the whole one. None: it is the whole one.

    Returns:
        The canvas, `(3, height, width)` uint8, which `normalize_canvas` makes the network's input of; and where the
        image lies on it.

    Raises:
        InputError: If the image is not RGB or not uint8.
    """
    import torch

    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise InputError(
            f"the image is {pixels.dtype} of shape {pixels.shape}; expected RGB, uint8 (height, width, 3), as from "
            "zoo.data.decode.read_image."
        )
    place = letterbox.place(*(size or pixels.shape[:2]))
    planes = resize_bilinear(pixels, place.height, place.width)
    canvas = np.full((3, *letterbox.canvas_size), letterbox.fill, np.uint8)
    rows, columns = slice(place.top, place.top + place.height), slice(place.left, place.left + place.width)
    canvas[:, rows, columns] = planes if letterbox.channels == "rgb" else planes[::-1]
    return torch.from_numpy(canvas), place


def normalize_canvas(canvases: "Tensor", letterbox: Letterbox) -> "Tensor":
    """Turn uint8 canvases, `(3, H, W)` or `(B, 3, H, W)`, into what the network takes: float32, 0 to 1 as a rule.

    Args:
        canvases: In the order of channels that `fit_image` gave them.
        letterbox: The one that they were made with; its `max_value`, `mean` and `std` count.
    """
    import torch

    values = canvases.to(torch.float32) / letterbox.max_value
    if any(letterbox.mean) or letterbox.std != (1.0, 1.0, 1.0):
        mean, std = (values.new_tensor(numbers)[:, None, None] for numbers in (letterbox.mean, letterbox.std))
        values = (values - mean) / std
    return values


def resize_bilinear(pixels: Bytes, height: int, width: int) -> Bytes:
    """Resize `(H, W, 3)` to `(3, height, width)`, at most 8192 on a side, byte for byte as OpenCV does.

    Weights have 11 bits. Pixels are weighted from left to right, and 4 bits cut off; then from top to bottom, each of
    the two terms cut by 16 bits; the last 2 are rounded.
    """
    if pixels.shape[:2] == (height, width):
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))
    x, y = _taps(pixels.shape[1], width), _taps(pixels.shape[0], height)
    used, rows = np.unique(np.concatenate([y.first, y.second]), return_inverse=True)
    planes = np.ascontiguousarray(pixels[used].transpose(2, 0, 1))
    across = planes.take(x.first, axis=2) * x.first_weight
    across += planes.take(x.second, axis=2) * x.second_weight
    across >>= 4
    down = (across.take(rows[:height], axis=1) * y.first_weight[:, None]) >> 16
    down += (across.take(rows[height:], axis=1) * y.second_weight[:, None]) >> 16
    return ((down + 2) >> 2).astype(np.uint8)


class _Taps(NamedTuple):
    """For each pixel of the result the two pixels that it is mixed of, and their weights, which add up to 2048."""

    first: Integers
    second: Integers
    first_weight: Integers
    second_weight: Integers


def _taps(source: int, target: int) -> _Taps:
    scale = 1 / (target / source)  # not source / target: the last digit counts
    middles = ((np.arange(target) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(middles).astype(np.int32)
    share = middles - first.astype(np.float32)
    weights = [np.rint(part * np.float32(1 << WEIGHT_BITS)).astype(np.int32) for part in (1 - share, share)]
    return _Taps(first.clip(0, source - 1), (first + 1).clip(0, source - 1), weights[0], weights[1])


def _two_sides(name: str, sides: Any) -> tuple[int, int]:
    if (
        not isinstance(sides, (tuple, list))
        or len(sides) != 2
        or not all(type(side) is int and 1 <= side <= LARGEST for side in sides)
    ):
        raise InputError(f"{name} is {sides!r}; expected height and width, two integers from 1 to {LARGEST} pixels.")
    return sides[0], sides[1]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _three_numbers(name: str, values: Any) -> tuple[float, float, float]:
    if not isinstance(values, (tuple, list)) or len(values) != 3 or not all(map(_is_number, values)):
        raise InputError(f"{name} is {values!r}; expected three numbers, one for each channel.")
    return float(values[0]), float(values[1]), float(values[2])


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} is {value!r}; expected {', '.join(choices)}.{did_you_mean(str(value), choices)}")
