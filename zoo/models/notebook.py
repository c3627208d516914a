"""A model as a notebook shows it: facts and the parts of the network, in place of hundreds of lines of layers."""

from typing import Any

from torch import nn

from zoo.pages import list_facts, make_fragment, make_table

MOST_CLASSES = 12  # that are named


def show_model(model: Any) -> str:
    """Return HTML that tells what a model is, and how many parameters each of its parts has.

    Args:
        model: A `Model`.
    """
    names = list(model.classes)
    told = ", ".join(names[:MOST_CLASSES]) + (", …" if len(names) > MOST_CLASSES else "")
    facts = {
        "task": model.task,
        "classes": f"{model.num_classes:,}" + (f": {told}" if names else ""),
        "parameters": f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        "input": model.preprocess.describe(),
        "weights": str(model.load_report or "random"),
        "licence": f"code {model.licence.code}, weights {model.licence.weights or '-'}",
    }
    rows = [_describe_part(name, part) for name, part in model.named_children()]
    title = (model.config or {}).get("model") or type(model).__name__
    return make_fragment(title, list_facts(facts), make_table([row for row in rows if row["parameters"] != "0"]))


def _describe_part(name: str, part: nn.Module) -> dict[str, str]:
    parameters = list(part.parameters())
    return {
        "part": name,
        "class": type(part).__name__,
        "tensors": f"{len(parameters):,}",
        "parameters": f"{sum(parameter.numel() for parameter in parameters):,}",
    }
