"""Folders of images: which splits, which classes, which files. Nothing is opened here."""

import heapq
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from zoo.errors import DataError, InputError

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
LIKE_SPLITS = ("train", "test", "val", "eval")  # how folders begin that are hardly classes
NOT_DATA = {"thumbs.db", "desktop.ini", "ehthumbs.db", "__macosx", "@eadir"}  # what systems leave behind
EXPECTED = (
    "Expected train/<class>/<images> and val/<class>/<images>, or <class>/<images> alone (part of it is then held "
    "out for val), or a table (.csv, .parquet) with the columns image and label."
)

BLOCK = 50_000  # names of one folder that are sorted at a time

Files = dict[str, list[str]]  # class -> sorted paths, relative to the root, with forward slashes


def scan_folder(root: Path) -> dict[str, Files]:
    """List the images of every split and class.

    Args:
        root: Holds `train`, `val` (or `valid`, `validation`), `test` with a folder per class, or the classes alone.

    Returns:
        Files by split (`train`, `val`, `test`; or `all` where the folder has no splits) and by class, both sorted.
        Hidden files and what systems leave behind are passed over; everything else counts as an image.

    Raises:
        DataError: If there is no such folder, or its layout is none of these.
    """
    _check_root(root)
    folders = list(_folders(root))
    splits = _find_splits(root, folders)
    if splits:
        return {split: _scan_classes(root, folder) for split, folder in splits.items()}
    _check_plain_classes(root, folders)
    return {"all": _scan_classes(root, root)}


def walk_files(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and its folders, in the order of their paths; what is no data is passed over.

    No more than `BLOCK` names of a folder are in memory, however many it holds.

    Raises:
        DataError: A folder cannot be listed.
    """
    return _walk_sorted(folder, frozenset())


def rename_splits(source: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the parts of a mapping that are splits, as `train`, `val` and `test`.

    Raises:
        DataError: None is, or two are the same.
    """
    datasets: dict[str, Any] = {}
    for key, part in source.items():
        if name := SPLIT_NAMES.get(str(key).casefold()):
            if name in datasets:
                raise DataError(f"the data has several splits for {name}: {', '.join(map(str, source))}. Keep one.")
            datasets[name] = part
    if not datasets:
        raise DataError(
            f"the data has the splits {', '.join(map(str, source)) or '(none)'}; expected train, and val, validation "
            "or test. Pass one of them alone, as data['...'], or rename them."
        )
    return datasets


def choose_split(only: str, present: Collection[str], *, undivided: str) -> str:
    """Return which split of some data is the one to score.

    Args:
        only: What is wanted: `train`, `val` or `test`. Where there is no val, test is taken for it, or all of the data.
        present: Splits of the data; `all` where it has none.
        undivided: What data without splits has, for an error.

    Raises:
        InputError: `only` is no split.
        DataError: The data does not have it.
    """
    if only not in SPLIT_NAMES.values():
        raise InputError(f"unknown split {only!r}; expected train, val or test.")
    for name in (only, "test", "all") if only == "val" else (only,):
        if name in present:
            return name
    has = ", ".join(name for name in present if name != "all") or f"{undivided}; use val to evaluate all of it"
    raise DataError(f"the data has no split {only!r}; it has {has}.")


def _check_root(root: Path) -> None:
    if not root.exists():
        hint = ""
        if root.is_symlink():
            hint = " It is a broken symbolic link."
        elif not root.is_absolute():
            hint = f" Current folder: {Path.cwd()}."
        raise DataError(
            f"there is no folder {str(root)!r}.{hint} {EXPECTED} For a data set on the Hugging Face Hub, pass the "
            "object: datasets.load_dataset(...)."
        )
    if not root.is_dir():
        archive = root.suffix.lower() in {".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"}
        hint = "Extract it and pass the folder." if archive else EXPECTED
        raise DataError(f"{str(root)!r} is a file, not a folder of images. {hint}")


def _find_splits(root: Path, folders: list[Path]) -> dict[str, Path]:
    """Tell the folders that are splits: they have a split's name and hold folders."""
    named: dict[str, list[Path]] = {}
    for folder in folders:
        if split := SPLIT_NAMES.get(folder.name.casefold()):
            named.setdefault(split, []).append(folder)
    if not named:
        return {}
    for split, same in named.items():
        if len(same) > 1:
            raise DataError(
                f"{str(root)!r} holds both {_quote(same)}, and either could be {split}. Move one of them elsewhere."
            )
    splits = {split: same[0] for split, same in named.items()}
    others = [folder for folder in folders if folder.name.casefold() not in SPLIT_NAMES]
    with_classes = {split: folder for split, folder in splits.items() if any(_folders(folder))}
    if not with_classes and others:
        return {}  # trains, cars and planes: 'train' is a class
    if splits.keys() == {"train"} and any(_has_files(folder) for folder in others):
        raise DataError(
            f"{str(root)!r} holds 'train', which looks like a split, beside {_quote(others)}, which look like "
            f"classes. {EXPECTED} Move elsewhere what does not belong."
        )
    for split, folder in splits.items():
        if split not in with_classes and not (split == "test" and with_classes):  # test images are often unlabelled
            raise DataError(f"{str(folder)!r} {_what_instead(folder)}. {EXPECTED}")
    return dict(sorted(with_classes.items()))


def _check_plain_classes(root: Path, folders: list[Path]) -> None:
    if not folders:
        raise DataError(f"{str(root)!r} {_what_instead(root)}. {EXPECTED}")
    inside = [{folder.name.casefold() for folder in _folders(child)} & SPLIT_NAMES.keys() for child in folders]
    if len(folders) == 1:
        only = folders[0]
        hint = f" Did you mean {str(only)!r}?" if inside[0] or sum(1 for _ in _folders(only)) > 1 else ""
        if hint or not _has_files(only):
            raise DataError(f"{str(root)!r} holds the folder {only.name!r} only.{hint} {EXPECTED}")
    odd = [folder for folder in folders if folder.name.casefold().startswith(LIKE_SPLITS) and any(_folders(folder))]
    if odd:
        raise DataError(
            f"{str(root)!r} holds {_quote(odd)}, which look like splits, not classes. Rename them to train, val or "
            f"test. {EXPECTED}"
        )
    if all(inside):
        raise DataError(
            f"in {str(root)!r} every class holds folders such as {min(inside[0])!r}: the splits are inside the "
            f"classes. {EXPECTED}"
        )


def _scan_classes(root: Path, folder: Path) -> Files:
    files: Files = {}
    above = frozenset({_identify(root), _identify(folder)})
    for child in _folders(folder):
        try:
            child.name.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"the name of class {child.name!r} is not valid UTF-8. Rename the folder.") from error
        files[child.name] = sorted(_walk(root, child, above))
    return files


