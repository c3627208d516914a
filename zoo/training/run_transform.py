"""A transform of the user's own in a run: recorded when the run begins, and held to when it goes on."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from zoo.data import load_transform, name_transform
from zoo.engine.frozen import UnreadableCodeError, digest_code
from zoo.errors import InputError
from zoo.settings import Preset


def describe_transform(preset: Preset) -> dict[str, dict[str, str | None]]:
    """Return name and digest of the transform for `data.json`; nothing if there is none.

    The digest is None where the code cannot be read; then only the name tells transforms apart.
    """
    user = load_transform(preset.transform)
    if user is None:
        return {}
    digest: str | None = None
    with suppress(UnreadableCodeError):
        digest = digest_code(user.call, "the transform")
    return {"transform": {"name": user.name, "digest": digest}}


def bring_transform(preset: Preset, given: Any, folder: Path) -> Preset:
    """Return the preset of a run that goes on, with the object that the run began with in the place of its name.

    Args:
        preset: The run's.
        given: The object; None: the one that the preset names is imported.
        folder: The run's.

    Raises:
        InputError: The run began with another transform, or with none.
    """
    if given is None:
        return preset
    name = name_transform(given)
    if name != preset.transform:
        began = "without a transform" if preset.transform is None else f"with the transform {preset.transform}"
        raise InputError(
            f"the run in {folder} began {began}, not with {name}: resuming would give another result. Pass the same "
            "transform, or start a new run from this run's weights (--weights, pretrained=)."
        )
    return preset.replace(transform=given)


def check_transform(before: Mapping[str, Any], preset: Preset, folder: Path) -> None:
    """Refuse to go on with a transform whose code is another one now.

    Args:
        before: `data.json` of the run.
        preset: The run's, with its transform.
        folder: The run's.

    Raises:
        InputError: It differs, or cannot be imported.
    """
    was, now = before.get("transform", {}), describe_transform(preset).get("transform", {})
    if was.get("digest") != now.get("digest"):
        raise InputError(
            f"the transform {now.get('name')} has changed since the run in {folder} started. Resuming would give a "
            "different result; restore it, or start a new run from this run's weights (--weights, pretrained=)."
        )
