"""`answers.safetensors`: what a run's weights answered to each validation image, for paired tests between runs.

A few bytes for each image or box. The images are those of `data.json`, in its order.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from zoo.errors import InputError
from zoo.files import read_regular, write_file
from zoo.tasks import Answers, PairedTest, find_comparisons
from zoo.training.run_summary import RunSummary

ANSWERS = "answers.safetensors"
MAX_BYTES = 1_000_000_000


def write_answers(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write the answers of a run into its folder."""
    write_file(folder / ANSWERS, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def read_answers(folder: Path) -> dict[str, NDArray[Any]]:
    """Return the answers of a run.

    Raises:
        InputError: The run has none, or the file is damaged.
    """
    try:
        return dict(load(read_regular(folder / ANSWERS, max_bytes=MAX_BYTES)))
    except FileNotFoundError as error:
        raise InputError(f"{folder} keeps no answers for each image; it is of an earlier version") from error
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder / ANSWERS} cannot be read: {error}") from error


def compare_paired(first: RunSummary, second: RunSummary) -> PairedTest:
    """Return the paired test of two runs of one task on the validation images that both have scored.

    Raises:
        InputError: There is no such test of these runs; the text says why, as the end of a sentence.
    """
    compare = find_comparisons().get(first.task)
    if compare is None:
        raise InputError(f"there is no paired test for {first.task}")
    for run in (first, second):
        if run.status != "finished":
            raise InputError(f"{run.folder} is not finished")
    arrays = [read_answers(run.folder) for run in (first, second)]
    places = _pair_images(first, second)
    answers = [
        Answers(own, tuple(map(str, run.data.get("classes", ()))), own_places)
        for own, run, own_places in zip(arrays, (first, second), places, strict=True)
    ]
    try:
        return compare(*answers)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise InputError(f"{ANSWERS} of one of them does not fit its data.json") from error


def compare_with_first(runs: Sequence[RunSummary]) -> Iterator[tuple[RunSummary, PairedTest | str]]:
    """Yield each run after the first with its paired test against the first, or why there is none."""
    for run in runs[1:]:
        try:
            yield run, compare_paired(runs[0], run)
        except InputError as error:
            yield run, str(error)


def _pair_images(first: RunSummary, second: RunSummary) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the places of the images that both runs have scored: the same file under the same name."""
    listed = [list(run.data.get("files", {}).get("val", {}).items()) for run in (first, second)]
    if not all(listed):
        if not first.data.get("digest") or first.data.get("digest") != second.data.get("digest"):
            raise InputError("it is not recorded which images they were scored on")
        count = sum(_count_images(first))
        return np.arange(count), np.arange(count)
    known = {image: place for place, image in enumerate(listed[1])}
    pairs = [(place, known[image]) for place, image in enumerate(listed[0]) if image in known]
    if not pairs:
        raise InputError("they were scored on different images")
    one, other = zip(*pairs, strict=True)
    return np.array(one), np.array(other)


def _count_images(run: RunSummary) -> Iterator[int]:
    images = run.data.get("images", {}).get("val")
    yield from [images] if images is not None else run.data.get("counts", {}).get("val", {}).values()
