"""`zoo models` and `zoo describe`: which models there are, and what is known of each."""

from typing import Annotated, Any

import typer

import zoo
from zoo._text import echo
from zoo.errors import InputError

from .completion import complete_model
from .given_options import refuse_unused
from .listing import AsJson, print_json, print_table

WIDTH = 27  # letters of the names of facts


def models(
    context: typer.Context,
    pattern: Annotated[
        str, typer.Argument(metavar="[PATTERN]", help="Names to list, such as 'resnet*'.", show_default="all")
    ] = "*",
    commercial: Annotated[
        bool, typer.Option("--commercial", help="Only models whose weights allow commercial use.")
    ] = False,
    names: Annotated[bool, typer.Option("--names", help="Print only the names, one per line.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the models: size, score and licence of each.

    Any other classifier of timm is available as timm/NAME.

    \b
    Examples:
      zoo models
      zoo models 'mobilenet*' --commercial
      zoo models --json
    """  # noqa: D301
    if as_json:
        refuse_unused(context, {"names"}, "beside --json.")
    found = zoo.list_models(pattern, commercial=True if commercial else None)
    if not found:
        raise InputError(f"no model fits {pattern!r}. zoo models lists all.")
    if names:
        for name in found:
            echo(name)
        return
    facts = [zoo.describe(name) for name in found]
    if as_json:
        print_json(facts)
        return
    secondary = ("pinned", "weights", "input", "task", "parameters", "licence")
    print_table(list(map(_row, facts)), "models", secondary=secondary, in_full="zoo models --json")


def describe(
    name: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A name that zoo models lists, or timm/NAME.", autocompletion=complete_model
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Show the input, weights, licence and score of a model.

    \b
    Examples:
      zoo describe resnet50
      zoo describe timm/vit_tiny_patch16_224 --json
    """  # noqa: D301
    facts = zoo.describe(name)
    rates = _finetune_rates(name, facts["num_classes"] or 2)
    if as_json:
        print_json(facts | ({"finetune_lr": rates} if rates else {}))
        return
    for group in ("preprocess", "postprocess", "weights"):
        inner = facts.pop(group, None) or {}
        facts |= {f"{group} {key}": value for key, value in inner.items()}
    if not any(key.startswith("weights ") for key in facts):
        facts["weights"] = "none"
    for key, value in facts.items():
        if value not in (None, "", [], ()):
            text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
            echo(f"{key:<{WIDTH}} {text}")
    if rates:
        echo(f"{'fine-tune':<{WIDTH}} {rates}  # for lr=0.01")


def _finetune_rates(name: str, num_classes: int) -> dict[str, float] | None:
    """Return what the model itself would train at a rate of 0.01."""
    hook = getattr(zoo.get(name, num_classes=num_classes), "get_finetune_lr_dict", None)
    return None if hook is None else hook(0.01)


def _row(facts: dict[str, Any]) -> dict[str, str]:
    weights = facts["weights"] or {}
    return {
        "model": facts["name"],
        "task": facts["task"],
        "parameters": f"{facts['parameters']:.1f} M" if facts["parameters"] else "-",
        "input": f"{_side(facts['preprocess'])} px",
        "score": _score(weights),
        "licence": weights.get("licence", "-"),
        "weights": weights.get("repo") or weights.get("filename") or "none",
        "pinned": "yes" if weights.get("pinned") else "no",
    }


def _side(preprocess: dict[str, Any]) -> int:
    """Return the side of a model's input in pixels."""
    side: int = preprocess["image_size"] if "image_size" in preprocess else max(preprocess["canvas_size"])
    return side


def _score(weights: dict[str, Any]) -> str:
    labels = {"top1": "top-1", "mean_ap": "mAP"}
    return next((f"{label} {weights[key]} %" for key, label in labels.items() if weights.get(key)), "-")
