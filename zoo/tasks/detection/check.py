"""Boxes held against their images: every image is decoded once, and everything odd becomes a finding.

What cannot be used is left out or repaired here, and each time a finding says so.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from zoo.data import LYING, check_installed, find_near_duplicates
from zoo.tasks.detection.annotations import Annotated, BoxSource, BoxSplit, Finding, Floats, Key
from zoo.tasks.detection.boxes import pairwise_iou
from zoo.tasks.detection.images import BoxedImages, Boxes
from zoo.tasks.detection.looks import UPRIGHT, Look, look_at_all
from zoo.tasks.detection.report import LEVELS, BoxReport, SplitCounts

SMALLEST_SIDE = 1.0  # pixels; boxes that are not wider and higher than this have no area worth learning
ROUNDING = 0.5  # pixels that a box may reach out of its image before that is worth a word
SAME_OBJECT = 0.8  # intersection over union from which two boxes of a class are likely on one thing
BOXES_AT_A_TIME = 256  # of one image, whose overlap with all others is computed
NEARLY_ALL = 0.95  # share of the images that have a class, from which one without it is odd
FEW_IMAGES = 20  # fewer than these say nothing of what nearly all have
MANY_BOXES = 10  # reaching out of their images, fewer of which say nothing of the unit
MANY_OUTSIDE = 0.2  # share of boxes that reach out of their images, from which the unit is doubtful
MOST_FOUND = 300  # boxes that detectors return of an image at most, unless told otherwise
DARK = 16  # of 255: the brightest that an image may be to be almost black

OnProgress = Callable[[int, int], None]


def check_boxes(
    source: BoxSource,
    class_map: tuple[tuple[Key, str], ...],
    classes: tuple[str, ...],
    *,
    check: bool = True,
    on_progress: OnProgress | None = None,
) -> tuple[dict[str, BoxedImages], BoxReport]:
    """Look at every image once, and hold its boxes against it.

    Args:
        source: What the annotations say.
        class_map: What the annotations call each class, and its name.
        classes: Names in the order of the class numbers.
        check: Whether images are decoded; else only their size is read, and nothing is compared.
        on_progress: Called with the number of images seen and of all.

    Returns:
        The images that can be used with the boxes that can, by split, and what was found. Boxes are clipped to their
        image.
    """
    if check:
        check_installed()
    numbers = {key: classes.index(name) for key, name in class_map}
    total, done = sum(len(split.images) for split in source.splits.values()), 0

    def count(pictures: int) -> None:
        nonlocal done
        done += pictures
        if on_progress:
            on_progress(done, total)

    findings = list(source.findings)
    images: dict[str, BoxedImages] = {}
    looks: dict[str, list[Look]] = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # what it warns of either reads well or becomes a fault
        for name, split in source.splits.items():
            seen = list(look_at_all(split, check=check, count=count))
            images[name], found = _match(split, seen, numbers, classes)
            looks[name] = [seen[position] for position in images[name].positions]
            findings += found
    findings += _find_doubtful_unit(findings, images)
    findings += _find_missing_classes(images, classes)
    findings += _find_gaps(images, classes)
    if check:
        findings += _find_same_images(images, looks)
        findings += _find_similar_images(images, looks)
    findings.sort(key=lambda finding: LEVELS.index(finding.level))
    counts = {name: _count(part, len(classes)) for name, part in images.items()}
    return images, BoxReport(source.where, source.form, classes, class_map, counts, tuple(findings))


def _match(
    split: BoxSplit, looks: Sequence[Look], numbers: Mapping[Key, int], classes: tuple[str, ...]
) -> tuple[BoxedImages, list[Finding]]:
    """Hold the boxes of each image against its size."""
    findings: list[Finding] = []
    good: list[int] = []
    boxes: list[Boxes] = []
    for position, (annotated, look) in enumerate(zip(split.images, looks, strict=True)):
        if look.fault is not None:
            text = f"{look.fault}; the image is skipped"
            findings.append(Finding("unreadable images", "error", split.name, annotated.name, None, text))
            continue
        sheet = _Sheet(annotated, split.name, look, classes)
        clean = sheet.clean(np.array([numbers[key] for key in annotated.keys], dtype=np.int64))
        findings += sheet.findings
        if clean is not None:
            good.append(position)
            boxes.append(clean)
    names = tuple(split.images[position].name for position in good)
    sizes = tuple(looks[position].size for position in good)
    return BoxedImages(split.reader, names, sizes, tuple(boxes), tuple(good)), findings


class _Sheet:
    """The boxes of one image while they are checked; collects what is found."""

    def __init__(self, annotated: Annotated, split: str, look: Look, classes: tuple[str, ...]) -> None:
        self.annotated, self.split, self.look, self.classes = annotated, split, look, classes
        self.size = look.size
        self.findings: list[Finding] = []

    def clean(self, labels: NDArray[np.int64]) -> Boxes | None:
        """Return the boxes that can be used, clipped to the image; None if the image must not be used.

        An image whose annotations are not all known would teach that the things in it are background.
        """
        self._compare_size()
        self._look_at_light()
        written, crowd = self.annotated.boxes, self.annotated.crowd
        height, width = self.size
        pixels = written * np.array([width, height] * 2) if self.annotated.is_relative else written
        if lost := self.annotated.lost + self._find_swapped(pixels, labels) + self._find_shares(pixels, labels):
            total = self.annotated.lost + len(labels)
            text = f"{lost:,} of its {total:,} annotations are invalid; the image is skipped"
            self._tell("images with invalid annotations", text, None)
            return None
        clipped = np.clip(pixels, 0, np.array([width, height] * 2))
        kept = self._drop_useless(pixels, clipped, labels)
        kept = self._drop_repeated(kept, clipped, labels)
        self._find_pairs(kept[~crowd[kept]], clipped, labels)
        if not len(kept) and len(labels):
            text = "all its boxes are invalid; the image is skipped, since it would be trained as an empty image"
            self._tell("images without a valid box", text, None)
            return None
        if not len(kept):
            self._tell("images without boxes", "it has no boxes; it is trained as an empty image", None)
        if len(kept) > MOST_FOUND:
            text = f"{len(kept):,} boxes; detectors return at most {MOST_FOUND} per image, so some cannot be detected"
            self._tell("images with very many boxes", text, None, "note")
        return Boxes(clipped[kept].astype(np.float32), labels[kept], crowd[kept])

    def _compare_size(self) -> None:
        """Tell sizes that differ, and images that were turned if nothing proves that their boxes were, too."""
        stated, (height, width), turned = self.annotated.size, self.size, self.look.orientation
        if stated is not None and stated != self.size:
            text = f"the annotation says {stated[1]} x {stated[0]} pixels, the image has {width} x {height}"
            if stated == (width, height) and turned in LYING:
                text += " because of its EXIF orientation; check whether the boxes are rotated too"
            else:
                text += "; check whether the boxes fit"
            self._tell("images with a different size than annotated", text, None)
        elif turned != UPRIGHT and len(self.annotated.keys) and not (stated and height != width and turned in LYING):
            text = f"it has EXIF orientation {turned}; boxes are assumed to refer to the rotated image"
            self._tell("images with an EXIF orientation", text, None, "note")

    def _look_at_light(self) -> None:
        if self.look.remark or self.look.brightest <= DARK:
            text = self.look.remark or f"its brightest value is {self.look.brightest} of 255"
            self._tell("images that are almost black", text, None)

    def _find_swapped(self, pixels: Floats, labels: NDArray[np.int64]) -> int:
        """Return how many boxes have a negative width or height; where they are cannot be known."""
        swapped = np.flatnonzero((pixels[:, 2:] < pixels[:, :2]).any(axis=1)).tolist()
        for index in swapped:
            text = f"{self._name(index, pixels, labels)}; expected a width and a height of 0 or more"
            self._tell("boxes with negative width or height", text, index, "error")
        return len(swapped)

    def _find_shares(self, pixels: Floats, labels: NDArray[np.int64]) -> int:
        """Return how many boxes seem to be shares of the image's sides, where pixels are expected: all or none."""
        sides = pixels[:, 2:] - pixels[:, :2]
        if self.annotated.is_relative or not len(sides) or not ((sides > 0).all(axis=1)).any():
            return 0
        if sides.min() < 0 or sides.max() > 1 or pixels.min() < 0 or pixels.max() > 2:
            return 0
        text = f"{self._name(0, pixels, labels)}; all boxes of the image seem to be relative (0 to 1)"
        self._tell("boxes in relative coordinates", f"{text}; expected pixels", 0, "error")
        return len(sides)

    def _drop_useless(self, pixels: Floats, clipped: Floats, labels: NDArray[np.int64]) -> NDArray[np.intp]:
        """Return the indices of boxes with an area inside of the image."""
        flat = np.asarray((pixels[:, 2:] - pixels[:, :2] <= SMALLEST_SIDE).any(axis=1))
        outside = (clipped[:, 2:] - clipped[:, :2] < SMALLEST_SIDE).any(axis=1) & ~flat
        beyond = (np.abs(pixels - clipped) > ROUNDING).any(axis=1) & ~flat & ~outside
        height, width = self.size
        for index in np.flatnonzero(flat | outside | beyond).tolist():
            box = self._name(index, pixels, labels)
            if flat[index]:
                self._tell("boxes without area", f"{box}; skipped", index)
            elif outside[index]:
                text = f"{box}, in an image of {width} x {height} pixels; skipped"
                self._tell("boxes outside the image", text, index)
            else:
                text = f"{box}, in an image of {width} x {height} pixels; clipped to it"
                self._tell("boxes partly outside the image", text, index)
        return np.flatnonzero(~(flat | outside))

    def _drop_repeated(self, kept: NDArray[np.intp], boxes: Floats, labels: NDArray[np.int64]) -> NDArray[np.intp]:
        """Leave out what is there twice."""
        first: dict[tuple[float, ...], int] = {}
        repeated: set[int] = set()
        for index in kept.tolist():
            other = first.setdefault(tuple(boxes[index].tolist()), index)
            if other == index:
                continue
            box = self._name(index, boxes, labels)
            if labels[other] == labels[index]:
                repeated.add(index)
                self._tell("duplicate boxes", f"{box}, a duplicate; skipped", index)
            else:
                text = f"{box}, identical to a {self.classes[labels[other]]!r} box; both are kept"
                self._tell("identical boxes of different classes", text, index)
        return kept if not repeated else np.array([index for index in kept.tolist() if index not in repeated], np.intp)

    def _find_pairs(self, kept: NDArray[np.intp], boxes: Floats, labels: NDArray[np.int64]) -> None:
        """Find boxes that are likely on one thing with one of their class before them."""
        for start in range(0, len(kept), BOXES_AT_A_TIME):
            part = kept[start : start + BOXES_AT_A_TIME]
            before = kept[: start + len(part)]
            overlap = pairwise_iou(boxes[part], boxes[before])
            overlap[(labels[part][:, None] != labels[before]) | (part[:, None] <= before)] = 0
            best = overlap.argmax(axis=1)
            for row in np.flatnonzero(overlap.max(axis=1) >= SAME_OBJECT).tolist():
                other, line = before[best[row]], self.annotated.lines[before[best[row]]]
                where = f" on line {line}" if line else ""
                where = f", {self.annotated.ids[other]}," if self.annotated.ids else where
                box = self._name(int(part[row]), boxes, labels)
                text = f"{box}, overlaps the one{where} with an IoU of {overlap[row, best[row]]:.2f}; both are kept"
                self._tell("near-duplicate boxes", text, int(part[row]))

    def _name(self, index: int, boxes: Floats, labels: NDArray[np.int64]) -> str:
        x1, y1, x2, y2 = boxes[index].tolist()
        text = f"{self.classes[labels[index]]!r} at x {x1:.4g} to {x2:.4g}, y {y1:.4g} to {y2:.4g}"
        if self.annotated.ids:
            text += f" ({self.annotated.ids[index]} of {self.annotated.name})"
        return text

    def _tell(
        self, kind: str, text: str, index: int | None, level: Literal["error", "warning", "note"] = "warning"
    ) -> None:
        file, line = self.annotated.name, None
        if index is not None:
            file, line = self.annotated.file or file, self.annotated.lines[index]
        self.findings.append(Finding(kind, level, self.split, file, line, text))


