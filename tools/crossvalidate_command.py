"""`zoo crossvalidate`: how well a head on a frozen backbone knows images that it has not seen, and how sure that is."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

import zoo
from zoo._text import echo
from zoo.files import to_path

from .completion import complete_run
from .finetune_command import Weights
from .listing import AsJson, print_json, print_table
from .places import check_order, check_plot
from .preset_options import L2, Device, ImageRoot, ImageSize, Settings, read_fields


# Long: an option takes several lines.
def crossvalidate(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A model that zoo models lists, or a run.", autocompletion=complete_run),
    ],
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder or a table of images.")],
    folds: Annotated[int, typer.Option(metavar="K", help="Parts of the images; each is held out once.")] = 5,
    repeats: Annotated[int, typer.Option(metavar="N", help="How often the images are dealt into parts.")] = 2,
    split: Annotated[
        str, typer.Option(metavar="all|train|val|test", help="Which images; all: those of train and val together.")
    ] = "all",
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Keep images together in whose paths this finds the same text, such as 'patient[0-9]+'; with "
            "parentheses, the same text in the first of them.",
            show_default="the column 'group' of a table",
        ),
    ] = None,
    solver: Annotated[
        str, typer.Option(metavar="exact|prototype", help="The head: logistic regression, or class means.")
    ] = "exact",
    l2: L2 = None,
    no_curve: Annotated[
        bool, typer.Option("--no-curve", help="Leave out the learning curve, about half of the time.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", "--out", "-o", metavar="FILE.png", help="Also draw scores and curve.")
    ] = None,
    image_size: ImageSize = None,
    weights: Weights = None,
    image_root: ImageRoot = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out images that cannot be read.")] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of all draws.")] = 0,
    device: Device = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Score a head by cross-validation.

    The backbone is frozen and sees each image once; features are cached as by zoo finetune. Each head is solved as zoo
    finetune --solver exact solves it, on all parts of the images but one, and scored on that one. Its penalty is chosen
    inside the images it learns from. The learning curve scores heads on half of the images, a quarter and so on: it
    says whether more labels would help.

    \b
    Examples:
      zoo crossvalidate mobilenetv2_100 flowers
      zoo crossvalidate mobilenetv2_100 scans --group-by '(patient[0-9]+)' --folds 10 --plot scores.png
      zoo crossvalidate efficientnet_lite0 flowers --split train --repeats 5 --no-curve --json
    """  # noqa: D301
    check_order("crossvalidate", model, data)
    if plot is not None:
        plot = check_plot(to_path(plot))
    given: dict[str, Any] = {
        "image_size": image_size,
        "pretrained": weights,
        "image_root": image_root,
        "device": device,
    }
    fields = read_fields(settings, lr=None, **given, skip_bad=True if skip_bad else None)
    options: dict[str, Any] = {"folds": folds, "repeats": repeats, "group_by": group_by, "l2": l2, "seed": seed}
    options |= {"split": split, "solver": solver, "curve": not no_curve, "progress": not as_json}
    found = zoo.crossvalidate(model, data, **options, **fields)
    if plot is not None:
        found.plot(plot)
    if as_json:
        print_json(found.to_dict())
        return
    _print(found, is_chosen=l2 is None)
    if plot is not None:
        echo(f"plot: {plot}")


def _print(found: Any, *, is_chosen: bool) -> None:
    count = len(found.scores["top1"].values)
    grouped = "" if found.groups is None else f" in {found.groups:,} groups"
    print_table(found.rows(), f"scores on held-out images: {count} splits of {found.images:,} images{grouped}")
    if found.l2 and is_chosen:
        low, high = min(found.l2), max(found.l2)
        echo(f"L2 penalty: {low:.3g}" + f" to {high:.3g}" * (high > low) + ", chosen inside each training part")
    if found.curve:
        echo()
        print_table(cast(Any, found.curve_rows()), "learning curve")
        echo(found.verdict)
