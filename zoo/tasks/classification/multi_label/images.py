"""Images with any number of labels."""

from dataclasses import dataclass
from typing import Any

from PIL import Image

from zoo.data import Images, read_kept


@dataclass(frozen=True, repr=False)
class MultiLabelImages(Images):
    """Images of one split with any number of labels.

    Attributes:
        targets: The label numbers of each image, ascending; none is possible.
        count: Number of labels that there are.
    """

    targets: Any
    count: int = 0

    def read(self, index: int, /) -> tuple[Image.Image, Any]:
        """Return an image, RGB, and 0 or 1 for each label."""
        held = set(self.targets[index])
        return read_kept(self, index), tuple(float(number in held) for number in range(self.count))

    def list_numbers(self) -> list[tuple[int, ...]]:
        """Return the label numbers of each image."""
        return list(self.targets)

    def target_bytes(self) -> list[bytes]:
        """Return the labels as bytes, after a word for what they are."""
        return [b"labels", str(self.count).encode(), repr(self.targets).encode()]
