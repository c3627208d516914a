"""Whether it moves the score in which numbers features are computed and kept: top-1 or mAP over seeds.

    python benchmarks/feature_numbers.py mobilenetv2_100 DATA --weights FILE --image-size 128
    python benchmarks/feature_numbers.py yolo_nas_s DATA --weights RUN/model.safetensors --image-size 320 --epochs 8

Heads only, without random changes. The first row is the backbone as it is, run over every image in every epoch.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from _measure import save

import zoo

CASES: dict[str, dict[str, Any]] = {
    "computed in each epoch, unfused, float32": {"cache": "off", "fuse_backbone": False, "backbone_precision": "no"},
    "computed in each epoch, fused, float32": {"cache": "off", "backbone_precision": "no"},
    "kept as float32": {"cache_dtype": "float32", "backbone_precision": "no"},
    "kept as float16": {"cache_dtype": "float16", "backbone_precision": "no"},
    "kept as bfloat16": {"cache_dtype": "bfloat16", "backbone_precision": "no"},
    "computed in bf16, kept by itself": {"backbone_precision": "bf16"},
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("model")
    options.add_argument("data", type=Path)
    options.add_argument("--weights", type=Path, required=True)
    options.add_argument("--image-size", type=int, default=128)
    options.add_argument("--epochs", type=int, default=20)
    options.add_argument("--batch-size", type=int, default=32)
    options.add_argument("--lr", type=float, default=0.001)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--max-seeds-off", type=int, default=1, help="seeds of the rows that keep nothing")
    chosen = options.parse_args()
    rows = []
    for name, fields in CASES.items():
        seeds = min(chosen.seeds, chosen.max_seeds_off) if fields.get("cache") == "off" else chosen.seeds
        began, scores, numbers = time.perf_counter(), [], ""
        for seed in range(seeds):
            score, numbers = train(chosen, seed, fields)
            scores.append(round(100 * score, 3))
        rows.append({"case": name, "scores": scores, "numbers": numbers, "seconds": time.perf_counter() - began})
        mean = statistics.mean(scores)
        print(f"{name:<42} {mean:6.2f} %   {'  '.join(f'{score:.2f}' for score in scores)}   {numbers}", flush=True)
    chosen.data, chosen.weights = chosen.data.name, chosen.weights.name
    save(f"feature_numbers-{chosen.model}", chosen, rows)


def train(chosen: argparse.Namespace, seed: int, fields: dict[str, Any]) -> tuple[float, str]:
    """Return top-1 or mAP, and in which numbers features were kept."""
    task = zoo.describe(chosen.model)["task"]
    opened = zoo.open_data(chosen.data, task=task)
    model = zoo.get(chosen.model, pretrained=str(chosen.weights), num_classes=len(opened.classes), seed=seed)
    if hasattr(model, "replace_classes"):
        model.replace_classes(len(opened.classes))  # heads that know the data would hide what features do
    with tempfile.TemporaryDirectory() as out:
        run = zoo.finetune(
            model, opened, lr=chosen.lr, mode="head", optimizer="AdamW", epochs=chosen.epochs, augment="none",
            batch_size=chosen.batch_size, image_size=chosen.image_size, evaluate_every=chosen.epochs, seed=seed,
            out=out, progress=False, **fields,
        )  # fmt: skip
        about = Path(out) / "features.json"
        kept = json.loads(about.read_text())["numbers"] if about.exists() else "-"
    return run.evaluation.score, kept


if __name__ == "__main__":
    main()
