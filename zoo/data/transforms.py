"""What a network expects of an image, and the transforms that deliver it: torchvision's v2, on images of Pillow.

The evaluation transform gives the pixels of timm's own. For training at speed, transforms leave pixels as bytes, and
`to_input` normalises whole batches on the device that computes.
"""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias, get_args

from PIL import Image

from zoo.data.changes import NO_CHANGES, Augment, Changes
from zoo.data.decode import FULL, Decoding, Need
from zoo.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

Interpolation: TypeAlias = Literal["nearest", "bilinear", "bicubic"]
CropMode: TypeAlias = Literal["center", "squash"]
Resizer: TypeAlias = Literal["pillow", "torch"]
Transform: TypeAlias = "Callable[[Image.Image], Tensor]"

SMALLEST, LARGEST = 8, 4096  # pixels
NARROWEST = 3 / 4  # of a random crop, as torchvision draws them: width by height, or height by width
LONGEST = 20  # times its short side: of a longer image the ends are cut off before it is resized


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """What weights expect of an image.

    Attributes:
        image_size: Side of the square input, in pixels.
        mean: Subtracted from each of red, green, blue in 0..1.
        std: What each is then divided by.
        interpolation: How images are resized.
        crop_pct: Share of the resized image's side that the crop keeps, above 0 to 1.
        crop_mode: `center` keeps the proportions and crops the middle; `squash` makes the image square first.
        decode: `full`: every pixel of a file is decoded; `fast`: of large JPEGs only so many that resizing has twice
            as many as it needs at least.
    """

    kind: ClassVar[str] = "crop"

    image_size: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: Interpolation = "bicubic"
    crop_pct: float = 0.875
    crop_mode: CropMode = "center"
    decode: Decoding = "full"

    def __post_init__(self) -> None:
        if type(self.image_size) is not int or not SMALLEST <= self.image_size <= LARGEST:
            raise InputError(
                f"image_size is {self.image_size!r}; expected an integer from {SMALLEST} to {LARGEST} pixels."
            )
        for name in ("mean", "std"):
            object.__setattr__(self, name, _three_numbers(name, getattr(self, name)))
        if min(self.std) <= 0:
            raise InputError(f"std is {self.std}; expected three numbers above 0.")
        if not _is_number(self.crop_pct) or not 0 < self.crop_pct <= 1:
            raise InputError(f"crop_pct is {self.crop_pct!r}; expected a number above 0, at most 1.")
        _check_choice("interpolation", self.interpolation, get_args(Interpolation))
        _check_choice("crop_mode", self.crop_mode, get_args(CropMode))
        _check_choice("decode", self.decode, get_args(Decoding))

    @property
    def resized_side(self) -> float:
        """The side that an image's short side is resized to before the crop, in pixels."""
        return self.image_size / self.crop_pct

    @property
    def need(self) -> Need | None:
        """What `decode_image` is told of the pixels that are needed; None: all."""
        return self.resized_size if self.decode == "fast" else None

    def resized_size(self, width: int, height: int) -> tuple[float, float]:
        """Return width and height that an image of this size is resized to before the crop, not rounded."""
        short = math.floor(self.image_size / self.crop_pct)
        if self.crop_mode == "squash":
            return short, short
        return width * short / min(width, height), height * short / min(width, height)

    def describe(self) -> str:
        """Return what becomes of an image, in words."""
        return f"resized to {self.image_size} × {self.image_size} pixels, RGB"

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some values changed."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; `decode` only if it is not `full`, as files were before there was a choice."""
        values = asdict(self) | {"mean": list(self.mean), "std": list(self.std)}
        return {name: value for name, value in values.items() if (name, value) != FULL}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make it again of what `to_dict` gave.

        Raises:
            InputError: If a key is missing or unknown, or a value is out of range.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"preprocess is a {type(values).__name__}; expected a mapping such as {cls().to_dict()}.")
        names = [field.name for field in fields(cls)]
        for key in values:
            if key not in names:
                hint = did_you_mean(str(key), names)
                raise InputError(f"preprocess: unknown key {key!r}.{hint} Expected {', '.join(names)}.")
        if missing := [name for name in names if name not in values and name != "decode"]:
            raise InputError(f"preprocess: {', '.join(missing)} missing. Expected {', '.join(names)}.")
        return cls(**values)


