"""The page beside an exported model."""

from collections.abc import Mapping, Sequence
from typing import Any

from zoo.exporters._lineage import tell_lineage
from zoo.tasks import Parity

PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}


def write_page(
    config: Mapping[str, Any], parity: Mapping[str, Parity], variants: Sequence[Mapping[str, str]] = ()
) -> str:
    """Return the README of an export: how to use it, what it takes and gives, and how far it is from the model.

    Args:
        config: What stands in `config.json`.
        parity: What the comparison of each file has found.
        variants: Size, metric and speed of each, if there are smaller ones.
    """
    export = config["export"]
    takes = "`(N, H, W, 3)` uint8 RGB" if export["input"] == "bytes" else "`(N, 3, H, W)` float32, normalised"
    rows = [
        f"| {name} | {found.images} | {found.largest:.1e} | {found.agreement:.2%} | {_metric(found)} |"
        for name, found in parity.items()
    ]
    packages = " or ".join(dict.fromkeys(PACKAGES[name.partition("-")[0]] for name in export["files"]))
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
            *_compare_variants(export["files"], variants),
        ]
    )


def _compare_variants(files: Mapping[str, str], rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the lines of a table of the precisions, and how to choose one."""
    if not rows:
        return []
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [[row.get(column, "") for column in columns] for row in rows]
    shown = ["| " + " | ".join(line) + " |" for line in (columns, ["---"] * len(columns), *lines)]
    gone = [row["file"] for row in rows if row["file"] not in files]
    return [
        "The precisions beside each other; ms: median for one image on one thread, where the file was made:",
        "",
        *shown,
        "",
        *([f"Not in this folder: {', '.join(gone)}.", ""] if gone else []),
        f"`python predict.py --model {list(files)[-1]} photo.jpg` runs one of them.",
        "",
    ]


def _metric(found: Parity) -> str:
    if found.ours is None or found.theirs is None:
        return "not computed: no labels"
    return f"{found.metric} {found.ours:.2%}, {found.theirs:.2%}"