def _find_doubtful_unit(findings: Sequence[Finding], images: Mapping[str, BoxedImages]) -> list[Finding]:
    """Say so if so many boxes reach out of their images that they are hardly counted as we take them."""
    lost = sum(finding.kind == "boxes outside the image" for finding in findings)
    out = lost + sum(finding.kind == "boxes partly outside the image" for finding in findings)
    total = lost + sum(len(boxes.labels) for part in images.values() for boxes in part.boxes)
    if out < MANY_BOXES or out <= MANY_OUTSIDE * total:
        return []
    text = (
        f"{out / total:.0%} of all boxes extend beyond their images; perhaps they use other coordinates than the "
        "format expects (corners instead of width and height), or belong to images of a different size"
    )
    return [Finding("boxes in doubtful coordinates", "warning", "", "", None, text)]


def _find_missing_classes(images: Mapping[str, BoxedImages], classes: tuple[str, ...]) -> list[Finding]:
    """Find images without a class that nearly all others have: most likely nobody has marked it there."""
    marked = [(split, part.names[i], set(boxes.labels.tolist())) for split, part in images.items()
              for i, boxes in enumerate(part.boxes) if len(boxes.labels)]  # fmt: skip
    if len(marked) < FEW_IMAGES:
        return []
    findings: list[Finding] = []
    for number, label in enumerate(classes):
        without = [(split, name) for split, name, labels in marked if number not in labels]
        share = 1 - len(without) / len(marked)
        if share >= NEARLY_ALL:
            text = f"it has no {label!r} box, unlike {share:.0%} of the images: possibly a missing label"
            kind = f"images without {label!r} boxes"
            findings += [Finding(kind, "note", split, name, None, text) for split, name in without]
    return findings


