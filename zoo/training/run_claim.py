"""The folder of a new run is claimed before its data is opened and its weights are downloaded, which may take hours."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from torch import nn

from zoo._model import known_config
from zoo.data import stopping_at_once, sweep_stores
from zoo.errors import Interrupted
from zoo.files import sweep_cache, to_path
from zoo.progress import is_main_process
from zoo.training.failures import going_on
from zoo.training.run_folder import RunFolder
from zoo.training.run_stage import find_stage

NOTHING_LEFT = "stopped before the first step: nothing was trained, and no run is left."


@contextmanager
def claiming(out: str | os.PathLike[str] | None, say: Callable[[str], None]) -> Iterator[RunFolder | None]:
    """Claim the folder of a new run before its model and data are there; hand what it gives to `finetune` as `out`.

    A run that ends before `finetune` has written anything leaves nothing.

    Args:
        out: The run's folder; None: `finetune` chooses one later, and only the signals are handled here.
        say: Called with what was found in the folder.

    Raises:
        InputError: Another process works in the folder, or it is not free for a new run.
        Interrupted: A signal has come.
    """
    with stopping_at_once():
        try:
            if out is None:
                yield None
                return
            folder = new_folder(out)
            with claimed(folder, say, is_new=True):
                try:
                    yield folder
                except BaseException:
                    if is_main_process() and folder.path.is_dir() and find_stage(folder.path) == "claimed":
                        folder.discard()
                    raise
        except Interrupted:  # a KeyboardInterrupt, too, of a run that has said where it stands
            raise
        except KeyboardInterrupt:
            raise Interrupted(NOTHING_LEFT) from None


@contextmanager
def claimed(folder: RunFolder, say: Callable[[str], None], *, is_new: bool) -> Iterator[RunFolder]:
    """Keep other processes out of a run's folder; of those that a launcher started, the main one stands for all."""
    if not is_main_process():
        yield folder
        return
    sweep_stores()
    sweep_cache()
    with folder.claimed(say, is_new=is_new):
        yield folder


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
            folder.discard()
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(NOTHING_LEFT) from None
        raise


def new_folder(
    out: str | os.PathLike[str] | RunFolder | None, model: nn.Module | None = None, data: Any = None
) -> RunFolder:
    """Make the folder of a new run, named after model and data if no path is given; a claimed one is returned as is."""
    if isinstance(out, RunFolder):
        return out
    if not is_main_process():  # the other processes write nothing
        return RunFolder(out or "runs")
    words = [name_model(model), _name_data(data), datetime.now().strftime("%Y%m%d-%H%M%S")]
    return RunFolder.create(out, re.sub(r"[^\w.-]+", "-", "-".join(words)))


def name_model(model: Any) -> str:
    """Return what a model is called."""
    return known_config(model).get("model") or type(model).__name__


def _name_data(data: Any) -> str:
    """Return a short name for data that is not opened yet."""
    if isinstance(data, (str, os.PathLike)):
        return to_path(data).absolute().name
    if hasattr(data, "describe"):
        return Path(data.source).name
    parts = list(data.values()) if isinstance(data, Mapping) else data if isinstance(data, (tuple, list)) else [data]
    return type(parts[0]).__name__ if parts else "data"
