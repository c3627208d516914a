"""The command `zoo`: everything that the package does, from a terminal.

A `\\b` in the documentation of a command, the very character, keeps the lines after it as they are in its help.
"""  # noqa: D301

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import zoo
from zoo._text import drop_unwritten, echo, indent, warn
from zoo.errors import InputError, Interrupted, WeightsError, ZooError
from zoo.files import dump_json

from .cache_command import app as cache_app
from .convert_command import convert
from .data_commands import app as data_app
from .given_options import refuse_unused
from .list_commands import optimizers, schedules
from .plan_command import plan
from .predict_command import load_model, predict
from .preset_commands import app as preset_app
from .preset_options import Lr, Mode, PresetName, Settings, choose_preset
from .push_command import push
from .weights_commands import app as weights_app

if TYPE_CHECKING:
    from zoo.settings import Preset

USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]  # of whichever click this typer brings

app = typer.Typer(
    name="zoo",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Fine-tune pretrained vision models.\n\nBegin with: zoo finetune resnet18 path/to/images",
)
app.add_typer(preset_app)
app.add_typer(data_app)
app.add_typer(weights_app)
app.add_typer(cache_app)

Weights = Annotated[
    str | None,
    typer.Option(metavar="SOURCE", help="Local file, folder or org/name[@revision], instead of the known weights."),
]
Fresh = Annotated[bool, typer.Option("--no-pretrained", help="Begin with random weights.")]


@app.command()
def models(
    pattern: Annotated[str, typer.Argument(help="Shell pattern, for example 'resnet*'.")] = "*",
    commercial: Annotated[bool, typer.Option("--commercial", help="Only weights that allow commercial use.")] = False,
    names: Annotated[bool, typer.Option("--names", help="Print the names only.")] = False,
) -> None:
    """List the models: size, score and licence of their weights.

    Any other classifier of timm is open as timm/NAME.

    \b
    Examples:
      zoo models
      zoo models 'mobilenet*' --commercial
    """  # noqa: D301
    found = zoo.list_models(pattern, commercial=True if commercial else None)
    if not found:
        raise InputError(f"no model fits {pattern!r}. zoo models lists all.")
    if names:
        for name in found:
            echo(name)
        return
    rows = []
    for name in found:
        facts = zoo.describe(name)
        weights = facts["weights"] or {}
        rows.append(
            {
                "model": name,
                "task": facts["task"],
                "million parameters": f"{facts['parameters']:.2f}" if facts["parameters"] else "-",
                "input": f"{_side(facts['preprocess'])} px",
                "score": _score(weights),
                "weights": weights.get("repo") or weights.get("filename") or "none",
                "licence": weights.get("licence", "-"),
                "pinned": "yes" if weights.get("pinned") else "no",
            }
        )
    _table(rows, title="models")


@app.command()
def describe(name: Annotated[str, typer.Argument(help="A name of `zoo models`, or timm/NAME.")]) -> None:
    """Tell all that is known of a model: input, weights, licences, score, paper, what a fine-tune trains.

    Example: zoo describe resnet50
    """
    facts = zoo.describe(name)
    num_classes = facts["num_classes"] or 2
    for group in ("preprocess", "postprocess", "weights"):
        inner = facts.pop(group, None) or {}
        facts |= {f"{group} {key}": value for key, value in inner.items()}
    if not any(key.startswith("weights ") for key in facts):
        facts["weights"] = "none"
    for key, value in facts.items():
        if value not in (None, "", [], ()):
            text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
            echo(f"{key:<27} {text}")
    hook = getattr(zoo.get(name, num_classes=num_classes), "get_finetune_lr_dict", None)
    if hook is not None:
        echo(f"{'fine-tune':<27} {hook(0.01)}  # for lr=0.01")


app.command()(plan)
app.command()(schedules)
app.command()(optimizers)


