"""What two runs answered on the same images, and what a task's paired test makes of it, without a framework.

A task that can be compared has a module `paired` with `compare_answers(first, second)`, found by its folder.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

from numpy.typing import NDArray

from zoo.tasks.options import import_parts


@dataclass(frozen=True)
class Answers:
    """The answers of a run on images that another run has answered, too.

    Attributes:
        arrays: What the task keeps of each image of the validation split.
        classes: Names, in the order of the class numbers.
        places: Of the shared images, in the order of this run's split; the other run has them in the same order.
    """

    arrays: Mapping[str, NDArray[Any]]
    classes: tuple[str, ...]
    places: NDArray[Any]


@dataclass(frozen=True)
class PairedTest:
    """How much better the second of two runs is on the same images.

    Attributes:
        score: Label of the score.
        images: How many images both have answered.
        difference: Score of the second less that of the first.
        low: Lower end of its 95 % interval.
        high: Upper end.
        p: Probability of a difference at least as large if both were equally good; None where there is no such test.
        method: How that was found.
        counts: What the test is made of, by name.
    """

    score: str
    images: int
    difference: float
    low: float
    high: float
    p: float | None
    method: str
    counts: Mapping[str, int] = field(default_factory=dict)


Comparison: TypeAlias = Callable[[Answers, Answers], PairedTest]


@functools.cache
def find_comparisons() -> Mapping[str, Comparison]:
    """Return what compares two runs of a task, by the task's name."""
    return MappingProxyType({task: part.compare_answers for task, part in import_parts("paired").items()})
