"""The walk: model → preset → lr plan → training → a run in a folder."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from zoo._model import ask, find_method, get_fact, known_config
from zoo.data import refuse_in_worker, stopping_at_once, tell_change
from zoo.engine.frozen import why_not_frozen
from zoo.errors import DataError, InputError, Interrupted
from zoo.models import GroupHooks, match_classes, names_of, take_model
from zoo.optim import release_modes
from zoo.progress import Progress, is_main_process
from zoo.rates import Mode, Plan
from zoo.settings import (
    Preset,
    contradictions,
    notes_on_copies,
    opening_options,
    plan_rates,
    record_data,
    resolve_preset,
    without_code,
)
from zoo.tasks import Task, task_of
from zoo.training import (
    NOTHING_LEFT,
    RECORD,
    Callback,
    RunFolder,
    Training,
    adopt_weights,
    build_network,
    check_callbacks,
    claimed,
    describe_environment,
    draw_course,
    draw_plots,
    evaluate,
    find_stage,
    going_on,
    load_model,
    load_start,
    name_model,
    new_folder,
    read_record,
    say_how_to_resume,
    score_split,
    tell_undrawn,
    tell_versions,
    try_batches,
    write_preset,
    write_start,
)


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: Where everything of it is.
        model: The trained model, in eval mode.
        plan: Which parameter learnt at which rate.
        preset: The effective preset.
        metrics: One record per epoch: `loss`, `val_loss`, the scores (0 to 1), `lr` of each group, speed.
        evaluation: Scores of the model on the validation images; None if there were none.
        proof: Digests of the frozen tensors at each moment.
    """

    folder: Path
    model: Any
    plan: Plan
    preset: Preset
    metrics: list[dict[str, Any]]
    evaluation: Any
    proof: dict[str, Any]

    def predict(self, sources: Any, **options: Any) -> Any:
        """Say what is on images; see the model's own `predict`."""
        if not callable(getattr(self.model, "predict", None)):
            raise InputError(
                f"{type(self.model).__name__} has no predict(); run.model(images) gives its outputs for tensors."
            )
        return self.model.predict(sources, **options)

    def evaluate(self, data: Any, **options: Any) -> Any:
        """Score the model on other data; see `zoo.evaluate`."""
        return evaluate(self.model, data, **options)

    def __str__(self) -> str:
        return f"run in {self.folder}: {self.evaluation or 'not evaluated'}"


def plan(
    model: nn.Module,
    lr: float | Mapping[str, float] | None = None,
    *,
    mode: Mode | None = None,
    preset: str | Preset | Mapping[str, Any] | None = None,
    steps_per_epoch: int | None = None,
    optimizer: Any = None,
    **overrides: Any,
) -> Plan:
    """Return which parameter of a model would learn when and at which rate, without changing the model.

    `print` it for the table, `plan.plot("plan.png")` for the picture, `plan.rates(step)` for the rates of any step.

    Args:
        model: Any module.
        lr: One rate, or a mapping of keys to rates or settings with `"default"`; 0 freezes. None: the preset's.
        mode: `head`, `low_lr` or `full`, for one rate.
        preset: A name of `zoo.list_presets()`, a YAML file, a mapping of fields, or a `Preset`; None: the
            defaults.
        steps_per_epoch: Optimizer steps in one epoch: images / (batch_size × accumulate), rounded up. None: not known
            yet, 100 are assumed for rates and pictures; `finetune` knows it from the data.
        optimizer: Name, class, or an instance whose own groups are the plan.
        overrides: Other fields of the preset, for example `weight_decay=0.05` or `layer_decay=0.75`.

    Raises:
        PlanError: If the rates contradict each other or the model.
    """
    model = take_model(model)
    effective, own = resolve_preset(preset, lr, mode, overrides, optimizer=optimizer)
    return plan_rates(model, effective, steps_per_epoch=steps_per_epoch, optimizer=own)


