"""`zoo schedules` and `zoo optimizers`: what a preset may name, with a line on each."""

import inspect
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any

import typer

from zoo._text import echo
from zoo.errors import InputError

from .listing import AsJson, print_json, print_table

_SHAPES: Mapping[str, str] = {  # kind of schedule → what it does
    "constant": "the full rate throughout",
    "cosine": "falls along a half-wave to final_ratio of the full rate",
    "exponential": "times gamma in every epoch (or every_steps), a little at each step",
    "function": "what a function of the step returns; given in Python, or registered by name",
    "inverse": "1 / (1 + rate × k / steps), k the step",
    "list": "a factor for every optimizer step",
    "multistep": "times gamma at each of the milestones (epochs), or at milestone_steps",
    "one_cycle": "up to the full rate and down to almost nothing; no warm-up beside it",
    "plateau": "times factor when a metric has not improved for patience epochs",
    "polynomial": "falls to final_ratio as (1 - x)^power, x the share that is done; power 1: a straight line",
    "rates": "a rate for every optimizer step, whatever the group's own",
    "step": "times gamma after every_epochs or every_steps",
    "torch": "a scheduler of torch.optim.lr_scheduler by name, with its arguments beside it",
}
_SHARED = (  # lines of 80 letters
    "",
    "all take also: by (step, or epoch: a staircase), warmup_epochs or warmup_steps,",
    "warmup_start (ratio) or warmup_start_lr, warmup (linear or constant), warmup_over,",
    "cooldown_epochs; what a schedule does not say is the preset's",
)
_NAMES_ITSELF = re.compile(r"torch\.optim(\.\w+)?,? ", re.IGNORECASE)  # how timm begins the descriptions of torch's


def schedules(as_json: AsJson = False) -> None:
    """List the learning rate schedules.

    A schedule multiplies the learning rate of each group, after the warm-up. It is a name, or a mapping with 'kind',
    for the whole run or for one key of lr.

    \b
    Examples:
      zoo schedules
      zoo plan resnet18 --set schedule=one_cycle
      zoo plan resnet18 --set 'schedule={kind: multistep, milestones: [6, 9], gamma: 0.1}'
      zoo plan resnet18 --set 'schedule={kind: torch, scheduler: StepLR, step_size: 3}'
      zoo plan resnet18 --lr '{default: 0.001, fc: {lr: 0.01, schedule: constant}}'
    """  # noqa: D301
    from zoo.rates.schedules import list_schedules

    rows = [
        {"kind": kind, "what it does": _SHAPES.get(kind, "a registered function"), "settings": _settings(kind)}
        for kind in list_schedules()
    ]
    if as_json:
        print_json(rows)
        return
    print_table(rows, "schedules")
    for line in _SHARED:
        echo(line)


def optimizers(
    pattern: Annotated[
        str,
        typer.Argument(
            metavar="[PATTERN]", help="Names to list, such as 'ada*'; one name shows its arguments.", show_default="all"
        ),
    ] = "*",
    as_json: AsJson = False,
) -> None:
    """List the optimizers, or the arguments of one.

    Case, '-' and '_' do not matter. Learning rate and weight decay are fields of the preset; all other arguments go
    into optimizer_params.

    \b
    Examples:
      zoo optimizers 'ada*'
      zoo optimizers rmsprop
      zoo plan resnet18 --set optimizer=AdamW --set weight_decay=0.05 --set 'optimizer_params={betas: [0.9, 0.99]}'
    """  # noqa: D301
    from zoo.optim import list_optimizers

    wanted = _plain(pattern)
    found = [name for name in list_optimizers() if fnmatchcase(_plain(name), wanted)]
    if not found:
        raise InputError(f"no optimizer fits {pattern!r}. zoo optimizers lists all.")
    rows = list(map(_describe, found))
    if as_json:
        print_json([row | {"arguments": _arguments(row["optimizer"])} for row in rows])
        return
    print_table(rows, "optimizers", secondary=("weight decay", "from"), in_full="zoo optimizers --json")
    if len(found) == 1:
        echo()
        print_table(_arguments(found[0]), f"optimizer_params of {found[0]}")


def _settings(kind: str) -> str:
    """Return the settings of a kind with their defaults."""
    from zoo.rates.schedules import CURVES, Curve

    if kind not in CURVES:
        return "scheduler, per, its arguments" if kind == "torch" else "-"
    fields = CURVES[kind].model_fields
    own = {field.alias or name: field for name, field in fields.items() if name not in Curve.model_fields}
    return (
        ", ".join(
            name if field.is_required() or field.default is None else f"{name} {field.default}"
            for name, field in own.items()
        )
        or "-"
    )


def _describe(name: str) -> dict[str, str]:
    from zoo.optim import default_weight_decay, find_optimizer

    kind = find_optimizer(name)
    source = _source(kind)
    return {
        "optimizer": name,
        "from": source,
        "weight decay": f"{default_weight_decay(name):g}",
        "what it does": (source in ("torch", "timm") and _said_by_timm(name)) or _first_line(kind),
    }


def _source(kind: type) -> str:
    """Return the package of a class; for what is made here of a class of timm's that is timm."""
    packages = [base.__module__.split(".")[0] for base in kind.__mro__]
    if packages[0] == "zoo" and "timm" in packages:
        return "timm"
    return packages[0] if packages[0] in ("torch", "timm", "zoo") else "registered"


def _said_by_timm(name: str) -> str:
    from timm.optim import get_optimizer_info, list_optimizers

    known = {_plain(theirs): theirs for theirs in list_optimizers()}.get(_plain(name))
    return _NAMES_ITSELF.sub("", str(get_optimizer_info(known).description)) if known else ""


def _arguments(name: str) -> list[dict[str, str]]:
    from zoo.optim import arguments, default_params, find_optimizer

    kind = find_optimizer(name)
    found, ours = inspect.signature(kind).parameters, default_params(kind)
    names = sorted(arguments(kind) or ())
    return [{"argument": key, "default": str(ours.get(key, found[key].default))} for key in names]


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _first_line(documented: Any) -> str:
    return (documented.__doc__ or "").strip().partition("\n")[0].rstrip(".")
