"""`zoo finetune`: train a model on a folder of images, and go on with a run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

import zoo
from zoo._text import warn
from zoo.errors import InputError, Interrupted

from .completion import complete_model_first, complete_run_folder
from .given_options import refuse_unused
from .preset_options import (
    L2,
    BatchSize,
    Device,
    Epochs,
    Exclude,
    ImageRoot,
    ImageSize,
    Lr,
    Mode,
    MultiLabel,
    PresetName,
    Seed,
    Settings,
    Solver,
    read_fields,
)

RESUMING = {"resume", "model_and_data", "epochs", "out"}  # what means something beside --resume

Weights = Annotated[
    str | None,
    typer.Option(
        metavar="SOURCE",
        help="Start from these weights: a file, a folder, or a Hub repository ORG/NAME[@REVISION].",
        show_default="the model's published weights",
    ),
]
Fresh = Annotated[bool, typer.Option("--no-pretrained", help="Start from random weights; use it with --mode full.")]


# Long: an option takes several lines.
def finetune(
    context: typer.Context,
    model_and_data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] DATA",
            help="A model that zoo models lists (or the preset's own), and a folder or a table of images.",
            autocompletion=complete_model_first,
        ),
    ] = None,
    mode: Mode = None,
    lr: Lr = None,
    solver: Solver = None,
    l2: L2 = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    image_size: ImageSize = None,
    preset: PresetName = None,
    settings: Settings = None,
    weights: Weights = None,
    no_pretrained: Fresh = False,
    seed: Seed = None,
    device: Device = None,
    patience: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Stop early after N evaluations without a better top-1 or mAP.", show_default="never"
        ),
    ] = None,
    log: Annotated[
        str | None,
        typer.Option(
            metavar="TRACKER[,TRACKER]",
            help="Also log to tensorboard, mlflow, trackio, wandb, comet_ml, clearml, dvclive or aim.",
            show_default="the run's folder alone",
        ),
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out images that cannot be read.")] = False,
    image_root: ImageRoot = None,
    exclude: Exclude = None,
    multi_label: MultiLabel = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FOLDER", help="Output folder.", show_default="runs/MODEL-DATA-DATE"),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Continue an interrupted run. With --epochs N: train any run up to N epochs, as a new run.",
            autocompletion=complete_run_folder,
        ),
    ] = None,
) -> None:
    """Fine-tune a model on a folder of images.

    By default only the head is trained. For a classifier DATA holds train/CLASS/*.jpg and val/CLASS/*.jpg, or just
    CLASS/*.jpg, or it is a CSV or Parquet table with the columns image and label (and split, group); for a detector it
    is a folder of Pascal VOC, COCO or YOLO. Ctrl-C saves the run.

    zoo plan shows first what the same options would train.

    \b
    Examples:
      zoo finetune resnet18 flowers
      zoo finetune resnet18 flowers --solver exact
      zoo finetune resnet18 labels.csv --image-root photos
      zoo finetune resnet18 flowers --exclude checked/suspects.csv
      zoo finetune mobilenetv2_100 tags.csv --multi-label
      zoo finetune resnet50 flowers --mode low_lr --lr 0.005 --epochs 15
      zoo finetune resnet18 flowers --lr 'fc=0.01,layer4=0.001,default=0' -o runs/flowers
      zoo finetune resnet18 flowers --set 'unfreeze={3: layer4, 6: default}' --set schedule=constant
      zoo finetune resnet18 flowers --epochs 100 --patience 5 --set keep=best
      zoo finetune resnet18 flowers --log tensorboard,mlflow
      zoo finetune yolo_nas_s cells --preset detection-low-lr --image-size 320
      zoo finetune --resume runs/flowers
      zoo finetune --resume runs/flowers --epochs 30
    """  # noqa: D301
    from zoo.models import names_saved

    words = list(model_and_data or [])
    if resume is not None:
        _resume(context, resume, words, epochs, out)
        return
    if weights is not None:
        refuse_unused(context, {"no_pretrained"}, "beside --weights.")
    fields = read_fields(
        settings,
        lr=lr,
        mode=mode,
        solver=solver,
        l2=l2,
        epochs=epochs,
        batch_size=batch_size,
        image_size=image_size,
        seed=seed,
        device=device,
        patience=patience,
        log=log,
        skip_bad=skip_bad or None,
        image_root=image_root,
        exclude=None if exclude is None else str(exclude),
        labels="multi" if multi_label else None,
        pretrained=weights or (False if no_pretrained else None),
    )
    if weights is not None or no_pretrained:
        fields["pretrained_sha256"] = None  # of the weights that the preset names
    name, data = _split_words(words, preset, fields)
    if names_saved(name):
        refuse_unused(context, {"no_pretrained"}, f"with {name!r}, which brings its weights.")
    with _saying_how_to_go_on():
        zoo.finetune(name, data, preset=preset, out=out, **fields)


def _split_words(words: list[str], preset: str | None, fields: dict[str, Any]) -> tuple[str, str]:
    """Return the model and the data; without two words, the model is that of `--set` or of the preset."""
    from zoo.settings import load_preset

    given = fields.pop("model", None)
    if len(words) == 2 and given is not None:
        raise InputError("model is given twice: by --set, and by an argument of its own. Remove one.")
    named = words[0] if len(words) == 2 else given or (load_preset(preset).model if preset else None)
    if not words or len(words) > 2 or named is None:
        got = " ".join(words) or "nothing"
        lacks = f", and {f'the preset {preset!r}' if preset else 'no preset'} names a model" * (len(words) == 1)
        raise InputError(
            f"expected a model and a folder, got {got}{lacks}. For example: zoo finetune resnet18 path/to/images"
        )
    return named, words[-1]


def _resume(context: typer.Context, run: Path, words: list[str], epochs: int | None, out: Path | None) -> None:
    """Go on with a run: all that it needs is in its folder, but the data may have moved."""
    if len(words) > 1:
        raise InputError(f"--resume takes the data at most, got {' '.join(words)}. The model is that of the run.")
    others = {parameter.name for parameter in context.command.params} - RESUMING
    why = f"with --resume: the run goes on with its own settings, those in {run / 'preset.yaml'}."
    refuse_unused(context, others, why)
    if epochs is None:
        refuse_unused(context, {"out"}, "with --resume alone, which goes on in the run's folder; it takes --epochs N.")
    with _saying_how_to_go_on():
        zoo.resume(run, words[0] if words else None, epochs=epochs, out=out)


@contextmanager
def _saying_how_to_go_on() -> Iterator[None]:
    """Print what an interrupted run says; typer would swallow it."""
    try:
        yield
    except Interrupted as stopped:
        warn(str(stopped))
        raise typer.Exit(130) from None
