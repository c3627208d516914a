"""Files found by the end of a path, as lists were often written elsewhere than where they are read."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from zoo.files import fold
from zoo.tasks.detection.formats._files import IMAGE_SUFFIXES, clip

IMAGE_FOLDERS = frozenset({"images", "image", "imgs", "img", "jpegimages", "data", "obj_train_data"})
ITEM_SUFFIXES = IMAGE_SUFFIXES | {".xml"}


class Match(NamedTuple):
    """What a line of a list names.

    Attributes:
        item: The value of the item; empty if there is none.
        moved: Whether only the end of the written path is there.
        hint: What is there instead, if there is no item.
    """

    item: str = ""
    moved: bool = False
    hint: str = ""


class Items:
    """What lists may name, found by the end of its path.

    A path of another machine, `data/` before it, another case, or none of the folders of a path does not matter if one
    item alone fits.

    Args:
        names: The value of each item by its path below the data's folder, with forward slashes.
        direct: Returns the value of what is at the very path that is written in a list of this folder; empty if nothing
            is.
    """

    def __init__(self, names: Mapping[str, str], direct: Callable[[str, Path], str] | None = None) -> None:
        self._direct = direct
        self._by_stem: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        for name, value in names.items():
            parts = PurePosixPath(name).parts
            self._by_stem.setdefault(fold(cut_suffix(parts[-1])), []).append((parts, value))

    def find(self, text: str, folder: Path) -> Match:
        """Return what a path names that is written in a list of a folder."""
        written = text.replace("\\", "/")
        if self._direct and (item := self._direct(written, folder)):
            return Match(item)
        parts = [part for part in PurePosixPath(os.path.normpath(written)).parts if part not in ("/", "//", "..", ".")]
        if not parts:
            return Match()
        there = self._by_stem.get(fold(cut_suffix(parts[-1])), [])
        for fits in (str.__eq__, _equal_but_case, _equal_but_suffix):
            near = {value: (shared, own) for own, value in there if fits(own[-1], parts[-1])
                    and (shared := _count_shared(parts, own)) is not None}  # fmt: skip
            if not near:
                continue
            most = max(shared for shared, _ in near.values())
            best = [(value, own) for value, (shared, own) in near.items() if shared == most]
            if len(best) > 1:
                return Match(hint=f"; {' and '.join(clip('/'.join(own)) for _, own in best[:3])} match equally well")
            value, own = best[0]
            return Match(value, moved=len(parts) > len(own) or most < min(len(parts), len(own)) - 1)
        other = f"; found {clip('/'.join(there[0][0]))}" if there else ""
        return Match(hint=other)


def cut_suffix(name: str) -> str:
    """Return a name without the suffix of an image or an xml; what follows other dots stays."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in ITEM_SUFFIXES else name


def _equal_but_case(own: str, written: str) -> bool:
    return fold(own) == fold(written)


def _equal_but_suffix(own: str, written: str) -> bool:
    """Tell whether two names are equal where one has no suffix, or that of an annotation."""
    kinds = [os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES for name in (own, written)]
    return not all(kinds) and fold(cut_suffix(own)) == fold(cut_suffix(written))


def _count_shared(written: Sequence[str], own: Sequence[str]) -> int | None:
    """Return how many folders at the end of two paths are the same; None if the others contradict each other."""
    pairs = zip(reversed(written[:-1]), reversed(own[:-1]), strict=False)
    shared = next((place for place, (one, other) in enumerate(pairs) if fold(one) != fold(other)), None)
    if shared is None:
        return min(len(written), len(own)) - 1
    rest = own[: len(own) - 1 - shared]
    return shared if all(part.casefold() in IMAGE_FOLDERS for part in rest) else None
