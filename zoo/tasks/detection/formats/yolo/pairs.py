"""Which label file belongs to which image: in `labels` in place of `images`, or beside it, whatever the case."""

import os
from pathlib import Path

from zoo.errors import InputError
from zoo.files import AnyCase, fold
from zoo.tasks.detection.formats._files import IMAGE_SUFFIXES, read_ends
from zoo.tasks.detection.formats.yolo.labels import is_label_line

IMAGE_FOLDERS = ("images", "jpegimages")  # in lower case; beside each may be a folder `labels`
LABELS = "labels"
TXT = frozenset({".txt"})
LINE_BYTES = 10_000  # of a text that may be labels


class Pairs:
    """Finds the label file of an image, and whether a label file has an image."""

    def __init__(self) -> None:
        self.any_case = AnyCase()
        self._stems: dict[Path, frozenset[str]] = {}

    def find_label(self, image: Path) -> Path | None:
        """Return the label file of an image; None if there is none."""
        return next((label for path in expect_labels(image) if (label := self.any_case.find_file(path))), None)

    def find_label_folder(self, folder: Path) -> Path | None:
        """Return the folder for the labels of a folder of images, if it is another one and there."""
        swapped = _swap(folder)
        return self.any_case.find_folder(swapped) if swapped else None

    def has_image(self, label: Path) -> bool:
        """Tell whether there is an image that a label file belongs to."""
        parts = label.parts
        places = [place for place in range(1, len(parts) - 1) if parts[place].casefold() == LABELS][-1:]
        swapped = [Path(*parts[:at], name, *parts[at + 1 : -1]) for at in places for name in IMAGE_FOLDERS]
        folders = [label.parent, *filter(None, map(self.any_case.find_folder, swapped))]
        return any(fold(label.stem) in self._list_stems(folder) for folder in folders)

    def _list_stems(self, folder: Path) -> frozenset[str]:
        if folder not in self._stems:
            split = map(os.path.splitext, self.any_case.list_names(folder))
            stems = frozenset(fold(stem) for stem, suffix in split if suffix.lower() in IMAGE_SUFFIXES)
            self._stems[folder] = stems
        return self._stems[folder]


def expect_labels(image: Path) -> list[Path]:
    """Return where the label file of an image may be, the likelier place first."""
    beside = image.with_suffix(".txt")
    return [path for path in (_swap(beside), beside) if path]


def is_label_file(path: Path) -> bool:
    """Tell whether the first line of a text is one of a label file."""
    try:
        lines = read_ends(path, LINE_BYTES)[0].decode("utf-8-sig", "replace").splitlines()
    except InputError:
        return False
    return is_label_line(next(filter(str.strip, lines), ""))


def _swap(path: Path) -> Path | None:
    """Return the path with its last folder for images replaced by that for labels; None if it has none."""
    for place in range(len(path.parts) - 1, 0, -1):
        if path.parts[place].casefold() in IMAGE_FOLDERS:
            return Path(*path.parts[:place], LABELS, *path.parts[place + 1 :])
    return None
