"""Images with boxes by index: what a detector is trained on and scored by."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo.data import ImageStore, Need, read_kept
from zoo.tasks.detection.annotations import ImageReader


class Boxes(NamedTuple):
    """The boxes of one image.

    Attributes:
        xyxy: `(N, 4)` float32, x1, y1, x2, y2 in pixels of the image as it is seen, inside of it, each with an area.
        labels: `(N,)` int64, class numbers.
        crowd: `(N,)` bool: around many things at once; not to be learnt, and no mistake if found or not.
    """

    xyxy: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]

    def learnable(self) -> "Boxes":
        """Return those that are not around many things at once."""
        single = ~self.crowd
        return Boxes(self.xyxy[single], self.labels[single], self.crowd[single])


@dataclass(frozen=True, repr=False)
class BoxedImages:
    """The images of one split and their boxes, checked.

    Attributes:
        reader: Gives what `read_image` takes, by position.
        names: What to call each image: a path below the data's folder, or like `train[7]`.
        sizes: Height and width of each in pixels, as it is seen.
        boxes: Of each.
        positions: Where the reader finds each.
        in_threads: Whether several threads may read at once.
        store: Where decoded images are kept, if they are.
        store_name: What this split is called in there.
        need: Of the pixels that are decoded; see `read_image`.
    """

    reader: ImageReader
    names: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    boxes: tuple[Boxes, ...]
    positions: tuple[int, ...]
    in_threads: bool = False
    store: ImageStore | None = None
    store_name: str = ""
    need: Need | None = None

    def __repr__(self) -> str:
        return f"<BoxedImages: {len(self):,}>"

    def __len__(self) -> int:
        return len(self.positions)

    def read(self, index: int, /) -> tuple[Image.Image, Boxes]:
        """Return an image, RGB and upright, and its boxes.

        Where less is needed the image is smaller than `sizes` says; the boxes are in pixels of that size all the same.

        Raises:
            DataError: If it cannot be read (any more); the text names it.
        """
        return read_kept(self, index), self.boxes[index]

    def find_source(self, index: int, /) -> Any:
        """Return what `read_image` takes of an image."""
        return self.reader(self.positions[index])

    def target_bytes(self) -> list[bytes]:
        """Return the boxes as bytes, after a word for what they are and the number of each image's."""
        counts = np.asarray([len(boxes.labels) for boxes in self.boxes], np.int64)
        columns = zip(*self.boxes, strict=True) if self.boxes else ()
        types = (np.float32, np.int64, np.bool_)
        joined = [np.concatenate(column).astype(kind).tobytes() for column, kind in zip(columns, types, strict=False)]
        return [b"boxes", counts.tobytes(), *joined]

    def keeping(self, store: ImageStore, name: str) -> "BoxedImages":
        """Return the same images, read once and then from a store.

        Args:
            store: Keeps them.
            name: Tells this split from others in the store, as a part of a file's name.
        """
        return replace(self, store=store, store_name=name)

    def needing(self, need: Need | None) -> Self:
        """Return the same images, of which no more is decoded than is needed; None: all of them."""
        return replace(self, need=need)

    def subset(self, indices: Sequence[int]) -> "BoxedImages":
        """Return some of the images, in the order of the indices."""
        return replace(
            self,
            names=tuple(self.names[index] for index in indices),
            sizes=tuple(self.sizes[index] for index in indices),
            boxes=tuple(self.boxes[index] for index in indices),
            positions=tuple(self.positions[index] for index in indices),
        )

    def count_boxes(self, classes: int) -> list[int]:
        """Return how many boxes each of the classes has, those of crowds left out."""
        labels = [boxes.learnable().labels for boxes in self.boxes]
        counts = np.bincount(np.concatenate([*labels, np.zeros(0, np.int64)]), minlength=classes)
        return [int(count) for count in counts]