def finetune(
    model: nn.Module,
    data: Any,
    lr: float | Mapping[str, float] | None = None,
    *,
    mode: Mode | None = None,
    preset: str | Preset | Mapping[str, Any] | None = None,
    out: str | os.PathLike[str] | RunFolder | None = None,
    progress: bool = True,
    optimizer: Any = None,
    callbacks: Callback | Sequence[Callback] = (),
    **overrides: Any,
) -> Run:
    """Fine-tune a model on labelled images and keep everything of the run in one folder.

    Args:
        model: A model of `zoo.get`, or any module. It is trained in place.
        data: A folder (`train/<class>/*`, `val/<class>/*`, or `<class>/*`), a pair of datasets or loaders, or a
            Hugging Face dataset; for a detector a folder of Pascal VOC, COCO or YOLO, a pair of datasets with boxes, or
            a Hugging Face dataset with `objects`; or what `zoo.open_data` returned.
        lr: One rate: the head learns at it and the rest is frozen, unless `mode` says otherwise; or a mapping of
            keys to rates or settings with `"default"`, used as it is; 0 freezes. None: the preset's.
        mode: `head`; `low_lr`: the rest learns at `lr * backbone_lr_factor`; `full`: all at one rate.
        preset: A name of `zoo.list_presets()`, a YAML file, a mapping of fields, or a `Preset`; None: the
            defaults.
        out: The run's folder, which must not exist or be empty, or one that was claimed for it; None: a new one under
            `runs/`.
        progress: Whether to show the plan, a bar, and a line per epoch.
        optimizer: Name of an optimizer, or a class; or an instance, whose own groups and rates are then the plan.
        callbacks: Objects of classes derived from `zoo.Callback`.
        overrides: Other fields of the preset, for example `epochs=5`; `zoo preset show --fields` lists them.

    Returns:
        The run: the trained model, its scores, the plan, the proof that what was frozen did not move.

    Raises:
        InputError: If data, preset, plan or model do not fit together; nothing has been written then.
        FrozenError: If a frozen tensor changed.
        Interrupted: After Ctrl-C, with everything saved; `zoo.resume` goes on.
    """
    refuse_in_worker()
    model = take_model(model, trains=True)
    _check_can_learn(model)
    task, listeners = task_of(model), check_callbacks(callbacks)
    effective, own = resolve_preset(preset, lr, mode, overrides, optimizer=optimizer, defaults=task.defaults)
    effective.refuse_other_tasks(task.name, f"a {task.card.noun}")
    task.check_options(effective, model)
    with stopping_at_once(), Progress(enabled=progress and is_main_process()) as show:
        chosen = plan_rates(model, effective, optimizer=own)
        with claimed(new_folder(out, model, data), show.say, is_new=True) as folder:

            def prepare() -> Training:
                opened, settled, plan = _fit_data(task, model, data, effective, chosen, own, show)
                _tell_plan(model, settled, plan, show, own)
                try_batches(task, model, opened, settled, plan)
                return _prepare(model, opened, settled, plan, folder, show, optimizer=own, callbacks=listeners)

            return _begin(prepare, folder)


