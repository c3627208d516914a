"""What a format of boxes has to offer to be found."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from zoo.tasks.detection.annotations import BoxSource


class LookAlike(NamedTuple):
    """A file that could be taken for one of a format and is not read.

    Attributes:
        kind: What such files are called in a list of findings, in the plural.
        file: Its path, as it is shown.
        why: Why it is not read.
        is_unsure: Whether it may be meant as one: it cannot be parsed.
    """

    kind: str
    file: str
    why: str
    is_unsure: bool


def _no_look_alikes(root: Path) -> list[LookAlike]:
    return []


@dataclass(frozen=True, kw_only=True)
class BoxFormat:
    """A format of boxes; each module or folder beside this one has one and calls it `FORMAT`.

    Attributes:
        name: For people; `BoxSource.form` of what is read.
        expected: What a folder of the format looks like.
        order: Place in messages that name several formats.
        read: Reads the boxes below a path; None where there is nothing of the format. A damaged or missing file is a
            finding with its line, and no path leads out of the folder.
        path: What to pass instead of a folder that has a second format; empty if only a folder will do.
        find_look_alikes: Names files that are not read, for a folder that is not of the format.
    """

    name: str
    expected: str
    order: int
    read: Callable[[Path], BoxSource | None]
    path: str = ""
    find_look_alikes: Callable[[Path], list[LookAlike]] = _no_look_alikes
