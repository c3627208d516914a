"""What a run knows of how its data was opened: the preset says it, so that a repeated run opens the same."""

from collections.abc import Iterator
from typing import Any

from zoo.settings.preset import Preset

FIELDS = ("val_fraction", "split_seed", "skip_bad")


def opening_options(preset: Preset) -> dict[str, Any]:
    """Return the options of `open_data` that a preset decides."""
    seed = preset.seed if preset.split_seed is None else preset.split_seed
    return {"val_fraction": preset.val_fraction, "seed": seed, "skip_bad": preset.skip_bad}


def contradictions(preset: Preset, data: Any) -> Iterator[str]:
    """Yield what a preset says otherwise than data that was opened before, which is not opened again."""
    for name in FIELDS:
        said, done = getattr(preset, name), data.options.get(name)
        if name in data.options and said != done and said != Preset.model_fields[name].default:
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
    said = {name: data.options[name] for name in FIELDS if name in data.options}
    if said.get("split_seed") == preset.seed:
        said["split_seed"] = None
    ordered = by_name or "classes" in data.options
    return preset.replace(**said, classes=list(data.classes) if ordered else [], match_outputs=by_name)
