"""The data of an extension: that of the run, if it is still there, and that with the new classes, numbered alike."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo.data import digest_contents, tell_change
from zoo.errors import InputError
from zoo.progress import Progress
from zoo.settings import Preset, opening_options
from zoo.tasks import Task, sum_up
from zoo.training import RunFolder, open_for_run


@dataclass(frozen=True)
class ExtensionData:
    """Old and new images, with the same class numbers: the old classes come first.

    Attributes:
        classes: All of them.
        count: How many are old.
        old: Data of the run; None if it is not there.
        new: Data with the new classes, without the images that are in `old`.
        seen: Of `new`, the validation images of old classes alone; None without such images.
    """

    classes: tuple[str, ...]
    count: int
    old: Any
    new: Any
    seen: Any

    def counted(self, labels: Tensor) -> Any:
        """Return data whose training images can be counted by class, though not read."""
        numbers = tuple(labels.tolist())
        places = tuple(range(len(numbers)))
        return replace(self.new, train=replace(self.new.train, targets=numbers, positions=places, names=()))


def open_both(
    folder: RunFolder, classes: tuple[str, ...], data: Any, old_data: Any, task: Task, preset: Preset, show: Progress
) -> ExtensionData:
    """Open the data of an extension.

    Args:
        folder: The run's.
        classes: Those of its model.
        data: With new classes.
        old_data: The run's data, if it is in another place.
        task: The model's.
        preset: Of the run.
        show: Where progress and findings are shown.

    Raises:
        InputError: There is no new class, or there are no images to solve or to judge by.
    """
    record = folder.read_json("data.json")
    new = _open_new(classes, data, task, preset, show)
    old = _open_old(folder, record, data, old_data, task, preset, show)
    count = len(classes)
    new = _leave_out_known(new, record, count, show, is_there=old is not None)
    mine = [] if new.val is None else [place for place, target in enumerate(new.val.targets) if target < count]
    seen = replace(new, val=new.val.subset(mine), classes=classes) if mine else None
    found = ExtensionData(new.classes, count, old, new, seen)
    _check_images(found, folder)
    return found


def _open_new(classes: tuple[str, ...], data: Any, task: Task, preset: Preset, show: Progress) -> Any:
    if hasattr(data, "describe"):
        raise InputError("the data was opened before, without the classes of the run. Pass the folder or data set.")
    options = {name: value for name, value in opening_options(preset, task).items() if name not in task.opening}
    with show.counting("checking images") as count:
        opened: Any = task.open_data(data, beside=classes, on_progress=count, **options)
    if opened.loaders:
        raise InputError("an extension needs images of a folder, a table or data sets; the data are loaders.")
    show.log(f"data: {sum_up(opened)}")
    if not opened.named:
        raise InputError(
            f"the classes of {opened.source} have no names, so new classes cannot be told from old ones. Set the names "
            "on the data set, dataset.classes = [...]."
        )
    if len(opened.classes) == len(classes):
        raise InputError(
            f"{opened.source} has no new class: the run has all of its classes already. For more images of the same "
            "classes, start a new run."
        )
    return opened


def _open_old(
    folder: RunFolder, record: Any, data: Any, old_data: Any, task: Task, preset: Preset, show: Progress
) -> Any:
    """Return the data of the run; None if it is not there any more, or is now part of the data with new classes."""
    source = record["source"]
    if old_data is None:
        if not Path(source).is_absolute() or not Path(source).exists():
            show.log(f"note: the data of the run is not there: {source}. old_data= (--old-data) names its new place")
            return None
        if isinstance(data, (str, Path)) and Path(data).resolve() == Path(source).resolve():
            return None
    wanted = source if old_data is None else old_data
    show.log("the data of the run:")
    opened = open_for_run(wanted, task, preset, show, classes=tuple(record["classes"]))
    if (now := opened.describe())["digest"] != record["digest"]:
        raise InputError(
            f"the data of the run in {folder.path} has changed: {opened.source} ({tell_change(record, now)}), so it is "
            "not known which images it was trained on. Restore it; or pass it with the new classes as one folder."
        )
    return opened


def _leave_out_known(new: Any, record: Any, count: int, show: Progress, *, is_there: bool) -> Any:
    """Return data without images of old classes that the run has in another split, or at all if its data is there."""
    known, dropped = _list_known(record), 0
    parts: dict[str, Any] = {}
    for split in ("train", "val"):
        images = getattr(new, split)
        kept = [] if images is None else _sift(images, split, known, count, is_there=is_there)
        dropped += 0 if images is None else len(images) - len(kept)
        parts[split] = images.subset(kept) if kept else None
    if dropped:
        why = "are in the data of the run already" if is_there else "were in another split when the run was trained"
        show.log(f"{dropped:,} images of old classes {why}, and are left out of {new.source}")
    return replace(new, test=None, **parts)


def _list_known(record: Any) -> dict[str, str]:
    """Return the split of each image of the run's data by its digest."""
    files = record.get("files") or {}
    return {digest: split for split, names in files.items() for digest in names.values() if digest}


def _sift(images: Any, split: str, known: dict[str, str], count: int, *, is_there: bool) -> list[int]:
    """Return which images of a split to use: none twice, and none that was in another split for the run.

    Args:
        images: Of the data with new classes.
        split: Its name.
        known: Split of the run's images by digest.
        count: Of the old classes; images of new ones are all used.
        is_there: Whether the run's images are used themselves.
    """
    old = [place for place, target in enumerate(images.targets) if target < count]
    digits = len(next(iter(known), ""))
    digests = digest_contents(images.subset(old)) if known and old else [""] * len(old)
    before = {place: known.get(digest[:digits]) for place, digest in zip(old, digests, strict=True)}
    out = {place for place, where in before.items() if where and (is_there or where != split)}
    return [place for place in range(len(images)) if place not in out]


def _check_images(found: ExtensionData, folder: RunFolder) -> None:
    """Refuse data without images of old classes, or of a new class, to solve and to judge by."""
    trained = Counter(found.new.train.targets if found.new.train is not None else ())
    missing = [name for number, name in enumerate(found.classes) if number >= found.count and not trained[number]]
    if missing:
        raise InputError(f"{found.new.source} has no training image of {', '.join(map(repr, missing[:10]))}.")
    has_old = found.old is not None or any(number < found.count for number in trained)
    if not has_old:
        raise InputError(
            f"there are no training images of old classes: the data of the run in {folder.path} is not there, and "
            f"{found.new.source} has new classes only. Without them nothing tells new classes from old ones. Pass the "
            "data of the run (--old-data, old_data=), or add images of old classes."
        )
    if found.seen is None and (found.old is None or found.old.val is None):
        raise InputError(
            "there are no validation images of old classes, so what the model forgets cannot be known. Add a split "
            "'val' with old classes."
        )
