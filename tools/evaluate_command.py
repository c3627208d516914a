"""`zoo evaluate`: the scores of a run on labelled images."""

from typing import Annotated, Any

import typer

import zoo
from zoo._text import echo
from zoo.tasks import task_of

from .completion import complete_run
from .listing import AsJson, print_json, print_table
from .places import check_order, load_model
from .preset_options import ImageRoot


def evaluate(
    model_or_run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="A run, a model's name, or an export.", autocompletion=complete_run),
    ],
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder or table of labelled images.")],
    split: Annotated[str, typer.Option(metavar="NAME", help="The split to score: train, val or test.")] = "val",
    batch_size: Annotated[
        int | None,
        typer.Option(metavar="N", help="Images at a time.", show_default="64; 8 for a detector"),
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or mps.")] = "auto",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out images that cannot be read.")] = False,
    image_root: ImageRoot = None,
    as_json: AsJson = False,
) -> None:
    """Score a run on labelled images.

    Prints a table of scores per class, and one line for all classes together: top-1 and top-5 accuracy for a
    classifier, mAP for a detector.

    \b
    Examples:
      zoo evaluate runs/flowers flowers
      zoo evaluate runs/flowers flowers --split test
      zoo evaluate runs/flowers labels.csv --image-root photos
      zoo evaluate runs/flowers flowers --json
    """  # noqa: D301
    check_order("evaluate", model_or_run, data)
    model = load_model(model_or_run, device=device)
    options: dict[str, Any] = {"split": split, "batch_size": batch_size, "device": device, "skip_bad": skip_bad}
    options["image_root"] = image_root
    result = zoo.evaluate(model, data, progress=not as_json, **options)
    if as_json:
        print_json(result.to_dict())
        return
    secondary = task_of(model).secondary
    print_table(result.rows(), "scores per class", secondary=secondary, in_full="zoo evaluate --json")
    which = model.config["origin"].get("epoch")
    echo(f"{result} (weights: {which})" if which else str(result))
