"""`MODEL_CARDS.md`, written from the registry: `python -m zoo.tools.cards` (or `--check`, which changes nothing)."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zoo

CARDS = Path("MODEL_CARDS.md")
HEAD = """\
# Model cards

Written by `python -m zoo.tools.cards` from the registry; a test compares this page with it. "Pinned" weights have a
fixed SHA-256 that every download is held against, and on the Hub a fixed commit. Where no commit and digest have been
seen, the weights are "unpinned": the head of the repository is taken, and its commit recorded in the run.

Weights trained on ImageNet-1k: the pictures were released for research; timm's author advises to ask a lawyer before
commercial use. The licence below is the one that the weights' publisher states.

Any other classifier of timm is open as `timm/<name>`: unpinned, with the licence that timm states.
"""
PRESETS = {"classification": "classify", "detection": "detection"}
UNPINNED = "**unpinned**: no full commit and SHA-256 of this file has been seen"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page, or with `--check` return 1 if it is not what the registry says."""
    text = write_cards()
    if "--check" in (sys.argv[1:] if argv is None else argv):
        same = CARDS.is_file() and CARDS.read_text("utf8") == text
        print(f"{CARDS} is {'up to date' if same else 'old: run python -m zoo.tools.cards'}")
        return 0 if same else 1
    CARDS.write_text(text, "utf8")
    print(f"wrote {CARDS}: {len(zoo.list_models())} models")
    return 0


def write_cards() -> str:
    """Return the page."""
    return "\n".join([HEAD, *(_card(name) for name in zoo.list_models())])


def _card(name: str) -> str:
    facts = zoo.describe(name)
    weights: dict[str, Any] = facts["weights"] or {}
    rates = zoo.get(name).get_finetune_lr_dict(0.01)
    aliases = f" (also `{'`, `'.join(facts['aliases'])}`)" if facts["aliases"] else ""
    presets = [f"`{PRESETS[facts['task']]}-{way}`" for way in ("heads", "low-lr", "full")]
    rows = {
        "Task": f"{facts['task']}, {facts['num_classes']:,} classes",
        "Parameters": f"{facts['parameters']:.2f} million",
        "Input": _input(facts["preprocess"]),
        **_weights(weights),
        "SHA-256": _code(weights["sha256"]),
        "Licence": f"code {facts['code_licence']}, weights {weights['licence']}",
        **({"Terms": " ".join(weights["notice"])} if weights.get("notice") else {}),
        **_score(weights, facts["preprocess"]),
        "Fine-tune groups": f"`get_finetune_lr_dict(0.01)` = `{rates}`",
        "Presets": ", ".join(presets),
    }
    lines = [f"## {name}{aliases}", "", f"{facts['summary']}. {facts['paper']}", "", "| | |", "|---|---|"]
    return "\n".join([*lines, *(f"| {title} | {text} |" for title, text in rows.items()), ""])


def _input(preprocess: dict[str, Any]) -> str:
    """Say what the network takes: a square of a crop, or a canvas with the whole picture."""
    if preprocess.get("kind") == "letterbox":
        (height, width), (rows, columns) = preprocess["canvas_size"], preprocess["content_size"]
        return (
            f"{width} x {height} px {preprocess['channels'].upper()}, the picture fitted into {columns} x {rows} px, "
            f"{preprocess['position']}, padded with {preprocess['fill']}, divided by {preprocess['max_value']:g}"
        )
    return (
        f"{preprocess['image_size']} x {preprocess['image_size']} px RGB, mean {_triple(preprocess['mean'])}, std "
        f"{_triple(preprocess['std'])}, {preprocess['interpolation']}, crop {preprocess['crop_pct']:g}"
    )


def _weights(weights: dict[str, Any]) -> dict[str, str]:
    """Say where they are: in a repository of the Hub, or at addresses of their publisher."""
    pin = "pinned" if weights["pinned"] else UNPINNED
    if "repo" in weights:
        return {
            "Weights": f"`{weights['repo']}`, {weights['source']}; {pin}",
            "Commit": _code(weights["revision"]),
        }
    own = f"first a Hub repository of your own (`ZOO_{weights['repo_setting'].upper()}`), then"
    return {
        "Weights": f"`{weights['filename']}`, {weights['source']}; {pin}",
        "Places": f"{own} {', '.join(weights['locations'])}; or pass the path of the file",
    }


def _score(weights: dict[str, Any], preprocess: dict[str, Any]) -> dict[str, str]:
    if "top1" in weights:
        where = f"ImageNet-1k validation, {preprocess['image_size']} px"
        return {"Published top-1": f"{weights['top1']:.2f} % ({where})"}
    return {"Published mAP@[.5:.95]": f"{weights['mean_ap']:.2f} % (COCO 2017 val, {preprocess['canvas_size'][1]} px)"}


def _triple(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _code(value: str | None) -> str:
    return f"`{value}`" if value else "not seen"


if __name__ == "__main__":
    sys.exit(main())
