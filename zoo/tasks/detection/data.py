"""One door for data with boxes: folders of every known layout and data sets become checked images with boxes."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from zoo.data import (
    check_classes,
    check_val_fraction,
    choose_split,
    digest_contents,
    list_files,
    order_names,
    pick_val,
    plain_name,
    say_nameless,
)
from zoo.errors import DataError, did_you_mean
from zoo.tasks.base import show_data, sum_up
from zoo.tasks.detection.annotations import BoxSource, BoxSplit, Finding, ImageReader, Key
from zoo.tasks.detection.check import check_boxes
from zoo.tasks.detection.formats import UNREAD_SPLITS, read_box_datasets, read_box_folder
from zoo.tasks.detection.images import BoxedImages
from zoo.tasks.detection.report import BoxReport

OnProgress: TypeAlias = Callable[[int, int], None]

MOST_LISTED = 20  # errors, classes or names in a folder that a message names


@dataclass(frozen=True, repr=False)
class BoxData:
    """Images with boxes that are ready to train on or to be scored.

    Attributes:
        train: Images to learn from; None where there are only some to score.
        val: Images to score.
        test: More images to score.
        classes: Names, in the order of the class numbers.
        source: Where it came from: the path of the folder, or what kind of object.
        form: Name of the format.
        class_map: What the annotations call each class, and its name, in the order of the class numbers.
        report: What the check has counted and found.
        skipped: What was left out with `skip_bad`.
        loaders: Always None; the twin for labelled images has loaders.
        options: What of the preset it was opened with; as of `zoo.tasks.classification.data.Data`.
    """

    train: BoxedImages | None
    val: BoxedImages | None
    test: BoxedImages | None
    classes: tuple[str, ...]
    source: str
    form: str
    class_map: tuple[tuple[Key, str], ...]
    report: BoxReport
    skipped: tuple[Finding, ...] = ()
    loaders: None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def named(self) -> bool:
        """Whether the classes have names; if not, they are called by their numbers."""
        return not _is_unnamed(dict(self.class_map))

    def __repr__(self) -> str:
        return f"<BoxData {sum_up(self)}>"

    def _repr_html_(self) -> str:
        """Return the boxes of each class as a notebook shows them."""
        return show_data(self, self._count())

    def describe(self) -> dict[str, Any]:
        """Return plain values for a file: classes, counts, what was found and left out, and a digest.

        The digest tells data sets apart. It covers names, contents, boxes and classes of all images, in any order;
        contents of images that are no files as far as `digest_contents` reads them.
        """
        splits = self._splits()
        contents = {name: digest_contents(images) for name, images in splits.items()}
        return {
            "source": self.source,
            "format": self.form,
            "classes": list(self.classes),
            "class_map": [list(pair) for pair in self.class_map],
            "images": {name: len(images) for name, images in splits.items()},
            "counts": self._count(),
            "findings": {group.kind: len(group.findings) for group in self.report.groups()},
            "skipped": [{"name": finding.place, "reason": finding.text} for finding in self.skipped],
            "digest": self._digest(contents),
            "files": list_files(splits, contents),
        }

    def list_labels(self) -> dict[str, dict[str, Any]]:
        """Return the one class of each image: a detector's have none."""
        return {}

    def _count(self) -> dict[str, dict[str, int]]:
        """Return the boxes of each class in each split."""
        count = len(self.classes)
        return {
            name: dict(zip(self.classes, images.count_boxes(count), strict=True))
            for name, images in self._splits().items()
        }

    def _splits(self) -> dict[str, BoxedImages]:
        splits = {"train": self.train, "val": self.val, "test": self.test}
        return {name: images for name, images in splits.items() if images is not None}

    def _digest(self, contents: Mapping[str, Sequence[str]]) -> str:
        digest = hashlib.sha256(repr(self.classes).encode(errors="surrogatepass"))
        for split, images in self._splits().items():
            digest.update(f"\n{split}\n".encode())
            for line in _lines(images, contents[split]):
                digest.update(line)
        return digest.hexdigest()


