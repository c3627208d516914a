"""The groups of a plan as a table: of numbers, of text, and as rich prints it."""

from collections.abc import Mapping, Sequence
from typing import Any

from zoo.rates.groups import UNUSED, Group

# Columns that a narrow terminal leaves out, the least important first.
SECONDARY_COLUMNS = ("tensors", "why", "optimizer", "decays", "clip", "centralized", "weight decay", "scale")
NUMBERS = ("tensors", "parameters", "lr", "scale", "weight decay")  # columns that are aligned on the right


def list_records(groups: Sequence[Group], curves: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Return one row of numbers per group; `curves` are its rates over the run, by its name."""
    total = sum(group.parameters for group in groups)
    return [
        {
            "name": group.name,
            "state": group.state,
            "tensors": len(group.names),
            "parameters": group.parameters,
            "share": group.parameters / total,
            "lr": group.lr,
            "lr_scale": group.lr_scale,
            "weight_decay": group.weight_decay,
            "schedule": group.schedule.to_dict().get("kind"),
            "gradient_centralization": group.gradient_centralization,
            "unfreeze_at": None if group.frozen else group.unfreeze_at,
            "first_rate": curves[group.name][0],
            "highest_rate": max(curves[group.name]),
            "last_rate": curves[group.name][-1],
            "reason": group.reason,
        }
        for group in groups
    ]


def list_rows(groups: Sequence[Group]) -> list[dict[str, str]]:
    """Return one row of text per group; columns that say nothing new are left out."""
    options = _differing_options([group for group in groups if not group.frozen])
    rows = [_row(group, options) for group in groups]
    learning = [row for row, group in zip(rows, groups, strict=True) if not group.frozen]
    usual = dict.fromkeys(("centralized", "clip", "decays", "optimizer"), "-") | {"scale": "1", "why": ""}
    usual["schedule"] = learning[0]["schedule"] if learning else "-"
    bare = {name for name, value in usual.items() if all(row[name] == value for row in learning)}
    return [{name: value for name, value in row.items() if name not in bare} for row in rows]


def sum_up(groups: Sequence[Group]) -> dict[str, str]:
    """Return the last line of the table: how much of the model learns."""
    total = sum(group.parameters for group in groups)
    trained = sum(group.parameters for group in groups if not group.frozen)
    return {
        "prefix": "total",
        "state": f"{trained / total:.2%} trained",
        "tensors": f"{sum(len(group.names) for group in groups)}",
        "parameters": f"{total:,}",
    }


def as_text(rows: Sequence[Mapping[str, str]], totals: Mapping[str, str]) -> str:
    """Return rows and totals as lines of aligned columns."""
    columns = list(rows[0])
    widths = {column: max(len(column), *(len(row.get(column, "")) for row in (*rows, totals))) for column in columns}
    lines = []
    for row in [dict(zip(columns, columns, strict=True)), *rows, totals]:
        texts = [(column, row.get(column, "")) for column in columns]
        cells = [text.rjust(widths[c]) if c in NUMBERS else text.ljust(widths[c]) for c, text in texts]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def as_rich(rows: Sequence[Mapping[str, str]], totals: Mapping[str, str]) -> Any:
    """Return rows and totals as a table of rich."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE, show_footer=True)
    for column in rows[0]:
        justify: Any = "right" if column in NUMBERS else "left"
        table.add_column(column, footer=totals.get(column, ""), justify=justify)
    for row in rows:
        table.add_row(*map(escape, row.values()))
    return table


def _differing_options(groups: Sequence[Group]) -> list[str]:
    """Return the options of the optimizer that are not the same in all groups."""
    names = dict.fromkeys(name for group in groups for name in group.options)
    return [name for name in names if len({repr(group.options.get(name)) for group in groups}) > 1]


def _row(group: Group, options: Sequence[str]) -> dict[str, str]:
    row = {
        "prefix": group.name,
        "state": "unused in training" if group.frozen and group.name.endswith(UNUSED) else group.state,
        "tensors": f"{len(group.names)}",
        "parameters": f"{group.parameters:,}",
        "lr": "0",
    }
    row |= dict.fromkeys(("scale", "weight decay", "schedule", "centralized", "clip", "decays", "optimizer"), "-")
    if group.frozen:
        return row | {"why": ""}
    if group.solver:
        return row | {"lr": "-", "scale": "1", "why": group.solver}
    scheduled, every = group.weight_decay_schedule, group.decay_every
    own = [f"{name} {group.options[name]}" for name in options if name in group.options]
    return row | {
        "lr": f"{group.lr:g}",
        "scale": f"{group.lr_scale:.4g}",
        "weight decay": f"{group.weight_decay:g}" + (f" × {scheduled.to_dict()['kind']}" if scheduled else ""),
        "schedule": str(group.schedule.to_dict()["kind"]),
        "centralized": "yes" if group.gradient_centralization else "-",
        "clip": "-" if group.clip_grad_norm is None else f"{group.clip_grad_norm:g}",
        "decays": "-" if every is None else f"× {every.factor:g} every {every.steps} steps",
        "optimizer": ", ".join(own) or "-",
        "why": group.reason,
    }
