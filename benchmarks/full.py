"""All layers: images per second of training steps, beside a loop by hand and other libraries.

    python benchmarks/full.py [--models mobilenetv2_100 yolo_nas_s] [--steps 4] [--runs 5] [--full]
    python benchmarks/full.py --gpu      # bf16, also compiled, also with the batch in the GPU's memory

Counted is the time from the end of one step to that of a later one, loading included; the first steps are not counted,
nor are validation and what is written at the end. Classifiers see 224 px in batches of 32, detectors 320 px in batches
of 8. The shares are of a large matrix product and of a large copy, measured in the same run: floating-point operations
of forward and backward pass, and the bytes that the operations of an uncompiled network read and write.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import _classifiers
import _detectors
from _boxes import BCCD, copy_part
from _images import write_folder
from _measure import (
    Result,
    chosen_only,
    common_options,
    in_turns,
    installed,
    main_or_part,
    ratio,
    run_part,
    save,
    show,
    spread,
    values_of,
)

CLASSIFIER_PEERS, DETECTOR_PEERS = ("fastai", "lightning", "transformers"), ("libreyolo",)
LAST = {"channels_last": True}
NOTES = (
    "by hand: a plain loop over the same files; for a detector with this library's model, loss and loader",
    "libreyolo: its own loss and reading of images, without changes to them, EMA and validation",
    "fastai reads files with its own loader; the others, by hand included, with torchvision's transforms on Pillow",
    "memory: one batch that lies on the device, again and again, so that nothing is read",
)


def main() -> None:
    parser = common_options(__doc__)
    parser.add_argument("--models", nargs="+", default=None, help="of resnet50, mobilenetv2_100, yolo_nas_s and others")
    parser.add_argument("--steps", type=int, default=None, help="per run; default 4, 24 with --full, 60 with --gpu")
    parser.add_argument("--skip", type=int, default=1, help="first steps that are not counted")
    parser.add_argument("--batch", type=int, default=None, help="default: 32 for classifiers, 8 for detectors")
    parser.add_argument("--size", type=int, default=None, help="px; default: 224 for classifiers, 320 for detectors")
    parser.add_argument("--workers", type=int, default=0, help="of all but zoo")
    parser.add_argument("--data", type=Path, default=BCCD, help="a Pascal VOC folder, for detectors")
    parser.add_argument("--gpu", action="store_true")
    chosen = parser.parse_args()
    everything = chosen.full or chosen.gpu
    chosen.models = chosen.models or (["resnet50"] if everything else []) + ["mobilenetv2_100", "yolo_nas_s"]
    chosen.steps = chosen.steps or (60 if chosen.gpu else 24 if chosen.full else 4)
    ceilings = run_part("ceilings", where(chosen), threads=chosen.threads)
    tables = []
    for model in chosen.models:
        with tempfile.TemporaryDirectory() as folder:
            prepare = prepare_detector if model.startswith("yolo_nas") else prepare_classifier
            if cell := prepare(Path(folder), chosen, model):
                tables.append(measure(chosen, ceilings, *cell))
    save("full", chosen, tables, ceilings=ceilings, notes=NOTES)


def where(chosen: argparse.Namespace) -> dict[str, Any]:
    """Return device and precision of all contenders."""
    return {"device": "cuda" if chosen.gpu else "cpu", "precision": "bf16" if chosen.gpu else "no"}


def prepare_classifier(
    place: Path, chosen: argparse.Namespace, model: str
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Write images and weights; return the kind of contender, the job, and what each contender has of its own."""
    size, batch = chosen.size or 224, chosen.batch or 32
    write_folder(place / "data", train=chosen.steps * batch, val=10, processes=chosen.threads)
    job = {"model": model, "weights": str(place / "start.safetensors"), "data": str(place / "data"), "size": size}
    start = {"model": model, "data": job["data"], "size": size, "out": job["weights"]}
    job |= {"epochs": 1, "batch": batch, "workers": chosen.workers, "frozen": False, "lr": 1e-3, **where(chosen)}
    must(run_part("start classifier", start, threads=chosen.threads))
    own = contenders(chosen, CLASSIFIER_PEERS)
    if chosen.gpu:
        memory = {"memory_steps": chosen.steps}
        own |= {
            "zoo, compiled": {"fields": {"compile": True}},
            "by hand, memory": memory,
            "by hand, channels last, memory": memory | LAST,
            "zoo, memory": memory,
            "zoo, compiled, memory": memory | {"fields": {"compile": True}},
        }
    return "classifier", job, own


