"""Which files of a folder are annotation files of COCO, and of which split each is."""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from zoo.errors import DataError, InputError
from zoo.tasks.detection.formats._files import (
    Findings,
    clip,
    list_files,
    list_folders,
    read_ends,
    show_path,
    split_from_name,
)
from zoo.tasks.detection.formats._format import LookAlike
from zoo.tasks.detection.formats._split_traces import UNREAD_SPLITS, tell_unread_folders

FOREIGN = ("captions_", "image_info_", "panoptic_", "stuff_")  # how files without boxes begin
KEYPOINTS = "person_keypoints_"  # how those begin that have the boxes of people alone
EXPORTED = "_annotations.coco.json"
TRAINVAL = "trainval"
PEEK_BYTES = 2**16
MOST_EXPLAINED = 100
UNREAD = "json files that are not read"
JSON = frozenset({".json"})
SHAPE = "expected an object with images (each with a file_name) and annotations (each with an image_id)"


class CocoFile(NamedTuple):
    """An annotation file, its split, and the folder that holds it and its images."""

    path: Path
    split: str
    base: Path


class _Verdict(NamedTuple):
    """Whether a json is an annotation file; or else why not, and whether it might be meant as one."""

    is_coco: bool
    why: str = ""
    is_unsure: bool = False


def find_files(root: Path, findings: Findings) -> list[CocoFile]:
    """Find annotation files: the one given, or those in `annotations`, in the folders of splits, or in the folder.

    Args:
        root: The folder, also `annotations` itself, or a file.
        findings: Takes what is passed over.

    Returns:
        One for each split. A file that cannot be read is among them if its name tells a split and others can be read.

    Raises:
        DataError: If several files could be the same split, or a folder cannot be listed.
    """
    taken: list[CocoFile] = []
    for files in _gather(root):
        judged = [(file, _judge(file.path)) for file in files]
        sure = [file for file, verdict in judged if verdict.is_coco]
        if taken:
            _tell_others(sure, taken, root, findings)
            continue
        if not root.is_file():
            sure = _pass_over_foreign(sure, findings)
        if sure:
            unsure = [(file, verdict) for file, verdict in judged if verdict.is_unsure and not verdict.is_coco]
            taken = _choose([*sure, *_add_damaged(sure, unsure, findings)], findings)
    if taken and not root.is_file():
        _tell_folders(taken, root, findings)
    return taken


def _tell_folders(taken: Sequence[CocoFile], root: Path, findings: Findings) -> None:
    """Tell the folders beside those of splits that have annotation files too, and names that tell no split."""
    used = {file.path.parent for file in taken}
    others = [
        root / name for name in list_folders(root) if not split_from_name(name) and not _is_annotations(root / name)
    ]
    likely = [folder for folder in others if folder not in used and (folder / EXPORTED).is_file()]
    tell_unread_folders(likely, root, [file.split for file in taken], findings)


def _tell_others(sure: Sequence[CocoFile], taken: Sequence[CocoFile], root: Path, findings: Findings) -> None:
    """Tell annotation files of another place than those that are taken."""
    own = {file.path.parent for file in taken}
    for file in sure:
        if file.path.parent not in own and not _is_foreign(file):
            used = clip(show_path(taken[0].path, root))
            text = f"{clip(show_path(file.path, root))} is not read: {used} is used instead"
            findings.warn("json files not used", text)


def _add_damaged(
    sure: Sequence[CocoFile], unsure: Sequence[tuple[CocoFile, _Verdict]], findings: Findings
) -> list[CocoFile]:
    """Return the files that cannot be read but are named after a split that has no other; tell the rest."""
    splits = {"all", *(file.split for file in sure)}
    for file, verdict in unsure:
        if file.split in splits:
            findings.warn("json files not used", f"{clip(file.path.name)} is not read: {verdict.why}")
    return [file for file, _ in unsure if file.split not in splits]


def find_look_alikes(root: Path) -> list[LookAlike]:
    """Say of each json, where annotation files are looked for, why it is none; nothing of those that are."""
    top = root.parent if root.is_file() else root
    passed: dict[Path, LookAlike] = {}
    for file in islice((file for files in _gather(root) for file in files), MOST_EXPLAINED):
        verdict = _judge(file.path)
        if not verdict.is_coco:
            passed[file.path] = LookAlike(UNREAD, show_path(file.path, top), verdict.why, verdict.is_unsure)
        elif _is_foreign(file):
            passed[file.path] = LookAlike(
                UNREAD, show_path(file.path, top), "its name suggests that it has no boxes", False
            )
    return list(passed.values())


def _gather(root: Path) -> Iterator[list[CocoFile]]:
    """Yield the json files of each place where annotation files may be, the likely ones first."""
    if root.is_file():
        inside = [folder for folder in root.parents[:2] if _is_annotations(folder)]
        base = inside[-1].parent if inside else root.parent
        yield [CocoFile(root, _tell(root.stem), base)] if root.suffix.lower() in JSON else []
        return
    if _is_annotations(root):
        yield _list(root, root.parent)
        yield _list_splits(root, root.parent)
    for folder in (root / name for name in list_folders(root)):
        if _is_annotations(folder):
            yield _list(folder, root)
            yield _list_splits(folder, root)
    yield _list_splits(root, None)
    yield _list(root, root)


def _is_annotations(folder: Path) -> bool:
    return folder.name.casefold() == "annotations"


def _list(folder: Path, base: Path) -> list[CocoFile]:
    return [CocoFile(folder / name, _tell(name.removesuffix(".json")), base) for name in list_files(folder, JSON)]


