"""What a classifier that has learnt more classes still knows of the old ones, counted from confusion matrices."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zoo.tasks import AnyEvaluation


@dataclass(frozen=True)
class Forgetting:
    """The answers of a classifier before and after it was given more classes, on the same images of the old ones.

    Attributes:
        classes: Old ones first, then new ones.
        old: How many are old.
        before: Scores of the old model on validation images of the old classes.
        after: Scores of the extended model on all validation images.
    """

    classes: tuple[str, ...]
    old: int
    before: AnyEvaluation
    after: AnyEvaluation

    @property
    def old_before(self) -> float:
        """Top-1 of the old model on images of old classes, 0 to 1."""
        return self._share(self.before, range(self.old))

    @property
    def old_after(self) -> float:
        """Top-1 of the extended model on the same images; a new class is a wrong answer."""
        return self._share(self.after, range(self.old))

    @property
    def drop(self) -> float:
        """Points of top-1 that are lost on old classes; below 0 where some are gained."""
        return 100 * (self.old_before - self.old_after)

    @property
    def new(self) -> float | None:
        """Top-1 of the extended model on images of new classes; None without such images."""
        return self._share(self.after, range(self.old, len(self.classes))) if self._count_new() else None

    @property
    def overall(self) -> float:
        """Top-1 of the extended model on all validation images."""
        return self._share(self.after, range(len(self.classes)))

    def per_class(self) -> list[dict[str, Any]]:
        """Return for each class its images, top-1 before and after, and what its images are taken for across the line.

        `before` is None for new classes and without images. `taken_for` counts images of an old class by the new class
        that they are called, and images of a new class by the old one.
        """
        rows = []
        for number, name in enumerate(self.classes):
            images = self._images(self.after, number)
            is_new, answers = number >= self.old, self.after.confusion[number]
            other = range(self.old) if is_new else range(self.old, len(self.classes))
            rows.append(
                {
                    "class": name,
                    "is_new": is_new,
                    "images": images,
                    "before": None if is_new or not images else self._share(self.before, [number]),
                    "after": self._share(self.after, [number]) if images else None,
                    "taken_for": {self.classes[place]: answers[place] for place in other if answers[place]},
                }
            )
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values; shares are 0 to 1, `drop` is in points."""
        return {
            "old_classes": list(self.classes[: self.old]),
            "new_classes": list(self.classes[self.old :]),
            "old_top1_before": self.old_before,
            "old_top1_after": self.old_after,
            "drop": self.drop,
            "new_top1": self.new,
            "top1": self.overall,
            "per_class": self.per_class(),
        }

    def rows(self) -> list[dict[str, str]]:
        """Return the table per class as text."""
        return [
            {
                "class": row["class"] + (" (new)" if row["is_new"] else ""),
                "images": f"{row['images']:,}",
                "before": _percent(row["before"]),
                "after": _percent(row["after"]),
                "taken for old/new": _list(row["taken_for"]),
            }
            for row in self.per_class()
        ]

    def totals(self) -> dict[str, str]:
        """Return the last row of the table: all images of old classes before, and all images after."""
        count = f"{self.after.images:,}"
        return {"class": "all", "images": count, "before": _percent(self.old_before), "after": _percent(self.overall)}

    def __str__(self) -> str:
        change = f"{'lost' if self.drop > 0 else 'gained'} {abs(self.drop):.1f} points" if self.drop else "no change"
        old = f"old classes: top-1 {self.old_before:.1%} before, {self.old_after:.1%} after ({change})"
        return f"{old}; new classes: {_percent(self.new)}; all: {self.overall:.1%} of {self.after.images:,} images"

    def _count_new(self) -> int:
        return sum(self._images(self.after, number) for number in range(self.old, len(self.classes)))

    @staticmethod
    def _images(evaluation: AnyEvaluation, number: int) -> int:
        """Return the images of a class, with those that were not answered."""
        unanswered = evaluation.unanswered[number] if evaluation.unanswered else 0
        return int(sum(evaluation.confusion[number]) + unanswered)

    def _share(self, evaluation: AnyEvaluation, numbers: Sequence[int]) -> float:
        """Return the share of the images of some classes that are answered rightly."""
        right = sum(evaluation.confusion[number][number] for number in numbers)
        return float(right / max(1, sum(self._images(evaluation, number) for number in numbers)))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _list(counts: dict[str, int], most: int = 3) -> str:
    """Return the largest counts by class, after their sum."""
    first = sorted(counts.items(), key=lambda item: -item[1])[:most]
    listed = ", ".join(f"{name} {count:,}" for name, count in first) + (", …" if len(counts) > most else "")
    return f"{sum(counts.values()):,}: {listed}" if counts else "-"
