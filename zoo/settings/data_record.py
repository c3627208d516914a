"""What a run knows of how its data was opened: the preset says it, so that a repeated run opens the same."""

from collections.abc import Iterator
from typing import Any

from zoo.settings.preset import Preset
from zoo.tasks import Task


def opening_options(preset: Preset, task: Task) -> dict[str, Any]:
    """Return the options of a task's `open_data` that a preset decides."""
    seed = preset.seed if preset.split_seed is None else preset.split_seed
    own = {name: getattr(preset, name) for name in task.opening}
    return {"val_fraction": preset.val_fraction, "seed": seed, "skip_bad": preset.skip_bad} | own


def contradictions(preset: Preset, data: Any) -> Iterator[str]:
    """Yield what a preset says otherwise than data that was opened before, which is not opened again."""
    for name in _list_fields(data):
        said, done = getattr(preset, name), data.options[name]
        if said != done and said != getattr(Preset(), name):
            yield f"the preset's {name} ({said}) is ignored: the data was opened with {done}"
    if preset.classes and tuple(preset.classes) != data.classes:
        yield "the preset's class order is ignored: the data was opened with another"


def record_data(preset: Preset, data: Any, *, by_name: bool) -> Preset:
    """Return a preset that says how data was opened.

    Args:
        preset: The effective one.
        data: Opened data.
        by_name: Whether the outputs of the model have names, which the data's classes were matched with.
    """
    said = {name: data.options[name] for name in _list_fields(data)}
    if said.get("split_seed") == preset.seed:
        said["split_seed"] = None
    ordered = by_name or "classes" in data.options
    return preset.replace(**said, classes=list(data.classes) if ordered else [], match_outputs=by_name)


def _list_fields(data: Any) -> list[str]:
    """Return the fields of a preset that data says it was opened with, but for the classes."""
    return [name for name in data.options if name != "classes"]
