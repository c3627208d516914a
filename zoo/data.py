"""One door for data: folders, torch data sets and loaders, Hugging Face data sets become labelled images, checked."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from zoo.errors import DataError, InputError
from zoo.image_folder import SPLIT_NAMES, rename_splits, scan_folder
from zoo.images import Images, Problem, Survey, number_images, pick_val, survey_splits
from zoo.labels import check_classes, derive_classes
from zoo.sources import FileReader, Split, known_classes, split_of_dataset, split_of_files
from zoo.user_loaders import check_first_batch, count_classes, is_loader

OnProgress: TypeAlias = Callable[[int, int], None]

MOST_LISTED = 20  # problems that a message names


@dataclass(frozen=True)
class Data:
    """Data that is ready to train on or to be scored.

    Attributes:
        train: Images to learn from; None where there are loaders, or only images to score.
        val: Images to score.
        test: More images to score.
        classes: Names, in the order of the class numbers.
        source: Where it came from: the path of the folder, or what kind of object.
        skipped: What was left out with `skip_bad`.
        loaders: The user's own `(train, val)` loaders, used as they are.
    """

    train: Images | None
    val: Images | None
    test: Images | None
    classes: tuple[str, ...]
    source: str
    skipped: tuple[Problem, ...] = ()
    loaders: tuple[Any, Any] | None = None

    def describe(self) -> dict[str, Any]:
        """Return plain values for a file: classes, counts, what was left out, and a digest that tells data sets apart.

        The digest covers names, sizes and classes of all files, in any order; of other data only the classes, in order.
        """
        return {
            "source": self.source,
            "classes": list(self.classes),
            "counts": {name: self._count(images) for name, images in self._splits().items()},
            "skipped": [{"name": problem.name, "reason": problem.reason} for problem in self.skipped],
            "digest": self._digest(),
        }

    def _splits(self) -> dict[str, Images]:
        splits = {"train": self.train, "val": self.val, "test": self.test}
        return {name: images for name, images in splits.items() if images is not None}

    def _count(self, images: Images) -> dict[str, int]:
        counts = Counter(images.targets)
        return {name: counts[number] for number, name in enumerate(self.classes)}

    def _digest(self) -> str:
        digest = hashlib.sha256(repr(self.classes).encode())
        for split, images in self._splits().items():
            digest.update(f"\n{split}\n".encode())
            for line in _lines(images):
                digest.update(line)
        return digest.hexdigest()


def open_data(
    source: Any,
    *,
    classes: Sequence[str] | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
    skip_bad: bool = False,
    check: bool = True,
    evaluation: bool = False,
    only: str | None = None,
    on_progress: OnProgress | None = None,
) -> Data:
    """Open data of any kind, and find what cannot be used before anything is trained.

    Args:
        source: A folder `train/<class>/*` and `val/<class>/*` (or `valid`, `validation`, `test`), or `<class>/*`;
            a torch or Hugging Face data set, a pair `(train, val)` of them (val may be None), or a mapping of splits;
            a pair of loaders, which are used as they are. A `Data` is returned as it is.
        classes: Class names in the order of the class numbers; None: the data's own, sorted where it has no order.
        val_fraction: Share of each class that is kept for val where the data has no val (nor test) of its own.
        seed: Decides which.
        skip_bad: Leave out what cannot be read, instead of stopping.
        check: Whether every image is decoded once. Else a bad one stops the training when its turn comes.
        evaluation: The data is to be scored only: nothing is split off, all of a folder `<class>/*` is val, and
            classes may be missing.
        only: With `evaluation`, the one split that is wanted, `train`, `val` or `test`; others are not looked at.
        on_progress: Called with the number of samples checked and of all.

    Raises:
        DataError: If the data cannot be used; the text says what was found, what was expected, and what to do.
    """
    if isinstance(source, Data):
        return source
    given = check_classes(classes)
    if not isinstance(val_fraction, (int, float)) or not 0 < val_fraction < 1:
        raise InputError(f"val_fraction is {val_fraction!r}; expected a number between 0 and 1.")
    if loaders := _find_loaders(source, evaluation=evaluation):
        return _open_loaders(loaders, given, check=check, on_progress=on_progress)
    where, splits = _find_splits(source)
    if only and evaluation:
        splits, given = _keep_one(splits, only, given)
    surveys = survey_splits(splits, check=check, on_progress=on_progress)
    skipped = tuple(problem for survey in surveys.values() for problem in survey.problems)
    if skipped and not skip_bad:
        raise DataError(_list_problems(splits, surveys))
    names, images = _number_splits(splits, surveys, given)
    if not evaluation:
        _check_every_class(splits, images, names)
        images = _split_off_val(images, val_fraction, seed)
    if not images:
        raise DataError(f"{where} has no image that can be used. Expected one at least.")
    val = images.get("val") or images.get("test") or images.get("all")
    return Data(images.get("train"), val, images.get("test"), names, where, skipped)


def _find_splits(source: Any) -> tuple[str, dict[str, Split]]:
    """Tell what the source is, in words, and make its splits: `train`, `val`, `test`, or `all`."""
    if isinstance(source, (str, os.PathLike)):
        if not os.fspath(source):
            raise DataError("the path of the data is empty; expected a folder of images.")
        root = Path(source).expanduser().absolute()
        return str(root), {name: split_of_files(root, files, _say(name)) for name, files in scan_folder(root).items()}
    if isinstance(source, Mapping):
        datasets = rename_splits(source)
    elif isinstance(source, (tuple, list)) and len(source) == 2:
        datasets = {name: part for name, part in zip(("train", "val"), source, strict=True) if part is not None}
        datasets = {"all": datasets["train"]} if datasets.keys() == {"train"} else datasets
    else:
        datasets = {"all": source}
    if not datasets:
        raise DataError("the data is (None, None); expected a data set for train, for val, or both.")
    if any(map(is_loader, datasets.values())):
        raise DataError("loaders and data sets are mixed; expected (train, val) as two loaders or as two data sets.")
    kind = type(next(iter(datasets.values()))).__name__
    splits = {name: split_of_dataset(part, _say(name)) for name, part in datasets.items()}
    if len(splits) > 1 and "test" in splits and set(splits["test"].labels or (0,)) <= {-1, None}:
        del splits["test"]  # published without labels
    return f"data set {kind}", splits


def _keep_one(
    splits: dict[str, Split], only: str, given: tuple[str, ...] | None
) -> tuple[dict[str, Split], tuple[str, ...] | None]:
    """Return the one split that is wanted, and the classes that train would have given it."""
    if only not in SPLIT_NAMES.values():
        raise InputError(f"the split {only!r} is unknown; expected train, val or test.")
    wanted = [name for name in ((only, "test", "all") if only == "val" else (only,)) if name in splits]
    if not wanted:
        has = ", ".join(name for name in splits if name != "all") or "no splits, only classes: choose val for all of it"
        raise DataError(f"the data has no split {only!r}; it has {has}.")
    train = splits.get("train")
    if given is None and train is not None and train.classes is None:
        return splits, None  # the labels of train tell the classes
    return {wanted[0]: splits[wanted[0]]}, given or (train.classes if train else None)


def _list_problems(splits: Mapping[str, Split], surveys: Mapping[str, Survey]) -> str:
    for name, survey in surveys.items():
        if not survey.good and not isinstance(splits[name].reader, FileReader):  # the data set as a whole is wrong
            first = survey.problems[0]
            return f"no sample of {splits[name].name} can be used. The first one, {first.name}: {first.reason}."
    problems = [problem for survey in surveys.values() for problem in survey.problems]
    total = sum(len(split.names) for split in splits.values())
    lines = [f"{len(problems):,} of {total:,} images cannot be used:"]
    lines += [f"  {problem.name}: {problem.reason}" for problem in problems[:MOST_LISTED]]
    if len(problems) > MOST_LISTED:
        lines.append(f"  ... and {len(problems) - MOST_LISTED:,} more")
    lines.append("Repair or remove them, or pass skip_bad=True (--skip-bad) to leave them out.")
    return "\n".join(lines)


def _number_splits(
    splits: Mapping[str, Split], surveys: Mapping[str, Survey], given: tuple[str, ...] | None
) -> tuple[tuple[str, ...], dict[str, Images]]:
    """Return the classes, and every split that has images, numbered by them."""
    base = next(name for name in ("train", "all", "val", "test") if name in splits)
    classes = given or derive_classes(surveys[base].labels, splits[base].classes, splits[base].name)
    origin = "the list of classes" if given else splits[base].name
    images = {name: number_images(split, surveys[name], classes, origin) for name, split in splits.items()}
    return classes, {name: part for name, part in images.items() if len(part)}


def _check_every_class(splits: Mapping[str, Split], images: Mapping[str, Images], classes: tuple[str, ...]) -> None:
    """Check what training needs: no empty split, two classes, and in a folder images of every class."""
    for name, split in splits.items():
        if name not in images:
            raise DataError(f"{split.name} has no image that can be used. Add images, or remove {split.name}.")
    base = next((name for name in ("train", "all") if name in splits), None)
    if base is None:
        return
    filled, where = set(images[base].targets), splits[base].name
    empty = [repr(name) for number, name in enumerate(classes) if number not in filled]
    if empty and isinstance(splits[base].reader, FileReader):
        more = f" and {len(empty) - MOST_LISTED} more" * (len(empty) > MOST_LISTED)
        raise DataError(
            f"classes without an image in {where} that can be used: {', '.join(empty[:MOST_LISTED])}{more}. Add images "
            "to the folder of each, or remove the class."
        )
    if len(filled) < 2:
        raise DataError(
            f"{where} has images of one class only, {classes[min(filled)]!r}; expected two classes or more. Add images "
            "of another class."
        )


def _split_off_val(images: dict[str, Images], fraction: float, seed: int) -> dict[str, Images]:
    """Keep a part of each class for val, where there is neither val nor test."""
    if "val" in images or "test" in images:
        return images
    every = images.get("train") or images["all"]
    chosen = set(pick_val(every.names, every.targets, fraction=fraction, seed=seed))
    if not chosen:
        raise DataError(
            "every class has a single image, so none is left for val. Add images, or a folder val/<class>/<images>."
        )
    train = [index for index in range(len(every)) if index not in chosen]
    return {"train": every.subset(train), "val": every.subset(sorted(chosen))}


def _find_loaders(source: Any, *, evaluation: bool) -> tuple[Any, Any] | None:
    """Return `(train, val)` if the source is loaders."""
    if isinstance(source, (str, os.PathLike)):
        return None
    if is_loader(source):
        if not evaluation:
            raise DataError("the data is one loader, which cannot be split; expected a pair of loaders (train, val).")
        return None, source
    if not isinstance(source, (tuple, list)) or len(source) != 2 or not is_loader(source[0]):
        return None
    if source[1] is None:
        raise DataError("val is None, and a loader cannot be split; expected a pair of loaders (train, val).")
    return (source[0], source[1]) if is_loader(source[1]) else None


def _open_loaders(
    loaders: tuple[Any, Any], given: tuple[str, ...] | None, *, check: bool, on_progress: OnProgress | None
) -> Data:
    named = {name: loader for name, loader in zip(("train", "val"), loaders, strict=True) if loader is not None}
    base, first = next(iter(named.items()))
    own = known_classes(getattr(first, "dataset", None))
    classes = given or own
    if given and own and given != own:
        raise DataError(
            f"the loader numbers its classes as {_first(own)} and the model as {_first(given)}. Pass the data set "
            "instead of the loader: its classes are matched by name."
        )
    if classes is None:
        total, done = len(getattr(first, "dataset", first)), 0

        def count(images: int) -> None:
            nonlocal done
            done += images
            if on_progress:
                on_progress(done, max(done, total))

        classes = tuple(map(str, range(count_classes(first, base, count))))
    if check:
        for name, loader in named.items():
            check_first_batch(loader, name, len(classes))
    return Data(None, None, None, classes, f"loader {type(first).__name__}", loaders=loaders)


def _first(classes: Sequence[str]) -> str:
    return ", ".join(classes[:3]) + (", …" if len(classes) > 3 else "")


def _lines(images: Images) -> list[bytes]:
    """Return what a digest is made of."""
    if not isinstance(images.reader, FileReader):
        return [repr(images.targets).encode()]
    paths = (images.reader(position)[0] for position in images.positions)
    sizes = (os.path.getsize(path) if os.path.exists(path) else -1 for path in paths)
    return sorted(
        f"{name}\0{size}\0{target}\n".encode()
        for name, size, target in zip(images.names, sizes, images.targets, strict=True)
    )


def _say(split: str) -> str:
    return "the data" if split == "all" else split
