"""`zoo suggest`: which backbone suits some images."""

from pathlib import Path
from typing import Annotated, Any

import typer

import zoo
from zoo._text import echo

from .listing import AsJson, print_json, print_table
from .preset_options import Device, ImageSize, Seed


def suggest(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder or a table of labelled images.")],
    models: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Candidates, with commas between.", show_default="usual ones"),
    ] = None,
    image_size: ImageSize = None,
    images: Annotated[int, typer.Option(metavar="N", help="Training images to look at, at most.")] = 2000,
    commercial: Annotated[
        bool, typer.Option("--commercial", help="Only weights known to allow commercial use.")
    ] = False,
    pull: Annotated[bool, typer.Option("--pull", help="Download weights that are not on this machine.")] = False,
    seed: Seed = None,
    device: Device = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FOLDER", help="Write suggest.json and suggest.png.", show_default="none"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say which backbone suits your images.

    For each candidate whose weights are on this machine: the exact head on the features of some training images,
    cross-validated; milliseconds per image, measured in turns; parameters and licence. The Pareto front are the
    candidates that no other one beats in both score and speed.

    \b
    Examples:
      zoo suggest flowers
      zoo suggest flowers --models efficientnet_lite0,resnet18,path/to/a/run --image-size 160
      zoo suggest flowers --pull --commercial -o suggestion
    """  # noqa: D301
    names = None if models is None else [name.strip() for name in models.split(",") if name.strip()]
    given: dict[str, Any] = {"image_size": image_size, "images": images, "commercial": commercial, "pull": pull}
    given |= {"seed": seed or 0, "device": device or "auto"}
    found = zoo.suggest(data, models=names, progress=not as_json, **given)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        found.write(out)
    if as_json:
        print_json(found.to_dict())
        return
    print_table(found.table(), f"backbones, on {found.images:,} training images", in_full="zoo suggest --json")
    for name, why in found.left_out.items():
        echo(f"left out: {name}: {why}")
    echo(f"next: {found.command}")
