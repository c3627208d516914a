"""The command `zoo predict`: what a model says of images, printed, as data, and drawn."""

import json
from collections.abc import Callable, Iterator
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import zoo
from zoo.errors import InputError
from zoo.terminal import echo

if TYPE_CHECKING:
    from zoo.detection_result import DetectionResult


def predict(
    model_or_run: Annotated[str, typer.Argument(help="The folder of a run, or a model's name.")],
    sources: Annotated[list[str], typer.Argument(help="Images, folders, patterns; for a detector also videos.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Detectors: a folder for drawn pictures and predictions.json.")
    ] = None,
    conf: Annotated[float | None, typer.Option(help="Detectors: least score, 0 to 1.")] = None,
    iou: Annotated[float | None, typer.Option(help="Detectors: overlap from which two boxes are one thing.")] = None,
    top: Annotated[int | None, typer.Option(help="Classifiers: names per image, by default 3.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the input in pixels; else the model's own.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the answers as data.")] = False,
) -> None:
    """Say what is on images: names, or names and boxes.

    \b
    Examples:
      zoo predict runs/flowers photo.jpg
      zoo predict mobilenetv2_100 photos/ --top 5
      zoo predict runs/cells photos/ -o found --conf 0.4
      zoo predict runs/cells 'photos/*.png' clip.mp4 -o found
    """  # noqa: D301
    model = load_model(model_or_run)
    task = getattr(model, "task", "classification")
    given = {"conf": conf, "iou": iou, "out": out, "top": top}
    foreign = [f"--{name}" for name in FOREIGN[task] if given[name] is not None]
    if foreign:
        raise InputError(f"{', '.join(foreign)} has no meaning for a model of {task}. Leave it out.")
    from zoo.engine import make_accelerator

    model.to(make_accelerator(device).device)
    PREDICT[task](model, sources, {"image_size": image_size}, given, as_json)


def load_model(model_or_run: str) -> Any:
    """Return the model of a run's folder or of a file of weights, or a pretrained one by its name."""
    path = Path(model_or_run)
    if path.is_file():
        raise InputError(
            f"{path} is a file; expected the folder of a run, or a model's name. zoo convert {path} -o DIR makes a "
            "folder of a super-gradients checkpoint."
        )
    return zoo.load(path) if path.exists() else zoo.get(model_or_run, pretrained=True)


def _name(model: Any, sources: list[str], options: dict[str, Any], given: dict[str, Any], as_json: bool) -> None:
    answers = model.predict(sources, top_k=3 if given["top"] is None else given["top"], **options)
    if as_json:
        echo(json.dumps([vars(answer) for answer in answers], indent=1), lines=True)
    else:
        for answer in answers:
            echo(str(answer))


def _find(model: Any, sources: list[str], options: dict[str, Any], given: dict[str, Any], as_json: bool) -> None:
    """Print, draw and write down what is found, one picture at a time: a video does not have to fit into memory."""
    from zoo.detection_result import save_video

    results = model.predict(sources, conf=given["conf"], iou=given["iou"], stream=True, **options)
    records: list[dict[str, Any]] = []
    out = given["out"]
    for _, same in groupby(results, key=lambda result: result.source):
        kept = _telling(same, records, as_json=as_json)
        first = next(kept)
        if out is None:
            for _ in kept:
                pass
        elif first.frame is None:
            for result in (first, *kept):
                result.save(out)
        else:
            video = out / f"{Path(first.file).parent}.mp4"
            video.parent.mkdir(parents=True, exist_ok=True)
            save_video(chain((first,), kept), video)
    if as_json:
        echo(json.dumps(records, indent=1), lines=True)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "predictions.json").write_text(json.dumps(records, indent=1) + "\n", "utf8")
        echo(f"drawn into {out}, with predictions.json", err=as_json)


def _telling(
    results: "Iterator[DetectionResult]", records: list[dict[str, Any]], *, as_json: bool
) -> "Iterator[DetectionResult]":
    """Pass results on, and print and record each."""
    for result in results:
        records.append(result.to_dict())
        if not as_json:
            echo(str(result))
        yield result


PREDICT: dict[str, Callable[..., None]] = {"classification": _name, "detection": _find}
FOREIGN = {"classification": ("conf", "iou", "out"), "detection": ("top",)}