@torch.inference_mode(False)
@torch.enable_grad()
def resume(
    folder: str | os.PathLike[str],
    data: Any = None,
    *,
    model: nn.Module | None = None,
    progress: bool = True,
    optimizer: Any = None,
    callbacks: Callback | Sequence[Callback] = (),
) -> Run:
    """Go on with a run that was interrupted; the result is the uninterrupted run's, bit for bit.

    That holds on the CPU, with one process, for images and data sets; a loader of your own orders its batches itself.

    Args:
        folder: The run's folder.
        data: The same data as before; None: from the path that the run began with.
        model: A network of the run's class, if it is not one of the registry's.
        progress: As in `finetune`.
        optimizer: The class or instance that the run began with, if it was one; an instance of the resumed `model`.
        callbacks: As in `finetune`.

    Raises:
        InputError: If the run is finished, the data has changed, or the folder is not a run.
    """
    refuse_in_worker()
    place, listeners = RunFolder.open(folder), check_callbacks(callbacks)
    with (
        stopping_at_once(),
        Progress(enabled=progress and is_main_process()) as show,
        claimed(place, show.say, is_new=False),
    ):
        preset, stage = place.load_preset(), find_stage(place.path)
        if stage == "undrawn":
            return _draw_again(place, preset, data, model, optimizer, show)
        unchanged = f"stopped before the run went on; it is as it was. {say_how_to_resume(place.path)}"
        with going_on(stopped=unchanged):
            state, before = None if stage == "begun" else place.load_state(), place.read_json("data.json")
            network, _ = build_network(place, model)
            if state is None:
                load_start(place, network)
            opened = _open_again(place, task_of(network), preset, data, before, show)
            chosen = plan_rates(network, preset, optimizer=optimizer)
            options: dict[str, Any] = {"optimizer": optimizer, "callbacks": listeners}
            if state is None:
                show.say(f"beginning the run in {place.path}, which was stopped before its first step")
                training = _prepare(network, opened, preset, chosen, place, show, **options)
            else:
                show.say(f"resuming {place.path} after {state['position']['epoch']} of {preset.epochs} epochs")
                if note := tell_versions(state["run"]):
                    show.say(note)
                training = Training(network, opened, preset, chosen, place, show, state, **options)
        return _train(training)


def load(
    run: Run | str | os.PathLike[str],
    model: nn.Module | None = None,
    *,
    cache_dir: str | None = None,
    token: str | bool | None = None,
) -> Any:
    """Return the model of a run, ready to predict: the same logits as when the run ended, bit for bit.

    Args:
        run: A run, its folder, or any folder with its `model.safetensors` and `config.json`; or a repository on the Hub
            that `zoo.push` has made, `org/name` or `org/name@revision`.
        model: A network of the run's class, if it is not one of the registry's.
        cache_dir: Where downloads are kept; None: the Hub client's own cache.
        token: For private or gated repositories; None: the client's saved one.
    """
    return load_model(run.folder if isinstance(run, Run) else run, model, cache_dir=cache_dir, token=token)


def _open(
    task: Task,
    data: Any,
    preset: Preset,
    show: Progress,
    classes: tuple[str, ...] | None = None,
    like: Sequence[str] = (),
) -> Any:
    if hasattr(data, "describe"):  # it was opened before
        opened = task.open_data(data)
        for line in contradictions(preset, opened):
            show.say(f"note: {line}")
    else:
        options = opening_options(preset) | {"classes": classes, "by_name": True, "like": like}
        with show.counting("checking images") as count:
            opened = task.open_data(data, on_progress=count, **options)
    if opened.train is None and opened.loaders is None:
        raise InputError(f"{opened.source} has no images to train on. Expected a split 'train', or no splits at all.")
    counts = ", ".join(f"{len(images):,} {name}" for name in ("train", "val") if (images := getattr(opened, name)))
    show.say(f"data: {opened.source}: {len(opened.classes)} classes, images: {counts or 'from loaders'}")
    task.tell(opened, show)
    if opened.skipped:
        found = f"{len(opened.skipped):,} error{'s' * (len(opened.skipped) > 1)} in the data"
        show.say(f"{found}: what they are about is left out; data.json names it")
    return opened


def _fit_data(
    task: Task, model: nn.Module, data: Any, preset: Preset, plan: Plan, own: Any, show: Progress
) -> tuple[Any, Preset, Plan]:
    """Open the data and give the model its classes; return it, with preset and plan as they are for it."""
    opened = _open(task, data, preset, show, like=preset.classes or names_of(model))
    preset = record_data(preset, opened, by_name=bool(names_of(model)))
    if match_classes(model, opened, show.say, may_replace=not isinstance(own, torch.optim.Optimizer)):
        plan = plan_rates(model, preset, optimizer=own)  # its head is another one
    _disown_altered(model, show)
    return opened, preset, plan


def _disown_altered(model: Any, show: Progress) -> None:
    """Let the run of a network that was changed after it was built say so, and name no model of the registry."""
    if hooked := ask(model, "hooked_layers"):
        show.say(f"note: {hooked[0]} has a forward hook, which is not saved: the model of zoo.load is without it")
    if ask(model, "is_altered", False) and known_config(model).get("model"):
        show.say(
            f"note: {name_model(model)} was changed after it was built, so its name does not build it again. "
            "To load or resume this run, change a new one in the same way and pass it as model="
        )
        model.config = known_config(model) | {"model": None, "options": {}}


