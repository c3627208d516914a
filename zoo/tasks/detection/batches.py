"""From images with boxes to batches: samples that repeat, their collation, and canvases that change size."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset, default_collate

from zoo.data import EPOCHS_APART, ImageLoader, Letterbox, UserTransform, mix_seeds, order_batches, seeded_sample
from zoo.errors import InputError
from zoo.tasks.detection.augment import BoxAugment, Boxed, augment_boxed
from zoo.tasks.detection.images import Boxes
from zoo.tasks.detection.user_transform import change_boxed

STRIDE = 32  # pixels: what a side of the canvas is a multiple of

BoxSample: TypeAlias = tuple[Tensor, Tensor, int]


class ReadableBoxes(Protocol):
    """What batches are made of."""

    @property
    def names(self) -> Sequence[str]:
        """What to call each image."""
        ...

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """Height and width of each in pixels, of which its boxes are; the image itself may be smaller."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int, /) -> tuple[Image.Image, Boxes]:
        """Return the image, RGB and upright, and its boxes."""
        ...


class BoxTargets(NamedTuple):
    """The boxes of a batch.

    Attributes:
        rows: `(N, 6)` float32: image in the batch, class, centre x, centre y, width, height in pixels of the canvas.
        indices: `(B,)` int64: the place of each image in its data set.
    """

    rows: Tensor
    indices: Tensor

    def narrow(self, start: int, stop: int) -> "BoxTargets":
        """Return the targets of the images from one on and up to another, which are numbered from 0 again."""
        images = self.rows[:, 0]
        rows = self.rows[(images >= start) & (images < stop)]
        return BoxTargets(rows - rows.new_tensor([start, 0, 0, 0, 0, 0]), self.indices[start:stop])


class BoxSamples(Dataset[BoxSample]):
    """Images with boxes as tensors, for a `DataLoader`.

    Args:
        images: Gives images and boxes.
        letterbox: How an image comes onto the canvas.
        augment: Random changes; None: none, as for scoring.
        seed: An image of an epoch is changed in the same way whenever it is loaded, by whichever process.
        plain_from: First epoch without mosaic and mixup; None: all have them.
        user: A transform of the user's own, which comes before.
    """

    def __init__(
        self,
        images: ReadableBoxes,
        letterbox: Letterbox,
        augment: BoxAugment | None = None,
        seed: int = 0,
        plain_from: int | None = None,
        user: UserTransform | None = None,
    ) -> None:
        self.images, self.letterbox, self.seed, self.plain_from = images, letterbox, seed, plain_from
        self.augment, self.user = BoxAugment() if augment is None else augment, user

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int | tuple[int, int]) -> BoxSample:
        """Return what belongs to an `(index, epoch)`; an index alone means epoch 0.

        Returns:
            The canvas, `(3, H, W)` uint8; `(n, 5)` float32 class, centre x, centre y, width, height in its pixels,
            without boxes around many things at once; and the index.
        """
        index, epoch = place if isinstance(place, tuple) else (place, 0)
        is_plain = self.plain_from is not None and epoch % EPOCHS_APART >= self.plain_from
        augment = self.augment.without_mixing() if is_plain else self.augment
        is_foreign = self.user is not None or not getattr(self.images, "in_threads", False)
        with seeded_sample(self.seed, epoch, index, everywhere=is_foreign):
            canvas, rows = augment_boxed(self._read, index, len(self), self.letterbox, augment)
        return canvas, rows, index

    def _read(self, index: int) -> Boxed:
        image, boxes = self.images.read(index)
        single = boxes.learnable()
        tensors = torch.tensor(single.xyxy), torch.tensor(single.labels)
        boxed = Boxed(np.asarray(image), *tensors, self.images.sizes[index])
        return boxed if self.user is None else change_boxed(boxed, self.user, self.images.names[index])


