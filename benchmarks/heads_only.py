"""Heads only: seconds to train a classifier's new head on its frozen backbone, beside other libraries and the floor.

    python benchmarks/heads_only.py [--models resnet18] [--sizes 128] [--epochs 1 20] [--runs 5] [--full]
    python benchmarks/heads_only.py --images 200 --photo 4000 3000 --epochs 1   # photos of 12 megapixels
    python benchmarks/heads_only.py --images 1000 --epochs 1 --beside 3         # while three processes compute

Counted is the training call: opening the data, loaders, epochs with validation after each, and what a library writes at
the end. Not counted are imports, making the model and the images. Each contender runs in a fresh process and first
trains an epoch on a few images, so that first uses are over; that time is told beside.

The floor is one pass of the backbone over all images, norms folded, channels last, in inference mode, decoding
included,
and nothing else. Where every epoch costs the same, a long run is measured over a few epochs and continued with the
median seconds of an epoch after the first; such numbers are marked with ≈. `--measure-all` measures them all.
"""

import argparse
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _classifiers import train, write_start
from _epochs import FLOOR, TOGETHER, measure_epochs
from _images import CLASSES, write_folder
from _measure import (
    Result,
    busy_processes,
    chosen_only,
    common_options,
    installed,
    main_or_part,
    ratio,
    run_part,
    save,
    show,
    spread,
    values_of,
)

PEERS = ("fastai", "lightning", "transformers")
ZOO_FIELDS: dict[str, dict[str, Any]] = {
    "zoo": {},
    "zoo, again": {},
    "zoo, cache off": {"cache": "off"},
    "zoo, decode full": {"decode": "full"},
}
NOTES = (
    "zoo: as it comes, with nothing kept before; zoo, again: the same job once more; zoo, cache off: the frozen "
    "backbone runs in every epoch; zoo, decode full: large JPEGs are decoded at their own size",
    "fastai: train_bn=False; lightning: BaseFinetuning.freeze(train_bn=False); all peers keep the backbone in training "
    "mode, as they do by themselves, so their norms see each batch's own statistics",
    "fastai reads files with its own loader; all others with torchvision's transforms on Pillow",
    "top-1: of the validation images after the last epoch, median of the runs; ≈: continued from fewer epochs",
)


