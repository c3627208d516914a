"""Random changes of images with boxes: how one or several of them come onto the canvas of a detector.

Windows, mirroring and colours are those of torchvision's transforms v2. What moves or scales an image becomes one
placement, so that only pixels that are seen are resized, and only once, however large the image is.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NamedTuple, Self, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_convert, clip_boxes_to_image

from zoo.data import Bytes, Letterbox, Placement, fit_image
from zoo.errors import InputError

Sample: TypeAlias = tuple[Tensor, Tensor]  # (3, H, W) uint8; (n, 5) float32 class, centre x, centre y, width, height

MOST = {"scale_jitter": 0.9, "max_rotation": 180.0}  # of others 1
ZOOM_OUT = (1.0, 4.0)  # how many times an image is made smaller; SSD, Liu et al. 2016, arXiv 1512.02325
YOUNGER = ("vertical_flip", "max_rotation", "grayscale")
MOSAIC_CENTRE = (0.3, 0.7)  # where four images meet, as a share of the canvas
MIXUP_SHARE = (0.4, 0.6)  # of the first image; near a half, because both's boxes count alike
LEAST_SHARE = 0.1  # of a box's area: a box of which less is left is no longer learnt
LEAST_SIDE = 2  # pixels of the canvas: the same
SMALLEST_WINDOW = 0.3  # of a side, as torchvision draws them
LEAST_TO_CROP = 8  # pixels: torchvision divides by zero in images whose window would have no pixel


@dataclass(frozen=True, kw_only=True)
class BoxAugment:
    """Which random changes, and how often or how strong; the defaults are none.

    Attributes:
        flip: Probability that an image is mirrored left to right.
        photometric: Probability that its colours change: brightness, contrast, saturation and hue, each every other
            time. Colours are not swapped, because they often tell classes apart.
        zoom_out: Probability that it is made up to four times smaller, anywhere on the canvas.
        iou_crop: Probability that only a window is taken, chosen by how much of one box at least it shows.
        scale_jitter: 0 to 0.9: the image is scaled by a factor from 1 / (1 + scale_jitter) to 1 + scale_jitter, and
            placed, or cropped, at random.
        mosaic: Probability that a canvas is made of four images, which are mirrored, coloured and scaled each on its
            own; `zoom_out` and `iou_crop` leave them alone.
        mixup: Probability that a canvas is blended with another one; the boxes of both count.
        vertical_flip: Probability that an image is turned upside down.
        max_rotation: It is rotated by up to so many degrees, either way. A box becomes the upright one around its
            rotated corners, which is larger: by 16 % per side for a square at 10 degrees.
        grayscale: Probability that it becomes grey.
    """

    flip: float = 0.0
    photometric: float = 0.0
    zoom_out: float = 0.0
    iou_crop: float = 0.0
    scale_jitter: float = 0.0
    mosaic: float = 0.0
    mixup: float = 0.0
    vertical_flip: float = 0.0
    max_rotation: float = 0.0
    grayscale: float = 0.0

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value, most = getattr(self, name), MOST.get(name, 1)
            if not _is_number(value) or not 0 <= value <= most:
                raise InputError(f"{name} is {value!r}; expected a number from 0 to {most:g}.")

    @property
    def is_none(self) -> bool:
        """Whether nothing is changed."""
        return not any(getattr(self, field.name) for field in fields(self))

    def to_key(self) -> dict[str, float]:
        """Return plain values that tell it apart; of younger fields only those in use, so that older keys hold."""
        values = asdict(self)
        return {name: value for name, value in values.items() if value or name not in YOUNGER}

    @property
    def enlargement(self) -> float:
        """How many times larger than usual a part of an image may come onto the canvas."""
        return (1 + self.scale_jitter) / (SMALLEST_WINDOW if self.iou_crop else 1)

    def without_mixing(self) -> Self:
        """Return the same without what mixes images: the last epochs often go without."""
        return replace(self, mosaic=0.0, mixup=0.0)


class Boxed(NamedTuple):
    """An image and its boxes.

    Attributes:
        pixels: `(H, W, 3)` uint8 RGB.
        xyxy: `(n, 4)` float32, in pixels of the image.
        labels: `(n,)` int64.
        size: Height and width of the image, if its pixels are a reduced version of it; None: as many as there are.
    """

    pixels: Bytes
    xyxy: Tensor
    labels: Tensor
    size: tuple[int, int] | None = None

    def as_reduced(self) -> "Boxed":
        """Return the reduced version as an image of its own."""
        (rows, columns), (height, width) = self.pixels.shape[:2], self.size or self.pixels.shape[:2]
        if (rows, columns) == (height, width):
            return self._replace(size=None)
        factors = self.xyxy.new_tensor([columns / width, rows / height] * 2)
        return Boxed(self.pixels, self.xyxy * factors, self.labels)


def fit_boxed(boxed: Boxed, letterbox: Letterbox) -> Sample:
    """Put an image and its boxes onto the canvas just as for a prediction, without any random change."""
    canvas, place = fit_image(boxed.pixels, letterbox, boxed.size)
    return canvas, _to_rows(place.to_canvas(boxed.xyxy), boxed.labels)


def augment_boxed(
    read: Callable[[int], Boxed], index: int, count: int, letterbox: Letterbox, augment: BoxAugment
) -> Sample:
    """Put an image onto the canvas with random changes, drawn from torch's default generator.

    Args:
        read: Gives the image of an index; asked for others too if images are mixed.
        index: Of the image.
        count: Number of images that there are.
        letterbox: How an image comes onto the canvas where nothing else is drawn.
        augment: Which changes.

    Returns:
        The canvas and the boxes that are left: those of which a tenth can be seen at least, cut where their image is
        cut. If `augment` is none, just what `fit_boxed` gives.
    """
    if augment.is_none:
        return fit_boxed(read(index), letterbox)

    def read_reduced(index: int) -> Boxed:
        return read(index).as_reduced()

    canvas, rows = _compose(read_reduced, index, count, letterbox, augment)
    if _happens(augment.mixup):
        other, more = _compose(read_reduced, _draw_below(count), count, letterbox, augment)
        canvas, rows = _blend(canvas, other, _draw(*MIXUP_SHARE)), torch.cat([rows, more])
    return (canvas if letterbox.channels == "rgb" else canvas.flip(0)), rows


class _Cell(NamedTuple):
    """A part of the canvas, in its pixels."""

    top: int
    left: int
    bottom: int
    right: int


def _compose(read: Callable[[int], Boxed], index: int, count: int, letterbox: Letterbox, augment: BoxAugment) -> Sample:
    """Make an RGB canvas of one image, or of four around a point, as in YOLOv4 (arXiv 2004.10934)."""
    height, width = letterbox.canvas_size
    canvas = torch.full((3, height, width), letterbox.fill, dtype=torch.uint8)
    if not _happens(augment.mosaic):
        return canvas, _paste(canvas, *_place_alone(read(index), letterbox, augment), augment, letterbox.fill)
    y, x = round(height * _draw(*MOSAIC_CENTRE)), round(width * _draw(*MOSAIC_CENTRE))
    rows: list[Tensor] = []
    for cell in (_Cell(0, 0, y, x), _Cell(0, x, y, width), _Cell(y, 0, height, x), _Cell(y, x, height, width)):
        boxed = read(_draw_below(count) if rows else index)
        rows.append(_paste(canvas, *_place_in_mosaic(boxed, letterbox, augment, cell), augment, letterbox.fill))
    return canvas, torch.cat(rows)


def _place_alone(boxed: Boxed, letterbox: Letterbox, augment: BoxAugment) -> tuple[Boxed, Placement]:
    """Return what is shown of an image, and where."""
    if _happens(augment.iou_crop):
        boxed = _take_window(boxed)
    factor = _draw_factor(augment.scale_jitter)
    if _happens(augment.zoom_out):
        factor /= _draw(*ZOOM_OUT)
    if factor == 1:
        return boxed, letterbox.place(*boxed.pixels.shape[:2])
    return _place_within(boxed, letterbox, factor, _Cell(0, 0, *letterbox.canvas_size))


def _place_in_mosaic(boxed: Boxed, letterbox: Letterbox, augment: BoxAugment, cell: _Cell) -> tuple[Boxed, Placement]:
    """Do the same for one of four: all of it as large as there is room for, or a part of it as large as usual."""
    usual = letterbox.place(*boxed.pixels.shape[:2])
    whole = min(1, (cell.bottom - cell.top) / usual.height, (cell.right - cell.left) / usual.width)
    factor = _draw(whole, 1) * _draw_factor(augment.scale_jitter)
    return _place_within(boxed, letterbox, factor, cell)


def _take_window(boxed: Boxed) -> Boxed:
    """Cut out a window as SSD does (arXiv 1512.02325), unless the draw says to leave the image whole."""
    from torchvision.transforms import v2
    from torchvision.tv_tensors import BoundingBoxes

    size = boxed.pixels.shape[:2]
    if not len(boxed.xyxy) or min(size) < LEAST_TO_CROP:
        return boxed
    window = v2.RandomIoUCrop().make_params([BoundingBoxes(boxed.xyxy, format="XYXY", canvas_size=size)])
    return _cut(boxed, window["top"], window["left"], window["height"], window["width"]) if window else boxed


def _place_within(boxed: Boxed, letterbox: Letterbox, factor: float, cell: _Cell) -> tuple[Boxed, Placement]:
    """Scale an image by a factor beyond that of the letterbox, and place it, or a part of it, in a cell at random."""
    usual = letterbox.place(*boxed.pixels.shape[:2])
    y = _fit_side(boxed.pixels.shape[0], usual.scale_y * factor, cell.bottom - cell.top)
    x = _fit_side(boxed.pixels.shape[1], usual.scale_x * factor, cell.right - cell.left)
    scales = y.length / y.used, x.length / x.used
    place = Placement(y.length, x.length, cell.top + y.offset, cell.left + x.offset, *scales)
    return _cut(boxed, y.start, x.start, y.used, x.used), place


class _Side(NamedTuple):
    """From where on and how many pixels of an image are used; to how many they are resized, and where these lie."""

    start: int
    used: int
    length: int
    offset: int


def _fit_side(pixels: int, scale: float, room: int) -> _Side:
    used = min(pixels, math.ceil(room / scale))
    length = min(room, max(1, round(used * scale)))
    return _Side(_draw_below(pixels - used + 1), used, length, _draw_below(room - length + 1))


def _cut(boxed: Boxed, top: int, left: int, height: int, width: int) -> Boxed:
    """Return a part of the pixels, not copied, and all boxes in their coordinates: they may reach out of it."""
    shifts = boxed.xyxy.new_tensor([left, top, left, top])
    return Boxed(boxed.pixels[top : top + height, left : left + width], boxed.xyxy - shifts, boxed.labels)


def _paste(canvas: Tensor, boxed: Boxed, place: Placement, augment: BoxAugment, fill: int) -> Tensor:
    """Draw an image, turned and coloured as drawn by lot, onto the canvas, and return its rows."""
    from torchvision.transforms import v2
    from torchvision.tv_tensors import BoundingBoxes, Image

    height, width = place.height, place.width
    scales, shifts = [place.scale_x, place.scale_y] * 2, [place.left, place.top] * 2
    xyxy, labels = _keep_visible(boxed.xyxy * boxed.xyxy.new_tensor(scales), boxed.labels, height, width)
    image = Image(_resize(boxed.pixels, height, width))
    boxes = BoundingBoxes(xyxy, format="XYXY", canvas_size=(height, width))
    image, boxes = v2.RandomHorizontalFlip(augment.flip)(image, boxes)
    if augment.vertical_flip:
        image, boxes = v2.RandomVerticalFlip(augment.vertical_flip)(image, boxes)
    if augment.max_rotation:
        image, boxes, labels = _rotate(image, boxes, labels, augment.max_rotation, fill)
    if _happens(augment.photometric):
        image = _distort(image)
    if augment.grayscale:
        image = v2.RandomGrayscale(augment.grayscale)(image)
    canvas[:, place.top : place.top + height, place.left : place.left + width] = image
    return _to_rows(boxes.as_subclass(Tensor) + boxed.xyxy.new_tensor(shifts), labels)


def _resize(pixels: Bytes, height: int, width: int) -> Tensor:
    """Resize `(H, W, 3)` to `(3, height, width)` in a tenth of the time that the exact `resize_bilinear` needs.

    Values differ by 1 of 255 at most.
    """
    planes = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    return functional.interpolate(planes[None], (height, width), mode="bilinear")[0]


def _keep_visible(xyxy: Tensor, labels: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Cut boxes to an image, and leave out those of which too little is left."""
    cut = clip_boxes_to_image(xyxy, (height, width))
    sides, whole = cut[:, 2:] - cut[:, :2], xyxy[:, 2:] - xyxy[:, :2]
    kept = (sides.prod(dim=1) >= LEAST_SHARE * whole.prod(dim=1)) & (sides.amin(dim=1) >= LEAST_SIDE)
    return cut[kept], labels[kept]


