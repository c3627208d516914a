"""What was found, written down for other programs: tables, COCO results, YOLO labels, crops; image by image."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from zoo._text import clean
from zoo.errors import InputError
from zoo.files import make_folder, open_whole, read_lists, write_file
from zoo.tasks.answers import Keep, Saver, writing_json, writing_lines, writing_rows
from zoo.tasks.detection.result import JPEG_QUALITY, DetectionResult

COLUMNS = ("source", "frame", "class", "score", "x1", "y1", "x2", "y2")
CLASSES = "classes.txt"
UNSAFE = re.compile(r'[\x00-\x1f<>:"/\\|?*]|^\.+|[. ]+$')  # in the name of a folder, on any system


def make_savers(classes: Sequence[str], coco_ids: Path | None) -> dict[str, Saver]:
    """Return what writes results, by the names of the command's `--save`.

    Args:
        classes: Names, in the order of the labels.
        coco_ids: A COCO file whose ids of images and categories are to be written.

    Raises:
        InputError: The file cannot be read, or lacks a class.
    """
    return {
        "json": _writing_dicts,
        "csv": _writing_table,
        "coco": partial(_writing_coco, ids=CocoIds(classes, coco_ids)),
        "yolo": partial(_writing_yolo, classes=classes),
        "crops": _writing_crops,
    }


class CocoIds:
    """The ids of images and categories in COCO results.

    Without a file, a category's id is the number of its class plus 1, and an image's id is its name without suffix, as
    a number if it is one: `000000000139.jpg` is 139. An image whose id would be that of another has its path instead.

    Args:
        classes: Names, in the order of the labels.
        file: A COCO file with the ids; images are found by their path, or the end of it.

    Attributes:
        of_classes: The id of each class.

    Raises:
        InputError: The file cannot be read, or lacks a class.
    """

    def __init__(self, classes: Sequence[str], file: Path | None) -> None:
        self.file, self._taken = file, set[Any]()
        self.of_classes: list[Any] = list(range(1, len(classes) + 1))
        if file is None:
            return
        images, categories = _read_ids(file, "images", "file_name"), _read_ids(file, "categories", "name")
        if lacking := [name for name in classes if name not in categories]:
            known = ", ".join(list(categories)[:8]) or "none"
            raise InputError(f"{str(file)!r} has no category {lacking[0]!r}, a class of the model; it has {known}.")
        self.of_classes = [categories[name] for name in classes]
        ends = Counter(PurePosixPath(name).name for name in images)
        self._of_images = {end: key for name, key in images.items() if ends[end := PurePosixPath(name).name] == 1}
        self._of_images |= images

    def find_image(self, result: DetectionResult) -> Any:
        """Return the id of an image.

        Raises:
            InputError: The file does not name it, or gave its id to another one already.
        """
        path = PurePosixPath(Path(result.source if result.frame is None else result.file).as_posix())
        key: Any
        if self.file is None:
            number = int(path.stem) if path.stem.isascii() and path.stem.isdigit() else path.stem
            key = number if number not in self._taken else result.file
        else:
            ends = ("/".join(path.parts[start:]) for start in range(len(path.parts)))
            key = next((self._of_images[end] for end in ends if end in self._of_images), None)
            if key is None or key in self._taken:
                what = "does not name" if key is None else "has only one image for two of yours, one of them is"
                raise InputError(f"{str(self.file)!r} {what} {result.source!r}. Pass the images that it names.")
        self._taken.add(key)
        return key


def _read_ids(file: Path, key: str, name: str) -> dict[str, Any]:
    """Return the ids in a list of a COCO file, by name; ids stay as they are written."""
    try:
        entries = [entry.value for entry in read_lists(file.read_text("utf-8-sig")) if entry.key == key]
        return {str(entry[name]).replace("\\", "/"): entry["id"] for entry in entries if entry != []}
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise InputError(
            f"cannot read the ids in {str(file)!r} ({reason}). Expected a COCO file of annotations."
        ) from None


@contextmanager
def _writing_dicts(path: Path) -> Iterator[Keep]:
    with writing_json(path) as add:
        yield lambda result: add(result.to_dict())


@contextmanager
def _writing_table(path: Path) -> Iterator[Keep]:
    """Write a row for each box."""
    with writing_rows(path, COLUMNS) as add:

        def keep(result: DetectionResult) -> None:
            for found in result.to_dict()["detections"]:
                add([result.source, result.frame, found["name"], found["score"], *found["box"]])

        yield keep


@contextmanager
def _writing_coco(path: Path, ids: CocoIds) -> Iterator[Keep]:
    """Write a list of results, which `COCO.loadRes` of pycocotools reads; one to a line, with all digits."""
    with writing_lines(path) as write:
        begun = False

        def keep(result: DetectionResult) -> None:
            nonlocal begun
            image = ids.find_image(result)
            for label, score, (x1, y1, x2, y2) in zip(
                result.labels.tolist(), result.scores.tolist(), result.boxes.tolist(), strict=True
            ):
                entry = {"image_id": image, "category_id": ids.of_classes[label], "score": score}
                entry |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "file_name": result.file}
                write(("," if begun else "[") + json.dumps(entry))
                begun = True

        try:
            yield keep
        finally:
            if begun:
                write("]")
        if not begun:
            write("[]")


@contextmanager
def _writing_yolo(path: Path, classes: Sequence[str]) -> Iterator[Keep]:
    """Write a label file for each image, empty where nothing was found, and beside their folder the class names."""

    def keep(result: DetectionResult) -> None:
        height, width = result.size
        lines = []
        for label, (x1, y1, x2, y2) in zip(result.labels.tolist(), result.boxes.tolist(), strict=True):
            shares = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
            lines.append(f"{label} " + " ".join(f"{share:.6f}" for share in shares) + "\n")
        file = path / PurePosixPath(result.file).with_suffix(".txt")
        make_folder(file.parent)
        write_file(file, "".join(lines))

    make_folder(path)
    write_file(path.parent / CLASSES, "".join(f"{clean(name)}\n" for name in classes))
    yield keep


@contextmanager
def _writing_crops(path: Path) -> Iterator[Keep]:
    """Write what is in each box as an image of its own, in a folder for its class."""

    def keep(result: DetectionResult) -> None:
        if not len(result):
            return
        image, named = result.image, PurePosixPath(result.file)
        kind = Image.registered_extensions()[named.suffix.lower()]
        for number, (name, _, (x1, y1, x2, y2)) in enumerate(result, 1):
            file = path / (UNSAFE.sub("_", name) or "_") / named.with_stem(f"{named.stem}-{number}")
            make_folder(file.parent)
            with open_whole(file) as target:
                crop = image.crop((math.floor(x1), math.floor(y1), math.ceil(x2), math.ceil(y2)))
                crop.save(target, kind, quality=JPEG_QUALITY, subsampling=0)

    make_folder(path)
    yield keep