@app.command()
def finetune(
    context: typer.Context,
    model_and_data: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL] DATA", help="A model's name (or the preset's) and a folder of images."),
    ] = None,
    lr: Lr = None,
    mode: Mode = None,
    preset: PresetName = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the images.")] = None,
    batch_size: Annotated[
        str | None,
        typer.Option(metavar="N|auto", help="Images per step; auto: the preset's, in micro-batches that memory holds."),
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels; else the weights' own.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    settings: Settings = None,
    weights: Weights = None,
    no_pretrained: Fresh = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out files that cannot be read.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The run's folder; else a new one in runs/.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with an interrupted run.")] = None,
) -> None:
    """Fine-tune a model on a folder: train/<class>/*, val/<class>/* or just <class>/*; or boxes, for a detector.

    A detector takes folders of Pascal VOC, COCO and YOLO; zoo data check tells beforehand what is wrong with them.

    By default the head learns and the rest is frozen, which is proven in the run. Ctrl-C saves; --resume goes on.
    zoo plan shows beforehand what the same options would do.

    \b
    Examples:
      zoo finetune resnet18 flowers
      zoo finetune resnet50 flowers --mode low_lr --lr 0.005 --epochs 15
      zoo finetune mobilenetv2_100 flowers --preset classify-full --set ema_decay=0.999
      zoo finetune resnet18 flowers --lr 'fc=0.01,layer4=0.001,default=0' -o runs/flowers
      zoo finetune resnet50 flowers --mode full --set layer_decay=0.75 --set optimizer=AdamW --lr 0.0003
      zoo finetune resnet18 flowers --set 'unfreeze={3: layer4, 6: default}' --set schedule=constant
      zoo finetune yolo_nas_s cells --preset detection-low-lr --image-size 320
      zoo finetune --resume runs/flowers
    """  # noqa: D301
    from zoo.models import find_task, names_saved
    from zoo.progress import Progress, is_main_process
    from zoo.training import claiming

    words = list(model_and_data or [])
    if resume is not None:
        _resume(context, resume, words)
        return
    if weights is not None:
        refuse_unused(context, {"no_pretrained"}, "beside --weights.")
    given = {"epochs": epochs, "image_size": image_size, "seed": seed, "device": device}
    given |= {"micro_batch_size": "auto"} if batch_size == "auto" else {"batch_size": _to_number(batch_size)}
    given |= {"skip_bad": skip_bad or None, "pretrained": weights or (False if no_pretrained else None)}
    chosen = choose_preset(preset, lr, mode, settings, model=words[0] if len(words) == 2 else None, **given)
    if not words or len(words) > 2 or chosen.model is None:
        raise InputError(
            f"expected a model and a folder, got {' '.join(words) or 'nothing'}. For example: zoo finetune resnet18 "
            "path/to/images; the model may also stand in the preset."
        )
    name = chosen.model
    if names_saved(name):
        refuse_unused(context, {"no_pretrained"}, f"with {name!r}, which brings its weights.")
    task = find_task(name)  # an unknown name is told before anything is opened
    with _saying_how_to_go_on(), Progress(enabled=is_main_process()) as show, claiming(out, show.log) as place:
        data = _open(words[-1], chosen, task)
        chosen = chosen.replace(pretrained=True if chosen.pretrained is None else chosen.pretrained)
        if weights is not None or no_pretrained:
            chosen = chosen.replace(pretrained_sha256=None)  # of the weights that the preset names
        made = _make(name, chosen, data, by_name=chosen.match_outputs or names_saved(name))
        if made.load_report is not None:
            _tell_weights(str(made.load_report))
        zoo.finetune(made, data, preset=chosen, out=place)


