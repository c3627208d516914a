"""Labelled images by index, the check that all of them can be read, and a fair split in two."""

import hashlib
import os
import warnings
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self, TypeAlias

from PIL import Image

from zoo.data.check_cache import CheckNotes
from zoo.data.decode import Need, examine, read_image
from zoo.data.image_store import ImageStore
from zoo.data.labels import number_labels, plain_labels
from zoo.data.prefetch import submit_ahead
from zoo.data.splits import FileReader, Reader, Split
from zoo.errors import DataError, InputError

Finding: TypeAlias = tuple[Any, str | None, str]  # label, why the sample cannot be used, and what is odd about it

BATCH = 64  # samples that a thread checks at a time
THREADS = min(16, 2 * (os.cpu_count() or 1))  # more than cores: some wait for the disk


@dataclass(frozen=True)
class Problem:
    """A sample that cannot be used.

    Attributes:
        name: The path of a file below the data's folder, or the place of a sample in its data set.
        reason: What is wrong with it.
    """

    name: str
    reason: str


@dataclass(frozen=True, repr=False)
class Images:
    """Labelled images of one split.

    Attributes:
        reader: Gives what `read_image` takes, by position.
        names: What to call each image: a path below the data's folder, or like `train[7]`.
        targets: The class number of each.
        positions: Where the reader finds each.
        in_threads: Whether several threads may read at once.
        store: Where decoded images are kept, if they are.
        store_name: What this split is called in there.
        need: Of the pixels that are decoded; see `read_image`.
        groups: What each belongs to, if the data says it, such as a patient or a camera.
    """

    reader: Reader
    names: tuple[str, ...]
    targets: tuple[int, ...]
    positions: tuple[int, ...]
    in_threads: bool = False
    store: ImageStore | None = None
    store_name: str = ""
    need: Need | None = None
    groups: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        return f"<Images: {len(self):,}>"

    def __len__(self) -> int:
        return len(self.positions)

    def read(self, index: int, /) -> tuple[Image.Image, int]:
        """Return an image, RGB, of as many pixels as are needed, and its class number.

        Raises:
            DataError: If it cannot be read (any more); the text names it.
        """
        return read_kept(self, index), self.targets[index]

    def find_source(self, index: int, /) -> Any:
        """Return what `read_image` takes of an image."""
        return self.reader(self.positions[index])[0]

    def list_numbers(self) -> list[tuple[int, ...]]:
        """Return all class numbers of each image."""
        return [(target,) for target in self.targets]

    def target_bytes(self) -> list[bytes]:
        """Return the class numbers as bytes, after a word for what they are."""
        return [b"classes", array("q", self.targets).tobytes()]

    def keeping(self, store: ImageStore, name: str) -> "Images":
        """Return the same images, read once and then from a store.

        Args:
            store: Keeps them.
            name: Tells this split from others in the store, as a part of a file's name.
        """
        return replace(self, store=store, store_name=name)

    def needing(self, need: Need | None) -> Self:
        """Return the same images, of which no more is decoded than is needed; None: all of them."""
        return replace(self, need=need)

    def subset(self, indices: Sequence[int]) -> "Images":
        """Return some of the images, in the order of the indices."""
        return replace(
            self,
            names=tuple(self.names[index] for index in indices),
            targets=tuple(self.targets[index] for index in indices),
            positions=tuple(self.positions[index] for index in indices),
            groups=None if self.groups is None else tuple(self.groups[index] for index in indices),
        )


@dataclass(frozen=True)
class Check:
    """What reading every sample of a split once has shown.

    Attributes:
        good: Positions of the samples that can be used.
        labels: Their labels.
        problems: What is wrong with the others.
        remarks: What is odd about some of the good ones, such as that they are almost black.
    """

    good: tuple[int, ...]
    labels: tuple[Any, ...]
    problems: tuple[Problem, ...]
    remarks: tuple[Problem, ...] = ()


def check_splits(
    splits: Mapping[str, Split],
    *,
    check: bool,
    on_progress: Callable[[int, int], None] | None = None,
    plain: Callable[[Sequence[Any], Sequence[str], str], list[Any]] = plain_labels,
) -> dict[str, Check]:
    """Read every sample once, files in several threads; files that were found good and have not changed are not read.

    Args:
        splits: What to look at.
        check: Whether to decode; else only labels that are not known yet are read.
        on_progress: Called with the number of samples seen and of all.
        plain: Turns labels, the names of their samples and of the split into plain values.

    Returns:
        What was found, by split.

    Raises:
        DataError: If a sample that can be read has a label that is neither a number nor a name.
    """
    wanted = {name: split for name, split in splits.items() if check or split.labels is None}
    total, done = sum(len(split.names) for split in wanted.values()), 0

    def count(samples: int) -> None:
        nonlocal done
        done += samples
        if on_progress:
            on_progress(done, total)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # what it warns of either reads well or becomes a fault
        found = {name: list(_examine_all(split, check=check, count=count)) for name, split in wanted.items()}
    return {
        name: _conclude(
            split, found[name] if name in found else [(label, None, "") for label in split.labels or ()], plain
        )
        for name, split in splits.items()
    }


