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
fixed commit and SHA-256 that every download is held against. Where no commit and digest have been seen, the weights are
"unpinned": the head of the repository is taken, and its commit recorded in the run.

Weights trained on ImageNet-1k: the pictures were released for research; timm's author advises to ask a lawyer before
commercial use. The licence below is the one that the weights' publisher states.

Any other classifier of timm is open as `timm/<name>`: unpinned, with the licence that timm states.
"""


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
    preprocess = facts["preprocess"]
    rates = zoo.get(name).get_finetune_lr_dict(0.01)
    aliases = f" (also `{'`, `'.join(facts['aliases'])}`)" if facts["aliases"] else ""
    pin = "pinned" if weights.get("pinned") else "**unpinned**: no full commit and SHA-256 of this file has been seen"
    size = f"{preprocess['image_size']} x {preprocess['image_size']} px RGB"
    lines = [
        f"## {name}{aliases}",
        "",
        f"{facts['summary']}. {facts['paper']}",
        "",
        "| | |",
        "|---|---|",
        f"| Task | {facts['task']}, {facts['num_classes']:,} classes |",
        f"| Parameters | {facts['parameters']:.2f} million |",
        f"| Input | {size}, mean {_triple(preprocess['mean'])}, std {_triple(preprocess['std'])}, "
        f"{preprocess['interpolation']}, crop {preprocess['crop_pct']:g} |",
        f"| Weights | `{weights['repo']}`, {weights['source']}; {pin} |",
        f"| Commit | {_code(weights['revision'])} |",
        f"| SHA-256 | {_code(weights['sha256'])} |",
        f"| Licence | code {facts['code_licence']}, weights {weights['licence']} |",
        f"| Published top-1 | {weights['top1']:.2f} % (ImageNet-1k validation, {preprocess['image_size']} px) |",
        f"| Fine-tune groups | `get_finetune_lr_dict(0.01)` = `{rates}` |",
        "| Presets | `classify-heads`, `classify-low-lr`, `classify-full` |",
        "",
    ]
    return "\n".join(lines)


def _triple(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _code(value: str | None) -> str:
    return f"`{value}`" if value else "not seen"


if __name__ == "__main__":
    sys.exit(main())