def prepare_detector(
    place: Path, chosen: argparse.Namespace, model: str
) -> tuple[str, dict[str, Any], dict[str, Any]] | None:
    """Likewise; None if there are no annotated images."""
    if not chosen.data.is_dir():
        print(f"no images in {chosen.data}: pass --data with the folder of BCCD. {model} is left out.")
        return None
    size, batch = chosen.size or 320, chosen.batch or 8
    wanted, there = chosen.steps * batch, 205
    classes = copy_part(chosen.data, place / "data", train=wanted, val=4, copies=-(-wanted // there))
    job = {"model": model, "weights": str(place / "start.safetensors"), "data": str(place / "data"), "size": size}
    job |= {"classes": len(classes), "batch": batch, "epochs": 1, "workers": chosen.workers, "frozen": False}
    job |= {"evaluate_every": 0, "lr": 1e-4, **where(chosen)}
    must(run_part("start detector", {"job": job, "out": job["weights"]}, threads=chosen.threads))
    own = contenders(chosen, DETECTOR_PEERS)
    if chosen.gpu:
        own["zoo, compiled"] = {"fields": {"compile": True}}
    return "detector", job, own


def contenders(chosen: argparse.Namespace, peers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the fields of the job that each contender has of its own, without those of a GPU."""
    last = {"by hand, channels last": LAST} if chosen.full or chosen.gpu else {}
    return {"by hand": {}, **last, **{name: {} for name in installed(peers)}, "zoo": {}}


def measure(
    chosen: argparse.Namespace, ceilings: Result, kind: str, job: dict[str, Any], own: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """Run all contenders of one model; print their table and return what it is made of."""
    costs = run_part("costs", {"kind": kind, "job": job}, threads=chosen.threads)
    names = chosen_only(own, chosen.only)

    def run(name: str, number: int) -> Result:
        result = run_part(kind, {"contender": name.partition(",")[0], "job": job | own[name]}, threads=chosen.threads)
        ends = result.get("steps", [])[chosen.skip - 1 :]
        if len(ends) > 1:
            result["images_per_second"] = (len(ends) - 1) * job["batch"] / (ends[-1] - ends[0])
        return result

    results = in_turns([[name] for name in names], chosen.runs, run)
    report(job, results, ceilings, costs)
    return {key: job[key] for key in ("model", "size", "batch")} | {"costs": costs, "runs": results}


def report(job: Mapping[str, Any], results: Mapping[str, Sequence[Result]], ceilings: Result, costs: Result) -> None:
    """Print one table."""
    speeds = {name: values_of(runs, "images_per_second") for name, runs in results.items()}
    rows = []
    for name, runs in results.items():
        speed = spread(speeds[name])
        rows.append(
            (
                name,
                f"{speed:.2f}",
                f"{ratio(speeds[name], speeds.get('by hand', [])):.2f}",
                share(speed.median, costs.get("flops"), ceilings.get("matmul_flops")),
                share(speed.median, costs.get("bytes"), ceilings.get("copy_bytes")),
                f"{spread(values_of(runs, 'peak_mb')):,.0f}",
                f"{spread(values_of(runs, 'gpu_peak_mb')):,.0f}",
            )
        )
    columns = ("contender", "images/s", "over by hand", "of the matmul", "of the copy", "peak, MB", "GPU peak, MB")
    numbers = "bf16" if job["precision"] == "bf16" else "float32"
    title = "{model}, all layers, {size} px, batches of {batch}, ".format(**job) + numbers
    if job["device"] == "cpu":
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    show(title, columns, rows, NOTES)


def share(speed: float, cost: float | None, ceiling: float | None) -> str:
    """Return what part of a ceiling a speed takes."""
    return f"{speed * cost / ceiling:.0%}" if cost and ceiling and speed == speed else "–"


def count(kind: str, job: dict[str, Any]) -> Result:
    """Count operations and bytes of a step of one model."""
    import torch
    from _ceilings import count_costs

    if kind == "classifier":
        network = _classifiers.build_network(_classifiers.Job(**job))
    else:
        network = _detectors.build_model(_detectors.Job(**job))
    images = torch.randn(job["batch"], 3, job["size"], job["size"], device=job["device"])
    return count_costs(network.train().to(job["device"]), images, precision=job["precision"])


def measure_ceilings(**options: Any) -> Result:
    """Measure what the device can do at most; torch is imported here alone."""
    from _ceilings import measure_ceilings

    return measure_ceilings(**options)


def must(result: Result) -> None:
    """Stop if the weights to start from could not be made."""
    if "failed" in result:
        raise SystemExit(f"the weights to start from could not be made: {result['log']}")


if __name__ == "__main__":
    main_or_part(
        main,
        {
            "classifier": _classifiers.train,
            "detector": _detectors.train,
            "start classifier": _classifiers.write_start,
            "start detector": _detectors.write_start,
            "costs": count,
            "ceilings": measure_ceilings,
        },
    )