def _tell_plan(model: nn.Module, preset: Preset, chosen: Plan, show: Progress, own: Any) -> None:
    """Show what learns at which rate, and what should be known of it."""
    if known_config(model) and not get_fact(model, "load_report") and not why_not_frozen(model, chosen):
        show.say("note: the frozen trunk has random weights; pass pretrained=True, or train it with mode='full'")
    if own is None and _learns_whole(model, preset):
        show.say(
            f"note: {name_model(model)} does not say which part is its head, so all of it learns at one rate; pass a "
            "mapping as lr to choose"
        )
    if chosen.hook is None and own is None and _brings_hooks(model):
        show.say(
            f"note: the param-group hooks of {name_model(model)} are not asked, because the preset says itself what "
            "learns; leave out mode, mapping and layer_decay to have them asked"
        )
    show.table(chosen.rows(), title=f"lr plan of {name_model(model)}", totals=chosen.totals())


def _check_can_learn(model: nn.Module) -> None:
    named = (*model.named_parameters(), *model.named_buffers())
    if lazy := next((name for name, tensor in named if is_lazy(tensor)), None):
        raise InputError(
            f"{lazy!r} of the {name_model(model)} has no size before the first images. Call model(images) once, then "
            "finetune."
        )
    if any(tensor.is_inference() for _, tensor in named):
        raise InputError(
            f"the {name_model(model)} was made inside torch.inference_mode(), so it can never learn. Make it outside."
        )


def _learns_whole(model: nn.Module, preset: Preset) -> bool:
    """Whether one rate goes to all parameters because nothing says otherwise."""
    says = ("get_finetune_lr_dict", "initialize_param_groups")
    free = preset.mode is None and preset.layer_decay is None and preset.first_lr is None
    return free and not isinstance(preset.lr, Mapping) and not any(find_method(model, name) for name in says)


def _brings_hooks(model: nn.Module) -> bool:
    """Whether a model has a param-group hook that is not the one of every model here."""
    for name in ("initialize_param_groups", "update_param_groups"):
        hook = find_method(model, name)
        if hook is not None and getattr(hook, "__func__", hook) is not getattr(GroupHooks, name):
            return True
    return False


def _begin(prepare: Callable[[], Training], folder: RunFolder) -> Run:
    """Prepare a new run and train; one that ends before its first step leaves nothing."""
    training: Training | None = None
    try:
        with going_on():
            training = prepare()
        return _train(training)
    except BaseException as error:
        if training is not None and training.position.step:
            raise
        if is_main_process():
            folder.discard()
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(NOTHING_LEFT) from None
        raise


def _prepare(
    model: nn.Module, data: Any, preset: Preset, plan: Plan, folder: RunFolder, show: Progress, **options: Any
) -> Training:
    """Prepare a run from its beginning, and write into its folder what it is made with."""
    is_main, described = is_main_process(), data.describe()
    if is_main:
        write_start(folder, model, preset, described)
        for line in notes_on_copies(described.get("files", {}), data.list_labels()):
            show.say(f"note: {line}")
    try:
        training = Training(model, data, preset, plan, folder, show, **options)
    except BaseException:
        release_modes(model)
        raise
    if is_main:
        _write_beginning(training, described)
    return training


def _write_beginning(training: Training, described: Mapping[str, Any]) -> None:
    """Write what the run is made with, and into the preset what was chosen: a repeated run then chooses the same."""
    folder, preset, supply = training.folder, training.preset, training.supply
    known = preset.replace(
        trunk_precision=preset.trunk_precision if supply.engine is None else supply.engine.precision,
        cache=supply.features.get("where", "off"),
        cache_dtype=supply.features.get("numbers", preset.cache_dtype),
        chunk_size=training.chunks.size,
        **without_code(preset, training.plan),
    )
    write_preset(folder, training.model, known, described)
    folder.write_json("plan.json", {"digest": training.plan.digest, **training.plan.to_dict()})
    if supply.features:
        folder.write_json("features.json", supply.features)
    folder.write_json("environment.json", describe_environment(str(training.accelerator.device)))


