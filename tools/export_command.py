"""`zoo export`: a run as a file for other runtimes, compared with the model from file to metric."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

import zoo
from zoo._text import echo
from zoo.files import to_path

from .completion import complete_run
from .listing import AsJson, print_json, print_table
from .places import load_model


def export(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="The folder of a run, or a model's name.", autocompletion=complete_run),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="A new folder.")],
    formats: Annotated[
        str, typer.Option("--format", metavar="LIST", help="onnx, openvino, torch: one or some.")
    ] = "onnx",
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Labelled images to compare on.", show_default="the run's validation images"),
    ] = None,
    images: Annotated[int, typer.Option(metavar="N", help="How many images are compared.")] = 200,
    every: Annotated[bool, typer.Option("--all", help="Compare all images.")] = False,
    takes: Annotated[
        str, typer.Option("--input", metavar="KIND", help="bytes: uint8 RGB, normalised inside; float: normalised.")
    ] = "bytes",
    raw: Annotated[
        bool, typer.Option("--raw", help="Logits, or boxes and scores of all places: without suppression.")
    ] = False,
    precision: Annotated[
        str, typer.Option(metavar="LIST", help="fp32, fp16, int8, or several. int8 is calibrated on training images.")
    ] = "fp32",
    max_drop: Annotated[
        float, typer.Option(metavar="POINTS", help="Most that fp16 and int8 may lose, in points of the metric.")
    ] = 0.5,
    accept_difference: Annotated[
        bool, typer.Option("--accept-difference", help="Keep files whose answers differ from the model's.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Export a run to ONNX, OpenVINO or torch.export.

    The folder holds the model, config.json, predict.py (which needs numpy, Pillow and the runtime only), a page, and
    parity.json. The written file is run by its own runtime on the validation images, from reading the file to the
    metric; if its answers differ from the model's, nothing is written.

    \b
    Examples:
      zoo export runs/flowers -o flowers-onnx
      zoo export runs/flowers -o flowers-export --format onnx,openvino --all
      zoo export runs/flowers -o flowers-small --precision fp32,int8 --max-drop 1
      python flowers-onnx/predict.py photo.jpg
    """  # noqa: D301
    model = run if os.path.isdir(to_path(run)) else load_model(run)  # a run knows its validation images
    names = [name.strip() for name in formats.split(",")]
    options: dict[str, Any] = {
        "data": data,
        "images": None if every else images,
        "takes": takes,
        "raw": raw,
        "precision": [name.strip() for name in precision.split(",")],
        "max_drop": max_drop,
        "progress": not as_json,
    }
    made = zoo.export(model, out, formats=names, accept_difference=accept_difference, **options)
    if as_json:
        parity = {name: found.to_dict() for name, found in made.parity.items()}
        for name, measured in made.measures.items():
            parity[name] |= measured.to_dict()
        print_json({"folder": str(made.folder), "files": {n: str(p) for n, p in made.files.items()}, "parity": parity})
        return
    print_table([{"format": name} | found.row() for name, found in made.parity.items()], "compared with the model")
    if made.measures:
        print_table(made.table(), "size, metric and speed (one image, one thread)")
    echo(f"written to {made.folder}")
