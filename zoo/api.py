"""The walk: model → preset → lr plan → training → a run in a folder."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn

from zoo.data import refuse_in_worker, stopping_at_once
from zoo.errors import InputError
from zoo.models import look_up, match_classes, names_of, refuse_fixed, take_model
from zoo.progress import Progress, is_main_process
from zoo.rates import GivenRates, Mode, Plan
from zoo.settings import Preset, check_preset, plan_rates, record_data, resolve_preset
from zoo.tasks import task_of
from zoo.training import (
    Callback,
    Run,
    TrainingRun,
    begin_run,
    bring_transform,
    build_network,
    check_callbacks,
    check_can_learn,
    check_run,
    claimed,
    default_fields,
    disown_altered,
    fetch_named,
    find_stage,
    going_on,
    leaving_nothing,
    load_model,
    load_start,
    make_model,
    new_folder,
    open_folder,
    open_for_run,
    redraw,
    reopen_data,
    say_how_to_resume,
    show_plan,
    tell_versions,
    train_longer,
    try_batches,
)


def plan(
    model: nn.Module | str | os.PathLike[str],
    lr: GivenRates | None = None,
    *,
    mode: Mode | None = None,
    preset: str | os.PathLike[str] | Preset | Mapping[str, Any] | None = None,
    steps_per_epoch: int | None = None,
    optimizer: Any = None,
    **overrides: Any,
) -> Plan:
    """Return the learning-rate plan: which parameters train, when and at which rate. The model is not changed.

    `print` it for the table, `plan.plot("plan.png")` for the plot, `plan.rates(step)` for the rates of any step.

    Args:
        model: Any module; or what `zoo.get` takes as a name, which is built without values, for the classes of its
            weights.
        lr: Learning rate, or a mapping of parameter-name prefixes to rates or settings with `"default"`; 0 freezes.
            None: the preset's.
        mode: `head`, `low_lr` or `full`, with a single `lr`.
        preset: A name of `zoo.list_presets()`, a YAML file, a mapping of fields, or a `Preset`; None: the
            defaults.
        steps_per_epoch: Optimizer steps in one epoch: images / (batch_size × accumulate), rounded up. None: not known
            yet, 100 are assumed for rates and plots; `finetune` knows it from the data.
        optimizer: Name, class, or an instance whose own groups are the plan.
        overrides: Other fields of the preset, for example `weight_decay=0.05` or `layer_decay=0.75`.

    Raises:
        PlanError: If the rates contradict each other or the model.
        InputError: If anything else in the options is wrong; all of it is told at once.
    """
    network: nn.Module | None = None
    if isinstance(model, (str, os.PathLike)):
        defaults, overrides = default_fields(model, optimizer), overrides | {"model": os.fspath(model)}
    else:
        network = take_model(model)
        refuse_fixed(network)
        defaults = task_of(network).defaults
    settled, own, _ = resolve_preset(preset, lr, mode, overrides, optimizer=optimizer, defaults=defaults)
    made = check_preset(settled, network, optimizer=own, steps_per_epoch=steps_per_epoch, asks_hub=True)
    return cast(Plan, made)


def finetune(
    model: nn.Module | str | os.PathLike[str],
    data: Any,
    lr: GivenRates | None = None,
    *,
    mode: Mode | None = None,
    preset: str | os.PathLike[str] | Preset | Mapping[str, Any] | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
    optimizer: Any = None,
    callbacks: Callback | Sequence[Callback] = (),
    **overrides: Any,
) -> Run:
    """Fine-tune a model on labelled images and save the run in one folder.

    Args:
        model: A name of `zoo.list_models()`, or a saved model as for `zoo.get`: it is created with the classes of the
            data and its published weights, or as `pretrained` says. Or a model from `zoo.get`, or any module, which is
            trained in place.
        data: A folder (`train/<class>/*`, `val/<class>/*`, or `<class>/*`), a pair of datasets or loaders, or a
            Hugging Face dataset; for a detector a folder of Pascal VOC, COCO or YOLO, a pair of datasets with boxes, or
            a Hugging Face dataset with `objects`; or what `zoo.open_data` returned.
        lr: Learning rate. With a single value the head is trained and the backbone is frozen, unless `mode` is set. Or
            a mapping of parameter-name prefixes to rates or settings with `"default"`; 0 freezes. None: the preset's.
        mode: What to train with a single `lr`: `head`; `low_lr`: also the backbone, at `lr * backbone_lr_factor`;
            `full`: everything at `lr`.
        preset: A name of `zoo.list_presets()`, a YAML file, a mapping of fields, or a `Preset`; None: the
            defaults.
        out: Output folder, new or empty; None: a new one under `runs/`.
        progress: Whether to show the plan, a bar, and a line per epoch.
        optimizer: Name or class of an optimizer; or an instance, whose groups and learning rates are then used.
        callbacks: Instances of `zoo.Callback`.
        overrides: Other fields of the preset, for example `epochs=5`; `zoo preset show --fields` lists them.

    Returns:
        The run: the trained model, its scores, the plan, and the proof that frozen tensors did not change.

    Raises:
        InputError: If data, preset, plan or model do not fit together; nothing has been written then. All that can be
            known without images and weights is found first, in one error.
        WeightsError: If the weights of a named model cannot be had.
        FrozenError: If a frozen tensor changed.
        Interrupted: After Ctrl-C, with everything saved; continue with `zoo.resume`.
    """
    refuse_in_worker()
    listeners, network = check_callbacks(callbacks), None
    if isinstance(model, (str, os.PathLike)):
        defaults, overrides = default_fields(model, optimizer), overrides | {"model": os.fspath(model)}
    else:
        network = take_model(model, trains=True)
        check_can_learn(network)
        defaults = task_of(network).defaults
    settled, own, notes = resolve_preset(preset, lr, mode, overrides, optimizer=optimizer, defaults=defaults)
    if network is None and settled.pretrained is None:
        settled = settled.replace(pretrained=True)
    with stopping_at_once(), Progress(enabled=progress and is_main_process()) as show:
        chosen = check_run(settled, network, optimizer=own, data=data, out=out)
        known = look_up(settled.model or "") if network is None else network
        with claimed(new_folder(out, known, data), show.log, is_new=True) as folder, leaving_nothing(folder):
            for note in notes:
                show.log(f"note: {note}")
            task = task_of(known).choose(settled)
            if network is None:
                fetch_named(settled)
            opened = open_for_run(data, task, settled, show, like=settled.classes or names_of(network))
            if network is None:
                network, chosen = make_model(settled, opened, show.log), None
            settled = record_data(settled, opened, by_name=bool(names_of(network)))
            may_replace = not isinstance(own, torch.optim.Optimizer)
            if match_classes(network, opened, show.log, may_replace=may_replace) or chosen is None:
                chosen = plan_rates(network, settled, optimizer=own)  # of the head that learns
            task.settle(network, opened)
            disown_altered(network, show)
            show_plan(network, settled, chosen, show, has_own_optimizer=own is not None)
            try_batches(task, network, opened, settled, chosen)
            run = begin_run(network, opened, settled, chosen, folder, show, optimizer=own, callbacks=listeners)
            return run.run()


@torch.inference_mode(False)
@torch.enable_grad()
def resume(
    folder: str | os.PathLike[str],
    data: Any = None,
    *,
    epochs: int | None = None,
    out: str | os.PathLike[str] | None = None,
    model: nn.Module | None = None,
    progress: bool = True,
    optimizer: Any = None,
    transform: Any = None,
    callbacks: Callback | Sequence[Callback] = (),
) -> Run:
    """Resume an interrupted run; the result equals that of an uninterrupted run, bit for bit.

    That holds on the CPU, with one process, for images and data sets; a loader of your own orders its batches itself.

    With `epochs`, an interrupted or finished run is trained up to another number of epochs, as a new run: its folder is
    left as it is, and `parent.json` of the new one names it. An interrupted run goes on from its state, a finished one
    from its weights with a fresh optimizer; schedules are stretched over all epochs.

    Args:
        folder: The run's folder.
        data: The same data as before; None: from the path that the run began with.
        epochs: All epochs together, those of the run among them; None: as the run was planned.
        out: With `epochs`: the folder of the new run; None: a new one under `runs/`.
        model: A network of the run's class, if it is not one of the registry's.
        progress: As in `finetune`.
        optimizer: The class or instance that the run began with, if it was one; an instance of the resumed `model`.
        transform: The transform that the run began with, if it was an object that cannot be imported by its name.
        callbacks: As in `finetune`.

    Raises:
        InputError: If the run is finished, the data has changed, or the folder is not a run.
    """
    refuse_in_worker()
    listeners = check_callbacks(callbacks)
    if epochs is not None:
        options: dict[str, Any] = {"out": out, "model": model, "optimizer": optimizer, "callbacks": listeners}
        options["transform"] = transform
        with stopping_at_once(), Progress(enabled=progress and is_main_process()) as show:
            return train_longer(folder, data, epochs, show, **options)
    if out is not None:
        raise InputError("out needs epochs: without epochs, a resumed run stays in its own folder.")
    place = open_folder(folder)
    with (
        stopping_at_once(),
        Progress(enabled=progress and is_main_process()) as show,
        claimed(place, show.log, is_new=False),
    ):
        preset, stage = bring_transform(place.load_preset(), transform, place.path), find_stage(place.path)
        if stage == "undrawn":
            show.log(f"the run in {place.path} is finished; drawing its plots again")
            network = load_model(place.path, model)
            opened = reopen_data(place, data, task_of(network), preset, show)
            return redraw(place, network, opened, preset, plan_rates(network, preset, optimizer=optimizer), show)
        unchanged = f"stopped before the run resumed; it is unchanged. {say_how_to_resume(place.path)}"
        with going_on(stopped=unchanged):
            state = None if stage == "begun" else place.load_state()
            network, _ = build_network(place, model)
            if state is None:
                load_start(place, network)
            opened = reopen_data(place, data, task_of(network), preset, show)
            chosen = plan_rates(network, preset, optimizer=optimizer)
            options = {"optimizer": optimizer, "callbacks": listeners}
            if state is None:
                show.log(f"starting the run in {place.path}, which was stopped before its first step")
                run = begin_run(network, opened, preset, chosen, place, show, **options)
            else:
                show.log(f"resuming {place.path} after {state['position']['epoch']} of {preset.epochs} epochs")
                if note := tell_versions(state["run"]):
                    show.log(note)
                run = TrainingRun(network, opened, preset, chosen, place, show, state, **options)
        return run.run()
