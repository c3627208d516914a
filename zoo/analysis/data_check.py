"""What is wrong with labelled images: copies, leaks, odd files, and with a model wrong labels and outliers."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.analysis.copies import Copy, Row, compare, find_copies, looks_alike
from zoo.analysis.embedding import Embedding, embed_splits
from zoo.analysis.image_facts import ODD, can_hash, look_at_images
from zoo.analysis.label_errors import check_installed, find_label_errors, predict_all
from zoo.analysis.neighbours import Neighbours, find_neighbours, find_outliers
from zoo.analysis.suspects import REASONS, Suspect, draw_sheet, write_table
from zoo.data import digest_contents, stopping_at_once
from zoo.errors import InputError
from zoo.exporters import get, load
from zoo.files import to_path
from zoo.models import take_model
from zoo.progress import Progress
from zoo.settings import Preset
from zoo.tasks import open_data, task_of
from zoo.tasks.classification import Data

NEAREST = 3  # neighbours by features whose looks are compared


@dataclass(frozen=True)
class DataCheck:
    """What a check of labelled images found; nothing was deleted or moved.

    Attributes:
        data: The opened data; `data.skipped` cannot be read.
        suspects: Images that are probably wrong, by reason, the worst first.
        near: Pairs of images of one split and class that look almost the same.
        odd: Names of images by what is odd about them.
        sizes: Smallest, median and largest width and height in pixels, by split.
        notes: What was not looked for, and why.
    """

    data: Data
    suspects: tuple[Suspect, ...]
    near: tuple[Copy, ...]
    odd: Mapping[str, tuple[str, ...]]
    sizes: Mapping[str, tuple[tuple[int, int], ...]]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: what `data.describe` says, and what was found."""
        return {
            **self.data.describe(),
            "sizes": {
                split: dict(zip(("least", "median", "most"), of, strict=True)) for split, of in self.sizes.items()
            },
            "odd": {kind: list(names) for kind, names in self.odd.items()},
            "suspects": [suspect._asdict() for suspect in self.suspects],
            "near_duplicates": [[copy.first.name, copy.second.name, copy.bits] for copy in self.near],
            "notes": [*self.data.notes, *self.notes],
        }

    def write(self, folder: str | os.PathLike[str]) -> tuple[Path, Path]:
        """Write `suspects.csv`, which `exclude` reads, and `suspects.png`, a sheet of the worst; return their paths."""
        place = to_path(folder)
        place.mkdir(parents=True, exist_ok=True)
        write_table(self.suspects, place / "suspects.csv")
        draw_sheet(self.suspects, _list_splits(self.data), place / "suspects.png")
        return place / "suspects.csv", place / "suspects.png"


