"""Mixup and CutMix: batches whose images are blended in pairs, with the shares of both classes as their targets."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo._model import ask, has_own_loss
from zoo.data import seeded_sample
from zoo.errors import InputError
from zoo.tasks.classification.plots import draw_batch

FIELDS = ("mixup_alpha", "cutmix_alpha")


@dataclass(frozen=True)
class Mixing:
    """Blends a batch with itself, moved on by one image; torchvision's `MixUp` and `CutMix`.

    Attributes:
        classes: Number of classes.
        mixup_alpha: Of the Beta distribution of the shares of mixup; 0: none.
        cutmix_alpha: Likewise of CutMix. If both are above 0, every batch is mixed by one of them, equally likely.
        seed: As epoch and batch, decides what is drawn.
    """

    classes: int
    mixup_alpha: float
    cutmix_alpha: float
    seed: int

    def __call__(self, images: Tensor, targets: Tensor, epoch: int, batch: int) -> tuple[Tensor, Tensor]:
        """Mix images `(B, C, H, W)`, floating point, and classes `(B,)` or labels `(B, classes)` into shares."""
        from torchvision.transforms import v2

        kinds = [
            kind(alpha=alpha, num_classes=self.classes)
            for kind, alpha in ((v2.MixUp, self.mixup_alpha), (v2.CutMix, self.cutmix_alpha))
            if alpha
        ]
        with seeded_sample(self.seed, epoch, -1 - batch):  # numbers from 0 on are those of images
            mixed, shares = kinds[int(torch.randint(len(kinds), ()))](images, targets)
        return mixed, shares

    def on_bytes(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mix the first batch of a run as it is before it is normalised, uint8."""
        mixed, shares = self(images.to(torch.float32), targets, 0, 0)
        return mixed.round().to(torch.uint8), shares


def find_mixing(options: Any, classes: int) -> Mixing | None:
    """Return what mixes batches as the options say; None if nothing does."""
    if options.augment == "none" or not any(getattr(options, name) for name in FIELDS):
        return None
    return Mixing(classes, options.mixup_alpha, options.cutmix_alpha, options.seed)


def check_mixing(options: Any, model: Any) -> None:
    """Refuse to mix classes for a loss that takes one class per image, and to cache what is mixed.

    Raises:
        InputError: Naming the fields.
    """
    if find_mixing(options, 0) is None:
        return
    name = next(name for name in FIELDS if getattr(options, name))
    if options.focal_gamma is not None:
        raise InputError(
            f"{name} with focal_gamma is not defined: a mixed image has no single true class. Remove one of them."
        )
    if has_own_loss(model) or ask(model, "takes_targets", False):
        raise InputError(
            f"{name} is not possible: {type(model).__name__} computes its own loss, from one class per image. Set "
            f"{name} to 0."
        )
    if options.cache in ("memory", "disk"):
        raise InputError(
            f"cache={options.cache} is not possible with {name}: images are mixed anew in every batch. Use cache=auto "
            "or cache=off."
        )


def draw_training(batch: Tensor, targets: Tensor, path: Path, *, classes: Sequence[str], mix: Mixing | None) -> None:
    """Draw the first batch of a run, uint8 `(B, 3, H, W)` before it is mixed, as the network sees it."""
    if mix is None:
        names: list[Any] = [classes[target] for target in targets.tolist()]
    else:
        batch, shares = mix.on_bytes(batch, targets)
        names = [_name_shares(row, classes) for row in shares.tolist()]
    draw_batch(batch.cpu(), names, path)


def _name_shares(shares: Sequence[float], classes: Sequence[str]) -> dict[str, float]:
    """Return the classes of a mixed image with their shares, the largest first."""
    parts = sorted(((share, name) for share, name in zip(shares, classes, strict=True) if share), reverse=True)
    return {name: share for share, name in parts}