def _list_splits(folder: Path, base: Path | None) -> list[CocoFile]:
    """Return the files in the folders that are named after splits; of Roboflow's and others, Roboflow's."""
    found: list[CocoFile] = []
    for name in list_folders(folder):
        split = split_from_name(name) or (TRAINVAL if name.casefold() == TRAINVAL else None)
        paths = [folder / name / file for file in list_files(folder / name, JSON)] if split else []
        exported = [path for path in paths if path.name == EXPORTED]
        found += [CocoFile(path, split or "", base or folder / name) for path in exported or paths]
    return found


def _tell(stem: str) -> str:
    """Return the split that a file is named after, or `trainval`; `all` if after none."""
    words = re.findall(r"[a-z]+", stem.casefold())
    splits = [split for word in words if (split := split_from_name(word))]
    if TRAINVAL in words or {"train", "val"} <= set(splits):
        return TRAINVAL
    return splits[0] if splits else "all"


def _choose(files: Sequence[CocoFile], findings: Findings) -> list[CocoFile]:
    """Take one file for each split, and none without a split beside those with one."""
    named = [file for file in files if file.split not in ("all", TRAINVAL)]
    whole = [file for file in files if file.split == TRAINVAL]
    if whole and named and {file.split for file in named} == {"test"}:
        findings.note(
            "splits", f"{clip(whole[0].path.name)} is used as train: there are no separate files for train and val"
        )
        named += [file._replace(split="train") for file in whole]
    elif whole and not named:
        named = [file._replace(split="all") for file in whole]
    taken = named or files
    read = {file.path for file in taken}
    _tell_passed([file for file in files if file.path not in read], taken, findings)
    by_split: dict[str, list[CocoFile]] = {}
    for file in taken:
        by_split.setdefault(file.split, []).append(file)
    for split, same in by_split.items():
        if len(same) > 1:
            which = "the data" if split == "all" else split
            raise DataError(
                f"{str(same[0].base)!r} holds {' and '.join(repr(file.path.name) for file in same[:4])}, and either "
                f"could be {which}. Move all but one elsewhere, or pass the path of one."
            )
    return [same[0] for same in by_split.values()]


def _tell_passed(files: Sequence[CocoFile], taken: Sequence[CocoFile], findings: Findings) -> None:
    """Tell the files whose names tell no split: where there is no val, one of them may be it."""
    has_val = any(file.split == "val" for file in taken)
    for file in files:
        name = clip(file.path.name)
        if file.split == TRAINVAL:
            findings.warn("json files not used", f"{name} is not read: there are files for train or val")
            continue
        text = f"{name} is not read: its name does not name a split, unlike others"
        if has_val:
            findings.warn("json files not used", text)
        else:
            hint = "There is no val split: rename the file to its split, or move it elsewhere"
            findings.error(UNREAD_SPLITS, f"{text}. {hint}")


def _pass_over_foreign(files: Sequence[CocoFile], findings: Findings) -> list[CocoFile]:
    """Leave out files of other kinds, by their names; those of people's key points only beside files of all boxes."""
    kept = [file for file in files if not _is_foreign(file)]
    whole = [file for file in kept if not file.path.name.casefold().startswith(KEYPOINTS)]
    for file in files:
        if _is_foreign(file):
            text = f"{clip(file.path.name)} is not read: its name suggests that it has no boxes"
            findings.note("json files of other types", text)
        elif whole and file not in whole:
            text = (
                f"{clip(file.path.name)} is not read: its name suggests that it has only people, and there are other "
                "files"
            )
            findings.note("json files of other types", text)
    return whole or kept


def _is_foreign(file: CocoFile) -> bool:
    return file.path.name.casefold().startswith(FOREIGN)


def _judge(path: Path) -> _Verdict:
    """Tell whether a file is meant as COCO, from its beginning and end."""
    try:
        head, tail = read_ends(path, PEEK_BYTES)
    except InputError as error:
        return _Verdict(False, str(error), is_unsure=True)
    is_short = head == tail
    head, tail = (part.removeprefix(b"\xff\xfe").replace(b"\0", b"") for part in (head, tail))  # as of UTF-16
    head = head.removeprefix(b"\xef\xbb\xbf").removeprefix(b"\xfe\xff").lstrip()
    if not head:
        return _Verdict(False, "it is empty", is_unsure=True)
    if head[:1] not in (b"{", b"["):
        return _Verdict(False, "it is not JSON", is_unsure=True)
    if head[:1] == b"[":
        return _Verdict(False, f"it is a list; {SHAPE}")
    try:
        is_coco = _is_coco(json.loads(head)) if is_short else _looks_like_coco(head + b" " + tail)
    except (ValueError, RecursionError):
        is_coco = _looks_like_coco(head + b" " + tail)
        return _Verdict(is_coco, "it is not JSON", is_unsure=True)
    return _Verdict(is_coco, f"it has another structure; {SHAPE}")


def _is_coco(value: dict[str, Any]) -> bool:
    images, annotations = value.get("images"), value.get("annotations")
    if isinstance(images, list) and isinstance(annotations, list) and not images:
        return True
    return _has(images, "file_name", "id") or _has(annotations, "image_id")


def _has(entries: Any, *keys: str) -> bool:
    return isinstance(entries, list) and any(isinstance(entry, dict) and entry.keys() & {*keys} for entry in entries)


def _looks_like_coco(parts: bytes) -> bool:
    has_images = b'"images"' in parts and b'"file_name"' in parts
    return has_images or (b'"annotations"' in parts and b'"image_id"' in parts)
