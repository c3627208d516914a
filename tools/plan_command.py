"""`zoo plan`: which part of a model learns when and at which rate, in the terminal and as a plot."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

import zoo
from zoo._text import echo
from zoo.errors import InputError
from zoo.files import dump_json, to_path

from .given_options import refuse_unused
from .preset_options import Lr, Mode, PresetName, Settings, choose_preset

if TYPE_CHECKING:
    from zoo.rates import Plan

PLOT = "plan.png"
BARS = "▁▂▃▄▅▆▇█"
FROZEN = "·"
SHORTEST_CURVE, LONGEST_CURVE = 8, 24  # letters
MOST_MOMENTS = 4  # unfreeze points that have a column of their own

_Fact = TypeVar("_Fact")


def plan(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Argument(help="A name of `zoo models`, or timm/NAME; else the preset's.")
    ] = None,
    lr: Lr = None,
    mode: Mode = None,
    preset: PresetName = None,
    settings: Settings = None,
    classes: Annotated[
        int | None, typer.Option(metavar="N", help="Classes of the head; else those of the weights.")
    ] = None,
    steps_per_epoch: Annotated[
        int | None, typer.Option(metavar="N", help="Optimizer steps in one epoch: images / batch size; else 100.")
    ] = None,
    step: Annotated[
        int | None, typer.Option(metavar="K", help="Tell what makes each rate at this step, from 0.")
    ] = None,
    epoch: Annotated[int | None, typer.Option(metavar="E", help="The same, after so many epochs.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help=f"The plot to write; else {PLOT}.")] = None,
    no_plot: Annotated[bool, typer.Option("--no-picture", help="Write no plot.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the plan as data, with all parameter names; a plot only with -o.")
    ] = False,
) -> None:
    """Show which part of a model learns when, and at which rate, before anything runs.

    A table of groups, their rates over the run, and the same as a plot.

    \b
    Examples:
      zoo plan resnet18
      zoo plan resnet50 --lr 'fc=0.01,layer4=0.001,default=0'
      zoo plan resnet18 --lr '@norm=0.001,layer4@conv=0.0001,default=0.01'
      zoo plan resnet18 --mode full --set layer_decay=0.75  # rates that fall with depth
      zoo plan resnet18 --mode full --set first_lr=1e-5 --set optimizer=AdamW  # from 0.00001 to 0.01
      zoo plan resnet18 --set 'unfreeze={3: layer4, 6: [layer3, layer2]}'  # the head first, then more
      zoo plan resnet18 --lr '{default: 0, layer4: {lr: 0.001, unfreeze_at: 3}, fc: 0.01}' --epoch 3
      zoo plan resnet18 --set 'schedule={kind: step, every_epochs: 3, gamma: 0.1}' --set warmup_steps=50
      zoo plan mobilenetv2_100 --preset classify-low-lr --classes 10 --steps-per-epoch 157 --step 40 -o low.png
    """  # noqa: D301
    if no_plot:
        refuse_unused(context, {"out"}, "beside --no-picture.")
    chosen = choose_preset(preset, lr, mode, settings, model=model)
    name = chosen.model
    if name is None:
        raise InputError("no model is named. For example: zoo plan resnet18; the model may also stand in the preset.")
    plot = None if no_plot or (as_json and out is None) else _check_plot(to_path(out or PLOT))
    made = zoo.plan(zoo.get(name, num_classes=classes), preset=chosen, steps_per_epoch=steps_per_epoch)
    _check_length(made)
    at = _step_asked_for(made, step, epoch)
    if as_json:
        facts = {"digest": made.digest, **made.to_dict(), **_data_at(made, at)}
        echo(dump_json(facts, indent=1), lines=True)
    else:
        _print_plan(made, name, at)
    if plot is not None:
        _draw(made, plot, f"Learning rates of {name}")
        if not as_json:
            echo(f"plot: {plot}")


def _check_plot(path: Path) -> Path:
    """Refuse a name under which something else is kept; a plot that was drawn before is replaced."""
    if path.suffix.lower() != ".png":
        raise InputError(f"the plot is a PNG, and '{path}' has another ending. Choose a name that ends in .png.")
    if path.is_dir() or (path.exists() and not _is_drawn(path)):
        raise InputError(f"'{path}' exists and is no plot of a plan. Choose another name with -o, or --no-picture.")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder '{path.parent}' for the plot. Make it, or choose another name with -o.")
    return path


def _is_drawn(path: Path) -> bool:
    """Whether a file is a PNG of matplotlib, which names itself at its beginning."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError:
        return False
    return head.startswith(b"\x89PNG\r\n\x1a\n") and b"Matplotlib" in head


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

    show = Progress()
    show.table(made.rows(), title=f"lr plan of {name}", totals=made.totals())
    show.log("")
    show.log(_length(made))
    show.log("")
    show.table(_rates_over_the_run(made), title="rates over the run")
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
    except OSError as error:
        reason = f"cannot be written: {error.strerror}. Choose another name with -o, or --no-picture."
        raise InputError(f"'{path}' {reason}") from error
