"""`zoo embed`: the features of images as a file, and the images that are most like one."""

from pathlib import Path
from typing import Annotated, Any

import typer

import zoo
from zoo._text import echo
from zoo.errors import InputError
from zoo.files import to_path

from .completion import complete_run
from .finetune_command import Weights
from .given_options import refuse_unused
from .listing import AsJson, print_json, print_table
from .places import check_order, check_plot
from .preset_options import Device, ImageRoot, ImageSize, Settings, read_fields


# Long: an option takes several lines.
def embed(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A model that zoo models lists, or a run.", autocompletion=complete_run),
    ],
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="A folder or a table of images, or a folder of images without classes."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write the features: .npz or .parquet.")
    ] = None,
    nearest: Annotated[
        str | None,
        typer.Option(metavar="IMAGE", help="List the images whose features are nearest to those of this one."),
    ] = None,
    top: Annotated[int, typer.Option(metavar="N", help="How many --nearest lists.")] = 10,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Also draw the images that --nearest finds.")
    ] = None,
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="Names of folders are no classes: take all images in DATA.")
    ] = False,
    image_size: ImageSize = None,
    weights: Weights = None,
    image_root: ImageRoot = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out images that cannot be read.")] = False,
    device: Device = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Write the features of images, or find those most like one.

    Features are what the head of a classifier is shown of an image: one row of numbers, from a frozen backbone. They
    are cached as by zoo finetune, so asking again takes moments. Similarity is the cosine of two rows.

    \b
    Examples:
      zoo embed mobilenetv2_100 flowers -o features.npz
      zoo embed mobilenetv2_100 photos --nearest rose.jpg --top 20 --plot nearest.png
      zoo embed runs/flowers flowers -o features.parquet
    """  # noqa: D301
    from zoo.analysis import check_ending

    check_order("embed", model, data)
    if out is None and nearest is None:
        raise InputError("nothing to do: write the features with -o FILE, or look for an image with --nearest IMAGE.")
    if nearest is None:
        refuse_unused(context, {"top", "plot"}, "without --nearest.")
    elif not to_path(nearest).is_file():
        raise InputError(f"--nearest is {nearest!r}, and there is no such file.")
    if out is not None:
        check_ending(out)
    plot = None if plot is None else check_plot(to_path(plot))
    given: dict[str, Any] = {
        "image_size": image_size,
        "pretrained": weights,
        "image_root": image_root,
        "device": device,
    }
    fields = read_fields(settings, lr=None, **given, skip_bad=True if skip_bad else None)
    found = zoo.embed(model, data, unlabelled=unlabelled, progress=not as_json, **fields)
    if out is not None:
        found.save(out)
    _tell(found, nearest, top, plot, out, as_json=as_json)


def _tell(found: Any, nearest: str | None, top: int, plot: Path | None, out: Path | None, *, as_json: bool) -> None:
    near = [] if nearest is None else found.nearest(to_path(nearest), top)
    if plot is not None:
        found.plot_nearest(to_path(str(nearest)), plot, top)
    if as_json:
        plain = {"images": len(found), "features": found.vectors.shape[1], **found.facts}
        print_json(plain | {"nearest": [one._asdict() for one in near]} if nearest is not None else plain)
        return
    if nearest is not None:
        rows = [
            {"image": one.name, "class": one.class_name, "split": one.split, "similarity": f"{one.similarity:.4f}"}
            for one in near
        ]
        print_table(rows, f"nearest to {nearest}, of {len(found):,} images")
    if plot is not None:
        echo(f"plot: {plot}")
    if out is not None:
        echo(f"written: {out} ({len(found):,} images, {found.vectors.shape[1]:,} features each)")
