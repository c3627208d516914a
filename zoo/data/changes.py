"""Random changes of images beside crop and flip, by torchvision's transforms v2; all draw from torch's generator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

from zoo.errors import InputError

Augment: TypeAlias = Literal["none", "crop-flip", "trivial", "rand", "augmix", "imagenet", "cifar10", "svhn"]

STRENGTHS = {"rand": (9, 0, 30), "augmix": (3, 1, 10)}  # default, least, most: those of torchvision
OPERATIONS = {"rand": 2}


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Which random changes, and how often or how strong; the defaults are none.

    Attributes:
        vertical_flip: Probability that an image is turned upside down.
        max_rotation: It is rotated by up to so many degrees, either way; corners get the mean colour.
        color_jitter: Brightness, contrast and saturation are each multiplied by 1 - x to 1 + x, 0 to 1.
        grayscale: Probability that it becomes grey.
        random_erasing: Probability that a rectangle becomes the mean colour (Zhong et al. 2017, arXiv 1708.04896).
        augment_magnitude: Strength of the policies `rand` (0 to 30) and `augmix` (1 to 10); None: 9 and 3.
        rand_ops: Changes of `rand`, one after the other; None: 2.
    """

    vertical_flip: float = 0.0
    max_rotation: float = 0.0
    color_jitter: float = 0.0
    grayscale: float = 0.0
    random_erasing: float = 0.0
    augment_magnitude: int | None = None
    rand_ops: int | None = None

    @classmethod
    def of_options(cls, options: Any) -> "Changes":
        """Return those that a preset says."""
        return cls(**{field.name: getattr(options, field.name) for field in fields(cls)})

    def said(self) -> Mapping[str, Any]:
        """Return what is not at its default, as plain values by name."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) != field.default}

    def check_policy(self, augment: str) -> None:
        """Refuse a strength that the policy does not have.

        Raises:
            InputError: It has none, or not so much.
        """
        for name, policies in (("augment_magnitude", STRENGTHS), ("rand_ops", OPERATIONS)):
            value = getattr(self, name)
            if value is not None and augment not in policies:
                those = " or ".join(policies)
                raise InputError(
                    f"{name} is {value}, but augment is {augment!r}. Set augment to {those}, or remove {name}."
                )
        if self.augment_magnitude is not None:
            _, least, most = STRENGTHS[augment]
            if not least <= self.augment_magnitude <= most:
                raise InputError(
                    f"augment_magnitude is {self.augment_magnitude}; expected {least} to {most} for augment={augment}."
                )

    def of_images(self, augment: str, fill: Sequence[int]) -> list[Any]:
        """Return the changes of an image of Pillow, in their order."""
        from torchvision.transforms import InterpolationMode, v2

        steps: list[Any] = [v2.RandomVerticalFlip(self.vertical_flip)] if self.vertical_flip else []
        if self.max_rotation:
            steps.append(v2.RandomRotation(self.max_rotation, InterpolationMode.BILINEAR, fill=list(fill)))
        steps += self._policy(augment)
        if self.color_jitter:
            steps.append(v2.ColorJitter(*[self.color_jitter] * 3))
        return [*steps, v2.RandomGrayscale(self.grayscale)] if self.grayscale else steps

    def of_pixels(self, fill: Sequence[int]) -> list[Any]:
        """Return the changes of a uint8 tensor, which follow."""
        from torchvision.transforms import v2

        erasing = v2.RandomErasing(self.random_erasing, value=[float(value) for value in fill])
        return [erasing] if self.random_erasing else []

    def _policy(self, augment: str) -> list[Any]:
        from torchvision.transforms import v2

        strength = self.augment_magnitude
        if augment in STRENGTHS and strength is None:
            strength = STRENGTHS[augment][0]
        if augment == "rand":
            return [v2.RandAugment(self.rand_ops or OPERATIONS["rand"], strength)]
        if augment == "augmix":
            return [v2.AugMix(severity=strength)]
        if augment == "trivial":
            return [v2.TrivialAugmentWide()]
        return [] if augment in ("none", "crop-flip") else [v2.AutoAugment(v2.AutoAugmentPolicy(augment))]


NO_CHANGES = Changes()
