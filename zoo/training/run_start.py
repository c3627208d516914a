"""What a run begins with, kept from the first moment on: one that is killed before its first state can be begun again.

Until the first step there may be hours, in which a frozen backbone looks at all images. The preset and the rest are
written twice: as they were asked for, and with what was chosen since. `run.json` has the digests of both before that,
so that a file that was changed is told from one that was being written.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from zoo._model import known_config
from zoo.errors import InputError
from zoo.files import digest_file, read_tensors, save_tensors
from zoo.models import describe_model
from zoo.optim import release_modes
from zoo.progress import Progress, is_main_process
from zoo.rates import GroupSettings, Plan
from zoo.settings import Preset, notes_on, notes_on_copies, without_code
from zoo.tasks import task_of
from zoo.training.callbacks import Callback
from zoo.training.run import TrainingRun
from zoo.training.run_folder import RunFolder, to_text
from zoo.training.run_identity import describe_environment
from zoo.training.run_stage import NEEDED_TO_BEGIN, RECORD, START, read_record
from zoo.training.run_transform import describe_transform


def begin_run(
    model: nn.Module,
    data: Any,
    preset: Preset,
    plan: Plan,
    folder: RunFolder,
    show: Progress,
    *,
    optimizer: Any = None,
    callbacks: Sequence[Callback] = (),
    saved: Mapping[str, Any] | None = None,
) -> TrainingRun:
    """Prepare a new run, and write into its folder what it is made with; the arguments are those of `TrainingRun`.

    One that goes on from the state of another run cannot be begun again without it: it has no weights to start from.
    """
    described = {
        **data.describe(),
        **task_of(model).describe_balance(data, preset),
        **describe_transform(preset),
    }
    if is_main_process():
        if saved is None:
            write_start(folder, model, preset, described)
        else:
            write_preset(folder, model, preset, described)
        for line in notes_on_copies(described.get("files", {}), data.list_labels()):
            show.log(f"note: {line}")
    try:
        options: dict[str, Any] = {"optimizer": optimizer, "callbacks": callbacks}
        run = TrainingRun(model, data, preset, plan, folder, show, saved, **options)
    except BaseException:
        release_modes(model)
        raise
    names = (name for name, _ in model.named_parameters())
    for line in notes_on(preset, run.parts.plan.clock.steps, names, optimizer):
        show.log(f"note: {line}")
    if is_main_process():
        _write_beginning(run, described)
    return run


def write_start(folder: RunFolder, model: nn.Module, preset: Preset, described: Mapping[str, Any]) -> None:
    """Write the weights and all else that a run begins with, before its training is prepared.

    A schedule that is a function is not known in plain values before the steps of an epoch are: such a run is begun
    again by the call that has the function.

    Args:
        folder: The run's.
        model: As it was handed in, with the classes of the data.
        preset: The effective one.
        described: What the data says of itself.
    """
    if not _is_plain(preset):
        return
    digest = save_tensors(model.state_dict(), folder.file(START), {"format": "pt", "library": "zoo"})
    _accept(folder, {START: digest})
    write_preset(folder, model, preset, described)


def load_start(folder: RunFolder, model: nn.Module) -> None:
    """Load the weights that a run begins with, if all that was written with them is as it was.

    Raises:
        InputError: It is not.
    """
    accepted = read_record(folder.path).get("sha256", {})
    for name in NEEDED_TO_BEGIN:
        if digest_file(folder.file(name)) not in accepted.get(name, ()):
            raise InputError(
                f"{folder.file(name)} has changed since the run started, so the run cannot be resumed from it. No "
                "step was trained: run the same finetune command again."
            )
    model.load_state_dict(read_tensors(folder.file(START)))


def write_preset(folder: RunFolder, model: nn.Module, preset: Preset, described: Mapping[str, Any]) -> None:
    """Write preset, configuration and data of a run, each whole; their digests come first."""
    facts = known_config(model)
    made = facts.get("origin", {})
    known = preset.replace(
        model=facts.get("model") or preset.model,
        pretrained=made.get("pretrained", preset.pretrained),
        pretrained_sha256=(made.get("sha256") or None) if isinstance(made.get("pretrained"), str) else None,
        init_seed=made.get("init_seed", preset.init_seed),
    )
    texts = {
        "preset.yaml": known.to_yaml(full=True),
        "config.json": to_text(describe_model(model).model_dump()),
        "data.json": to_text(described),
    }
    _accept(folder, {name: _digest(text) for name, text in texts.items()})
    for name, text in texts.items():
        folder.write_text(name, text)


def _write_beginning(run: TrainingRun, described: Mapping[str, Any]) -> None:
    """Write what the run is made with, and into the preset what was chosen: a repeated run then chooses the same."""
    folder, parts = run.folder, run.parts
    preset, supply, plan = parts.preset, parts.supply, parts.plan
    known = preset.replace(
        backbone_precision=preset.backbone_precision if supply.engine is None else supply.engine.precision,
        cache=supply.features.get("where", "off"),
        cache_dtype=supply.features.get("numbers", preset.cache_dtype),
        micro_batch_size=parts.micro_batches.size,
        **without_code(preset, plan),
    )
    write_preset(folder, parts.model, known, described)
    folder.write_json("plan.json", {"digest": plan.digest, **plan.to_dict()})
    if supply.features:
        folder.write_json("features.json", supply.features)
    folder.write_json("environment.json", describe_environment(str(parts.accelerator.device)))


def _accept(folder: RunFolder, digests: Mapping[str, str]) -> None:
    record = read_record(folder.path)
    known = record.get("sha256", {})
    both = {name: [*known.get(name, []), digest] for name, digest in digests.items()}
    folder.write_json(RECORD, {"status": "beginning", "sha256": known | both})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()


def _is_plain(preset: Preset) -> bool:
    """Whether no rate follows a function."""
    rates = preset.lr.values() if isinstance(preset.lr, Mapping) else ()
    schedules = [rate.schedule for rate in rates if isinstance(rate, GroupSettings) and rate.schedule is not None]
    return all(
        isinstance(value, str) or (isinstance(value, Mapping) and not any(map(callable, value.values())))
        for value in (preset.schedule, *schedules)
    )
