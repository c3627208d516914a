"""What can go wrong, in one vocabulary: what was wrong, what was expected, what to do.

Every error that this package raises on purpose is a `ZooError`; the command line prints its text without a traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class ZooError(Exception):
    """Base class of all errors of this package."""


class InputError(ZooError, ValueError):
    """An argument, a file or a data set is invalid."""


class ExportedError(InputError):
    """A file stands where a run, a saved model or a name is expected: an exported model predicts, but cannot train."""


class PresetError(InputError):
    """A preset has unknown keys, wrong types or values out of range; the message lists all of them.

    Attributes:
        problems: Each of them, with its line.
        sound: The preset of a file without the values that are wrong, for further checks; None if there is none.
    """

    problems: tuple[Any, ...] = ()
    sound: Any = None


class PlanError(InputError):
    """A learning-rate plan contradicts itself or the model."""


class DataError(InputError):
    """A data set cannot be used; the message lists the files or samples."""


class StorageError(ZooError, OSError):
    """A file or folder cannot be read or written here, for example because the disk is full."""


class WeightsError(ZooError, OSError):
    """Weights cannot be loaded or fail verification."""


class WeightsNotFoundError(WeightsError):
    """The repository, revision or file does not exist, or this user has no access to it."""


class WeightsAccessError(WeightsError):
    """The terms of a repository were not accepted, or the token is missing, invalid or lacks access."""


class WeightsNetworkError(WeightsError):
    """The Hub was unreachable, sent an invalid response, or was skipped in offline mode."""


class WeightsContentError(WeightsError):
    """A file is damaged or fails verification."""


class WeightsStorageError(WeightsError, StorageError):
    """A file cannot be read or written here, for example because the disk is full."""


class LicenceError(ZooError, PermissionError):
    """The licence of the weights does not allow this use."""


class FrozenError(ZooError, RuntimeError):
    """A frozen tensor has changed."""


class TrainingError(ZooError, RuntimeError):
    """Training cannot continue, for example because the loss is NaN."""


class Interrupted(KeyboardInterrupt):
    """A run was interrupted and saved itself; the message says how to resume."""


def did_you_mean(word: str, options: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return ` Did you mean 'a' or 'b'?`, or nothing if no option is close; the space joins it to a sentence."""
    names = list(options)
    lowered = {name.lower(): name for name in names}
    close = [lowered[match] for match in get_close_matches(word.lower(), lowered, n=2, cutoff=cutoff)]
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
