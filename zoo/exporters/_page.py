"""The page beside an exported model."""

from collections.abc import Mapping
from typing import Any

from zoo.exporters._lineage import tell_lineage
from zoo.tasks import Parity

PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}


def write_page(config: Mapping[str, Any], parity: Mapping[str, Parity]) -> str:
    """Return the README of an export: how to use it, what it takes and gives, and how far it is from the model."""
    export = config["export"]
    takes = "`(N, H, W, 3)` uint8 RGB" if export["input"] == "bytes" else "`(N, 3, H, W)` float32, normalised"
    rows = [
        f"| {name} | {found.images} | {found.largest:.1e} | {found.agreement:.2%} | {_metric(found)} |"
        for name, found in parity.items()
    ]
    packages = " or ".join(PACKAGES[name] for name in parity)
    return "\n".join(
        [
            f"# {config.get('model') or 'model'}, exported",
            "",
            f"A model for {config['task']} of {config['num_classes']} classes. Licence of the weights: "
            f"{config.get('licence') or 'not stated'}. {tell_lineage(config['lineage'])}",
            "",
            "```sh",
            f"pip install numpy pillow {packages.split()[0]}",
            "python predict.py photo.jpg",
            "```",
            "",
            f"Input: {takes}, already resized as `predict.py` does it. Outputs: {', '.join(export['outputs'])}.",
            "",
            "Compared with the model, from file to answer:",
            "",
            "| format | images | largest difference of a score | same answers | metric: model, export |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _metric(found: Parity) -> str:
    if found.ours is None or found.theirs is None:
        return "not computed: no labels"
    return f"{found.metric} {found.ours:.2%}, {found.theirs:.2%}"