def check_data(
    data: Any, model: Any = None, *, progress: bool = True, device: str = "auto", **options: Any
) -> DataCheck:
    """Find what is wrong with labelled images of classes.

    Without a model: copies within and across splits and classes, odd images, images that cannot be read. With a model:
    labels that are probably wrong, outliers, and copies that only the features find. The model is not trained; a run
    whose backbone was trained on these images may have learnt their wrong labels.

    Args:
        data: A folder, a table or data sets, as for `finetune`; or opened data.
        model: A classifier, a name of `zoo.list_models()`, which gets its published weights, or a run's folder.
        progress: Whether to show what is done.
        device: For the model: `auto`, `cpu`, `cuda` or `mps`.
        options: `image_size`, `batch_size`, `cache` and the like of a preset for the model; `only`, `evaluation`,
            `image_root`, `labels` and `exclude` as `zoo.open_data` takes them.

    Raises:
        InputError: The data are loaders, or have several labels for each image and a model is given; the model is no
            classifier; or cleanlab is missing.
    """
    opening = {
        name: options.pop(name) for name in ("only", "evaluation", "image_root", "labels", "exclude") if name in options
    }
    preset = Preset(device=device, **options)
    with stopping_at_once(), Progress(enabled=progress) as show:
        network = None if model is None else _take(model, opening.get("labels"))
        opened = data
        if not hasattr(data, "describe"):
            with show.counting("checking images") as count:
                opened = open_data(data, skip_bad=True, on_progress=count, **opening)
        if not isinstance(opened, Data) or opened.loaders:
            raise InputError("the data has no classes of images by name. Pass a folder, a table or data sets.")
        if network is not None and opened.kind.name != "single":
            raise InputError("a model checks labels of one class for each image. Leave it out for labels=multi.")
        splits = _list_splits(opened)
        with show.counting("comparing images", sum(map(len, splits.values()))) as count:
            rows = _make_rows(splits, count)
        notes = [] if can_hash() else ["near duplicates are not looked for: pip install 'zoo-finetune[check]'"]
        copies, found = find_copies(rows, splits), []
        if network is not None:
            features = {
                name: part for name, part in embed_splits(network, opened, preset, show).items() if name in splits
            }
            study = _Study(opened, rows, features, show)
            found, copies = study.suspects, copies + study.find_more(copies, splits)
            copies_found = _suspect_copies(copies, opened.classes, study.likely)
            doubted = ", ".join(f"{count:,} in {split}" for split, count in study.doubted.items())
            notes.append(f"labels that confident learning doubts: {doubted}; listed are those that it is sure of")
        else:
            copies_found = _suspect_copies(copies, opened.classes, {})
        suspects = sorted(
            [*found, *copies_found], key=lambda suspect: (list(REASONS).index(suspect.reason), -suspect.score)
        )
        near = tuple(copy for copy in copies if not _is_suspicious(copy))
        return DataCheck(opened, tuple(suspects), near, _list_odd(rows), _list_sizes(rows), tuple(notes))


class _Study:
    """What the features of a model tell of labelled images."""

    def __init__(self, data: Data, rows: Sequence[Row], features: Mapping[str, Embedding], show: Progress) -> None:
        names = list(features)
        self.rows, self.base = rows, names[0]
        base, others = features[self.base], [features[name] for name in names[1:]]
        probabilities = predict_all(base, others, len(data.classes), show)
        self.of_split = {name: [row for row in rows if row.split == name] for name in names}
        self.likely: dict[tuple[str, int], int] = {}
        self.suspects: list[Suspect] = []
        self.neighbours: dict[str, Neighbours] = {}
        self.doubted: dict[str, int] = {}
        usual: NDArray[np.float64] = np.zeros(0)
        for name, values in zip(names, probabilities, strict=True):
            self.likely |= {(name, place): int(number) for place, number in enumerate(values.argmax(axis=1))}
            errors, self.doubted[name] = find_label_errors(values, features[name].labels.numpy())
            for error in errors:
                row, likely = self.of_split[name][error.place], data.classes[error.likely]
                self.suspects.append(_suspect(row, data.classes, error.score, "label", likely))
            found = find_neighbours(features[name].vectors, base.vectors, is_base=name == self.base)
            self.neighbours[name] = found
            distances = 1 - found.similarities.mean(axis=1).astype(np.float64)
            usual = distances if name == self.base else usual
            for place in find_outliers(distances, usual):
                row = self.of_split[name][place]
                self.suspects.append(_suspect(row, data.classes, float(distances[place]), "outlier"))

    def find_more(self, known: Sequence[Copy], images: Mapping[str, Any]) -> list[Copy]:
        """Return copies in two splits or classes that the features find near and the looks loosely alike."""
        pairs = {frozenset((copy.first[:2], copy.second[:2])) for copy in known}
        more = []
        for name, found in self.neighbours.items():
            for row, places in zip(self.of_split[name], found.places[:, :NEAREST], strict=True):
                for place in places:
                    other = self.of_split[self.base][place]
                    pair = frozenset((row[:2], other[:2]))
                    if (row.split, row.labels) == (other.split, other.labels) or pair in pairs:
                        continue
                    if looks_alike(other, row):
                        pairs.add(pair)
                        more.append(compare(other, row, images))
        return more


