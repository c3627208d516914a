"""The folder of a new run is claimed before its data is opened and its weights are downloaded, which may take hours."""

import contextlib
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from zoo._model import known_config
from zoo.data import sweep_stores
from zoo.errors import ExportedError, InputError, Interrupted
from zoo.files import sweep_cache, tell_missing, to_path
from zoo.models import Entry
from zoo.progress import is_main_process
from zoo.training.failures import going_on
from zoo.training.run_folder import RunFolder
from zoo.training.run_lock import LOCK, RunLock, refuse_if_held
from zoo.training.run_stage import PARENT, RECORD, START, STATE, find_stage, sweep_left_over

BEGINNING = (  # what is there before the first step
    "preset.yaml",
    "config.json",
    "plan.json",
    "data.json",
    "features.json",
    "environment.json",
    "pictures/first_batch.png",
    START,
    STATE,
    PARENT,
    RECORD,  # the last to be removed: without it the others are somebody's files
)
NOTHING_LEFT = "stopped before the first step; no run folder was kept."


@contextmanager
def claimed(folder: RunFolder, log: Callable[[str], None], *, is_new: bool) -> Iterator[RunFolder]:
    """Keep every other process out of a run's folder, and remove what killed ones have left half written.

    Of the processes that a launcher started, the main one stands for all.

    Args:
        folder: The run's.
        log: Called with what was found there.
        is_new: A run is to begin here: what one that was stopped before its first step has left is removed.

    Raises:
        InputError: Another process works in it, or it is not free for a new run.
        StorageError: It cannot be written to.
    """
    if not is_main_process():
        yield folder
        return
    sweep_stores()
    sweep_cache()
    lock, path = RunLock.take(folder.path, log), folder.path
    try:
        for place in (path, path / "pictures"):
            sweep_left_over(place)
        if is_new:
            refuse_used(path)
            if find_stage(path) != "empty":
                log(f"note: the run in {path} was stopped before its first step; it starts from the beginning")
                _remove_beginning(folder)
            folder.write_json(RECORD, {"status": "beginning"})
        yield folder
    finally:
        lock.release()


@contextmanager
def leaving_nothing(folder: RunFolder) -> Iterator[None]:
    """Remove the folder of a new run that ends before its first step."""
    try:
        with going_on():
            yield
    except BaseException as error:
        if folder.has_steps:
            raise
        if is_main_process():
            discard(folder)
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(NOTHING_LEFT) from None
        raise


def create_folder(path: str | os.PathLike[str] | None, default_name: str) -> RunFolder:
    """Make a new, empty folder; nothing that exists is ever written over.

    A folder in which a run was stopped before its first step may be used again: `claimed` empties it.

    Args:
        path: Where; None: `runs/<default_name>`, with a number if that exists.
        default_name: Name of the folder if no path is given.
    """
    if path is not None:
        folder = RunFolder(path)
        if folder.path.is_dir():
            refuse_if_held(folder.path)
        refuse_used(folder.path)
        _make(folder, exist_ok=True, advice="Choose another.")
        return folder
    number = 1
    while True:
        folder = RunFolder(Path("runs") / (default_name if number == 1 else f"{default_name}-{number}"))
        try:
            _make(folder, exist_ok=False, advice="Pass out=.")
        except FileExistsError:
            number += 1
        else:
            return folder


def open_folder(path: str | os.PathLike[str]) -> RunFolder:
    """Return an existing run's folder.

    Raises:
        InputError: If it is not one.
    """
    folder = RunFolder(path)
    if not folder.path.is_dir():
        what = f"{folder.path} is a file." if folder.path.exists() else f"there is no folder {folder.path}."
        what = tell_missing(path) or what
        raise (ExportedError if folder.path.is_file() else InputError)(f"{what} Expected a run folder.")
    if find_stage(folder.path) == "claimed":
        raise InputError(
            f"the run in {folder.path} was stopped before its first step. Run the same finetune command again; it "
            "can use this folder."
        )
    if not (folder.path / "config.json").is_file():
        present = ", ".join(sorted(file.name for file in folder.path.iterdir())[:8]) or "nothing"
        raise InputError(f"{folder.path} is not a run folder: it has no config.json (it contains: {present}).")
    return folder


def discard(folder: RunFolder) -> None:
    """Remove the folder of a run that took no step; what is not one of a run's own files stays, and so does it."""
    if not folder.path.is_dir():
        return
    _remove_beginning(folder)
    if all(path.name == LOCK for path in folder.path.iterdir()):
        with contextlib.suppress(OSError):  # somebody else may be quick to use it
            folder.file(LOCK).unlink(missing_ok=True)
            folder.path.rmdir()
            for path in reversed(folder.made):
                path.rmdir()


def new_folder(out: str | os.PathLike[str] | None, model: Any = None, data: Any = None) -> RunFolder:
    """Make the folder of a new run, named after model and data if no path is given.

    Args:
        out: The folder; None: a new one in `runs`.
        model: A network, or its entry in the registry.
        data: What `finetune` takes.
    """
    if not is_main_process():  # the other processes write nothing
        return RunFolder(out or "runs")
    words = [name_model(model), _name_data(data), datetime.now().strftime("%Y%m%d-%H%M%S")]
    return create_folder(out, re.sub(r"[^\w.-]+", "-", "-".join(words)))


def name_model(model: Any) -> str:
    """Return what a model, or the model of an entry, is called."""
    return model.name if isinstance(model, Entry) else known_config(model).get("model") or type(model).__name__


def _name_data(data: Any) -> str:
    """Return a short name for data that is not opened yet."""
    if isinstance(data, (str, os.PathLike)):
        return to_path(data).absolute().name
    if hasattr(data, "describe"):
        return Path(data.source).name
    parts = list(data.values()) if isinstance(data, Mapping) else data if isinstance(data, (tuple, list)) else [data]
    return type(parts[0]).__name__ if parts else "data"


def refuse_used(path: Path) -> None:
    """Refuse what is not free for a new run.

    Raises:
        InputError: It holds a run or other files; the text says which.
    """
    stage = find_stage(path) if path.is_dir() else "foreign" if os.path.lexists(path) else "empty"
    if stage in ("empty", "claimed", "begun"):
        return
    if stage == "training":
        raise InputError(
            f"{path} holds an unfinished run, and runs are never overwritten. Resume it with: zoo finetune --resume "
            f"{shlex.quote(str(path))}; or choose another folder."
        )
    raise InputError(
        f"{path} exists and is not empty; runs are never overwritten. Choose another folder"
        + (", or resume that run." if stage == "undrawn" else ".")
    )


def _make(folder: RunFolder, *, exist_ok: bool, advice: str) -> None:
    """Make the folder, and those it is in."""
    path = folder.path
    missing = [parent for parent in path.parents if not parent.exists()]
    try:
        path.mkdir(parents=True, exist_ok=exist_ok)
    except OSError as error:
        if not exist_ok and isinstance(error, FileExistsError) and path.parent.is_dir():
            raise
        raise InputError(f"cannot create the run folder {path}: {error.strerror}. {advice}") from error
    folder.made = missing[::-1]


def _remove_beginning(folder: RunFolder) -> None:
    for name in BEGINNING:
        if name == RECORD and folder.file("pictures").is_dir() and not any(folder.pictures.iterdir()):
            folder.pictures.rmdir()
        folder.file(name).unlink(missing_ok=True)