def _rotate(image: Any, boxes: Any, labels: Tensor, most: float, fill: int) -> tuple[Any, Tensor, Tensor]:
    """Rotate an image with its boxes, and leave out boxes of which too little is left."""
    from torchvision.transforms import InterpolationMode, v2
    from torchvision.tv_tensors import BoundingBoxes

    height, width = boxes.canvas_size
    whole = BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width), clamping_mode=None)
    image, whole = v2.RandomRotation(most, InterpolationMode.BILINEAR, fill=fill)(image, whole)
    return image, *_keep_visible(whole.as_subclass(Tensor), labels, height, width)


def _distort(image: Any) -> Any:
    """Change the colours of a `tv_tensors.Image` as SSD does, but do not swap them."""
    from torchvision.transforms import v2

    distort = v2.RandomPhotometricDistort()
    return distort.transform(image, distort.make_params([image]) | {"channel_permutation": None})


def _blend(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Mix canvases as in Zhang et al. 2019, arXiv 1902.04103."""
    return torch.lerp(second.to(torch.float32), first.to(torch.float32), share).round_().to(torch.uint8)


def _to_rows(xyxy: Tensor, labels: Tensor) -> Tensor:
    return torch.cat([labels[:, None].to(xyxy.dtype), box_convert(xyxy, "xyxy", "cxcywh")], dim=1)


def _happens(probability: float) -> bool:
    return _draw(0, 1) < probability


def _draw_factor(jitter: float) -> float:
    """Draw a factor; making larger and making smaller are equally likely."""
    return math.exp(_draw(-1, 1) * math.log(1 + jitter))


def _draw(low: float, high: float) -> float:
    return low + (high - low) * torch.rand((), dtype=torch.float64).item()


def _draw_below(count: int) -> int:
    return int(torch.randint(count, ()))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
