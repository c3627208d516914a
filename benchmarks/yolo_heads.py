"""Heads only: seconds to train YOLO-NAS's heads on a frozen backbone and neck: plain, folded, kept; and LibreYOLO.

    python benchmarks/yolo_heads.py [--data BCCD] [--train 24] [--val 8] [--size 320] [--epochs 20] [--full]
    python benchmarks/yolo_heads.py --gpu      # 640 px, bf16, 8 epochs: the first against the floor, and the following

Counted is the training call with a scoring after each epoch; not counted are imports and making the model, and each
contender first trains an epoch on a few images. The floor is one pass of the folded backbone over all images in
inference mode, decoding included, and nothing else. Long runs whose epochs cost the same are continued: see ≈.

The data is a Pascal VOC folder, such as BCCD (Shenggan/BCCD_Dataset on GitHub, folder `BCCD`).
"""

import argparse
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _boxes import BCCD, copy_part
from _detectors import train, write_start
from _epochs import FLOOR, TOGETHER, Turn, later_epoch, measure_epochs
from _measure import (
    Result,
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

ZOO_FIELDS: dict[str, dict[str, Any]] = {
    "zoo, plain": {"cache": "off", "fuse_backbone": False, "backbone_precision": "no"},
    "zoo, engine": {"cache": "off"},
    "zoo": {},
    "zoo, again": {},
}
NOTES = (
    "zoo, plain: the frozen backbone runs as it is in every epoch; zoo, engine: it runs folded; zoo: as it comes, with "
    "nothing kept before; zoo, again: the same job once more",
    "libreyolo: freeze=['backbone', 'neck'], without changes to images, EMA and mixed precision; its loss and metric "
    "are its own, it writes its checkpoints, and it has no way to keep features",
    "moved: tensors of backbone and neck, statistics of norms included, that differ after the training",
)


def main() -> None:
    parser = common_options(__doc__)
    parser.add_argument("--data", type=Path, default=BCCD, help="a Pascal VOC folder with train.txt and val.txt")
    parser.add_argument("--model", default="yolo_nas_s")
    parser.add_argument("--train", type=int, default=None, help="images; default 24, all with --full and --gpu")
    parser.add_argument("--val", type=int, default=None, help="images; default 8, all with --full and --gpu")
    parser.add_argument("--copies", type=int, default=1, help="of each training image")
    parser.add_argument("--size", type=int, default=None, help="side of the input, px; default 320, 640 with --gpu")
    parser.add_argument("--epochs", nargs="+", type=int, default=None)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--measured-epochs", type=int, default=2, help="of a long run whose epochs cost the same")
    parser.add_argument("--measure-all", action="store_true", help="measure long runs to their end")
    parser.add_argument("--weights", default=None, help="safetensors to take backbone and neck from; default: random")
    parser.add_argument("--gpu", action="store_true")
    chosen = parser.parse_args()
    if not chosen.data.is_dir():
        print(f"no images in {chosen.data}: pass --data with the folder of BCCD. Nothing is measured.")
        return
    everything = chosen.full or chosen.gpu
    chosen.train = chosen.train or (10**6 if everything else 24)
    chosen.val = chosen.val or (10**6 if everything else 8)
    chosen.size = chosen.size or (640 if chosen.gpu else 320)
    chosen.epochs = chosen.epochs or ([8] if chosen.gpu else [1, 5, 20] if chosen.full else [20])
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        classes = copy_part(chosen.data, place / "data", train=chosen.train, val=chosen.val, copies=chosen.copies)
        copy_part(chosen.data, place / "few", train=2 * chosen.batch, val=4)
        job = {"model": chosen.model, "data": str(place / "data"), "classes": len(classes), "size": chosen.size}
        job |= {"weights": str(place / "start.safetensors"), "batch": chosen.batch, "epochs": 1}
        if chosen.gpu:
            job |= {"device": "cuda", "precision": "bf16", "evaluate_every": max(chosen.epochs)}
        made = run_part("start", {"job": job, "out": job["weights"], "weights": chosen.weights}, threads=chosen.threads)
        if "failed" in made:
            raise SystemExit(f"the weights to start from could not be made: {made['log']}")
        cells = measure(place, chosen, job)
    save("yolo_heads", chosen, cells, notes=NOTES)


def measure(place: Path, chosen: argparse.Namespace, job: dict[str, Any]) -> list[dict[str, Any]]:
    """Run all contenders; print a table for each number of epochs, and return what they hold."""
    names = chosen_only([*installed(["libreyolo"]), *ZOO_FIELDS, FLOOR], chosen.only)

    def run(turn: Turn, number: int) -> Result:
        cache = place / "cache"
        if turn.name != TOGETHER[1]:
            shutil.rmtree(cache, ignore_errors=True)
        own = job | {"epochs": turn.epochs, "fields": ZOO_FIELDS.get(turn.name, {})}
        options = {"contender": turn.name.partition(",")[0], "job": own, "first": str(place / "few")}
        return run_part("train", options, threads=chosen.threads, cache=cache)

    measured = 0 if chosen.measure_all else chosen.measured_epochs
    results = measure_epochs(names, chosen.epochs, chosen.runs, run, measured=measured, score="map")
    cells = []
    for epochs, runs in results.items():
        cell = job | {"epochs": epochs}
        report(cell, runs)
        cells.append({key: cell[key] for key in ("model", "size", "epochs", "batch")} | {"runs": runs})
    return cells


def report(job: Mapping[str, Any], results: Mapping[str, Sequence[Result]]) -> None:
    """Print one table."""
    seconds = {name: values_of(runs, "seconds") for name, runs in results.items()}
    first = {name: [result.get("epochs", [float("nan")])[:1] for result in runs] for name, runs in results.items()}
    base, floor = seconds.get("zoo, plain", []), seconds.get("floor", [])
    rows = []
    for name, runs in results.items():
        cut = "≈ " * any("measured_seconds" in result for result in runs)
        score = spread(values_of(runs, "map")).median
        begun = [ends[0] if ends else float("nan") for ends in first[name]]
        rows.append(
            (
                name,
                f"{cut}{spread(seconds[name]):.2f}",
                f"{ratio(base, seconds[name]):.2f}",
                f"{ratio(begun, floor):.2f}",
                f"{spread(later_epoch(result) for result in runs):.2f}",
                "–" if score != score else f"{score:.1%}",
                next((result["backbone_tensors_moved"] for result in runs if "failed" not in result), "–"),
                f"{spread(values_of(runs, 'peak_mb')):,.0f}",
            )
        )
    columns = (
        "contender",
        "seconds",
        "times faster than plain",
        "first epoch over the floor",
        "later epochs, s",
        "mAP",
        "moved",
        "peak, MB",
    )
    show("heads only: {model}, {size} px, {epochs} epochs, batches of {batch}".format(**job), columns, rows, NOTES)


if __name__ == "__main__":
    main_or_part(main, {"train": train, "start": write_start})