def collate_boxes(samples: Sequence[BoxSample]) -> tuple[Tensor, BoxTargets]:
    """Make a batch: `(B, 3, H, W)` uint8 and its targets."""
    canvases: Any = default_collate([canvas for canvas, _, _ in samples])  # in a worker, straight into shared memory
    numbered = [functional.pad(rows, (1, 0), value=image) for image, (_, rows, _) in enumerate(samples)]
    return canvases, BoxTargets(torch.cat(numbered), torch.tensor([index for _, _, index in samples]))


def make_box_loader(
    images: ReadableBoxes,
    letterbox: Letterbox,
    augment: BoxAugment | None = None,
    *,
    batch_size: int,
    shuffle: bool = False,
    seed: int = 0,
    num_workers: int = 0,
    pin_memory: bool = False,
    plain_from: int | None = None,
) -> ImageLoader:
    """Make a loader of canvases and `BoxTargets`, whose batches do not depend on the number of processes that load.

    Args:
        images: Gives images and boxes.
        letterbox: How an image comes onto the canvas.
        augment: Random changes, for training.
        batch_size: Images per batch.
        shuffle: For training: an order of its own for each epoch, and no last batch of a single image, which batch
            norm cannot train on, if there are other batches.
        seed: Decides orders and random changes.
        num_workers: Processes that load; they live as long as the loader. 0: none.
        pin_memory: Whether batches are put where a GPU fetches them faster.
        plain_from: First epoch without mosaic and mixup; None: all have them.
    """
    return order_batches(
        BoxSamples(images, letterbox, augment, seed, plain_from),
        len(images),
        collate_boxes,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        num_workers=num_workers,
        pin_memory=pin_memory,
    )


def draw_scale(letterbox: Letterbox, strength: float, seed: int, epoch: int, batch: int) -> tuple[int, int]:
    """Choose the size of a batch for training at many scales.

    Args:
        letterbox: Has the usual size.
        strength: 0 to below 1: sides are multiplied by one number from 1 - strength to 1 + strength, then rounded to
            multiples of 32. 0: the size stays what it is.
        seed: As all that follow, decides the number.
        epoch: Number of the epoch.
        batch: Number of the batch in it.

    Returns:
        Height and width in pixels.
    """
    if not isinstance(strength, (int, float)) or isinstance(strength, bool) or not 0 <= strength < 1:
        raise InputError(f"multi_scale is {strength!r}; expected a number from 0 to below 1.")
    if strength == 0:
        return letterbox.canvas_size
    share = mix_seeds(seed, epoch, batch) / 2**63
    factor = 1 - strength + 2 * strength * share
    height, width = (max(STRIDE, round(side * factor / STRIDE) * STRIDE) for side in letterbox.canvas_size)
    return height, width


def resize_batch(images: Tensor, targets: BoxTargets, size: int | tuple[int, int]) -> tuple[Tensor, BoxTargets]:
    """Bring a batch to another canvas size, on the device that it is on.

    Args:
        images: `(B, 3, H, W)`, uint8 or floating point.
        targets: Their boxes.
        size: Height and width, or one number for both: multiples of 32 pixels.

    Returns:
        The images, of the same dtype, and boxes in the new pixels; the arguments themselves if they have this size.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < STRIDE or height % STRIDE or width % STRIDE:
        raise InputError(f"the batch has images of {height} x {width}; expected multiples of {STRIDE} pixels.")
    old_height, old_width = images.shape[-2:]
    if (old_height, old_width) == (height, width):
        return images, targets
    resized = functional.interpolate(_floating(images), (height, width), mode="bilinear", align_corners=False)
    if not images.is_floating_point():
        resized = resized.round()
    across, down = width / old_width, height / old_height
    rows = targets.rows * targets.rows.new_tensor([1, 1, across, down, across, down])
    return resized.to(images.dtype), targets._replace(rows=rows)


def _floating(images: Tensor) -> Tensor:
    return images if images.is_floating_point() else images.to(torch.float32)
