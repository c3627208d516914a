"""What a network expects of a picture, and the transforms that deliver it: torchvision's v2, on pictures of Pillow.

The evaluation transform gives the pixels of timm's own.
"""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, get_args

from PIL import Image

from zoo.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

Interpolation: TypeAlias = Literal["nearest", "bilinear", "bicubic"]
CropMode: TypeAlias = Literal["center", "squash"]
Augment: TypeAlias = Literal["none", "crop-flip", "trivial"]
Transform: TypeAlias = "Callable[[Image.Image], Tensor]"

SMALLEST, LARGEST = 8, 4096  # pixels


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """What weights expect of a picture.

    Attributes:
        image_size: Side of the square input, in pixels.
        mean: Subtracted from each of red, green, blue in 0..1.
        std: What each is then divided by.
        interpolation: How pictures are resized.
        crop_pct: Share of the resized picture's side that the crop keeps, above 0 to 1.
        crop_mode: `center` keeps the proportions and crops the middle; `squash` makes the picture square first.
    """

    image_size: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: Interpolation = "bicubic"
    crop_pct: float = 0.875
    crop_mode: CropMode = "center"

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

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some values changed."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

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
        if missing := [name for name in names if name not in values]:
            raise InputError(f"preprocess: {', '.join(missing)} missing. Expected {', '.join(names)}.")
        return cls(**values)


def eval_transform(preprocess: Preprocess) -> Transform:
    """Make what turns an RGB picture into the tensor `(3, image_size, image_size)`, float32, that weights expect."""
    from torchvision.transforms import v2

    side = preprocess.image_size
    short = math.floor(side / preprocess.crop_pct)
    resized = (short, short) if preprocess.crop_mode == "squash" else short
    resize = v2.Resize(resized, interpolation=_interpolation(preprocess))
    composed: Transform = v2.Compose([v2.RGB(), resize, v2.CenterCrop(side), *_to_tensor(preprocess)])
    return composed


def train_transform(
    preprocess: Preprocess,
    *,
    augment: Augment = "crop-flip",
    crop_scale_min: float = 0.35,
    flip_probability: float = 0.5,
) -> Transform:
    """Make the same as `eval_transform`, with random changes drawn from torch's default generator.

    Args:
        preprocess: What the weights expect.
        augment: `none`: no change; `crop-flip`: a random part of the picture, mirrored or not; `trivial`: also one
            random change of colour or shape of random strength (TrivialAugment).
        crop_scale_min: Least share of the picture's area that a crop keeps, above 0 to 1.
        flip_probability: How often the picture is mirrored, 0 to 1.

    Raises:
        InputError: If a value is unknown or out of range.
    """
    _check_choice("augment", augment, get_args(Augment))
    if not _is_number(crop_scale_min) or not 0 < crop_scale_min <= 1:
        raise InputError(f"crop_scale_min is {crop_scale_min!r}; expected a number above 0, at most 1.")
    if not _is_number(flip_probability) or not 0 <= flip_probability <= 1:
        raise InputError(f"flip_probability is {flip_probability!r}; expected a number from 0 to 1.")
    if augment == "none":
        return eval_transform(preprocess)
    from torchvision.transforms import v2

    side, how = preprocess.image_size, _interpolation(preprocess)
    change = [v2.TrivialAugmentWide()] if augment == "trivial" else []
    crop = v2.RandomResizedCrop(side, scale=(crop_scale_min, 1.0), interpolation=how)
    steps = [v2.RGB(), crop, v2.RandomHorizontalFlip(flip_probability), *change, *_to_tensor(preprocess)]
    composed: Transform = v2.Compose(steps)
    return composed


def _to_tensor(preprocess: Preprocess) -> list[Any]:
    import torch
    from torchvision.transforms import v2

    mean, std = list(preprocess.mean), list(preprocess.std)
    return [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std, inplace=True)]


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