def main() -> None:
    parser = common_options(__doc__)
    parser.add_argument("--models", nargs="+", default=None, help="of resnet18, resnet50, mobilenetv2_100")
    parser.add_argument("--sizes", nargs="+", type=int, default=None, help="sides of the input, px")
    parser.add_argument("--epochs", nargs="+", type=int, default=None)
    parser.add_argument(
        "--images", type=int, default=None, help="to train on, a fifth as many to validate; default 400, or 1000"
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument(
        "--workers", type=int, default=None, help="of all but zoo; default: 0 or 2, what is faster here"
    )
    parser.add_argument("--measured-epochs", type=int, default=2, help="of a long run whose epochs cost the same")
    parser.add_argument("--measure-all", action="store_true", help="measure long runs to their end")
    parser.add_argument(
        "--photo", nargs=2, type=int, default=(400, 300), metavar=("WIDTH", "HEIGHT"), help="size of the images, px"
    )
    parser.add_argument("--beside", type=int, default=0, help="busy processes (nice 5) beside each measurement")
    parser.add_argument("--weights", nargs="*", default=[], metavar="MODEL=FILE", help="safetensors to start from")
    chosen = parser.parse_args()
    chosen.images = chosen.images or (1000 if chosen.full else 400)
    chosen.models = chosen.models or (["resnet18", "resnet50", "mobilenetv2_100"] if chosen.full else ["resnet18"])
    chosen.sizes = chosen.sizes or ([128, 224] if chosen.full else [128])
    chosen.epochs = chosen.epochs or ([1, 5, 20] if chosen.full else [1, 20])
    files = dict(pair.split("=", 1) for pair in chosen.weights)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        width, height = chosen.photo
        sizes = {"width": width, "height": height, "processes": chosen.threads}
        write_folder(place / "data", train=chosen.images, val=max(CLASSES, chosen.images // 5), **sizes)
        write_folder(place / "few", train=20, val=10, processes=1)
        cells = []
        for model in chosen.models:
            for size in chosen.sizes:
                job = prepare(place, chosen, model, size, files.get(model))
                cells += measure(place, chosen, job)
    save("heads_only", chosen, cells, notes=NOTES)


def prepare(place: Path, chosen: argparse.Namespace, model: str, size: int, weights: str | None) -> dict[str, Any]:
    """Write the weights that a cell starts from, choose the number of workers, and return the job of the cell."""
    start = str(place / f"{model}-{size}.safetensors")
    shared = {"model": model, "data": str(place / "data"), "size": size}
    done = run_part("start", shared | {"out": start, "weights": weights}, threads=chosen.threads)
    if "failed" in done:
        raise SystemExit(f"the weights to start from could not be made: {done['log']}")
    job = shared | {"weights": start, "batch": chosen.batch, "epochs": 1, "workers": 0}
    if chosen.workers is None:
        tried = {count: run_one(place, chosen, job | {"workers": count}, "by hand") for count in (0, 2)}
        if failed := [done["log"] for done in tried.values() if "failed" in done]:
            raise SystemExit(f"the loop by hand fails: {failed[0]}")
        seconds = {count: done["seconds"] for count, done in tried.items()}
        chosen.workers = min(seconds, key=lambda count: seconds[count])
        chosen.workers_tried = seconds
    return job | {"workers": chosen.workers}


def measure(place: Path, chosen: argparse.Namespace, job: dict[str, Any]) -> list[dict[str, Any]]:
    """Run all contenders of one model and size; print a table for each number of epochs, and return what they hold."""
    names = chosen_only(["by hand", *installed(PEERS), *ZOO_FIELDS, FLOOR], chosen.only)
    results = measure_epochs(
        names,
        chosen.epochs,
        chosen.runs,
        lambda turn, _: run_one(place, chosen, job | {"epochs": turn.epochs}, turn.name),
        measured=0 if chosen.measure_all else chosen.measured_epochs,
        score="top1",
    )
    cells = []
    for epochs, runs in results.items():
        cell = job | {"epochs": epochs}
        report(cell, runs)
        kept = {key: cell[key] for key in ("model", "size", "epochs", "batch", "workers")}
        cells.append(kept | {"images": chosen.images, "runs": runs})
    return cells


def run_one(place: Path, chosen: argparse.Namespace, job: dict[str, Any], name: str) -> Result:
    """Run one contender; what the first of `TOGETHER` keeps, the second finds."""
    cache = place / "cache"
    if name != TOGETHER[1]:
        shutil.rmtree(cache, ignore_errors=True)
    fields = ZOO_FIELDS.get(name, {})
    contender = "zoo" if name in ZOO_FIELDS else name
    options = {"contender": contender, "job": job | {"fields": fields}, "first": str(place / "few")}
    with busy_processes(chosen.beside):
        return run_part("train", options, threads=chosen.threads, cache=cache)


def report(job: Mapping[str, Any], results: Mapping[str, Sequence[Result]]) -> None:
    """Print one cell."""
    seconds = {name: values_of(runs, "seconds") for name, runs in results.items()}
    base, floor = seconds.get("by hand", []), seconds.get("floor", [])
    rows = []
    for name, runs in results.items():
        cut = "≈ " * any("measured_seconds" in result for result in runs)
        top1 = spread(values_of(runs, "top1")).median
        rows.append(
            (
                name,
                f"{cut}{spread(seconds[name]):.2f}",
                f"{ratio(base, seconds[name]):.2f}",
                f"{ratio(seconds[name], floor):.2f}",
                "–" if top1 != top1 else f"{top1:.1%}",
                f"{spread(values_of(runs, 'peak_mb')):,.0f}",
                f"{spread(values_of(runs, 'first_use_seconds')):.1f}",
            )
        )
    columns = (
        "contender",
        "seconds",
        "times faster than by hand",
        "times the floor",
        "top-1",
        "peak, MB",
        "first use, s",
    )
    title = "heads only: {model}, {size} px, {epochs} epochs, batches of {batch}, {workers} workers".format(**job)
    show(title, columns, rows, NOTES)


if __name__ == "__main__":
    main_or_part(main, {"train": train, "start": write_start})
