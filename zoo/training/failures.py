"""What ends a run that is not its own fault: told in a sentence, with what is safe and how to go on."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from zoo.errors import DataError, Interrupted, StorageError, TrainingError, ZooError


def say_how_to_resume(folder: Path, needed: Sequence[str] = ()) -> str:
    """Return what to type to go on with a run.

    Args:
        folder: The run's.
        needed: Arguments of `zoo.resume` without which it cannot go on, for example `data`: objects that no file holds.
    """
    if not needed:
        return f"Resume with: zoo finetune --resume {shlex.quote(str(folder))}"
    given = ", ".join(f"{name}={name}" for name in needed)
    return f"Resume with: zoo.resume({str(folder)!r}, {given}), with the same {' and '.join(needed)} as before."


@contextmanager
def going_on(describe: Callable[[], str] = str, *, stopped: str = "stopped at once.") -> Iterator[None]:
    """Put into words what the system, not the run, has ended; add to each failure how to go on.

    Args:
        describe: Returns sentences on where the run stands and how it goes on; empty if there is nothing to go on with.
        stopped: What is said first of a run that a signal has ended.
    """
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt:
        raise Interrupted(_join(stopped, describe())) from None
    except (StorageError, DataError) as error:
        error.args = (_join(str(error), describe()),)
        raise
    except ZooError:
        raise
    except MemoryError as error:
        text = f"out of memory ({str(error) or 'allocation failed'}). Use a smaller batch_size or fewer num_workers."
        raise TrainingError(_join(text, describe())) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error) or "Traceback" in str(error):
            _add_note(error, describe())
            raise
        raise TrainingError(_join(_tell_dead_worker(error), describe())) from error
    except OSError as error:
        if error.errno is None or isinstance(error, ConnectionError):  # BrokenPipeError: who reads the output has gone
            _add_note(error, describe())
            raise
        where = f"{error.filename} cannot be used" if error.filename else "the operating system refused a request"
        raise StorageError(_join(f"{where}: {error.strerror or error}.", describe())) from error
    except Exception as error:
        _add_note(error, describe())
        raise


def _tell_dead_worker(error: RuntimeError) -> str:
    said = str(error).splitlines()[0].rstrip(". ")
    return (
        f"a data-loading worker process died ({said}). The usual cause is too little memory: use fewer workers "
        "(num_workers) or a smaller batch_size."
    )


def _add_note(error: Exception, text: str) -> None:
    if text:
        error.add_note(text)


def _join(*sentences: str) -> str:
    return " ".join(sentence for sentence in sentences if sentence)
