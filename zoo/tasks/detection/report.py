"""What the check of images with boxes has counted and found: as tables, lines and plain values."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from zoo._text import clean
from zoo.tasks.detection.annotations import Finding, Key

MOST_PLACES = 3  # places that a line of a summary names

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class SplitCounts:
    """How much there is of everything in one split, after the check.

    Attributes:
        images: Images.
        boxes: Boxes of each class, those of crowds left out.
        images_with: Images that have such a box, for each class.
    """

    images: int
    boxes: tuple[int, ...]
    images_with: tuple[int, ...]


class Group(NamedTuple):
    """All findings of one kind."""

    level: Level
    kind: str
    findings: tuple[Finding, ...]

    @property
    def first_places(self) -> list[str]:
        """The first few different places, and `...` if there are more; none where findings are of no place."""
        places = list(dict.fromkeys(finding.place for finding in self.findings if finding.place))
        return [*places[:MOST_PLACES], "..."] if len(places) > MOST_PLACES else places

    @property
    def places(self) -> str:
        """The first few places."""
        return ", ".join(self.first_places)

    def __str__(self) -> str:
        if len(self.findings) == 1:
            return clean(f"{self.kind}: {f'{self.places}: ' * bool(self.places)}{self.findings[0].text}")
        places = f" ({self.places})" if self.places else ""
        return clean(f"{self.kind}: {len(self.findings):,}{places}. The first: {self.findings[0].text}")


@dataclass(frozen=True)
class BoxReport:
    """What the check has counted and found.

    Attributes:
        where: The folder, or what kind of object.
        form: Name of the format.
        classes: Names, in the order of the class numbers.
        class_map: What the annotations call each class, and its name, in the order of the class numbers.
        splits: Counts by split.
        findings: Everything found, errors first.
    """

    where: str
    form: str
    classes: tuple[str, ...]
    class_map: tuple[tuple[Key, str], ...]
    splits: Mapping[str, SplitCounts]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings by which data is lost."""
        return tuple(finding for finding in self.findings if finding.level == "error")

    def rows(self) -> list[dict[str, str]]:
        """Return the counts as a table: a row for each class, boxes and images of each split."""
        return [
            {"class": name}
            | {f"{split} boxes": f"{counts.boxes[number]:,}" for split, counts in self.splits.items()}
            | {f"{split} images": f"{counts.images_with[number]:,}" for split, counts in self.splits.items()}
            for number, name in enumerate(self.classes)
        ]

    def totals(self) -> dict[str, str]:
        """Return the last row of the table: all boxes and all images, also those without a box."""
        return (
            {"class": "all"}
            | {f"{split} boxes": f"{sum(counts.boxes):,}" for split, counts in self.splits.items()}
            | {f"{split} images": f"{counts.images:,}" for split, counts in self.splits.items()}
        )

    @property
    def secondary(self) -> tuple[str, ...]:
        """Columns of the table that a narrow terminal leaves out, the least important first."""
        return tuple(f"{split} images" for split in reversed(tuple(self.splits)))

    def groups(self) -> list[Group]:
        """Return the findings by kind, errors first."""
        grouped: dict[tuple[Level, str], list[Finding]] = defaultdict(list)
        for finding in self.findings:
            grouped[finding.level, finding.kind].append(finding)
        return [
            Group(level, kind, tuple(found))
            for wanted in LEVELS
            for (level, kind), found in grouped.items()
            if level == wanted
        ]

    def summary(self) -> list[str]:
        """Return a line for each kind of finding: how many, the first places, and the text of the first."""
        return [f"{group.level}: {group}" for group in self.groups()]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "source": self.where,
            "format": self.form,
            "classes": list(self.classes),
            "class_map": [list(pair) for pair in self.class_map],
            "splits": {
                split: {
                    "images": counts.images,
                    "boxes": dict(zip(self.classes, counts.boxes, strict=True)),
                    "images_with": dict(zip(self.classes, counts.images_with, strict=True)),
                }
                for split, counts in self.splits.items()
            },
            "findings": [vars(finding) for finding in self.findings],
        }
