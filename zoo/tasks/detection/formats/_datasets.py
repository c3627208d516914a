"""Data sets that give images with boxes: torch data sets and Hugging Face data sets, each read once for its boxes.

The library `datasets` is never imported; its objects are known by what they can do.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data import ColumnReader, known_classes, plain_name, rename_splits
from zoo.errors import DataError, InputError
from zoo.tasks.detection.annotations import Annotated, BoxSource, BoxSplit, Finding, ImageReader, Key
from zoo.tasks.detection.formats._marks import BOX_KEYS, CROWD_KEYS, LABEL_KEYS, Marks, describe, find_key, parse_marks
from zoo.tasks.detection.formats._table import BoxTable, settle_form

SAMPLE = (
    "expected (image, {'boxes': (N, 4) x1, y1, x2, y2 in pixels, 'labels': (N,) class numbers}) or "
    "(image, boxes, labels)"
)


@dataclass(frozen=True)
class _Part:
    """One split, before the classes of all splits are known."""

    split: BoxSplit
    classes: tuple[str, ...] | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class SampleImages:
    """Reads the images of a torch data set."""

    dataset: Any
    positions: tuple[int, ...]

    def __call__(self, position: int, /) -> Any:
        """Return the image of a sample."""
        return _take(self.dataset, self.positions[position])[0]


@dataclass(frozen=True)
class ColumnImages:
    """Reads the images of a Hugging Face data set, still encoded where they are files."""

    column: ColumnReader
    positions: tuple[int, ...]

    def __call__(self, position: int, /) -> Any:
        """Return the image of a row."""
        return self.column(self.positions[position])[0]


def read_box_datasets(source: Any) -> BoxSource:
    """Read the boxes of data sets.

    Args:
        source: A data set, a pair `(train, val)` of them (val may be None), or a mapping of splits. A data set has
            `len()` and gives samples by index: `(image, target)` where target is a mapping with `boxes`, `(N, 4)`
            x1, y1, x2, y2 in pixels of the image, and `labels`, `(N,)` class numbers or names; or
            `(image, boxes, labels)`. Or it is a Hugging Face data set with an image column and a column `objects`
            with `bbox`, x, y, width, height in pixels, and `category` or `label`; these two may be columns of their
            own. A field `boxes` holds x1, y1, x2, y2, unless its boxes contradict it. Names of the class numbers are
            taken from `classes` of the data set, or from its column; else they are the numbers.

    Returns:
        What was read. A sample or box that cannot be used is an error among its findings, and left out; an image
        with such a box says so (`Annotated.lost`).

    Raises:
        DataError: If it is none of these, no sample of a split can be used, or the splits number classes differently.
    """
    datasets = _find_splits(source)
    tables = {name: BoxTable(dataset, _say(name)) for name, dataset in datasets.items() if _is_table(dataset)}
    findings = settle_form(tables)
    parts = {name: _read_split(dataset, name, tables.get(name)) for name, dataset in datasets.items()}
    names = _join_names(parts)
    findings += _tell_same_names(names)
    ready = [_leave_out_unnamed(part, names) for part in parts.values()]
    kind = type(next(iter(datasets.values()))).__name__
    findings += [finding for part in ready for finding in part.findings]
    splits = {part.split.name: part.split for part in ready}
    return BoxSource(f"data set {kind}", "data set", splits, names, tuple(findings))


def _find_splits(source: Any) -> dict[str, Any]:
    """Return the data sets by split: `train`, `val`, `test`, or `all`."""
    from zoo.data import is_loader

    if isinstance(source, Mapping):
        datasets = rename_splits(source)
    elif isinstance(source, (tuple, list)) and len(source) == 2 and not any(map(_is_sample, source)):
        datasets = {name: part for name, part in zip(("train", "val"), source, strict=True) if part is not None}
    else:
        datasets = {"all": source}
    if not datasets:
        raise DataError("the data is (None, None); expected a data set for train, for val, or both.")
    for name, dataset in datasets.items():
        if isinstance(dataset, (str, os.PathLike)):
            raise DataError(
                f"{_say(name)} is the path {os.fspath(dataset)!r}; expected a data set. Pass the folder that holds all "
                "splits instead of a pair."
            )
        if is_loader(dataset):
            raise DataError(
                f"{_say(name)} is a loader or stream ({type(dataset).__name__}), whose samples cannot be indexed; "
                "expected a data set with len() and integer indexing. Pass loader.dataset."
            )
        if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
            raise DataError(
                f"{_say(name)} is of type {type(dataset).__name__}; expected a folder, or a data set with len() and "
                "integer indexing."
            )
        if not len(dataset):
            raise DataError(f"{_say(name)} has no samples; expected one or more.")
    return datasets


def _is_sample(part: Any) -> bool:
    """Tell a sample from a data set, in a list of two."""
    return isinstance(part, tuple) and len(part) == 2 and isinstance(part[1], Mapping)


def _is_table(dataset: Any) -> bool:
    return hasattr(dataset, "features") and hasattr(dataset, "column_names")


def _read_split(dataset: Any, name: str, table: BoxTable | None) -> _Part:
    """Read the boxes of every sample, and leave out unreadable samples."""
    rows = table.read() if table else _read_samples(dataset)
    short = _say(name).removeprefix("the ")
    positions: list[int] = []
    images: list[Annotated] = []
    findings: list[Finding] = []
    for position, marks in enumerate(rows):
        place = f"{short}[{position}]"
        if isinstance(marks, str):
            kind = "unreadable samples"
            findings.append(Finding(kind, "error", name, place, None, f"{marks}; the sample is skipped"))
            continue
        finite = np.asarray(np.isfinite(marks.boxes).all(axis=1))
        for index in np.flatnonzero(~finite).tolist():
            text = f"the box {marks.boxes[index].tolist()} is not finite; skipped"
            findings.append(Finding("boxes that are not finite", "error", name, place, None, text))
        positions.append(position)
        images.append(_annotate(place, _choose(marks, finite), lost=int((~finite).sum())))
    if not images:
        raise DataError(f"no sample of {_say(name)} is usable. The first one, {findings[0].file}: {findings[0].text}")
    is_sides = table is not None and table.written == "XYWH"
    _check_unit(images, _say(name), "x, y, width, height" if is_sides else "x1, y1, x2, y2")
    if table:
        reader: ImageReader = ColumnImages(table.images, tuple(positions))
        return _Part(BoxSplit(name, reader, tuple(images), table.is_encoded), table.classes, tuple(findings))
    reader = SampleImages(dataset, tuple(positions))
    return _Part(BoxSplit(name, reader, tuple(images)), known_classes(dataset), tuple(findings))


def _read_samples(dataset: Any) -> Iterator[Marks | str]:
    """Yield the boxes of each sample of a torch data set, or why it cannot be read."""
    for position in range(len(dataset)):
        try:
            yield _take(dataset, position)[1]
        except InputError as error:
            yield str(error)


def _take(dataset: Any, position: int) -> tuple[Any, Marks]:
    """Return image and boxes of a sample."""
    try:
        sample = dataset[position]
    except Exception as error:
        raise InputError(f"the data set raised {type(error).__name__}: {error}") from error
    if not isinstance(sample, (tuple, list)) or len(sample) not in (2, 3):
        raise InputError(f"it is {describe(sample)}; {SAMPLE}")
    if len(sample) == 3:
        return sample[0], parse_marks(sample[1], sample[2], None)
    target = sample[1]
    if not isinstance(target, Mapping):
        hint = ". Wrap it: torchvision.datasets.wrap_dataset_for_transforms_v2(dataset)" * isinstance(target, list)
        raise InputError(f"its target is {describe(target)}; {SAMPLE}{hint}")
    if target.keys() <= {"image_id"}:  # torchvision's, of an image without boxes
        return sample[0], parse_marks([], [], None)
    boxes, labels = (find_key(target, keys) for keys in (BOX_KEYS[2:3], LABEL_KEYS[2:4]))
    if boxes is None or labels is None:
        raise InputError(f"its target is {describe(target)}; {SAMPLE}")
    crowd = find_key(target, CROWD_KEYS)
    return sample[0], parse_marks(target[boxes], target[labels], None if crowd is None else target[crowd])


def _choose(marks: Marks, wanted: NDArray[np.bool_]) -> Marks:
    keys = tuple(key for key, keep in zip(marks.keys, wanted.tolist(), strict=True) if keep)
    return marks._replace(boxes=marks.boxes[wanted], keys=keys, crowd=marks.crowd[wanted])


def _annotate(place: str, marks: Marks, lost: int) -> Annotated:
    lines = (None,) * len(marks.keys)
    return Annotated(place, marks.boxes, marks.keys, lines, marks.crowd, size=marks.size, lost=lost)


def _check_unit(images: Sequence[Annotated], name: str, expected: str) -> None:
    """Refuse shares of the image: as pixels, all of them would be without area."""
    filled = [image.boxes for image in images if len(image.boxes)]
    if filled and max(np.abs(boxes).max() for boxes in filled) <= 1:
        raise DataError(
            f"the boxes of {name} are between 0 and 1, so they are relative; expected {expected} in pixels. Multiply "
            "them by the width and height of each image."
        )


def _join_names(parts: Mapping[str, _Part]) -> dict[Key, str]:
    """Return the name of each class by its key, over all splits."""
    known = {name: part.classes for name, part in parts.items() if part.classes}
    if len(set(known.values())) > 1:
        listed = "; ".join(f"{_say(name)} {', '.join(classes[:5])}" for name, classes in known.items())
        raise DataError(f"the splits have different class lists: {listed}. Expected the same list for all.")
    used = {key for part in parts.values() for image in part.split.images for key in image.keys}
    kinds = {type(key) for key in used}
    if len(kinds) > 1:
        raise DataError("the labels mix numbers and names; expected one kind.")
    texts = sorted(key for key in used if isinstance(key, str))
    if known:
        classes = next(iter(known.values()))
        plain = {plain_name(name): name for name in reversed(classes)}
        alike = [key for key in texts if key not in classes and plain_name(key) in plain]
        if texts:
            return {key: plain.get(plain_name(key), key) for key in (*classes, *alike)}
        return dict(enumerate(classes))
    numbers = sorted(key for key in used if isinstance(key, int) and key >= 0)
    return {key: str(key) for key in numbers} or {key: plain_name(key) or key for key in texts}


def _tell_same_names(names: Mapping[Key, str]) -> list[Finding]:
    """Tell labels that differ by blanks or Unicode form alone."""
    alike: dict[str, list[str]] = {}
    for key, name in names.items():
        if isinstance(key, str):
            alike.setdefault(name, []).append(repr(key))
    return [
        Finding(
            "labels with the same name", "warning", "", "", None, f"{' and '.join(keys)} are the same class, {name!r}"
        )
        for name, keys in alike.items()
        if len(keys) > 1
    ]


def _leave_out_unnamed(part: _Part, names: Mapping[Key, str]) -> _Part:
    """Leave out boxes whose class has no name, and say so."""
    images: list[Annotated] = []
    findings = list(part.findings)
    for image in part.split.images:
        wanted = np.array([key in names for key in image.keys], bool)
        for index in np.flatnonzero(~wanted).tolist():
            text = f"box {index} has the class {image.keys[index]!r}; expected {_span(names)}; skipped"
            findings.append(Finding("boxes with an unknown class", "error", part.split.name, image.name, None, text))
        marks = _choose(Marks(image.boxes, image.keys, image.crowd, image.size), wanted)
        images.append(_annotate(image.name, marks, lost=image.lost + int((~wanted).sum())))
    return replace(part, split=replace(part.split, images=tuple(images)), findings=tuple(findings))


def _span(names: Mapping[Key, str]) -> str:
    if list(names) == list(range(len(names))):
        return f"0 to {len(names) - 1:,}"
    return f"one of {', '.join(map(repr, list(names)[:10]))}{', ...' * (len(names) > 10)}"


def _say(split: str) -> str:
    return "the data" if split == "all" else split
