"""Lists of splits: the texts in which a data set says which images are for training, for validation and for testing.

`ImageSets/Main/train.txt` of Pascal VOC, `train.txt` of darknet and CVAT, `splits/Train.txt` and the like are read by
this one piece of code. A list that is there and cannot be used is an error: no other split takes its place.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from zoo.errors import DataError, InputError
from zoo.files import lies_inside
from zoo.tasks.detection.formats._files import (
    SPLITS,
    Findings,
    clip,
    count,
    escapes_folder,
    find_folder,
    list_files,
    list_folders,
    natural_key,
    read_limited,
    show_path,
    split_from_name,
)
from zoo.tasks.detection.formats._path_ends import ITEM_SUFFIXES, Items, Match, cut_suffix

PLACES = (("imagesets", "main"), ("imagesets",), ("splits",), ("split",), ("lists",), ())  # in lower case
TRAINVAL = "trainval"
EVERYTHING = frozenset({"default", "all"})  # stems of lists that tell no split, and mean none
MAX_BYTES = 1_000_000_000
LOOKED_AT = 50  # lines of a text that may be a list
LISTS = frozenset({".txt", ".lst", ".list"})
FLAG = re.compile(r"(.*\S)\s+(-1|0|1|\+1)")  # a line of a class list: an image, and whether the class is in it


class SplitList(NamedTuple):
    """A list and its split, `train`, `val`, `test` or `trainval`."""

    path: Path
    split: str


class _Place(NamedTuple):
    """Where lists are looked for and how they are told: `root` is the folder of the data."""

    root: Path
    items: Items
    findings: Findings

    def at(self, path: Path, split: str = "") -> Findings:
        return self.findings.at(file=show_path(path, self.root), split="train" if split == TRAINVAL else split)


def read_split_lists(
    base: Path,
    root: Path,
    items: Items,
    findings: Findings,
    *,
    given: Sequence[SplitList] = (),
    is_other: Callable[[Path], bool] = lambda path: False,
) -> dict[str, list[str]]:
    """Find the lists of a data set and read them.

    Args:
        base: The folder around images and annotations.
        root: The folder of the data, for messages.
        items: What lists may name.
        findings: Takes what is wrong and what was repaired.
        given: Lists that are known already; those of other splits are looked for.
        is_other: Tells that a text called as a list is something else, such as a label file.

    Returns:
        Items by split in natural order; nothing if there are no lists.

    Raises:
        DataError: If two lists could be the same split.
    """
    place = _Place(root, items, findings)
    found = _find_lists(base, place, given, is_other)
    return read_named_lists(found, root, items, findings) if found else {}


def read_named_lists(lists: Sequence[SplitList], root: Path, items: Items, findings: Findings) -> dict[str, list[str]]:
    """Read lists whose splits are known, as `read_split_lists`; those of one split are joined."""
    place = _Place(root, items, findings)
    read: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    for path, split in lists:
        read.setdefault(split, []).extend(read_list(path, root, items, place.at(path, split)))
        names.setdefault(split, show_path(path, root))
    _share_trainval(read, names, place)
    if not read.get("test", True):
        del read["test"]  # told already; a test without images is none
    settled = {split: list(dict.fromkeys(read[split])) for split in SPLITS if split in read}
    _part_splits(settled, names, place)
    return {split: sorted(found, key=natural_key) for split, found in settled.items()}


def read_list(path: Path, root: Path, items: Items, findings: Findings) -> list[str]:
    """Return the items that a list names, in its order; what is wrong becomes findings.

    Args:
        path: The list.
        root: The folder of the data: lines of a list that a link leads out of it for are not quoted.
        items: What it may name.
        findings: For this split and file.
    """
    is_test = findings.split == "test"
    try:
        lines = list(_read_lines(path))
    except InputError as error:
        findings.error("unusable lists", f"{error}. The split {findings.split} is skipped")
        return []
    quote: Callable[[str], str] = clip if lies_inside(path, root) else lambda _: "the image of this line"
    flags = _is_class_list(path)
    matches = [(line, text, _match(text, path.parent, items, with_flags=flags)) for line, text in lines]
    if any(match.item for _, _, match in matches):
        return _take(matches, findings, quote)
    if not lines:
        problem = "it is empty"
    elif any((flag := FLAG.fullmatch(text)) and items.find(flag[1], path.parent).item for _, text in lines[:LOOKED_AT]):
        problem = "its second column marks the images of one class, so it is not a split list"
    else:
        first = f"{quote(lines[0][1])}{matches[0][2].hint}"
        problem = f"it lists {count(len(lines), 'image')}, and none was found. The first is {first}"
    told = findings.warn if is_test else findings.error
    hint = "The test split is skipped" if is_test else "Correct the list, or move it elsewhere"
    told("unusable lists", f"{problem}. {hint}")
    return []


def _find_lists(
    base: Path, place: _Place, given: Sequence[SplitList], is_other: Callable[[Path], bool]
) -> list[SplitList]:
    """Return the list of each split: from the first place that has one; those of other places must agree with it."""
    chosen = {split: [path] for path, split in given}
    is_usual = bool(chosen)
    others = [("imagesets", name) for name in _list_inside(base, "imagesets") if name != "main"]
    for folders in (*PLACES, *others):
        folder = _go_down(base, folders)
        if folder is None or (folders in others and is_usual):  # VOC keeps the lists of other tasks there
            continue
        paths = [folder / name for name in list_files(folder, LISTS)]
        named = _name_lists([path for path in paths if not is_other(path)], place, is_custom=bool(folders))
        for split, found in named.items():
            if split in chosen:
                _compare(split, chosen[split], found, place)
            else:
                chosen[split] = found
        is_usual = is_usual or (bool(chosen) and folders not in others)
    return [SplitList(path, split) for split, paths in chosen.items() for path in paths]


def _list_inside(base: Path, name: str) -> list[str]:
    folder = find_folder(base, [name])
    return [inside.casefold() for inside in list_folders(folder)] if folder else []


def _go_down(folder: Path, names: Sequence[str]) -> Path | None:
    for name in names:
        below = find_folder(folder, [name])
        if below is None:
            return None
        folder = below
    return folder


def _name_lists(paths: Sequence[Path], place: _Place, *, is_custom: bool) -> dict[str, list[Path]]:
    """Return the lists of each split that are in a folder; `is_custom` tells that it is a folder of lists."""
    exact: dict[str, list[Path]] = {}
    alike: dict[str, list[Path]] = {}
    flagged: dict[str, list[Path]] = {}
    nameless: list[Path] = []
    for path in paths:
        if split := _tell_list(path.stem):
            exact.setdefault(split, []).append(path)
            continue
        words = {split for word in re.findall(r"[a-z]+", path.stem.casefold()) if (split := _tell_list(word))}
        if is_custom and len(words) == 1 and _is_class_list(path):
            flagged.setdefault(words.pop(), []).append(path)
        elif _names_items(path, place.items) and len(words) == 1:
            alike.setdefault(words.pop(), []).append(path)
        elif is_custom and path.stem.casefold() not in EVERYTHING and _names_items(path, place.items):
            nameless.append(path)
    for split, same in [*exact.items(), *((split, same) for split, same in alike.items() if split not in exact)]:
        if len(same) > 1:
            raise DataError(
                f"{str(same[0].parent)!r} holds {' and '.join(repr(path.name) for path in same[:4])}, and either "
                f"could be the list of {split}. Move all but one elsewhere."
            )
    named = {**alike, **exact} or flagged
    for path in nameless:
        text = (
            "it lists images, but its name does not name a split; rename it to train.txt, val.txt or test.txt, or "
            "move it elsewhere"
        )
        (place.at(path).warn if named else place.at(path).error)("lists not named after a split", text)
    return named


def _tell_list(stem: str) -> str | None:
    if re.fullmatch(r"(?i)train[-_ ]?val(id|idation)?([-_ ]?[0-9]{4})?", stem):
        return TRAINVAL
    return split_from_name(stem)


def _names_items(path: Path, items: Items) -> bool:
    """Tell whether a text lists something that is there."""
    try:
        return any(items.find(text, path.parent).item for _, text in islice(_read_lines(path), LOOKED_AT))
    except InputError:
        return False


def _is_class_list(path: Path) -> bool:
    """Tell whether a list is `cat_train.txt` of VOC: of all images of a split, with a flag for the class."""
    if _tell_list(path.stem):
        return False
    try:
        lines = [text for _, text in islice(_read_lines(path), LOOKED_AT)]
    except InputError:
        return False
    return bool(lines) and all(FLAG.fullmatch(text) for text in lines)


def _compare(split: str, taken: Sequence[Path], others: Sequence[Path], place: _Place) -> None:
    """Tell that two lists of a split, of two places, do not list the same."""
    quiet = Findings(split=split)
    first, second = (
        {item for path in paths for item in read_list(path, place.root, place.items, quiet)}
        for paths in (taken, others)
    )
    if second and first != second:
        text = (
            f"it lists {count(len(second), 'image')}, and {show_path(taken[0], place.root)}, also a list of {split}, "
            f"{len(first):,}: {len(first ^ second):,} differ. Move one of them elsewhere"
        )
        place.at(others[0], split).error("contradictory lists", text)


def _read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of each line that is neither empty nor a comment.

    Raises:
        InputError: If the list cannot be read; the text goes after its name.
    """
    data = read_limited(path, MAX_BYTES)
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"  # PowerShell writes the first
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError("it is neither UTF-8 nor UTF-16 text. Save it as UTF-8") from error
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        stripped = line.strip().strip("\ufeff")
        if len(stripped) > 1 and stripped[0] == stripped[-1] == '"':
            stripped = stripped[1:-1]
        if stripped and not (stripped[0] == "#" and not stripped.casefold().endswith(tuple(ITEM_SUFFIXES))):
            yield number, stripped


