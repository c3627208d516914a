"""Does a data set of somebody's own change its images at random? Then no reading of an image stands for the next."""

import hashlib
import random
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.loader import seeded_sample

SAMPLES, READS = 24, 4  # a change that comes once in ten reads is missed in fewer than one of 10,000 data sets
MOST_OBJECTS = 2_000  # of a data set that are looked at
MOST_ITEMS = 50  # of a list in it
_RANDOM_KINDS = frozenset(
    {"ColorJitter", "AutoAugment", "RandAugment", "TrivialAugmentWide", "AugMix", "ElasticTransform", "GaussianBlur"}
    | {"GaussianNoise", "ScaleJitter", "JPEG", "MixUp", "CutMix"}
)
_GENERATORS = (random.Random, np.random.Generator, np.random.RandomState, torch.Generator)


def why_random(images: Any) -> str | None:
    """Return why an image may look different the next time it is read; None if it does not.

    Some samples are read several times, each with other random numbers; and random transforms that the data set holds
    are looked for. Random numbers to come, and generators that the data set holds, stay what they were.

    Args:
        images: `Images` or `BoxedImages`. Files are not looked at: they have no random changes.
    """
    if images.in_threads:
        return None
    found = list(_walk(images.reader))
    kind = next((type(thing).__name__ for thing in found if _is_random(thing)), None)
    if kind is not None:
        return f"the data set transforms its images randomly ({kind})"
    with _keeping(found):
        return _compare_reads(replace(images, store=None))


def _compare_reads(images: Any) -> str | None:
    count = min(SAMPLES, len(images))
    reads = max(READS, SAMPLES * READS // count)
    for place in range(count):
        index = place * len(images) // count
        if len({_read(images, index, number) for number in range(reads)}) > 1:
            return f"the data set transforms its images randomly ({images.names[index]} differs between two reads)"
    return None


def _read(images: Any, index: int, number: int) -> bytes:
    """Return a digest of an image as it is read with the random numbers of a number."""
    with seeded_sample(0, number, index, everywhere=True):
        image, _ = images.read(index)
    return hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes()).digest()


def _is_random(thing: Any) -> bool:
    """Whether something is a transform that is known to draw, by its kind or its probability."""
    kind, share = type(thing), getattr(thing, "p", None)
    if not callable(thing) or hasattr(kind, "__getitem__") or kind.__module__.startswith("torch."):
        return False
    draws = isinstance(share, float) and 0 < share < 1
    return draws or kind.__name__.startswith("Random") or kind.__name__ in _RANDOM_KINDS


def _walk(root: Any) -> Iterator[Any]:
    """Yield what a data set holds, and what that holds, as far as it is made of attributes, lists and mappings."""
    waiting, seen = deque([root]), {id(root): root}
    while waiting and len(seen) < MOST_OBJECTS:
        thing = waiting.popleft()
        yield thing
        for inner in _inside(thing):
            if id(inner) not in seen and not isinstance(inner, (str, bytes, int, float, Tensor, np.ndarray, type)):
                seen[id(inner)] = inner
                waiting.append(inner)


def _inside(thing: Any) -> list[Any]:
    if isinstance(thing, dict):
        return list(thing.values())[:MOST_ITEMS]
    if isinstance(thing, (list, tuple, set, frozenset)):
        return list(thing)[:MOST_ITEMS]
    return list(getattr(thing, "__dict__", {}).values())


@contextmanager
def _keeping(found: list[Any]) -> Iterator[None]:
    """Put generators back to where they stood."""
    states = [(thing, _state_of(thing)) for thing in found if isinstance(thing, _GENERATORS)]
    try:
        yield
    finally:
        for thing, state in states:
            _restore(thing, state)


def _state_of(generator: Any) -> Any:
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.getstate() if isinstance(generator, random.Random) else generator.get_state()


def _restore(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)
