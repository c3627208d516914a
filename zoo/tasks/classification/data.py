"""One door for data: folders, torch data sets and loaders, Hugging Face data sets become labelled images, checked."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from zoo.data import (
    Check,
    FileReader,
    Images,
    Problem,
    Split,
    UserLoader,
    check_classes,
    check_first_batch,
    check_length,
    check_splits,
    check_val_fraction,
    choose_split,
    count_classes,
    derive_classes,
    digest_contents,
    is_loader,
    known_classes,
    list_files,
    match_targets,
    order_names,
    plain_name,
    rename_splits,
)
from zoo.errors import DataError, InputError
from zoo.files import to_path
from zoo.tasks.base import show_data, sum_up
from zoo.tasks.classification.exclusion import Exclude, leave_out
from zoo.tasks.classification.kinds import find_kind
from zoo.tasks.classification.label_kind import SINGLE, LabelKind
from zoo.tasks.classification.sources import find_splits

OnProgress: TypeAlias = Callable[[int, int], None]

MOST_LISTED = 20  # problems that a message names


@dataclass(frozen=True, repr=False)
class Data:
    """Data that is ready to train on or to be scored.

    Attributes:
        train: Images to learn from; None where there are loaders, or only images to score.
        val: Images to score.
        test: More images to score.
        classes: Names, in the order of the class numbers.
        source: Where it came from: the path of the folder, or what kind of object.
        skipped: What was left out with `skip_bad`.
        loaders: The user's own loaders by split, instead of images.
        named: Whether the classes have names; if not, the data has numbers only, and they are called by these.
        options: What of the preset it was opened with: `val_fraction`, `split_seed`, `skip_bad`, and `classes` where
            their order was said, `image_root` and `exclude`.
        remarks: What is odd about some images that are used, such as that they are almost black.
        notes: How tables were read, and what was left out by `exclude`.
        excluded: Names of the images that `exclude` left out.
        kind: What the labels of an image are.
    """

    train: Images | None
    val: Images | None
    test: Images | None
    classes: tuple[str, ...]
    source: str
    skipped: tuple[Problem, ...] = ()
    loaders: Mapping[str, UserLoader] | None = None
    named: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    kind: LabelKind = SINGLE
    excluded: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Data {sum_up(self)}>"

    def _repr_html_(self) -> str:
        """Return the images of each class as a notebook shows them."""
        return show_data(self, {name: self._count(images) for name, images in self._splits().items()})

    def describe(self) -> dict[str, Any]:
        """Return plain values for a file: classes, counts, what was left out, and a digest that tells data sets apart.

        The digest covers names, contents and classes of all files, in any order; of other data contents and classes, in
        order, contents as far as `digest_contents` reads them.
        """
        splits = self._splits()
        contents = {name: digest_contents(images) for name, images in splits.items()}
        sizes = {name: len(images) for name, images in splits.items()}
        counts = {name: self._count(images) for name, images in splits.items()}
        are_single = all(sum(counts[name].values()) == size for name, size in sizes.items())
        return {
            "source": self.source,
            "classes": list(self.classes),
            "counts": counts,
            **({} if are_single else {"images": sizes}),
            "skipped": [{"name": problem.name, "reason": problem.reason} for problem in self.skipped],
            **({"excluded": list(self.excluded)} if self.excluded else {}),
            "digest": self._digest(contents),
            "files": list_files(splits, contents),
        }

    def list_labels(self) -> dict[str, dict[str, Any]]:
        """Return the class number of each image, by split and name."""
        splits = self._splits()
        return {split: dict(zip(images.names, images.targets, strict=True)) for split, images in splits.items()}

    def _splits(self) -> dict[str, Images]:
        splits = {"train": self.train, "val": self.val, "test": self.test}
        return {name: images for name, images in splits.items() if images is not None}

    def _count(self, images: Images) -> dict[str, int]:
        counts = Counter(number for numbers in images.list_numbers() for number in numbers)
        return {name: counts[number] for number, name in enumerate(self.classes)}

    def _digest(self, contents: Mapping[str, Sequence[str]]) -> str:
        digest = hashlib.sha256(repr(self.classes).encode(errors="surrogatepass"))
        for split, images in self._splits().items():
            digest.update(f"\n{split}\n".encode())
            for line in _lines(images, contents[split]):
                digest.update(line)
        return digest.hexdigest()


def open_data(
    source: Any,
    *,
    classes: Sequence[str] | None = None,
    by_name: bool = False,
    like: Sequence[str] = (),
    beside: Sequence[str] = (),
    val_fraction: float = 0.2,
    seed: int = 0,
    skip_bad: bool = False,
    check: bool = True,
    evaluation: bool = False,
    only: str | None = None,
    on_progress: OnProgress | None = None,
    image_root: str | os.PathLike[str] | None = None,
    exclude: Exclude | None = None,
    labels: Literal["single", "multi"] = "single",
) -> Data:
    """Open data of any kind, and find what cannot be used before anything is trained.

    Args:
        source: A folder `train/<class>/*` and `val/<class>/*` (or `valid`, `validation`, `test`), or `<class>/*`; a
            CSV or Parquet table with the columns image, label and, where there are any, split and group; a folder with
            `train.csv` and `val.csv`;
            a torch or Hugging Face data set, a pair `(train, val)` of them (val may be None), or a mapping of splits;
            a pair or a mapping of loaders, whose batches are used as they are. A `Data` is returned as it is.
        classes: Class names in the order of the class numbers; None: the data's own, sorted where it has no order.
            Where the data has names, they are matched; numbers without names are places in this list.
        by_name: `classes` are those of a model: numbers without names stand for the class of these digits.
        like: Names by whose order the data's own are numbered, those that are not among them after the others.
        beside: Classes of a model that is to learn those of the data, too: they are numbered first, whether the data
            has images of them or not, and one class more is enough.
        val_fraction: Share of each class that is kept for val where the data has no val (nor test) of its own.
        seed: Decides which.
        skip_bad: Leave out what cannot be read, instead of stopping.
        check: Whether every image is decoded once. Else a bad one stops the training when its turn comes.
        evaluation: The data is to be scored only: nothing is split off, all of a folder `<class>/*` is val, and
            classes may be missing.
        only: With `evaluation`, the one split that is wanted, `train`, `val` or `test`; others are not looked at.
        on_progress: Called with the number of samples checked and of all.
        image_root: Of a table: what its paths are relative to; None: its own folder.
        exclude: Images to leave out after the splits are made: a table with a column path, or their names.
        labels: Whether an image has one class, or any number of labels.

    Raises:
        DataError: If the data cannot be used; the text says what was found, what was expected, and what to do.
    """
    kind = find_kind(labels)
    if isinstance(source, Data):
        _check_kind(source, kind)
        return source
    numbering = _Numbering(check_classes(classes), by_name, tuple(like), tuple(beside))
    check_val_fraction(val_fraction)
    if loaders := _find_loaders(source, evaluation=evaluation):
        _check_loaders(kind, exclude)
        return _open_loaders(loaders, numbering, check=check, on_progress=on_progress)
    found = find_splits(source, only, kind, image_root, skip_bad)
    splits = found.splits
    if only and evaluation:
        splits, numbering = _keep_one(splits, only, numbering)
    checks = check_splits(splits, check=check, on_progress=on_progress, plain=kind.plain)
    skipped = tuple(problem for check in checks.values() for problem in check.problems)
    if skipped and not skip_bad:
        raise DataError(_list_problems(splits, checks))
    names, images, named = _number_splits(splits, checks, numbering, kind)
    options: dict[str, Any] = {"skip_bad": skip_bad, **found.options, **numbering.options(names)}
    if not evaluation:
        _check_every_class(splits, images, names, beside=numbering.beside)
        images, chosen = _split_off_val(splits, images, kind, val_fraction, seed)
        options |= chosen
    images, excluded, notes = leave_out(images, exclude, found.where, names)
    options["exclude"] = str(to_path(exclude).absolute()) if isinstance(exclude, (str, os.PathLike)) else None
    if not images:
        raise DataError(f"{found.where} has no usable image. Expected at least one.")
    remarks = tuple(remark for check in checks.values() for remark in check.remarks)
    parts = (images.get("train"), images.get("val") or images.get("test") or images.get("all"), images.get("test"))
    facts: dict[str, Any] = {"options": options, "remarks": remarks, "notes": (*found.notes, *notes), "kind": kind}
    return Data(*parts, names, found.where, (*found.skipped, *skipped), named=named, excluded=excluded, **facts)


@dataclass(frozen=True)
class _Numbering:
    """By which names classes are numbered; see `open_data`."""

    given: tuple[str, ...] | None = None
    by_name: bool = False
    like: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    @property
    def origin(self) -> str:
        """Where the given classes come from, for messages."""
        return "the model" if self.by_name else "the list of classes"

    @property
    def are_places(self) -> bool:
        """Whether numbers without names are places among the given classes."""
        return self.given is not None and not self.by_name

    def options(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """Return what to open the data with again, for the same numbers."""
        return {"classes": list(classes)} if self.given or self.like or self.beside else {}


def _check_kind(data: Data, kind: LabelKind) -> None:
    """Refuse data that was opened with labels of another kind."""
    if data.kind.name != kind.name:
        raise InputError(
            f"the data was opened with labels={data.kind.name}, but labels={kind.name} is needed. Pass "
            f"labels={kind.name!r} to zoo.open_data, or labels={data.kind.name!r} here."
        )


def _keep_one(splits: dict[str, Split], only: str, numbering: _Numbering) -> tuple[dict[str, Split], _Numbering]:
    """Return the one split that is wanted, and the classes that train would have given it."""
    wanted = choose_split(only, splits, undivided="no splits, only classes")
    train = splits.get("train")
    if numbering.given is None and train is not None:
        if train.classes is None:
            return splits, numbering  # the labels of train tell the classes
        numbering = _Numbering(derive_classes((), train.classes, train.name), by_name=True)
    return {wanted: splits[wanted]}, numbering


def _list_problems(splits: Mapping[str, Split], checks: Mapping[str, Check]) -> str:
    for name, check in checks.items():
        if not check.good and not isinstance(splits[name].reader, FileReader):  # the data set as a whole is wrong
            first = check.problems[0]
            return f"no sample of {splits[name].name} is usable. The first one, {first.name}: {first.reason}."
    problems = [problem for check in checks.values() for problem in check.problems]
    total = sum(len(split.names) for split in splits.values())
    lines = [f"{len(problems):,} of {total:,} images are unusable:"]
    lines += [f"  {problem.name}: {problem.reason}" for problem in problems[:MOST_LISTED]]
    if len(problems) > MOST_LISTED:
        lines.append(f"  ... and {len(problems) - MOST_LISTED:,} more")
    lines.append("Repair or remove them, or pass skip_bad=True (--skip-bad) to skip them.")
    return "\n".join(lines)


def _number_splits(
    splits: Mapping[str, Split], checks: Mapping[str, Check], numbering: _Numbering, kind: LabelKind
) -> tuple[tuple[str, ...], dict[str, Images], bool]:
    """Return the classes, every split that has images, numbered by them, and whether the classes have names."""
    base = next(name for name in ("train", "all", "val", "test") if name in splits)
    first, labels = splits[base], kind.flatten(checks[base].labels)
    classes, origin = numbering.given, numbering.origin
    if classes is None:
        own, origin = derive_classes(labels, first.classes, first.name, numbering.like), first.name
        classes = order_names(own, numbering.like)
        known = set(map(plain_name, numbering.beside))
        classes = (*numbering.beside, *(name for name in classes if plain_name(name) not in known))
    are_names = first.classes is not None or not all(isinstance(label, int) for label in labels)
    images = {
        name: kind.number(split, checks[name], classes, origin, by_name=not numbering.are_places)
        for name, split in splits.items()
    }
    return classes, {name: part for name, part in images.items() if len(part)}, are_names or numbering.are_places


def _check_every_class(
    splits: Mapping[str, Split], images: Mapping[str, Images], classes: tuple[str, ...], *, beside: Sequence[str]
) -> None:
    """Check what training needs: no empty split, two classes, and in a folder images of every class of its own."""
    for name, split in splits.items():
        if name not in images:
            raise DataError(f"{split.name} has no usable image. Add images, or remove {split.name}.")
    base = next((name for name in ("train", "all") if name in splits), None)
    if base is None:
        return
    filled, where = {number for numbers in images[base].list_numbers() for number in numbers}, splits[base].name
    empty = [repr(name) for number, name in enumerate(classes) if number not in filled and name not in beside]
    if empty and isinstance(splits[base].reader, FileReader):
        more = f" and {len(empty) - MOST_LISTED} more" * (len(empty) > MOST_LISTED)
        raise DataError(
            f"classes without a usable image in {where}: {', '.join(empty[:MOST_LISTED])}{more}. Add images to each, "
            "or remove the class."
        )
    if len(filled) < 2 and not beside:
        raise DataError(
            f"{where} has images of one class only, {classes[min(filled)]!r}; expected at least two classes."
        )


def _split_off_val(
    splits: Mapping[str, Split], images: dict[str, Images], kind: LabelKind, fraction: float, seed: int
) -> tuple[dict[str, Images], dict[str, float]]:
    """Keep a part of each class for val where the data has none; return by which options, too."""
    if "val" in images or "test" in images:
        return images, {}
    base = "train" if "train" in images else "all"
    every, groups = images[base], splits[base].groups
    of_images = None if groups is None else [groups[position] for position in every.positions]
    chosen = set(kind.pick_val(every, of_images, fraction=fraction, seed=seed))
    if not chosen:
        raise DataError(
            "every class has a single image, so none can be held out for val. Add images, or a folder "
            "val/<class>/<images>."
        )
    train = [index for index in range(len(every)) if index not in chosen]
    parts = {"train": every.subset(train), "val": every.subset(sorted(chosen))}
    return parts, {"val_fraction": fraction, "split_seed": seed}


def _find_loaders(source: Any, *, evaluation: bool) -> dict[str, Any] | None:
    """Return the loaders by split, if the source is loaders."""
    if isinstance(source, (str, os.PathLike)):
        return None
    if is_loader(source) and not isinstance(source, Mapping):
        if not evaluation:
            raise DataError("the data is one loader, which cannot be split; expected a pair of loaders (train, val).")
        return {"val": source}
    if isinstance(source, Mapping):
        parts = rename_splits(source)
    elif isinstance(source, (tuple, list)) and len(source) == 2:
        parts = dict(zip(("train", "val"), source, strict=True))
    else:
        return None
    found = {name: part for name, part in parts.items() if part is not None}
    if not found or not all(map(is_loader, found.values())):
        return None
    if not evaluation and not {"train", "val"} <= found.keys():
        missing = "train" if "train" not in found else "val"
        raise DataError(f"{missing} is missing, and a loader cannot be split; expected loaders for train and for val.")
    return found


def _check_loaders(kind: LabelKind, exclude: Exclude | None) -> None:
    if exclude:
        raise InputError("exclude needs images with names, but the data are loaders. Remove it.")
    if kind is not SINGLE:
        raise DataError(
            f"labels={kind.name} needs data sets, but the data are loaders. Pass data sets that give (image, labels), "
            "such as loader.dataset."
        )


def _open_loaders(
    loaders: Mapping[str, Any], numbering: _Numbering, *, check: bool, on_progress: OnProgress | None
) -> Data:
    for name, loader in loaders.items():
        check_length(loader, name)
    known = {name: known_classes(loader, name) for name, loader in loaders.items()}
    base = next(name for name in ("train", "val", "test") if name in loaders)
    classes, origin = numbering.given, numbering.origin
    if classes is None:
        own, origin = known[base] or _count_loader(loaders[base], base, on_progress), f"the loader {base}"
        classes = order_names(map(plain_name, own), numbering.like)
    users = {}
    for name, loader in loaders.items():
        own_names = known[name]
        by_name = not numbering.are_places
        table = match_targets(own_names, classes, name=name, origin=origin, by_name=by_name)
        users[name] = UserLoader(loader, name, classes, own_names, table)
        if check:
            check_first_batch(users[name])
    return Data(
        train=None,
        val=None,
        test=None,
        classes=classes,
        source=f"loader {type(loaders[base]).__name__}",
        loaders=users,
        named=known[base] is not None or numbering.are_places,
        options=numbering.options(classes),
    )


def _count_loader(loader: Any, name: str, on_progress: OnProgress | None) -> tuple[str, ...]:
    """Return the numbers of the classes that a loader gives, as names."""
    total, done = _count_samples(loader), 0

    def count(images: int) -> None:
        nonlocal done
        done += images
        if on_progress:
            on_progress(done, max(done, total))

    return tuple(map(str, range(count_classes(loader, name, count))))


def _count_samples(loader: Any) -> int:
    """Return how many samples a loader has, or how many batches where that is not known."""
    try:
        return len(getattr(loader, "dataset", loader))
    except TypeError:
        return len(loader)


def _lines(images: Images, contents: Sequence[str]) -> list[bytes]:
    """Return what a digest is made of; the order of files does not matter, that of other samples does."""
    rows = zip(images.names, contents, images.targets, strict=True)
    lines = [f"{name}\0{content}\0{target}\n".encode(errors="surrogatepass") for name, content, target in rows]
    return sorted(lines) if isinstance(images.reader, FileReader) else lines
