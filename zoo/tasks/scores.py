"""The names of the scores of each task, found by folder: a module `scores` with `SCORES`, which needs no framework."""

import functools
from collections.abc import Mapping
from types import MappingProxyType

from zoo.tasks.options import import_parts


@functools.cache
def find_scores() -> Mapping[str, Mapping[str, str]]:
    """Return the scores of every task by its name: label by key; the first tells the better of two models."""
    return MappingProxyType({task: part.SCORES for task, part in import_parts("scores").items()})