def open_box_data(
    source: Any,
    *,
    classes: Sequence[str] | None = None,
    by_name: bool = False,
    like: Sequence[str] = (),
    val_fraction: float = 0.2,
    seed: int = 0,
    skip_bad: bool = False,
    check: bool = True,
    evaluation: bool = False,
    only: str | None = None,
    on_progress: OnProgress | None = None,
) -> BoxData:
    """Open images with boxes of any kind, and find what is wrong with them before anything is trained.

    Args:
        source: A folder in the layout of Pascal VOC, COCO or YOLO, or its `data.yaml` or json file; a data set that
            gives images, boxes and labels, a Hugging Face data set with `objects`, a pair `(train, val)` of them
            (val may be None), or a mapping of splits. A `BoxData` is returned as it is.
        classes: Class names in the order of the class numbers, matched by name; None: the data's own. Where the data
            has no names, its numbers are places in this list.
        by_name: `classes` are those of a model: numbers without names are no places, but stand for the class of these
            digits.
        like: Names by whose order the data's own are numbered, those that are not among them after the others.
        val_fraction: Share of the images that is kept for val where the data has no val (nor test) of its own.
        seed: Decides which.
        skip_bad: Leave out what cannot be used, instead of stopping.
        check: Whether every image is decoded once. Else only sizes are read, and a bad image stops the training
            when its turn comes.
        evaluation: The data is to be scored only: nothing is split off, and data without splits is val.
        only: With `evaluation`, the one split that is wanted, `train`, `val` or `test`; others are not looked at.
        on_progress: Called with the number of images checked and of all.

    Raises:
        DataError: If the data cannot be used; the text says what was found, where, what was expected, and what to do.
    """
    if isinstance(source, BoxData):
        return source
    given = check_classes(classes)
    check_val_fraction(val_fraction)
    found = find_box_source(source)
    if only and evaluation:
        found = _keep_one(found, only)
    if not any(split.images for split in found.splits.values()):
        raise DataError(_list_errors(found, found.findings) or f"{found.where} has no image. Expected at least one.")
    class_map, names = number_classes(found, given, by_name=by_name, like=like)
    options: dict[str, Any] = {"skip_bad": skip_bad} | ({"classes": list(names)} if given or like else {})
    if not evaluation and "val" not in found.splits and "test" not in found.splits:
        found = _split_off_val(found, dict(class_map), val_fraction, seed)
        options |= {"val_fraction": val_fraction, "split_seed": seed}
    elif not evaluation and "val" not in found.splits:
        text = (
            "there is no val split, so test is used for validation and to select the best epoch; its score is no "
            "longer a test score"
        )
        found = replace(found, findings=(*found.findings, Finding("test used as val", "warning", "", "", None, text)))
    images, report = check_boxes(found, class_map, names, check=check, on_progress=on_progress)
    if report.errors and not skip_bad:
        raise DataError(_list_errors(found, report.findings))
    _check_enough(found, images, report, evaluation=evaluation)
    splits = (images.get("train"), images.get("val") or images.get("test") or images.get("all"), images.get("test"))
    return BoxData(*splits, names, found.where, found.form, class_map, report, report.errors, options=options)


def check_box_data(source: Any, *, only: str | None = None, on_progress: OnProgress | None = None) -> BoxReport:
    """Check images with boxes as they are, and return all that was found; nothing is split off and nothing raised.

    Args:
        source: As for `open_box_data`.
        only: The one split to look at.
        on_progress: Called with the number of images checked and of all.

    Raises:
        DataError: If there are no boxes of any known kind.
    """
    found = find_box_source(source)
    if only:
        found = _keep_one(found, only)
    class_map, names = number_classes(found, None)
    return check_boxes(found, class_map, names, on_progress=on_progress)[1]


def find_box_source(source: Any) -> BoxSource:
    """Tell what the source is, and read all that is written of its boxes.

    Raises:
        DataError: If it is nothing known; the text says what was looked for and what is there.
    """
    return read_box_folder(source) if isinstance(source, (str, os.PathLike)) else read_box_datasets(source)


def number_classes(
    source: BoxSource, given: tuple[str, ...] | None, *, by_name: bool = False, like: Sequence[str] = ()
) -> tuple[tuple[tuple[Key, str], ...], tuple[str, ...]]:
    """Number the classes.

    Args:
        source: What the annotations say.
        given: Names in the order of their numbers, matched by name (blanks around and the Unicode form do not matter),
            or by number where the data has no names; None takes the data's own.
        by_name: Whether numbers without names are refused where the given names are none of them.
        like: Names by whose order the data's own are numbered.

    Returns:
        What the annotations call each class with its name, in the order of the numbers; and the names.

    Raises:
        DataError: If boxes have a class that is not given.
    """
    names = source.names
    if given and _is_unnamed(names) and not set(names.values()) & set(given):
        if by_name:
            raise DataError(say_nameless("the data", given, "the model", way_out="Add the names to the data"))
        names = {key: given[key] if isinstance(key, int) and key < len(given) else name for key, name in names.items()}
    classes = given or order_names(names.values(), like)
    called = {plain_name(name): name for name in classes}
    names = {key: called.get(plain_name(name), name) for key, name in names.items()}
    used = Counter(key for split in source.splits.values() for image in split.images for key in image.keys)
    unknown = {names[key]: count for key, count in used.items() if names[key] not in classes}
    if unknown:
        counts = [f"{name!r} ({count:,} box{'es' * (count > 1)})" for name, count in unknown.items()]
        more = f" and {len(counts) - MOST_LISTED} more" * (len(counts) > MOST_LISTED)
        expected = ", ".join(map(repr, classes[:MOST_LISTED])) + ", ..." * (len(classes) > MOST_LISTED)
        raise DataError(
            "the data has classes that are not in the class list: "
            f"{', '.join(counts[:MOST_LISTED])}{more}.{did_you_mean(next(iter(unknown)), classes)} Known classes: "
            f"{expected}. Rename or remove them in the data, or add them to the list."
        )
    kept = [(key, name) for key, name in names.items() if name in classes]
    return tuple(sorted(kept, key=lambda pair: classes.index(pair[1]))), classes