def _walk(root: Path, folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """Yield what is in a folder and its folders; a link back to a folder above is not followed."""
    identity = _identify(folder)
    if identity in above:
        return
    prefix = folder.relative_to(root).as_posix()
    for entry in _list(folder):
        if _is_folder(entry):
            yield from _walk(root, Path(entry.path), above | {identity})
        else:
            yield f"{prefix}/{entry.name}"


def _walk_sorted(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    identity = _identify(folder)
    if identity in above:
        return
    last = ""
    while block := heapq.nsmallest(BLOCK, ((e.name, _is_folder(e)) for e in _scan(folder) if e.name > last)):
        for last, is_folder in block:
            if is_folder:
                yield from _walk_sorted(folder / last, above | {identity})
            else:
                yield folder / last


def _identify(folder: Path) -> tuple[int, int]:
    place = folder.stat()
    return place.st_dev, place.st_ino


def _folders(folder: Path) -> Iterator[Path]:
    """Yield the folders in a folder, sorted by name."""
    yield from sorted(Path(entry.path) for entry in _list(folder) if _is_folder(entry))


def _has_files(folder: Path) -> bool:
    return any(not _is_folder(entry) for entry in _list(folder))


def _list(folder: Path) -> list["os.DirEntry[str]"]:
    """List what counts in a folder."""
    return list(_scan(folder))


def _scan(folder: Path) -> Iterator["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            yield from (e for e in entries if e.name[0] != "." and e.name.casefold() not in NOT_DATA)
    except OSError as error:
        raise DataError(
            f"the folder {str(folder)!r} cannot be listed ({error.strerror}). Grant read permission, or move it "
            "elsewhere."
        ) from error


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle: reading it will say so
        return False


def _what_instead(folder: Path) -> str:
    count = len(_list(folder))
    if not count:
        return "is empty"
    return f"contains {count:,} file{'s' * (count > 1)} but no class folders"


def _quote(folders: list[Path]) -> str:
    names = [repr(folder.name) for folder in folders[:4]] + ["..."] * (len(folders) > 4)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
