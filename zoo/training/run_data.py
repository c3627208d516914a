"""The data of a run: opened with the preset's options when the run begins, and checked when it goes on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.data import load_transform, tell_change
from zoo.errors import DataError, InputError
from zoo.progress import Progress
from zoo.settings import Preset, contradictions, opening_options
from zoo.tasks import Task, check_monitor, sum_up
from zoo.training.failures import say_how_to_resume
from zoo.training.run_folder import RunFolder
from zoo.training.run_transform import check_transform


def open_for_run(
    data: Any,
    task: Task,
    preset: Preset,
    show: Progress,
    *,
    classes: tuple[str, ...] | None = None,
    like: Sequence[str] = (),
    excluded: Sequence[str] | None = None,
) -> Any:
    """Open the data of a run, and say what was found.

    Args:
        data: What `zoo.finetune` takes.
        task: The model's.
        preset: Has the options for opening.
        show: Where progress and findings are shown.
        classes: Those the data must have; None: its own.
        like: Classes whose names and order are kept where the data has them.
        excluded: Names of images that are left out, in the place of the preset's `exclude`; None: as the preset says.

    Raises:
        InputError: There is nothing to train on.
    """
    if hasattr(data, "describe"):  # it was opened before
        opened = task.open_data(data)
        for line in contradictions(preset, opened):
            show.log(f"note: {line}")
    else:
        options = opening_options(preset, task) | {"classes": classes, "by_name": True, "like": like}
        options |= {} if excluded is None or "exclude" not in task.opening else {"exclude": excluded}
        with show.counting("checking images") as count:
            opened = task.open_data(data, on_progress=count, **options)
    if opened.train is None and opened.loaders is None:
        raise InputError(f"{opened.source} has no images to train on. Expected a split 'train', or no splits at all.")
    has_val = opened.val is not None or "val" in (opened.loaders or {})
    if preset.patience is not None and preset.monitor != "loss" and not has_val:
        raise InputError(
            f"patience is {preset.patience}, and {opened.source} has no images for validation to stop by. Add a split "
            "'val', or set monitor to loss."
        )
    check_monitor(task, preset.monitor, opened.classes)
    show.log(f"data: {sum_up(opened)}")
    if user := load_transform(preset.transform):
        show.log(f"transform: {user}, called with each decoded training image before it is resized")
    task.report(opened, preset, show)
    if opened.skipped:
        found = f"{len(opened.skipped):,} error{'s' * (len(opened.skipped) > 1)} in the data"
        show.log(f"{found}: the affected images or boxes are skipped; data.json lists them")
    return opened


def reopen_data(folder: RunFolder, data: Any, task: Task, preset: Preset, show: Progress) -> Any:
    """Open the data of a run again, and check that it is the same.

    Args:
        folder: The run's.
        data: The same data in another place; None: from where the run found it.
        task: The model's.
        preset: The effective preset of the run.
        show: Where progress and findings are shown.

    Raises:
        InputError: It is not where it was, or has changed.
    """
    before, path = folder.read_json("data.json"), folder.path
    source = before["source"]
    if data is None and not Path(source).is_absolute():
        raise InputError(
            f"the run in {path} was started from Python objects ({source}), which are not saved. "
            + say_how_to_resume(path, ["data"])
        )
    if data is None and not Path(source).exists():
        raise InputError(
            f"cannot find the data of the run in {path}: {source}. Put it back, or pass its new path: zoo finetune "
            f"--resume {path} NEW_PATH, or zoo.resume({str(path)!r}, data=NEW_PATH)."
        )
    try:
        known: dict[str, Any] = {"classes": tuple(before["classes"]), "excluded": before.get("excluded", [])}
        opened = open_for_run(source if data is None else data, task, preset, show, **known)
    except DataError as error:
        if not preset.skip_bad:
            error.args = (f"{error} The run started with the complete data: restore it, then resume again.",)
        raise
    if (now := opened.describe())["digest"] != before["digest"]:
        raise InputError(
            f"the data has changed since the run in {path} started: {source} ({tell_change(before, now)}). Resuming "
            "would give a different result; restore the data, or start a new run from this run's weights "
            "(--weights, pretrained=)."
        )
    check_transform(before, preset, path)
    return opened
