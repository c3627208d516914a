"""Repeat-factor sampling: images of rare classes come several times per epoch (Gupta et al. 2019, arXiv 1908.03195)."""

import math
from collections import Counter
from typing import Any, NamedTuple

from zoo.data import count_repeated
from zoo.errors import InputError
from zoo.progress import Progress
from zoo.tasks.detection.data import BoxData
from zoo.tasks.detection.options import Options


class Rarity(NamedTuple):
    """A class: the training images that have a box of it, and how often such an image comes in an epoch at least."""

    images: int
    factor: float


def check_sampler(options: Any) -> None:
    """Refuse sampling that needs one class per image, and a threshold that nothing asks for.

    Raises:
        InputError: Naming the field.
    """
    if options.sampler == "balanced":
        raise InputError("sampler is 'balanced', which does not apply to a detector. Use repeat instead.")
    if options.repeat_threshold != Options.model_fields["repeat_threshold"].default and options.sampler != "repeat":
        raise InputError(
            f"repeat_threshold is {options.repeat_threshold:g}, but sampler is {options.sampler!r}. Set sampler to "
            "repeat, or remove repeat_threshold."
        )


def find_rarity(data: BoxData, options: Any) -> dict[str, Rarity]:
    """Return the repeat factor of each class, max(1, sqrt(t / f)) of its share f of the training images, by name.

    It is empty if images are not repeated.
    """
    if options.sampler != "repeat" or data.train is None:
        return {}
    counts, total = Counter(label for labels in _list_labels(data) for label in labels), len(data.train)
    found = {}
    for number, name in enumerate(data.classes):
        share = counts[number] / total
        factor = max(1.0, math.sqrt(options.repeat_threshold / share)) if share else 1.0
        found[name] = Rarity(counts[number], factor)
    return found


def count_repeats(data: BoxData, options: Any) -> list[float] | None:
    """Return how often each training image comes in an epoch on average: as its rarest class; None: each comes once."""
    if not (rarity := find_rarity(data, options)):
        return None
    factors = [rarity[name].factor for name in data.classes]
    return [max((factors[label] for label in labels), default=1.0) for labels in _list_labels(data)]


def report_repeats(data: BoxData, options: Any, show: Progress) -> None:
    """Show a table of the classes, their training images and repeat factors, if images are repeated."""
    repeats = count_repeats(data, options)
    if repeats is None:
        return
    rarity = find_rarity(data, options)
    rows = [
        {"class": name, "images": f"{images:,}", "repeat factor": f"{factor:.2f}"}
        for name, (images, factor) in rarity.items()
    ]
    epoch = f"{count_repeated(repeats):,} per epoch instead of {len(repeats):,}"
    show.table(rows, title=f"training images per class; {epoch}")
    if max(factor for _, factor in rarity.values()) == 1:
        show.log(
            f"note: sampler=repeat repeats nothing: every class is in {options.repeat_threshold:.1%} of the training "
            "images or more. Set a larger repeat_threshold."
        )


def _list_labels(data: BoxData) -> list[set[int]]:
    assert data.train is not None
    return [set(boxes.learnable().labels.tolist()) for boxes in data.train.boxes]