def eval_transform(preprocess: Preprocess, *, normalise: bool = True, resizer: Resizer = "pillow") -> Transform:
    """Make what turns an RGB image into the tensor `(3, image_size, image_size)` that weights expect.

    Args:
        preprocess: What they expect.
        normalise: Give float32, normalised; else uint8, of which `to_input` makes the same numbers.
        resizer: `pillow`, with which weights are trained and scored as a rule; `torch` takes a fifth of the time and
            rounds in its own way: of a photo that keeps its proportions, one value in some 300 comes out one level of
            255 higher or lower. Nearest pixels are always taken by Pillow.
    """
    from torchvision.transforms import v2

    side, how = preprocess.image_size, _interpolation(preprocess)
    short = math.floor(side / preprocess.crop_pct)
    squash = preprocess.crop_mode == "squash"
    resize = v2.Resize((short, short) if squash else short, interpolation=how)
    cut = [] if squash else [_cut_ends]
    fit = [resize, v2.CenterCrop(side)]
    pixels = [*fit, v2.PILToTensor()] if _in_pillow(preprocess, resizer) else [v2.PILToTensor(), *fit]
    composed: Transform = v2.Compose([_to_rgb, *cut, *pixels, *_to_numbers(preprocess, normalise)])
    return composed


def train_transform(
    preprocess: Preprocess,
    *,
    augment: Augment = "crop-flip",
    crop_scale_min: float = 0.35,
    flip_probability: float = 0.5,
    changes: Changes = NO_CHANGES,
    normalise: bool = True,
    resizer: Resizer = "pillow",
) -> Transform:
    """Make the same as `eval_transform`, with random changes drawn from torch's default generator.

    Args:
        preprocess: What the weights expect.
        augment: `none`: no change; `crop-flip`: a random part of the image, mirrored or not; others also change what
            is left by the policy of this name, of which `trivial` is TrivialAugment.
        crop_scale_min: Least share of the image's area that a crop keeps, above 0 to 1.
        flip_probability: How often the image is mirrored, 0 to 1.
        changes: What else is drawn by lot, unless `augment` is `none`.
        normalise: As for `eval_transform`.
        resizer: As for `eval_transform`; both draw the same changes.

    Raises:
        InputError: If a value is unknown or out of range.
    """
    _check_choice("augment", augment, get_args(Augment))
    if not _is_number(crop_scale_min) or not 0 < crop_scale_min <= 1:
        raise InputError(f"crop_scale_min is {crop_scale_min!r}; expected a number above 0, at most 1.")
    if not _is_number(flip_probability) or not 0 <= flip_probability <= 1:
        raise InputError(f"flip_probability is {flip_probability!r}; expected a number from 0 to 1.")
    if augment == "none":
        return eval_transform(preprocess, normalise=normalise, resizer=resizer)
    from torchvision.transforms import v2

    side, how = preprocess.image_size, _interpolation(preprocess)
    crop = v2.RandomResizedCrop(side, scale=(crop_scale_min, 1.0), interpolation=how)
    part = [crop] if _in_pillow(preprocess, resizer) else [_Part(crop), v2.PILToTensor(), v2.Resize((side, side), how)]
    fill = [round(255 * value) for value in preprocess.mean]
    change = changes.of_images(augment, fill)
    pillow = [v2.ToPILImage()] if change else []  # policies are Pillow's, whichever library resizes
    steps = [_to_rgb, *part, v2.RandomHorizontalFlip(flip_probability), *pillow, *change, _to_tensor]
    composed: Transform = v2.Compose([*steps, *changes.of_pixels(fill), *_to_numbers(preprocess, normalise)])
    return composed


