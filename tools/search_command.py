"""`zoo search`: settings that are tried on cached features, and the run of the best."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import zoo
from zoo._text import echo, warn
from zoo.errors import InputError, Interrupted

from .completion import complete_model_first
from .listing import AsJson, print_json, print_table
from .preset_options import BatchSize, Device, Epochs, ImageRoot, ImageSize, Lr, PresetName, Seed, Settings, read_fields

if TYPE_CHECKING:
    from zoo.analysis import Search


# Long: an option takes several lines.
def search(
    model_and_data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL DATA",
            help="A model that zoo models lists, and a folder or a table of images.",
            autocompletion=complete_model_first,
        ),
    ] = None,
    trials: Annotated[int, typer.Option(metavar="N", help="Trials, those of earlier calls among them.")] = 50,
    space: Annotated[
        Path | None,
        typer.Option(metavar="FILE.yaml", help="What to choose from.", show_default="--show-space prints it"),
    ] = None,
    show_space: Annotated[bool, typer.Option("--show-space", help="Print the default space, and end.")] = False,
    folds: Annotated[int, typer.Option(metavar="K", help="Folds of the cross-validation within train.")] = 5,
    no_run: Annotated[bool, typer.Option("--no-run", help="Do not run the best at the end.")] = False,
    lr: Lr = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    image_size: ImageSize = None,
    preset: PresetName = None,
    settings: Settings = None,
    seed: Seed = None,
    device: Device = None,
    image_root: ImageRoot = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FOLDER", help="Output folder.", show_default="runs/search-MODEL-DATA"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search the best settings of a head, and run them.

    The backbone is frozen: images pass through it once, and all trials share the cached features. Each trial is a
    preset with a seed of its own. Its score is cross-validated within the training images; trials that are clearly
    worse after some folds are pruned. Validation images are looked at once, by the run of the best.

    Ctrl-C keeps the trials that are done, and the same command goes on. Several processes may work on one folder.

    \b
    Examples:
      zoo search resnet18 flowers
      zoo search resnet18 flowers --trials 100 --image-size 160
      zoo search --show-space > space.yaml
      zoo search resnet18 flowers --space space.yaml -o runs/flowers-search
      zoo finetune flowers --preset runs/flowers-search/best.yaml
    """  # noqa: D301
    if show_space:
        from zoo.analysis import DEFAULT_SPACE

        echo(DEFAULT_SPACE.rstrip(), lines=True)
        return
    words = list(model_and_data or [])
    if len(words) != 2:
        raise InputError(f"expected a model and data, got {' '.join(words) or 'nothing'}. zoo search resnet18 flowers")
    fields = read_fields(
        settings,
        lr=lr,
        epochs=epochs,
        batch_size=batch_size,
        image_size=image_size,
        seed=seed,
        device=device,
        image_root=image_root,
    )
    how: dict[str, Any] = fields | {"trials": trials, "space": space, "folds": folds, "out": out, "run": not no_run}
    try:
        found = zoo.search(words[0], words[1], preset=preset, progress=not as_json, **how)
    except Interrupted as stopped:
        warn(str(stopped))
        raise typer.Exit(130) from None
    if as_json:
        print_json(found.to_dict())
        return
    _print(found)


def _print(found: "Search") -> None:
    print_table(found.table(), f"the best of {len(found.trials)} trials", in_full="zoo search --json")
    echo(found.caption())
    for note in found.notes:
        warn(f"note: {note}")
    written = "best.yaml, search.json and search.png" if found.best_path.is_file() else "trials"
    echo(f"{written} in {found.folder}" + (f"; the run in {found.run.folder}" if found.run else ""))
