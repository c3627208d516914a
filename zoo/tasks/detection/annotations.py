"""Boxes as they were written down: what the readers of all formats give, before anything is held against an image."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Key: TypeAlias = int | str  # what an annotation calls a class: a name, an index, or the id of a category
Floats: TypeAlias = NDArray[np.float64]


class ImageReader(Protocol):
    """Gives images by position."""

    def __call__(self, position: int, /) -> Any:
        """Return what `zoo.data.decode.read_image` takes."""
        ...


@dataclass(frozen=True)
class Finding:
    """Something about the data that a person should know.

    Attributes:
        kind: What it is, in the plural, the same words for all findings of the kind, such as `boxes without area`.
        level: `error`: data would be lost, so training stops unless bad data is to be left out; `warning`: something
            is repaired or left out, and this says so; `note`: only worth knowing.
        split: Of which split; empty if of none.
        file: The file to look at, below the data's folder, or the place of a sample, like `train[7]`.
        line: Line in that file, from 1; None if there is none.
        text: What was found, and what becomes of it.
    """

    kind: str
    level: Literal["error", "warning", "note"]
    split: str
    file: str
    line: int | None
    text: str

    @property
    def place(self) -> str:
        """File and line in one word."""
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Annotated:
    """One image and its boxes, as they were written down.

    Attributes:
        name: The image's path below the data's folder, or its place, like `train[7]`.
        boxes: `(N, 4)` x1, y1, x2, y2 in pixels of the image, from 0 at its left upper corner; or shares of its
            sides if `is_relative`. They may be wrong in every way but are finite.
        keys: The class of each.
        lines: The line in `file` at which each stands; None where there are no lines.
        crowd: `(N,)` bool: boxes around many things at once, which are neither trained on nor scored.
        file: Where the boxes are written, below the data's folder; empty if in no file.
        size: Height and width that the annotation states; None if it does not.
        is_relative: Whether boxes are shares of the image's sides.
        lost: How many annotations of the image could not be read, each told as an error. Such an image is neither
            trained on nor scored: what is marked in it would count as background.
        ids: What the file calls each box, where its line does not tell it; empty if nothing does.
    """

    name: str
    boxes: Floats
    keys: tuple[Key, ...]
    lines: tuple[int | None, ...]
    crowd: NDArray[np.bool_]
    file: str = ""
    size: tuple[int, int] | None = None
    is_relative: bool = False
    lost: int = 0
    ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class BoxSplit:
    """The images of one split.

    Attributes:
        name: `train`, `val`, `test`, or `all` where there are no splits.
        reader: Gives the images.
        images: What is written of each, in the order of the reader's positions.
        in_threads: Whether images are files or bytes that may be decoded in several threads.
    """

    name: str
    reader: ImageReader
    images: tuple[Annotated, ...]
    in_threads: bool = False


@dataclass(frozen=True)
class BoxSource:
    """All that was read.

    Attributes:
        where: The folder's absolute path, or what kind of object.
        form: Name of the format, for people.
        splits: By name.
        names: Name of each class by its key, in the order of the class numbers.
        findings: What was wrong with the text of the annotations.
        is_bare: Whether only a description of a data set was found, without annotations: next to annotations in
            another format it does not count.
    """

    where: str
    form: str
    splits: Mapping[str, BoxSplit]
    names: Mapping[Key, str]
    findings: tuple[Finding, ...] = ()
    is_bare: bool = False

    def find_file(self) -> str:
        """Return the first file with annotations; empty if no image has one."""
        return next((image.file for split in self.splits.values() for image in split.images if image.file), "")


def no_boxes() -> Floats:
    """Return an array of no boxes, `(0, 4)`."""
    return np.zeros((0, 4))
