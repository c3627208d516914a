"""Data sets that give pictures with boxes: torch data sets and Hugging Face data sets, each read once for its boxes.

The library `datasets` is never imported; its objects are known by what they can do.
"""

import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zoo.annotations import Annotated, BoxSource, BoxSplit, Finding, Floats, Key, PictureReader, no_boxes
from zoo.errors import DataError, InputError
from zoo.image_folder import rename_splits
from zoo.sources import IMAGE_COLUMNS, ColumnReader, known_classes

OBJECT_COLUMNS = ("objects", "object", "annotations")
BOX_KEYS = ("bbox", "bboxes", "boxes", "box")
LABEL_KEYS = ("category", "categories", "label", "labels", "category_id", "class", "classes")
CROWD_KEYS = ("iscrowd", "is_crowd", "crowd")
SAMPLE = (
    "expected (picture, {'boxes': (N, 4) x1, y1, x2, y2 in pixels, 'labels': (N,) class numbers}) or "
    "(picture, boxes, labels)"
)


class _Marks(NamedTuple):
    """The boxes of one sample."""

    boxes: Floats  # (N, 4) x1, y1, x2, y2
    keys: tuple[Key, ...]
    crowd: NDArray[np.bool_]
    size: tuple[int, int] | None = None  # height and width that the sample states


@dataclass(frozen=True)
class _Part:
    """One split, before the classes of all splits are known."""

    split: BoxSplit
    classes: tuple[str, ...] | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class SamplePictures:
    """Reads the pictures of a torch data set."""

    dataset: Any
    positions: tuple[int, ...]

    def __call__(self, position: int, /) -> Any:
        """Return the picture of a sample."""
        return _take(self.dataset, self.positions[position])[0]


@dataclass(frozen=True)
class ColumnPictures:
    """Reads the pictures of a Hugging Face data set, still encoded where they are files."""

    column: ColumnReader
    positions: tuple[int, ...]

    def __call__(self, position: int, /) -> Any:
        """Return the picture of a row."""
        return self.column(self.positions[position])[0]


def read_box_datasets(source: Any) -> BoxSource:
    """Read the boxes of data sets.

    Args:
        source: A data set, a pair `(train, val)` of them (val may be None), or a mapping of splits. A data set has
            `len()` and gives samples by index: `(picture, target)` where target is a mapping with `boxes`, `(N, 4)`
            x1, y1, x2, y2 in pixels of the picture, and `labels`, `(N,)` class numbers or names; or
            `(picture, boxes, labels)`. Or it is a Hugging Face data set with an image column and a column `objects`
            with `bbox`, x, y, width, height in pixels, and `category` or `label`. Names of the class numbers are
            taken from `classes` of the data set, or from its column; else they are the numbers.

    Returns:
        What was read. A sample or box that cannot be used is an error among its findings, and left out; a picture
        with such a box says so (`Annotated.lost`).

    Raises:
        DataError: If it is none of these, no sample of a split can be used, or the splits number classes differently.
    """
    datasets = _find_splits(source)
    parts = {name: _read_split(dataset, name) for name, dataset in datasets.items()}
    names = _join_names(parts)
    ready = [_leave_out_unnamed(part, names) for part in parts.values()]
    kind = type(next(iter(datasets.values()))).__name__
    findings = tuple(finding for part in ready for finding in part.findings)
    return BoxSource(f"data set {kind}", "data set", {part.split.name: part.split for part in ready}, names, findings)


def _find_splits(source: Any) -> dict[str, Any]:
    """Return the data sets by split: `train`, `val`, `test`, or `all`."""
    from zoo.user_loaders import is_loader  # it loads torch, which a folder does not need

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
                f"{_say(name)} is a loader or stream ({type(dataset).__name__}), whose samples cannot be taken by "
                "index; expected a data set with len() that gives samples by index. Pass loader.dataset."
            )
        if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
            raise DataError(
                f"{_say(name)} is of the type {type(dataset).__name__}; expected a folder, or a data set with len() "
                "that gives samples by index."
            )
        if not len(dataset):
            raise DataError(f"{_say(name)} has no samples; expected one or more.")
    return datasets


def _is_sample(part: Any) -> bool:
    """Tell a sample from a data set, in a list of two."""
    return isinstance(part, tuple) and len(part) == 2 and isinstance(part[1], Mapping)