def need_of_crops(preprocess: Preprocess, *, augment: Augment, crop_scale_min: float) -> Need | None:
    """Return the `need` of `decode_image` for images that go through `train_transform`: its smallest crop counts."""
    if augment == "none" or preprocess.need is None:
        return preprocess.need
    return partial(_resized_for_crop, side=preprocess.image_size, scale_min=crop_scale_min)


def _resized_for_crop(width: int, height: int, *, side: int, scale_min: float) -> tuple[float, float]:
    """Return the size of an image of which the smallest side that a random crop may have is resized to `side`."""
    smallest = min(width, height, math.sqrt(scale_min * NARROWEST * width * height))
    return width * side / smallest, height * side / smallest


def to_input(images: "Tensor", preprocess: Preprocess) -> "Tensor":
    """Turn uint8 images, `(3, H, W)` or `(B, 3, H, W)`, into what weights expect: float32, normalised, channels last.

    On the CPU it gives the very numbers of the transforms that normalise.

    Args:
        images: RGB, from a transform with `normalise=False`; fastest if they lie channels last, as `make_loader`'s do.
        preprocess: What the weights expect; its `mean` and `std` count.

    Raises:
        InputError: If the images are not uint8, or not RGB.
    """
    import torch

    if images.dtype != torch.uint8 or images.ndim not in (3, 4) or images.shape[-3] != 3:
        raise InputError(
            f"the images are {images.dtype} of shape {tuple(images.shape)}; expected uint8 (B, 3, height, width), "
            "from a transform with normalise=False."
        )
    width = images.shape[-1]
    pixels = images.movedim(-3, -1).contiguous()
    rows = pixels.to(torch.float32).mul_(1 / 255).flatten(-2)  # (..., H, W * 3): long rows are quick to work on
    mean, std = (rows.new_tensor(numbers).repeat(width) for numbers in (preprocess.mean, preprocess.std))
    return rows.sub_(mean).div_(std).view(pixels.shape).movedim(-1, -3)


def _in_pillow(preprocess: Preprocess, resizer: Resizer) -> bool:
    _check_choice("resizer", resizer, get_args(Resizer))
    return resizer == "pillow" or preprocess.interpolation == "nearest"  # torch's takes other pixels


class _Part:
    """Cuts out what a random crop draws, without resizing it."""

    def __init__(self, crop: Any) -> None:
        self.crop = crop

    def __call__(self, image: Image.Image) -> Image.Image:
        part = self.crop.make_params([image])
        left, top = part["left"], part["top"]
        return image.crop((left, top, left + part["width"], top + part["height"]))


def _to_rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy


def _cut_ends(image: Image.Image) -> Image.Image:
    """Cut a very long image about its middle, of which the crop shows the same: resized whole, it fills memory."""
    most = LONGEST * min(image.size)
    left, top = (max(0, (side - most) // 2) for side in image.size)
    if not left and not top:
        return image
    return image.crop((left, top, image.width - left, image.height - top))


def _to_tensor(image: "Image.Image | Tensor") -> "Tensor":
    from torchvision.transforms.v2 import functional

    tensor: Tensor = functional.pil_to_tensor(image) if isinstance(image, Image.Image) else image
    return tensor


def _to_numbers(preprocess: Preprocess, normalise: bool) -> list[Any]:
    import torch
    from torchvision.transforms import v2

    mean, std = list(preprocess.mean), list(preprocess.std)
    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std, inplace=True)] if normalise else []


def _interpolation(preprocess: Preprocess) -> Any:
    from torchvision.transforms import InterpolationMode

    return InterpolationMode(preprocess.interpolation)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _three_numbers(name: str, values: Any) -> tuple[float, float, float]:
    if not isinstance(values, (tuple, list)) or len(values) != 3 or not all(map(_is_number, values)):
        raise InputError(f"{name} is {values!r}; expected three numbers, for red, green and blue in 0..1.")
    return float(values[0]), float(values[1]), float(values[2])


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} is {value!r}; expected {', '.join(choices)}.{did_you_mean(str(value), choices)}")