def number_images(split: Split, check: Check, classes: tuple[str, ...], origin: str, *, by_name: bool = True) -> Images:
    """Turn the usable samples of a split into images with class numbers.

    Args:
        split: Where the samples are.
        check: Which of them can be used.
        classes: The names of the class numbers.
        origin: Where the classes come from, for messages.
        by_name: What numbers without names are; see `number_labels`.

    Raises:
        DataError: If a label is out of range, or names no class.
    """
    names = tuple(split.names[position] for position in check.good)
    options: dict[str, Any] = {"names": names, "split": split.name, "origin": origin, "by_name": by_name}
    targets = number_labels(check.labels, split.classes, classes, **options)
    groups = None if split.groups is None else tuple(split.groups[position] for position in check.good)
    return Images(split.reader, names, targets, check.good, in_threads=split.in_threads, groups=groups)


def check_val_fraction(fraction: object) -> None:
    """Refuse what is no share of the data to keep for val: a number above 0 and below 1."""
    if not isinstance(fraction, (int, float)) or not 0 < fraction < 1:
        raise InputError(f"val_fraction is {fraction!r}; expected a number between 0 and 1.")


def pick_val(names: Sequence[str], targets: Sequence[int], *, fraction: float, seed: int) -> list[int]:
    """Choose images for validation: the same share of every class, and never the last image of one.

    The choice depends on names and seed alone, not on the order in which a file system lists files, and changes little
    when images are added.

    Args:
        names: One for each image.
        targets: Their class numbers.
        fraction: The share to choose, between 0 and 1; at least one image of each class that has two.
        seed: Decides the choice.

    Returns:
        Indices, ascending.
    """
    by_class: dict[int, list[int]] = {}
    for index, target in enumerate(targets):
        by_class.setdefault(target, []).append(index)
    chosen: list[int] = []
    for same in by_class.values():
        count = min(max(1, round(len(same) * fraction)), len(same) - 1)
        chosen += sorted(same, key=lambda index: _lot(seed, names[index]))[:count]
    return sorted(chosen)


def _lot(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/".encode() + os.fsencode(name)).digest()


def _examine_all(split: Split, *, check: bool, count: Callable[[int], None]) -> Iterator[Finding]:
    """Yield label and fault of each sample, in order."""
    size = len(split.names)
    batches = [range(start, min(start + BATCH, size)) for start in range(0, size, BATCH)]
    notes = CheckNotes(split.reader.root) if check and isinstance(split.reader, FileReader) else None
    for results in _run(split, batches, notes, check=check):
        count(len(results))
        yield from results
    if notes:
        notes.save()


def _run(split: Split, batches: list[range], notes: CheckNotes | None, *, check: bool) -> Iterator[list[Finding]]:
    if not split.in_threads:
        from zoo.data.loader import seeded_sample  # torch is imported only where it is needed

        for batch in batches:
            with seeded_sample(0, 0, batch.start, everywhere=True):  # a data set may draw random numbers
                findings = _examine(split, batch, notes=notes, check=check)
            yield findings
        return
    examine_some = partial(_examine, split, notes=notes, check=check)
    for done in submit_ahead(examine_some, batches, threads=THREADS, ahead=4 * THREADS):  # millions do not wait
        yield done.result()


def _examine(split: Split, positions: range, *, notes: CheckNotes | None, check: bool) -> list[Finding]:
    results: list[Finding] = []
    for position in positions:
        try:
            source, label = split.reader(position)
        except InputError as error:
            results.append((None, str(error), ""))
            continue
        known = label if split.labels is None else split.labels[position]
        results.append((known, *(_examine_one(source, split.reader, position, notes) if check else (None, ""))))
    return results


def _examine_one(source: Any, reader: Reader, position: int, notes: CheckNotes | None) -> tuple[str | None, str]:
    """Return the fault and the remark of an image; only what has neither is noted as good."""
    if notes is None or not isinstance(reader, FileReader):
        return examine(source)
    name = reader.names[position]
    facts = notes.look(name)
    if notes.is_good(name, facts):
        return None, ""
    fault, remark = examine(source)
    if fault is None and not remark:
        notes.add(name, facts)
    return fault, remark


def _conclude(
    split: Split, findings: Sequence[Finding], plain: Callable[[Sequence[Any], Sequence[str], str], list[Any]]
) -> Check:
    good = tuple(position for position, (_, fault, _) in enumerate(findings) if fault is None)
    labels = plain([findings[i][0] for i in good], [split.names[i] for i in good], split.name)
    told = list(zip(split.names, findings, strict=True))
    problems = tuple(Problem(name, fault) for name, (_, fault, _) in told if fault is not None)
    remarks = tuple(Problem(name, remark) for name, (_, _, remark) in told if remark)
    return Check(good, tuple(labels), problems, remarks)


def read_kept(images: Any, index: int) -> Image.Image:
    """Return the image of an image set by index, from its store of decoded images if it has one.

    Args:
        images: Has `positions`, `names`, `find_source`, `need`, `store` and `store_name`.
        index: Of the image.

    Raises:
        DataError: If it cannot be read (any more); the text names it.
    """
    position = images.positions[index]
    key = f"{images.store_name}-{position}"
    if images.store is not None and (kept := images.store.get(key)):
        found: Image.Image = kept
        return found
    try:
        image = read_image(images.find_source(index), images.need)
    except InputError as error:
        raise DataError(
            f"image {images.names[index]!r}: {error}. Restore the image; a new run can skip unreadable images with "
            "skip_bad=True (--skip-bad)."
        ) from error
    if images.store is not None:
        images.store.put(key, image)
    return image