def _read_split(dataset: Any, name: str) -> _Part:
    """Read the boxes of every sample, and leave out samples that cannot be read."""
    is_table = hasattr(dataset, "features") and hasattr(dataset, "column_names")
    table = _Table(dataset, name) if is_table else None
    rows = table.read() if table else _read_samples(dataset)
    short = _say(name).removeprefix("the ")
    positions: list[int] = []
    images: list[Annotated] = []
    findings: list[Finding] = []
    for position, marks in enumerate(rows):
        place = f"{short}[{position}]"
        if isinstance(marks, str):
            kind = "samples that cannot be read"
            findings.append(Finding(kind, "error", name, place, None, f"{marks}; the sample is left out"))
            continue
        finite = np.asarray(np.isfinite(marks.boxes).all(axis=1))
        for index in np.flatnonzero(~finite).tolist():
            text = f"the box {marks.boxes[index].tolist()} has no place; left out"
            findings.append(Finding("boxes that are no numbers", "error", name, place, None, text))
        positions.append(position)
        images.append(_annotate(place, _choose(marks, finite), lost=int((~finite).sum())))
    if not images:
        raise DataError(f"no sample of {_say(name)} can be used. The first one, {findings[0].file}: {findings[0].text}")
    _check_unit(images, _say(name), "x, y, width, height" if table else "x1, y1, x2, y2")
    if table:
        reader: PictureReader = ColumnPictures(table.pictures, tuple(positions))
        return _Part(BoxSplit(name, reader, tuple(images), table.is_encoded), table.classes, tuple(findings))
    reader = SamplePictures(dataset, tuple(positions))
    return _Part(BoxSplit(name, reader, tuple(images)), known_classes(dataset), tuple(findings))


def _read_samples(dataset: Any) -> Iterator[_Marks | str]:
    """Yield the boxes of each sample of a torch data set, or why it cannot be read."""
    for position in range(len(dataset)):
        try:
            yield _take(dataset, position)[1]
        except InputError as error:
            yield str(error)


def _take(dataset: Any, position: int) -> tuple[Any, _Marks]:
    """Return picture and boxes of a sample."""
    try:
        sample = dataset[position]
    except Exception as error:
        raise InputError(f"the data set raised {type(error).__name__}: {error}") from error
    if not isinstance(sample, (tuple, list)) or len(sample) not in (2, 3):
        raise InputError(f"it is {_describe(sample)}; {SAMPLE}")
    if len(sample) == 3:
        return sample[0], _mark(sample[1], sample[2], None)
    target = sample[1]
    if not isinstance(target, Mapping):
        hint = ". Wrap it: torchvision.datasets.wrap_dataset_for_transforms_v2(dataset)" * isinstance(target, list)
        raise InputError(f"its target is {_describe(target)}; {SAMPLE}{hint}")
    if target.keys() <= {"image_id"}:  # torchvision's, of a picture without boxes
        return sample[0], _mark([], [], None)
    boxes, labels = (_find_key(target, keys) for keys in (BOX_KEYS[2:3], LABEL_KEYS[2:4]))
    if boxes is None or labels is None:
        raise InputError(f"its target is {_describe(target)}; {SAMPLE}")
    crowd = _find_key(target, CROWD_KEYS)
    return sample[0], _mark(target[boxes], target[labels], None if crowd is None else target[crowd])


def _mark(boxes: Any, labels: Any, crowd: Any) -> _Marks:
    """Bring the boxes of a sample into one form, x1, y1, x2, y2."""
    table = _as_table(boxes)
    keys = _as_keys(labels)
    if len(keys) != len(table):
        raise InputError(f"it has {len(table):,} boxes and {len(keys):,} labels; expected a label for each box")
    crowds = np.zeros(len(keys), bool) if crowd is None else np.asarray(_plain(crowd)).reshape(-1).astype(bool)
    if len(crowds) != len(keys):
        raise InputError(f"it has {len(table):,} boxes and {len(crowds):,} marks of crowds; expected one for each box")
    written = getattr(getattr(boxes, "format", None), "name", "XYXY")  # of torchvision's BoundingBoxes
    if written == "CXCYWH":
        table[:, :2] -= table[:, 2:] / 2
    if written in ("XYWH", "CXCYWH"):
        table[:, 2:] += table[:, :2]
    elif written != "XYXY":
        raise InputError(f"its boxes are written as {written}; expected XYXY, XYWH or CXCYWH")
    size = getattr(boxes, "canvas_size", None)
    return _Marks(table, keys, crowds, None if size is None else (int(size[0]), int(size[1])))