def _take(model: Any, labels: str | None) -> Any:
    if labels == "multi":
        raise InputError("a model checks labels of one class for each image. Leave it out for labels=multi.")
    check_installed()
    network = model
    if isinstance(model, (str, os.PathLike)):
        network = load(model) if os.path.exists(to_path(model)) else get(model, pretrained=True)
    network = take_model(network)
    if task_of(network).name.partition(".")[0] != "classification":
        raise InputError("images of classes are checked by a classifier. Pass one, such as resnet18.")
    return network


def _list_splits(data: Data) -> dict[str, Any]:
    """Return the splits, each once: where there is no val, test is val, too."""
    splits = {"train": data.train, "val": data.val, "test": data.test}
    if data.val is data.test:
        del splits["val"]
    return {name: images for name, images in splits.items() if images is not None}


def _make_rows(splits: Mapping[str, Any], count: Callable[[int, int], None]) -> list[Row]:
    rows: list[Row] = []
    total = sum(map(len, splits.values()))
    for split, images in splits.items():
        digests, before = digest_contents(images), len(rows)
        facts = look_at_images(images, digests, partial(_add, count, before, total))
        columns = zip(images.names, images.list_numbers(), digests, facts, strict=True)
        rows += [Row(split, place, *column) for place, column in enumerate(columns)]
    return rows


def _add(count: Callable[[int, int], None], before: int, total: int, done: int, _: int) -> None:
    count(before + done, total)


def _is_suspicious(copy: Copy) -> bool:
    is_apart = copy.first.split != copy.second.split or copy.first.labels != copy.second.labels
    return is_apart or copy.how.startswith("same")


def _suspect_copies(
    copies: Sequence[Copy], classes: Sequence[str], likely: Mapping[tuple[str, int], int]
) -> list[Suspect]:
    """Return which images of copies to leave out.

    Of two splits that is the one in the first, which is trained on; of two classes both, unless the model agrees with
    one of the labels alone; else the second.
    """
    found: dict[tuple[str, str, str], Suspect] = {}
    for copy in filter(_is_suspicious, copies):
        pair = (copy.first, copy.second)
        out: list[tuple[Row, Row, str]] = []
        if copy.first.split != copy.second.split:
            out.append((*pair, "leak"))
        if copy.first.labels != copy.second.labels:
            right = [likely.get(row[:2], -1) in row.labels for row in pair]
            wrong = [row for row, is_right in zip(pair, right, strict=True) if not is_right or right[0] == right[1]]
            out += [(row, pair[row is copy.first], "two classes") for row in wrong]
        for row, other, reason in out or [(copy.second, copy.first, "copy")]:
            suspect = _suspect(row, classes, 1 - copy.bits / 64, reason, other=other.name)
            key = (suspect.split, suspect.path, reason)
            if key not in found or found[key].score < suspect.score:
                found[key] = suspect
    return list(found.values())


def _suspect(row: Row, classes: Sequence[str], score: float, reason: str, likely: str = "", other: str = "") -> Suspect:
    given = ", ".join(classes[number] for number in row.labels)
    return Suspect(row.name, row.split, given, likely, score, reason, other)


def _list_odd(rows: Sequence[Row]) -> dict[str, tuple[str, ...]]:
    found = {kind: tuple(row.name for row in rows if row.facts and kind in row.facts.odd) for kind in ODD}
    return {kind: names for kind, names in found.items() if names}


def _list_sizes(rows: Sequence[Row]) -> dict[str, tuple[tuple[int, int], ...]]:
    found = {}
    for split in dict.fromkeys(row.split for row in rows):
        sizes = np.array([row.facts.size for row in rows if row.split == split and row.facts]).reshape(-1, 2)
        if len(sizes):
            bounds = (sizes.min(axis=0), np.median(sizes, axis=0), sizes.max(axis=0))
            found[split] = tuple((int(width), int(height)) for width, height in bounds)
    return found