def _open_again(
    folder: RunFolder, task: Task, preset: Preset, data: Any, before: Mapping[str, Any], show: Progress
) -> Any:
    """Open the data of a run once more, and check that it is the same."""
    source, path = before["source"], folder.path
    if data is None and not Path(source).is_absolute():
        raise InputError(
            f"the run in {path} was begun with objects ({source}), which no file holds. "
            + say_how_to_resume(path, ["data"])
        )
    if data is None and not Path(source).exists():
        raise InputError(
            f"the data of the run in {path} is not where it was: {source}. Put it back; or, if it has moved, pass its "
            f"new place: zoo finetune --resume {path} NEW_PLACE, or zoo.resume({str(path)!r}, data=NEW_PLACE)."
        )
    try:
        opened = _open(task, source if data is None else data, preset, show, classes=tuple(before["classes"]))
    except DataError as error:
        if not preset.skip_bad:
            error.args = (f"{error} The run began with all of it: put back what has changed, and resume it again.",)
        raise
    if (now := opened.describe())["digest"] != before["digest"]:
        raise InputError(
            f"the data has changed since the run in {path} began: {source} ({tell_change(before, now)}). A resumed run "
            "would be another run; restore the data, or begin a new run from this one's weights with pretrained=."
        )
    return opened


def _draw_again(
    folder: RunFolder, preset: Preset, data: Any, model: nn.Module | None, optimizer: Any, show: Progress
) -> Run:
    """Draw the pictures of a finished run, which was stopped while they were drawn, or could not draw them then."""
    show.say(f"the run in {folder.path} is finished; its results are drawn anew")
    before, record, records = folder.read_json("data.json"), read_record(folder.path), folder.read_metrics()
    network = load_model(folder.path, model)
    task = task_of(network)
    opened = _open_again(folder, task, preset, data, before, show)
    steps = max(1, record.get("step", 1) // max(1, record.get("epoch", 1)))
    draw_course(folder, records, folder.read_rates(), scores=task.curves, steps_per_epoch=steps)
    evaluation = None
    if opened.val is not None or opened.loaders is not None:
        options: dict[str, Any] = {
            "batch_size": preset.batch_size,
            "num_workers": preset.num_workers,
            "device": preset.device,
        }
        evaluation, examples = score_split(network, task, opened, "val", show, **options)
        draw_plots(folder, task.make_plots(evaluation, examples, opened.val))
    tell_undrawn(folder, show.say)
    if not folder.undrawn:
        folder.write_json(RECORD, record | {"pictures": True})
    return Run(
        folder=folder.path,
        model=network.eval(),
        plan=plan_rates(network, preset, optimizer=optimizer),
        preset=preset,
        metrics=records,
        evaluation=evaluation,
        proof=folder.read_json("proof.json"),
    )


def _train(training: Training) -> Run:
    try:
        training.run()
    finally:
        if training.is_main and training.position.step:
            adopt_weights(training.model, training.folder)
    evaluation, records = training.evaluation, training.records
    facts = {"folder": str(training.folder.path), "pictures": str(training.folder.path / "pictures")}
    if evaluation is not None:
        weights = "moving average" if training.ema is not None else "best epoch" if training.best else "last epoch"
        facts = {"result": f"{evaluation} (val, {weights})"} | facts
        training.show.table(evaluation.rows()[:30], title="scores per class")
    count = len(training.proof.digests)
    if count:
        facts["proof"] = f"{count} frozen tensors unchanged at {len(training.proof.moments)} moments"
    training.show.finish(facts)
    return Run(
        folder=training.folder.path,
        model=training.model,
        plan=training.plan,
        preset=training.preset,
        metrics=records,
        evaluation=evaluation,
        proof=training.proof.to_dict(),
    )