def _as_table(boxes: Any) -> Floats:
    try:
        table = np.array(_plain(boxes), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"its boxes are no table of numbers ({error}); expected (N, 4)") from error
    if not table.size:
        return no_boxes()
    if table.ndim != 2 or table.shape[1] != 4:
        raise InputError(f"its boxes have the shape {table.shape}; expected (N, 4)")
    return table


def _as_keys(labels: Any) -> tuple[Key, ...]:
    values = _plain(labels)
    values = values.tolist() if isinstance(values, np.ndarray) else values
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise InputError(f"its labels are {_describe(values)}; expected one class number or name for each box")
    return tuple(map(_as_key, values))


def _as_key(label: Any) -> Key:
    if isinstance(label, str):
        return label
    try:
        if not isinstance(label, (bool, np.bool_)):
            return operator.index(label)
    except TypeError:
        pass
    raise InputError(f"it has the label {label!r}; expected class numbers or names")


def _plain(value: Any) -> Any:
    """Return a tensor as an array, and anything else as it is."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


class _Table:
    """The columns of a Hugging Face data set."""

    def __init__(self, dataset: Any, name: str) -> None:
        if (getattr(dataset, "format", None) or {}).get("type") == "custom":
            raise DataError(
                f"{_say(name)} has a transform of its own (set_transform or with_transform), which would be left out. "
                "Pass dataset.with_format(None): the preprocessing of the weights is applied here."
            )
        features: dict[str, Any] = dict(dataset.features)
        image = _find_column(features, [c for c, kind in features.items() if type(kind).__name__ == "Image"],
                             IMAGE_COLUMNS, _say(name), "pictures")  # fmt: skip
        self._column = _find_column(features, [], OBJECT_COLUMNS, _say(name), "boxes")
        self._fields = _fields(features[self._column])
        self._box = self._find_field(BOX_KEYS, _say(name))
        self._label = self._find_field(LABEL_KEYS, _say(name))
        self._crowd = _find_key(self._fields, CROWD_KEYS)
        self.classes = _class_names(self._fields[self._label])
        plain = dataset.with_format(None) if hasattr(dataset, "with_format") else dataset
        self._objects = plain[self._column]
        rows = plain.select_columns([image]) if hasattr(plain, "select_columns") else plain
        kind = features[image]
        self.is_encoded = type(kind).__name__ == "Image" and hasattr(rows, "cast_column")
        if self.is_encoded:  # decoded here, as files are: in threads, and with a name where it fails
            rows = rows.cast_column(image, type(kind)(decode=False))
        self.pictures = ColumnReader(rows, image)

    def read(self) -> Iterator[_Marks | str]:
        """Yield the boxes of each row, or why they cannot be read."""
        for objects in self._objects:
            try:
                yield self._read_row(objects)
            except InputError as error:
                yield str(error)

    def _read_row(self, objects: Any) -> _Marks:
        wanted = [key for key in (self._box, self._label, self._crowd) if key is not None]
        if isinstance(objects, Mapping):
            columns = {key: objects.get(key) or [] for key in wanted}
        else:
            columns = {key: [entry[key] for entry in objects or ()] for key in wanted}
        marks = _mark(columns[self._box], columns[self._label], columns.get(self._crowd) if self._crowd else None)
        marks.boxes[:, 2:] += marks.boxes[:, :2]  # from width and height
        return marks

    def _find_field(self, usual: Sequence[str], name: str) -> str:
        found = _find_key(self._fields, usual)
        if found is None:
            raise DataError(
                f"the column {self._column!r} of {name} has the fields {', '.join(self._fields) or '(none)'}; expected "
                f"'bbox' (x, y, width, height in pixels) and 'category' or 'label'."
            )
        return found


def _find_column(features: Mapping[str, Any], found: list[str], usual: Sequence[str], name: str, what: str) -> str:
    """Return the one column of a kind, or else the one with a usual name."""
    found = found or [column for column in features if column.lower() in usual]
    if len(found) > 1:
        found = [column for column in usual if column in found][:1] or found
    if len(found) != 1:
        columns = ", ".join(f"{column} ({type(feature).__name__})" for column, feature in features.items())
        raise DataError(
            f"{name} has {'several columns' if found else 'no column'} of {what}; its columns are {columns}. Expected "
            f"one named {usual[0]!r}. Use dataset.rename_column(..., {usual[0]!r})."
        )
    return found[0]


def _fields(feature: Any) -> Mapping[str, Any]:
    """Return the fields of an object, whether the column is a list of mappings or a mapping of lists."""
    inner = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", feature)
    return inner if isinstance(inner, Mapping) else {}


def _class_names(feature: Any) -> tuple[str, ...] | None:
    while isinstance(feature, list) or hasattr(feature, "feature"):
        feature = feature[0] if isinstance(feature, list) else feature.feature
    names = getattr(feature, "names", None)
    return tuple(names) if names else None


def _find_key(mapping: Mapping[str, Any], usual: Sequence[str]) -> str | None:
    return next((key for key in usual if key in mapping), None)


def _choose(marks: _Marks, wanted: NDArray[np.bool_]) -> _Marks:
    keys = tuple(key for key, keep in zip(marks.keys, wanted.tolist(), strict=True) if keep)
    return marks._replace(boxes=marks.boxes[wanted], keys=keys, crowd=marks.crowd[wanted])


def _annotate(place: str, marks: _Marks, lost: int) -> Annotated:
    lines = (None,) * len(marks.keys)
    return Annotated(place, marks.boxes, marks.keys, lines, marks.crowd, size=marks.size, lost=lost)


def _check_unit(images: Sequence[Annotated], name: str, expected: str) -> None:
    """Refuse shares of the picture: as pixels, all of them would be without area."""
    filled = [image.boxes for image in images if len(image.boxes)]
    if filled and max(np.abs(boxes).max() for boxes in filled) <= 1:
        raise DataError(
            f"the boxes of {name} lie between 0 and 1, so they are shares of the picture's sides; expected {expected} "
            "in pixels. Multiply them by the width and height of each picture."
        )


def _join_names(parts: Mapping[str, _Part]) -> dict[Key, str]:
    """Return the name of each class by its key, over all splits."""
    known = {name: part.classes for name, part in parts.items() if part.classes}
    if len(set(known.values())) > 1:
        listed = "; ".join(f"{_say(name)} {', '.join(classes[:5])}" for name, classes in known.items())
        raise DataError(f"the splits number their classes differently: {listed}. Expected one list for all of them.")
    used = {key for part in parts.values() for image in part.split.images for key in image.keys}
    kinds = {type(key) for key in used}
    if len(kinds) > 1:
        raise DataError("the labels are numbers and names mixed; expected one kind.")
    if known:
        classes = next(iter(known.values()))
        return {name: name for name in classes} if kinds == {str} else dict(enumerate(classes))
    numbers = sorted(key for key in used if isinstance(key, int) and key >= 0)
    return {key: str(key) for key in numbers} or {key: key for key in sorted(used) if isinstance(key, str)}


def _leave_out_unnamed(part: _Part, names: Mapping[Key, str]) -> _Part:
    """Leave out boxes whose class has no name, and say so."""
    images: list[Annotated] = []
    findings = list(part.findings)
    for image in part.split.images:
        wanted = np.array([key in names for key in image.keys], bool)
        for index in np.flatnonzero(~wanted).tolist():
            text = f"the box {index} has the class {image.keys[index]!r}; expected {_span(names)}; left out"
            findings.append(Finding("boxes of an unknown class", "error", part.split.name, image.name, None, text))
        marks = _choose(_Marks(image.boxes, image.keys, image.crowd, image.size), wanted)
        images.append(_annotate(image.name, marks, lost=image.lost + int((~wanted).sum())))
    return replace(part, split=replace(part.split, images=tuple(images)), findings=tuple(findings))


def _span(names: Mapping[Key, str]) -> str:
    if all(isinstance(key, int) for key in names):
        return f"0 to {len(names) - 1:,}"
    return f"one of {', '.join(map(repr, list(names)[:10]))}{', ...' * (len(names) > 10)}"


def _describe(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a mapping with the keys {', '.join(map(str, value)) or '(none)'}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"of the type {type(value).__name__}"


def _say(split: str) -> str:
    return "the data" if split == "all" else split
