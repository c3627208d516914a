"""What can go wrong, in one vocabulary: what was wrong, what was expected, what to do.

Every error that this package raises on purpose is a `ZooError`; the command line prints its text without a traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class ZooError(Exception):
    """Base of all errors that are raised on purpose."""


class InputError(ZooError, ValueError):
    """An argument, a file or a data set is not what was asked for."""


class PresetError(InputError):
    """A preset has unknown keys, wrong types or values out of range; the text lists all of them.

    Attributes:
        problems: Each of them, with its line.
        sound: The preset of a file without the values that are wrong, for further checks; None if there is none.
    """

    problems: tuple[Any, ...] = ()
    sound: Any = None


class PlanError(InputError):
    """A learning-rate plan contradicts itself or the model."""


class DataError(InputError):
    """A data set cannot be used; the text lists the files or samples."""


class StorageError(ZooError, OSError):
    """A file or folder cannot be read or written here, for example because the disk is full."""


class WeightsError(ZooError, OSError):
    """Weights could not be had, or are not what they were said to be."""


class WeightsNotFoundError(WeightsError):
    """There is no such repository, revision or file, or it is not shown to this user."""


class WeightsAccessError(WeightsError):
    """The terms of a repository were not accepted, or a token is missing, wrong or without the right."""


class WeightsNetworkError(WeightsError):
    """The Hub did not answer, not as a Hub does, or was not asked because offline work was wanted."""


class WeightsContentError(WeightsError):
    """A file is not what it was said to be, or is damaged."""


class WeightsStorageError(WeightsError, StorageError):
    """A file cannot be read or written here, for example because the disk is full."""


class LicenceError(ZooError, PermissionError):
    """The licence of the weights does not allow what was asked for."""


class FrozenError(ZooError, RuntimeError):
    """A tensor that the plan had frozen has changed."""


class TrainingError(ZooError, RuntimeError):
    """Training cannot go on, for example because the loss is no longer a number."""


class Interrupted(KeyboardInterrupt):
    """A run was asked to stop and has saved itself; the text says how to go on."""


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return ` Did you mean 'a' or 'b'?`, or nothing if no option is close; the space joins it to a sentence."""
    names = list(options)
    lowered = {name.lower(): name for name in names}
    close = [lowered[match] for match in get_close_matches(word.lower(), lowered, n=2, cutoff=0.6)]
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
