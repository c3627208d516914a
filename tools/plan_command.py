"""`zoo plan`: which part of a model learns when and at which rate, in the terminal and as a plot."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

import zoo
from zoo._text import echo
from zoo.errors import InputError, StorageError
from zoo.files import to_path
from zoo.tasks import task_of

from .completion import complete_model
from .given_options import refuse_unused
from .listing import AsJson, print_json
from .places import check_plot
from .preset_options import (
    L2,
    BatchSize,
    Device,
    Epochs,
    ImageSize,
    Lr,
    Mode,
    PresetName,
    Seed,
    Settings,
    Solver,
    read_fields,
)

if TYPE_CHECKING:
    from zoo.rates import Plan

BARS = "▁▂▃▄▅▆▇█"
FROZEN = "·"
SHORTEST_CURVE, LONGEST_CURVE = 8, 24  # letters
MOST_MOMENTS = 4  # unfreeze points that have a column of their own

_Fact = TypeVar("_Fact")


# Long: an option takes several lines.
def plan(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="A model that zoo models lists, or timm/NAME.",
            show_default="the preset's",
            autocompletion=complete_model,
        ),
    ] = None,
    mode: Mode = None,
    lr: Lr = None,
    solver: Solver = None,
    l2: L2 = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    image_size: ImageSize = None,
    preset: PresetName = None,
    settings: Settings = None,
    seed: Seed = None,
    device: Device = None,
    classes: Annotated[
        int | None, typer.Option(metavar="N", help="Number of classes.", show_default="the model's")
    ] = None,
    images: Annotated[
        int | None, typer.Option(metavar="N", help="Training images, to know the steps of an epoch.")
    ] = None,
    steps_per_epoch: Annotated[
        int | None, typer.Option(metavar="N", help="Steps of an epoch, instead of --images.", show_default="100")
    ] = None,
    step: Annotated[
        int | None,
        typer.Option(metavar="K", help="Explain the learning rate of each group at step K (the first is 0)."),
    ] = None,
    epoch: Annotated[int | None, typer.Option(metavar="E", help="The same at the start of epoch E, from 0.")] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", "--out", "-o", metavar="FILE.png", help="Also draw the learning rates over the run."),
    ] = None,
    no_plot: Annotated[bool, typer.Option("--no-picture", hidden=True)] = False,  # what earlier versions needed
    as_json: AsJson = False,
) -> None:
    """Show what would be trained, and at which learning rate.

    Takes the options of zoo finetune; those that do not change the plan are only checked.

    \b
    Examples:
      zoo plan resnet18
      zoo plan resnet50 --lr 'fc=0.01,layer4=0.001,default=0'
      zoo plan resnet18 --epochs 20 --images 3670 --batch-size 64
      zoo plan resnet18 --lr '@norm=0.001,layer4@conv=0.0001,default=0.01'
      zoo plan resnet18 --mode full --set layer_decay=0.75  # rates that fall with depth
      zoo plan resnet18 --mode full --set first_lr=1e-5 --set optimizer=AdamW  # from 0.00001 to 0.01
      zoo plan resnet18 --set 'unfreeze={3: layer4, 6: [layer3, layer2]}'  # the head first, then more
      zoo plan resnet18 --lr '{default: 0, layer4: {lr: 0.001, unfreeze_at: 3}, fc: 0.01}' --epoch 3
      zoo plan mobilenetv2_100 --preset classify-low-lr --classes 10 --step 40 --plot low.png
    """  # noqa: D301
    if no_plot:
        refuse_unused(context, {"plot"}, "beside --no-picture.")
    if images is not None:
        refuse_unused(context, {"steps_per_epoch"}, "beside --images.")
    given = {"epochs": epochs, "image_size": image_size, "seed": seed, "device": device, "solver": solver, "l2": l2}
    fields = read_fields(settings, lr=lr, mode=mode, batch_size=batch_size, model=model, **given)
    name = fields.pop("model", None) or _model_of(preset)
    if plot is not None:
        plot = check_plot(to_path(plot))
    network = zoo.get(name, num_classes=classes)
    if images is not None:
        steps_per_epoch = _count_steps(images, preset, fields, task_of(network).defaults)
    made = zoo.plan(network, preset=preset, steps_per_epoch=steps_per_epoch, **fields)
    _check_length(made)
    at = _step_asked_for(made, step, epoch)
    if as_json:
        print_json({"digest": made.digest, **made.to_dict(), **_data_at(made, at)})
    else:
        _print_plan(made, name, at)
    if plot is not None:
        _draw(made, plot, f"Learning rates of {name}")
        if not as_json:
            echo(f"plot: {plot}")


def _model_of(preset: str | None) -> str:
    from zoo.settings import load_preset

    named = load_preset(preset).model if preset else None
    if named is None:
        raise InputError("no model is named. For example: zoo plan resnet18; the model may also stand in the preset.")
    return named


def _count_steps(images: int, preset: str | None, fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> int:
    """Return the optimizer steps of an epoch of so many images."""
    from zoo.settings import resolve_preset

    if images < 1:
        raise InputError(f"--images is {images}; expected 1 or more.")
    rates = {"lr": fields.get("lr"), "mode": fields.get("mode")}
    others = {name: value for name, value in fields.items() if name not in (*rates, "optimizer")}
    effective = resolve_preset(preset, overrides=others, defaults=defaults, **rates).preset
    batches = -(-images // effective.batch_size)
    return -(-batches // effective.accumulate)


def _check_length(made: "Plan") -> None:
    """Refuse schedules that do not reach to the end of a run whose length is only assumed."""
    try:
        made.at(made.clock)
    except InputError as error:
        raise InputError(f"{error} The length is {_length(made)}.") from error


def _step_asked_for(made: "Plan", step: int | None, epoch: int | None) -> int | None:
    if step is not None and epoch is not None:
        raise InputError(f"--step is {step} and --epoch is {epoch}. Leave out one of them.")
    wanted = step if epoch is None else epoch * made.clock.steps_per_epoch
    if wanted is None or 0 <= wanted < made.clock.steps:
        return wanted
    if epoch is not None:
        raise InputError(f"--epoch is {epoch}; expected 0 to {made.clock.epochs - 1}, epochs that have passed.")
    raise InputError(f"--step is {step}; expected 0 to {made.clock.steps - 1:,}: the run has {_length(made)}.")


def _data_at(made: "Plan", step: int | None) -> dict[str, Any]:
    return {} if step is None else {"step": step, "rates": made.rates(step), "reasons": made.explain(step)}


def _print_plan(made: "Plan", name: str, at: int | None) -> None:
    from zoo.progress import Progress
    from zoo.rates import SECONDARY_COLUMNS

    show = Progress()
    title, secondary = f"lr plan of {name}", SECONDARY_COLUMNS
    show.table(made.rows(), title=title, totals=made.totals(), secondary=secondary, in_full="zoo plan --json")
    show.log("")
    show.log(_length(made))
    show.log("")
    rates = _rates_over_the_run(made)
    moments = [name for name in rates[0] if name not in ("prefix", "start", "end", "curve")]
    show.table(rates, title="rates over the run", secondary=(*moments[::-1], "curve"), in_full="zoo plan --plot")
    if at is not None:
        passed = at / made.clock.steps_per_epoch
        show.log("")
        show.log(f"rates at step {at:,}, after {passed:.3g} epoch{'s' * (passed != 1)}")
        reasons = _without_halves(made, made.explain(at))
        width = max(map(len, reasons))
        for group, reason in reasons.items():
            show.log(f"{group:<{width}}   {reason}")


def _length(made: "Plan") -> str:
    clock = made.clock
    each = f"{clock.steps_per_epoch:,} step{'s' * (clock.steps_per_epoch != 1)}"
    length = f"{clock.epochs} epoch{'s' * (clock.epochs != 1)} × {each}"
    if made.steps_are_known:
        return f"{length} = {clock.steps:,}"
    return f"{length} (assumed; --steps-per-epoch says it)"


def _rates_over_the_run(made: "Plan") -> list[dict[str, str]]:
    """Return a row for every group: its rate at some moments, and its curve."""
    from zoo.progress import format_rate

    moments = {label: made.rates(step) for step, label in sorted(_moments(made).items())}
    frozen = {group.name for group in made.groups if group.frozen}
    rows = {
        name: {label: "-" if name in frozen else format_rate(rates[name]) for label, rates in moments.items()}
        for name in (group.name for group in made.groups)
    }
    rows = _without_halves(made, rows)
    curves = _curves(made, _room(rows)) if _can_print(BARS + FROZEN) else {}
    return [{"prefix": name, **row, **({"curve": curves[name]} if curves else {})} for name, row in rows.items()]


def _moments(made: "Plan") -> dict[int, str]:
    """Return steps that tell most of a run, and what they are."""
    from zoo.rates.schedules import Curve

    clock, epochs = made.clock, made.unfreeze_epochs
    rises = [group.schedule.rise(clock) for group in made.trained if isinstance(group.schedule, Curve)]
    stride = -(-len(epochs) // MOST_MOMENTS) or 1
    found = {0: "start"}
    if 0 < (rise := max(rises, default=0)) < clock.steps:
        found[rise] = f"step {rise}" if any(other not in (0, rise) for other in rises) else "warmed up"
    for epoch in epochs[::stride]:
        found.setdefault(epoch * clock.steps_per_epoch, f"epoch {epoch}")
    found.setdefault(clock.steps // 2, "half-way")
    found.setdefault(clock.steps - 1, "end")
    return found


def _room(rows: Mapping[str, Mapping[str, str]]) -> int:
    """Return how many letters a line of the table leaves for the curve; off a terminal there is no end to a line."""
    if not sys.stdout.isatty():
        return LONGEST_CURVE
    labels = next(iter(rows.values()))
    widths = [max(map(len, rows)), *(max(len(label), *(len(row[label]) for row in rows.values())) for label in labels)]
    left = shutil.get_terminal_size().columns - sum(width + 3 for width in widths)
    return min(LONGEST_CURVE, max(SHORTEST_CURVE, left))


def _curves(made: "Plan", letters: int) -> dict[str, str]:
    """Draw every group's rate over the run in letters, against its own highest."""
    count = min(letters, made.clock.steps)
    last = made.clock.steps - 1
    table = [made.rates(round(index * last / max(1, count - 1))) for index in range(count)]
    return {group.name: _draw_letters([rates[group.name] for rates in table]) for group in made.groups}


def _draw_letters(rates: Sequence[float]) -> str:
    highest = max(rates)
    return "".join(BARS[round(rate / highest * (len(BARS) - 1))] if rate else FROZEN for rate in rates)


def _without_halves(made: "Plan", facts: Mapping[str, _Fact]) -> dict[str, _Fact]:
    """Leave out the half of a group that has no decay, where the same holds for the other half."""
    keys = {group.name: group.key for group in made.groups}
    return {name: fact for name, fact in facts.items() if keys[name] == name or facts.get(keys[name]) != fact}


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _draw(made: "Plan", path: Path, title: str) -> None:
    try:
        made.plot(path, title=title)
    except StorageError:
        raise
    except OSError as error:
        reason = f"cannot be written: {error.strerror}. Choose another name."
        raise InputError(f"'{path}' {reason}") from error