def _find_same_images(images: Mapping[str, BoxedImages], looks: Mapping[str, Sequence[Look]]) -> list[Finding]:
    """Find files of the same bytes."""
    first: dict[bytes, tuple[str, str]] = {}
    findings: list[Finding] = []
    for split, part in images.items():
        for name, look in zip(part.names, looks[split], strict=True):
            if look.content not in first:
                first[look.content] = split, name
                continue
            other_split, other = first[look.content]
            if split == other_split:
                findings.append(
                    Finding("duplicate images", "warning", split, name, None, f"it is identical to {other}")
                )
            else:
                text = f"it is identical to {other} in {other_split}, which inflates the score"
                findings.append(Finding("duplicate images in two splits", "warning", split, name, None, text))
    return findings


def _find_similar_images(images: Mapping[str, BoxedImages], looks: Mapping[str, Sequence[Look]]) -> list[Finding]:
    """Find images that look almost the same, but are not the same file: in two splits, or in the only one."""
    hashes = {split: np.array([look.hash for look in seen], np.uint64) for split, seen in looks.items()}
    pairs = list(combinations(images, 2)) or [(split, split) for split in images]
    findings: list[Finding] = []
    for first, second in pairs:
        alone = first == second
        kind = "near-duplicate images" if alone else "near-duplicate images in two splits"
        for near in find_near_duplicates(hashes[second], None if alone else hashes[first]):
            if looks[second][near.place].content == looks[first][near.other].content:
                continue
            name, other = images[second].names[near.place], images[first].names[near.other]
            text = f"it looks like {other}{f' of {first}' * (not alone)} ({near.distance} of 64 bits differ)"
            findings.append(Finding(kind, "warning", second, name, None, text))
    return findings


def _find_gaps(images: Mapping[str, BoxedImages], classes: tuple[str, ...]) -> list[Finding]:
    """Find classes that a split lacks."""
    findings: list[Finding] = []
    for split, part in images.items():
        what = "the class cannot be trained" if split == "train" else "the class cannot be evaluated"
        for name, count in zip(classes, part.count_boxes(len(classes)), strict=True):
            if not count:
                text = f"{name!r} has no box in {split}; {what}"
                findings.append(Finding("classes without a box", "warning", split, split, None, text))
    return findings


def _count(images: BoxedImages, classes: int) -> SplitCounts:
    present = [np.unique(boxes.learnable().labels) for boxes in images.boxes]
    images_with = np.bincount(np.concatenate([*present, np.zeros(0, np.int64)]), minlength=classes)
    return SplitCounts(len(images), tuple(images.count_boxes(classes)), tuple(images_with.tolist()))
