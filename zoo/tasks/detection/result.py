"""What a detector found on one image: to look at, to draw, to save, to hand on."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo._text import clean
from zoo.data import WRITABLE, FramePlace, read_again, write_video
from zoo.errors import InputError
from zoo.files import dump_json, make_folder, open_whole, to_path, write_file
from zoo.pages import embed_image, make_fragment, make_table
from zoo.tasks.detection.drawing import draw_boxes, import_supervision

JPEG_QUALITY = 95
SHOWN_SIDE, MOST_SHOWN = 640, 10  # in a notebook: pixels of the longer side, rows of boxes
SIDES = ("left", "top", "right", "bottom")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DetectionResult:
    """What was found on one image, surest first; `N` boxes.

    Attributes:
        source: The path, or the place in what was passed, like `image 3`.
        boxes: `(N, 4)` float32: x1, y1, x2, y2 in pixels of the image as it is seen, inside of it; 0, 0 is the left
            upper corner of its first pixel.
        scores: `(N,)` float32, 0 to 1.
        labels: `(N,)` int64, class numbers.
        classes: The names of all classes.
        size: Height and width of the image, in pixels.
        file: A file name for the drawn image, with folders below the one that was passed.
        item: What the image is read from: a path, the bytes of a file, the place of a frame; or the image.
        frame: Its number in a video, from 0; None if it is no frame.
        seconds: When the frame is shown; None if unknown.
    """

    source: str
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    size: tuple[int, int]
    file: str
    item: Any
    frame: int | None = None
    seconds: float | None = None

    @property
    def image(self) -> Image.Image:
        """The image, RGB; read anew each time where it comes from a file, unless results were streamed.

        Raises:
            InputError: If the file cannot be read any more.
        """
        return self.item if isinstance(self.item, Image.Image) else read_again(self.item)

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each box's class."""
        return tuple(self.classes[label] for label in self.labels)

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[tuple[str, float, tuple[float, float, float, float]]]:
        """Yield name, score and box of each."""
        for name, score, box in zip(self.names, self.scores.tolist(), self.boxes.tolist(), strict=True):
            yield name, score, (box[0], box[1], box[2], box[3])

    def __str__(self) -> str:
        counts = Counter(self.labels.tolist())
        found = ", ".join(f"{counts[label]:,} {self.classes[label]}" for label in sorted(counts)) or "nothing found"
        place = "" if self.frame is None else f", frame {self.frame}"
        time = "" if self.seconds is None else f" at {self.seconds:.2f} s"
        return clean(f"{self.source}{place}{time}: {found}")

    def __repr__(self) -> str:
        return f"<DetectionResult {self}>"

    def _repr_html_(self) -> str:
        """Return the image with its boxes, and the surest of them, as a notebook shows them."""
        buffer, image = BytesIO(), self.draw().convert("RGB")
        image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
        image.save(buffer, "jpeg", quality=80)
        rows = [
            {"class": name, "score": f"{score:.2f}"} | {side: f"{at:.0f}" for side, at in zip(SIDES, box, strict=True)}
            for name, score, box in self
        ]
        table = make_table(rows, most=MOST_SHOWN) if rows else ""
        return make_fragment(self, embed_image(buffer.getvalue(), "jpeg", str(self)), table)

    def draw(self) -> Image.Image:
        """Return a copy of the image with boxes, names and scores on it."""
        return draw_boxes(self.image, self.boxes, self.labels, self.classes, self.scores)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the image with what was found drawn on it.

        Args:
            path: A file name that ends in .jpg, .png, .webp, .bmp or .tif; or a folder, which is made if need be, for a
                file named like the source.

        Returns:
            Where it was written.

        Raises:
            InputError: If that is the file that the image comes from.
            StorageError: It cannot be written.
        """
        target = to_path(path)
        if target.is_dir() or not target.suffix:
            named = Path(self.file)
            target /= named if named.suffix.lower() in WRITABLE else named.with_suffix(".jpg")
        if target.suffix.lower() not in WRITABLE:
            endings = ", ".join(WRITABLE)
            raise InputError(
                f"cannot write an image as {target.name!r}; expected a folder, or a file name with the suffix "
                f"{endings}."
            )
        self._keep_source(target)
        drawn = self.draw()
        make_folder(target.parent)
        kind = Image.registered_extensions()[target.suffix.lower()]
        with open_whole(target) as file:  # subsampling: colours of thin lines are as fine as their brightness
            drawn.save(file, kind, quality=JPEG_QUALITY, subsampling=0)
        return target

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the image as plain values; boxes to 1/1000 pixel, scores to six digits."""
        found = [
            {"name": name, "label": label, "score": round(score, 6), "box": [round(side, 3) for side in box]}
            for (name, score, box), label in zip(self, self.labels.tolist(), strict=True)
        ]
        moment = {} if self.frame is None else {"frame": self.frame, "seconds": self.seconds}
        return {"source": self.source, **moment, "height": self.size[0], "width": self.size[1], "detections": found}

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return the values of `to_dict` as JSON, and write them to a file if there is a path."""
        text = dump_json(self.to_dict(), indent=2, ascii_only=False)
        if path is not None:
            target = to_path(path)
            self._keep_source(target)
            make_folder(target.parent)
            write_file(target, text + "\n")
        return text

    def to_supervision(self) -> Any:
        """Return `supervision.Detections`, with the names as `class_name` in its data."""
        supervision = import_supervision()
        return supervision.Detections(
            xyxy=self.boxes.copy(),
            confidence=self.scores.copy(),
            class_id=self.labels.copy(),
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def _keep_source(self, target: Path) -> None:
        """Refuse to write over the file that the image comes from."""
        origin = self.item.path if isinstance(self.item, FramePlace) else self.source
        if os.path.exists(origin) and target.exists() and os.path.samefile(origin, target):
            raise InputError(f"{str(target)!r} is the source image. Choose another name or folder.")


def save_video(results: Iterable[DetectionResult], path: str | os.PathLike[str], fps: float | None = None) -> Path:
    """Write images with what was found drawn on them as a video, without sound.

    Args:
        results: In order, all of one size; best those of `predict(..., stream=True)`, which are drawn one by one.
        path: Where to: .mp4, .mov, .mkv or .webm.
        fps: Images per second; None to show frames of a video when they were shown there, and others at 25.

    Returns:
        The path.

    Raises:
        InputError: If that is the video that the frames come from, or there is nothing to write.
    """
    if fps is not None and not 0 < fps <= 1000:
        raise InputError(f"fps is {fps!r}; expected a number above 0, at most 1000, or None.")
    path = to_path(path)
    return write_video(path, _draw_all(results, path, fps))


def _draw_all(results: Iterable[DetectionResult], path: Path, fps: float | None) -> Iterator[tuple[Image.Image, float]]:
    for number, result in enumerate(results):
        if number == 0:
            result._keep_source(path)
            timed = fps is None and result.seconds is not None
        seconds = result.seconds if timed and result.seconds is not None else number / (fps or 25)
        yield result.draw(), seconds