def _match(text: str, folder: Path, items: Items, *, with_flags: bool) -> Match:
    """Return what a line names: all of it, its first column if a flag follows, or what all its columns name."""
    columns = text.split()
    if with_flags:
        return items.find(text.rsplit(maxsplit=1)[0], folder)
    if len(columns) == 2 and all(column.lower().endswith(tuple(ITEM_SUFFIXES)) for column in columns):
        image, annotation = (items.find(column, folder) for column in columns)
        if image.item or annotation.item:
            return image if image.item == annotation.item else Match(hint="; it has extra columns")
    return items.find(text, folder)


def _take(matches: Sequence[tuple[int, str, Match]], findings: Findings, quote: Callable[[str], str]) -> list[str]:
    """Return the items of the lines; tell those that name nothing, what is listed twice and what has moved."""
    first: dict[str, tuple[int, str]] = {}
    moved: list[tuple[int, str]] = []
    for line, text, match in matches:
        if not match.item:
            findings.error("missing listed images", f"{quote(text)} does not exist{match.hint}; skipped", line)
        elif match.item in first:
            other, other_text = first[match.item]
            if _ends_alike(text, other_text):
                findings.warn("images listed twice", f"{quote(text)} is already on line {other:,}", line)
            else:
                text = f"{quote(text)} is the same image as line {other:,}, {quote(other_text)}; skipped"
                findings.error("lines for the same image", text, line)
        else:
            first[match.item] = line, text
            moved += [(line, text)] * match.moved
    if moved:
        line, text = moved[0]
        is_usual = not any(escapes_folder(text.replace("\\", "/")) for _, text in moved)  # only `data/` before it
        text = (
            f"{count(len(moved), 'path is', 'paths are')} not valid as written and matched by file name: {quote(text)}"
        )
        (findings.note if is_usual else findings.warn)("paths that do not exist", text, line)
    return list(first)


