"""What a shell completes: names of models and presets, fields, folders of runs; nothing here loads a framework.

Where nothing fits, the shell completes names of files.
"""

import glob
import os
from collections.abc import Iterable

import typer

RUN_FILE = "config.json"


def complete_model(incomplete: str) -> list[str]:
    """Return the models whose names begin so."""
    import zoo

    return _starting(zoo.list_models(), incomplete)


def complete_model_first(context: typer.Context, incomplete: str) -> list[str]:
    """Return models for the first word; those after it are files."""
    return [] if context.params.get("model_and_data") else complete_model(incomplete)


def complete_run(incomplete: str) -> list[str]:
    """Return the folders of runs that begin so, those in `runs/` first, and the models."""
    return [*_list_runs(incomplete), *complete_model(incomplete)]


def complete_run_folder(incomplete: str) -> list[str]:
    """Return the folders of runs that begin so."""
    return _list_runs(incomplete)


def complete_preset(incomplete: str) -> list[str]:
    """Return the presets whose names begin so."""
    from zoo.settings import list_presets

    return _starting(list_presets(), incomplete)


def complete_setting(incomplete: str) -> list[str]:
    """Return the fields of a preset that begin so, with the sign that a value follows."""
    from zoo.settings import preset_fields

    return _starting((f"{name}=" for name in preset_fields()), incomplete)


def complete_mode(incomplete: str) -> list[str]:
    """Return what may be trained."""
    return _starting(("head", "low_lr", "full"), incomplete)


def _list_runs(incomplete: str) -> list[str]:
    places = [f"{glob.escape(incomplete)}*"]
    if not incomplete:
        places.insert(0, "runs/*")
    elif incomplete.endswith("/") or os.path.isdir(incomplete):
        places.append(f"{glob.escape(incomplete.rstrip('/'))}/*")
    found = (path for place in places for path in sorted(glob.glob(place)))
    return [path for path in dict.fromkeys(found) if os.path.isfile(os.path.join(path, RUN_FILE))]


def _starting(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
