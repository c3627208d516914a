"""`MODEL_CARDS.md`, written from the registry: `python -m zoo.tools.cards` (or `--check`, which changes nothing)."""

import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from textwrap import wrap
from typing import Any

import zoo
from zoo._text import echo
from zoo.settings import presets_folder
from zoo.weights import IMAGENET_CAVEAT

CARDS = Path("MODEL_CARDS.md")
HEAD = """\
# Model cards

Written by `python -m zoo.tools.cards` from the registry and the heads of the presets; a test compares this page with
it. "Pinned" weights have a fixed SHA-256 that every download is held against, and on the Hub a fixed commit. Where one
of the two has not been seen, the weights are "unpinned": the head of the repository is taken, and its commit recorded
in the run. `zoo weights verify --online` asks the Hub for what is missing.

{caveat}

"Our score" is what was measured here, with the conditions that the head of the preset tells. Where the row is missing,
nothing was measured.

Any other classifier of timm is open as `timm/<name>`: unpinned, with the licence that timm states.
"""
CAVEAT = f"Weights trained on ImageNet-1k: {IMAGENET_CAVEAT}. The licence below is the one that their publisher states."
TASKS = {"classification": "classify", "detection": "detection"}  # how the names of presets begin
FAMILIES = {"dfine": "detr", "rfdetr": "detr", "rtdetr": "detr"}  # the same, where a family has presets of its own
MEASURED = {"MobileNetV2 1.0": "mobilenetv2_100", "YOLO-NAS S": "yolo_nas_s"}  # what the heads of presets call models


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page, or with `--check` return 1 if it is not what the registry says."""
    text = write_cards()
    if "--check" in (sys.argv[1:] if argv is None else argv):
        same = CARDS.is_file() and CARDS.read_text("utf8") == text
        echo(f"{CARDS} is {'up to date' if same else 'old: run python -m zoo.tools.cards'}")
        return 0 if same else 1
    CARDS.write_text(text, "utf8")
    echo(f"wrote {CARDS}: {len(zoo.list_models())} models")
    return 0


def write_cards() -> str:
    """Return the page."""
    head = HEAD.format(caveat="\n".join(wrap(CAVEAT, 118)))
    return "\n".join([head, *(_card(name) for name in zoo.list_models())])


def _card(name: str) -> str:
    facts = zoo.describe(name)
    weights: dict[str, Any] = facts["weights"] or {}
    rates = _find_rates(name)
    aliases = f" (also `{'`, `'.join(facts['aliases'])}`)" if facts["aliases"] else ""
    rows = {
        "Task": f"{facts['task']}, {facts['num_classes']:,} classes",
        "Parameters": f"{facts['parameters']:.2f} million",
        "Input": _input(facts["preprocess"]),
        **_weights(weights),
        "SHA-256": _code(weights["sha256"]),
        **_size(weights),
        "Licence": f"code {facts['code_licence']}, weights {weights['licence']}",
        **({"Terms": " ".join(weights["notice"])} if weights.get("notice") else {}),
        **_score(weights, facts["preprocess"]),
        **_own_score(name),
        "Fine-tune groups": f"`get_finetune_lr_dict(0.01)` = `{rates}`",
        "Presets": ", ".join(f"`{preset}`" for preset in _presets(name, facts["task"])),
    }
    lines = [f"## {name}{aliases}", "", f"{facts['summary']}. {facts['paper']}", "", "| | |", "|---|---|"]
    return "\n".join([*lines, *(f"| {title} | {text} |" for title, text in rows.items()), ""])


def _find_rates(name: str) -> dict[str, float]:
    """Return what a fine-tune of the head would train; the network has no memory, its parameters only have names."""
    import torch

    with torch.device("meta"):
        rates: dict[str, float] = zoo.get(name).get_finetune_lr_dict(0.01)
    return rates


def _input(preprocess: dict[str, Any]) -> str:
    """Say what the network takes: a square of a crop, or a canvas with the whole image."""
    if preprocess.get("kind") == "letterbox":
        (height, width), (rows, columns) = preprocess["canvas_size"], preprocess["content_size"]
        placed = f"the image fitted into {columns} x {rows} px, {preprocess['position']}, padded with"
        placed = f"{placed} {preprocess['fill']}" if preprocess["keep_ratio"] else "the image stretched to that"
        scaled = f"divided by {preprocess['max_value']:g}"
        if any(preprocess["mean"]):
            scaled += f", mean {_triple(preprocess['mean'])}, std {_triple(preprocess['std'])}"
        return f"{width} x {height} px {preprocess['channels'].upper()}, {placed}, {scaled}"
    return (
        f"{preprocess['image_size']} x {preprocess['image_size']} px RGB, mean {_triple(preprocess['mean'])}, std "
        f"{_triple(preprocess['std'])}, {preprocess['interpolation']}, crop {preprocess['crop_pct']:g}"
    )


def _weights(weights: dict[str, Any]) -> dict[str, str]:
    """Say where they are: in one repository of the Hub, or in several places that are tried in turn."""
    if "repo" in weights:
        pin = "pinned" if weights["pinned"] else _why_unpinned(weights)
        return {
            "Weights": f"`{weights['repo']}`, {weights['source']}; {pin}",
            "Commit": _code(weights["revision"]),
        }
    places = [f"the Python package `{weights['package']}`"] if weights["package"] else []
    if setting := weights["repo_setting"]:
        places.append(f"a Hub repository of your own (`ZOO_{setting.upper()}`)")
    if mirror := weights["mirror"]:
        places.append(f"`{mirror['filename']}` of the Hub repository `{mirror['repo']}` ({_why_unpinned(mirror)})")
    return {
        "Weights": f"`{weights['filename']}`, {weights['source']}; pinned",
        "Places": f"{', then '.join([*places, *weights['locations']])}; or pass the path of the file",
    }


def _why_unpinned(weights: dict[str, Any]) -> str:
    """Say what is missing: no page that was seen shows it."""
    missing = [what for what, key in (("full commit", "revision"), ("SHA-256", "sha256")) if not weights[key]]
    return f"**unpinned**: {' and '.join(missing)} of this file not seen"


def _size(weights: dict[str, Any]) -> dict[str, str]:
    if weights.get("size"):
        return {"Size": f"{weights['size']:,} bytes"}
    return {"Size": f"{weights['megabytes']:g} MB"} if weights.get("megabytes") else {}


def _score(weights: dict[str, Any], preprocess: dict[str, Any]) -> dict[str, str]:
    if weights.get("top1"):
        where = f"ImageNet-1k validation, {preprocess['image_size']} px"
        return {"Published top-1": f"{weights['top1']:.2f} % ({where})"}
    if not weights.get("mean_ap"):
        return {}
    return {"Published mAP@[.5:.95]": f"{weights['mean_ap']:.2f} % (COCO 2017 val, {preprocess['canvas_size'][1]} px)"}


def _own_score(name: str) -> dict[str, str]:
    told = [f"`{preset}`: {text}" for preset, text in _measurements() if _names(text) == name]
    return {"Our score": "<br>".join(told)} if told else {}


@cache
def _measurements() -> tuple[tuple[str, str], ...]:
    """Return preset and text of what the heads of presets say was measured."""
    return tuple(_read_heads())


def _read_heads() -> Iterator[tuple[str, str]]:
    for preset in zoo.list_presets():
        lines = (presets_folder() / f"{preset}.yaml").read_text("utf8").splitlines()
        head = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
        if match := re.search(r"\bMeasured: (.*)", head):
            yield preset, match[1]


def _names(text: str) -> str | None:
    """Return the model that a measurement is of."""
    return next((name for called, name in MEASURED.items() if re.search(rf"\b{re.escape(called)}\b", text)), None)


def _presets(name: str, task: str) -> list[str]:
    begin = next((prefix for family, prefix in FAMILIES.items() if name.startswith(family)), TASKS.get(task, task))
    order = ("heads", "exact", "low-lr", "full")
    return [f"{begin}-{way}" for way in order if f"{begin}-{way}" in zoo.list_presets()]


def _triple(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _code(value: str | None) -> str:
    return f"`{value}`" if value else "not seen"


if __name__ == "__main__":
    sys.exit(main())