def _is_unnamed(names: Mapping[Key, str]) -> bool:
    return all(isinstance(key, int) and name == str(key) for key, name in names.items())


def _keep_one(source: BoxSource, only: str) -> BoxSource:
    """Return the one split that is wanted, and what was found in it or in none."""
    name = choose_split(only, source.splits, undivided="no splits")
    findings = [finding for finding in source.findings if finding.split in ("", name)]
    if name == only:  # it is there, so what may be another split loses nothing of it
        findings = [replace(found, level="warning") if found.kind == UNREAD_SPLITS else found for found in findings]
    return replace(source, splits={name: source.splits[name]}, findings=tuple(findings))


@dataclass(frozen=True)
class _PartReader:
    """Reads some of the images of another reader."""

    reader: ImageReader
    positions: tuple[int, ...]

    def __call__(self, position: int, /) -> Any:
        return self.reader(self.positions[position])


def _split_off_val(source: BoxSource, names: Mapping[Key, str], fraction: float, seed: int) -> BoxSource:
    """Keep some whole images for val.

    The same share is taken of the images of each rarest class, so that rare classes come to both sides. The choice
    depends on names, boxes and seed alone, before anything is decoded.
    """
    every = source.splits.get("train") or source.splits["all"]
    present = [{names[key] for key in image.keys} for image in every.images]
    counts = Counter(name for names in present for name in names)
    order = {name: number for number, name in enumerate(sorted(counts, key=lambda name: (counts[name], name)))}
    rarest = [min((order[name] for name in names), default=-1) for names in present]
    chosen = set(pick_val([image.name for image in every.images], rarest, fraction=fraction, seed=seed))
    if not chosen:
        raise DataError(f"{source.where} has too few images to hold one out for val. Add images, or a val split.")
    kept = [index for index in range(len(every.images)) if index not in chosen]
    return replace(source, splits={"train": _part(every, "train", kept), "val": _part(every, "val", sorted(chosen))})


def _part(split: BoxSplit, name: str, indices: Sequence[int]) -> BoxSplit:
    reader = _PartReader(split.reader, tuple(indices))
    return BoxSplit(name, reader, tuple(split.images[index] for index in indices), split.in_threads)


def _check_enough(source: BoxSource, images: Mapping[str, BoxedImages], report: BoxReport, *, evaluation: bool) -> None:
    """Check that no split is empty, and that there is a box to learn."""
    for name, part in images.items():
        if not len(part):
            where = source.where if name == "all" else name
            why = _list_reasons([finding for finding in report.findings if finding.split in ("", name)])
            raise DataError(f"{where} has no usable image. Add images, or remove {where}.{why}")
    if not evaluation and "train" in images and not sum(report.splits["train"].boxes):
        raise DataError(
            f"train has {len(images['train']):,} images but no usable box; expected at least one. See zoo data "
            "check, or annotate some boxes."
        )


def _list_errors(source: BoxSource, findings: Sequence[Finding]) -> str:
    """Return a message of all errors; nothing if there are none."""
    errors = [finding for finding in findings if finding.level == "error"]
    if not errors:
        return ""
    return (
        f"{len(errors):,} error{'s' * (len(errors) > 1)} in the data ({source.form}, "
        f"{source.where}):{_list_places(errors)}\nRepair them, or pass skip_bad=True (--skip-bad) to skip the "
        "affected images and boxes. zoo data check lists everything."
    )


def _list_reasons(findings: Sequence[Finding]) -> str:
    """Return why nothing is left, as lines: the errors, or else the warnings; nothing if there are neither."""
    for level in ("error", "warning"):
        if found := [finding for finding in findings if finding.level == level]:
            return f" Found:{_list_places(found)}"
    return ""


def _list_places(findings: Sequence[Finding]) -> str:
    """Return a line for each of the first findings, each after a line break."""
    lines = [f"{finding.place}: {finding.text}".removeprefix(": ") for finding in findings[:MOST_LISTED]]
    if len(findings) > MOST_LISTED:
        lines.append(f"... and {len(findings) - MOST_LISTED:,} more")
    return "".join(f"\n  {line}" for line in lines)


def _lines(images: BoxedImages, contents: Sequence[str]) -> list[bytes]:
    """Return what a digest is made of, in any order."""
    rows = zip(images.names, contents, images.boxes, strict=True)
    tables = ((name, content, [column.tolist() for column in boxes]) for name, content, boxes in rows)
    return sorted(f"{name}\0{content}\0{table}\n".encode(errors="surrogatepass") for name, content, table in tables)