def _share_trainval(read: dict[str, list[str]], names: dict[str, str], place: _Place) -> None:
    """Use `trainval` for train where there is neither train nor val, else for the one that is missing."""
    both = read.pop(TRAINVAL, None)
    if both is None or {"train", "val"} <= read.keys():
        return
    there = "val" if "val" in read else "train"
    missing = "train" if there == "val" or there not in read else "val"
    rest = set(read.get(there, ())) if there != missing else set()
    others = [item for item in both if item not in rest]
    if rest and not others:
        return
    read[missing], names[missing] = others, names[TRAINVAL]
    if rest:
        text = f"it lists images that {names[there]} does not, used as {missing}: {count(len(read[missing]), 'image')}"
        place.findings.at(file=names[TRAINVAL], split=missing).note("splits", text)


def _part_splits(read: dict[str, list[str]], names: Mapping[str, str], place: _Place) -> None:
    """Leave out of train what is listed for val or test too, and tell it; between val and test it is told only."""
    for one, other in combinations(tuple(read), 2):
        both = set(read[one]) & set(read[other])
        if not both or (one == "train" and names[one] == names[other]):
            continue
        first = sorted(both, key=natural_key)[0]
        shown = clip(show_path(first, place.root))
        text = f"{count(len(both), 'image is', 'images are')} in {names[one]} and in {names[other]}, such as {shown}"
        here = place.findings.at(file=names[other], split=other)
        if one == "train":
            here.error("images in two splits", f"{text}; they are removed from train")
            read[one] = [item for item in read[one] if item not in both]
        else:
            here.warn("images in two splits", f"{text}, used in both")


def _ends_alike(one: str, other: str) -> bool:
    """Tell whether two written paths are the same but for the suffix and what is before one of them."""
    first, second = (
        PurePosixPath(os.path.normpath(cut_suffix(text.replace("\\", "/")))).parts for text in (one, other)
    )
    length = min(len(first), len(second))
    return first[-length:] == second[-length:]
