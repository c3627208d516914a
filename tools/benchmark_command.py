"""`zoo benchmark`: how fast torch and the runtimes of exported files answer, in turns."""

from pathlib import Path
from typing import Annotated, Any

import typer

from zoo._text import echo
from zoo.errors import InputError

from .completion import complete_run
from .listing import AsJson, print_json, print_table
from .places import load_model


def benchmark(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Runs, models' names, and exported files or their folders.",
            autocompletion=complete_run,
        ),
    ],
    images: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Image file or folder to read.", show_default="photos and noise"),
    ] = None,
    batch: Annotated[str, typer.Option("--batch", metavar="LIST", help="Images in a call.")] = "1,8",
    rounds: Annotated[int, typer.Option(metavar="N", help="Turns of each.")] = 8,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="Threads of each.", show_default="as many as torch takes")
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Also compile the models that torch runs.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Measure how fast models answer on this CPU.

    Torch runs runs and named models, onnxruntime, OpenVINO and torch.export the exported files. All take turns, with
    the same threads, from pixels to answers, and once more from reading the file. Times are the median and the 95th
    percentile of a call; the last column compares with the first model.

    \b
    Examples:
      zoo benchmark runs/flowers flowers-onnx
      zoo benchmark runs/flowers export/model.onnx export/model.xml --batch 1 --threads 4
      zoo benchmark resnet18 mobilenetv2_100 --images photos --json
    """  # noqa: D301
    from zoo.exporters import benchmark as measure
    from zoo.exporters import is_exported

    try:
        batches = [int(number) for number in batch.split(",")]
    except ValueError as error:
        raise InputError(f"--batch is {batch!r}; expected numbers with commas between them, such as 1,8.") from error
    chosen = [name if is_exported(name) else load_model(name, device="cpu") for name in models]
    options: dict[str, Any] = {"batches": batches, "rounds": rounds, "threads": threads, "compiled": compiled}
    found = measure(chosen, images=images, progress=not as_json, **options)
    if as_json:
        print_json({"setting": found.setting, "rows": found.rows})
        return
    print_table(found.table(), "speed on the CPU", in_full="zoo benchmark --json")
    echo(found.caption())