@app.command()
def evaluate(
    model_or_run: Annotated[str, typer.Argument(help="The folder of a run, or a model's name.")],
    data: Annotated[str, typer.Argument(help="A folder of images with classes.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    batch_size: Annotated[int | None, typer.Option(help="Images per step; else 64, or 8 for a detector.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out files that cannot be read.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all scores as data.")] = False,
) -> None:
    """Score a run on images: top-1, top-5, precision and recall per class; of a detector mAP and AP per class.

    \b
    Examples:
      zoo evaluate runs/flowers flowers --split test
      zoo evaluate runs/flowers flowers --json
    """  # noqa: D301
    model = load_model(model_or_run)
    options: dict[str, Any] = {"split": split, "batch_size": batch_size, "device": device, "skip_bad": skip_bad}
    result = zoo.evaluate(model, data, progress=not as_json, **options)
    if as_json:
        echo(dump_json(result.to_dict(), indent=1), lines=True)
    else:
        _table(result.rows(), title="scores per class")
        echo(str(result))


app.command()(predict)
app.command()(convert)
app.command()(push)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 1 for a check that failed, or if whoever read the output has gone; 2 for wrong input, or what the system
        refuses; 130 after Ctrl-C.
    """
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except OSError:  # standard error is lost, too
        return 2
    finally:
        drop_unwritten()


def _run(argv: list[str]) -> int:
    try:
        result = app(argv, prog_name="zoo", standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        echo("stopped", err=True)
        return 130
    except USAGE_ERROR as error:
        text = StringIO()
        shown: Any = error
        shown.show(file=text)
        echo(indent(text.getvalue().rstrip()), lines=True, err=True)
        return 2
    except ZooError as error:
        return _refuse(str(error))
    except BrokenPipeError:
        return 1
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _refuse(f"{place}{error.strerror or error}")
    return result if isinstance(result, int) else 0


def _refuse(text: str) -> int:
    echo(indent(f"error: {text}"), lines=True, err=True, colour="red")
    return 2


def _resume(context: typer.Context, run: Path, words: list[str]) -> None:
    """Go on with a run: all that it needs is in its folder, but the data may have moved."""
    if len(words) > 1:
        raise InputError(f"--resume takes the data at most, got {' '.join(words)}. The model is that of the run.")
    others = {parameter.name for parameter in context.command.params} - {"resume", "model_and_data"}
    why = f"with --resume: the run goes on with the settings that it began with, in {run / 'preset.yaml'}."
    refuse_unused(context, others, why)
    with _saying_how_to_go_on():
        zoo.resume(run, words[0] if words else None)


def _to_number(text: str | None) -> int | None:
    if text is not None and not (text.isascii() and text.isdigit()):
        raise InputError(f"--batch-size is {text!r}; expected a number, 1 or more, or auto.")
    return None if text is None else int(text)


@contextmanager
def _saying_how_to_go_on() -> Iterator[None]:
    """Print what an interrupted run says; typer would swallow it."""
    try:
        yield
    except Interrupted as stopped:
        warn(str(stopped))
        raise typer.Exit(130) from None


def _make(name: str, preset: "Preset", data: Any, *, by_name: bool) -> Any:
    """Make the model for the classes of the data; `by_name`: with the outputs of those that the weights know.

    Raises:
        WeightsError: The weights are not those of the preset.
    """
    classes = {"classes": data.classes} if by_name and data.named else {"num_classes": len(data.classes)}
    made = zoo.get(name, pretrained=preset.pretrained or False, seed=preset.init_seed, **classes)
    found = made.load_report and made.load_report.sha256
    if preset.pretrained_sha256 not in (None, found):
        raise WeightsError(
            f"the weights in {preset.pretrained} are not those that the preset was made with: their SHA-256 is "
            f"{found}, expected {preset.pretrained_sha256}. Put the old ones back; or, to begin with these, pass "
            "--weights, or remove pretrained_sha256 from the preset."
        )
    return made


def _open(path: str, preset: "Preset", task: str) -> Any:
    from zoo.progress import Progress, is_main_process
    from zoo.settings import opening_options
    from zoo.tasks import task_of

    options = opening_options(preset) | {"like": preset.classes}
    with Progress(enabled=is_main_process()) as show, show.counting("checking images") as count:
        return task_of(task).open_data(path, on_progress=count, **options)


def _tell_weights(report: str) -> None:
    """Print what was loaded; that this cannot be printed does not keep a run from beginning."""
    from zoo.progress import Progress, is_main_process

    with Progress(enabled=is_main_process()) as show:
        for line in f"weights: {report}".split("\n"):
            show.log(line)


def _side(preprocess: dict[str, Any]) -> int:
    """Return the side of a model's input in pixels."""
    side: int = preprocess["image_size"] if "image_size" in preprocess else max(preprocess["canvas_size"])
    return side


def _score(weights: dict[str, Any]) -> str:
    labels = {"top1": "top-1", "mean_ap": "mAP"}
    return next((f"{label} {weights[key]} %" for key, label in labels.items() if weights.get(key)), "-")


def _table(rows: list[dict[str, str]], *, title: str, totals: dict[str, str] | None = None) -> None:
    from zoo.progress import Progress

    Progress().table(rows, title=title, totals=totals)


if __name__ == "__main__":
    sys.exit(main())
