"""What each process of `test_multiprocess.py` runs: a whole run; scores by hand; a run that is stopped and resumed.

Arguments: the folder of images, the one of boxes, images per batch and process, and a folder for what comes out.
"""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import zoo
import zoo.training.stop
from small_yolo_nas import small_yolo_nas
from zoo.data.loader import make_loader
from zoo.data.transforms import eval_transform
from zoo.engine.accelerator import make_accelerator
from zoo.errors import Interrupted
from zoo.tasks.classification.evaluator import ClassificationEvaluator
from zoo.training.evaluation import score_batches

LAST = int(os.environ.get("WORLD_SIZE", "1")) - 1
RANK = int(os.environ.get("RANK", "0"))


def finetune(data: str, batch_size: int, out: Path, model: Any, *callbacks: zoo.Callback, accumulate: int = 1) -> Any:
    return zoo.finetune(
        model,
        data,
        0.03,
        mode="full",
        out=out,
        callbacks=callbacks,
        batch_size=batch_size // accumulate,
        accumulate=accumulate,
        image_size=32,
        epochs=2,
        optimizer="SGD",
        optimizer_params={"momentum": 0.0},
        device="cpu",
        num_workers=0,
    )


class AskToStop(zoo.Callback):
    """Ask the last process alone, at the first step."""

    def on_step_end(self, run: Any) -> None:
        if RANK == LAST and run.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)


@small_yolo_nas()
def detect(boxes: str, batch_size: int, out: Path) -> Any:
    """The heads of a detector; with norm statistics kept, an image's gradient does not depend on its batch."""
    return zoo.finetune(
        zoo.get("yolo_nas_s", num_classes=2),
        boxes,
        0.01,
        mode="head",
        out=out,
        batch_size=batch_size,
        image_size=64,
        epochs=1,
        freeze_norm_stats=True,
        mosaic=0.5,
        optimizer_params={"momentum": 0.0},
        device="cpu",
        num_workers=0,
    )


def main(data: str, boxes: str, batch_size: str, out: str) -> None:
    place = Path(out) / f"of-{RANK}"  # the folder of the first process is the only one that is made
    model = zoo.get("timm/test_convnext", num_classes=3)
    run = finetune(data, int(batch_size), place, model, accumulate=LAST + 1)  # two add up gradients, too
    report = {"records": run.metrics, "evaluation": run.evaluation.to_dict()}
    report["again"] = run.evaluate(data, batch_size=3, device="cpu", progress=False).to_dict()

    found = detect(boxes, int(batch_size) // 4, Path(out) / f"boxes-{RANK}")
    report["detection"] = {"evaluation": found.evaluation.to_dict(), "records": found.metrics}

    accelerator = make_accelerator("cpu")
    loader = make_loader(zoo.open_data(data).val, eval_transform(run.model.preprocess), batch_size=4)
    network, batches = accelerator.prepare(run.model, loader)
    evaluator = ClassificationEvaluator(run.model.classes, accelerator.device)
    _, misses = score_batches(evaluator, network, batches, accelerator)
    report["misses"] = [dataclasses.astuple(miss) for miss in misses]

    zoo.training.stop.STEPS_PER_VOTE = 2
    model = zoo.get("timm/test_convnext", num_classes=3)
    try:
        finetune(data, int(batch_size), Path(out) / f"stopped-{RANK}", model, AskToStop())
    except Interrupted:
        stopped = Path(out) / "stopped-0"
        report["stopped"] = json.loads((stopped / "run.json").read_text())
        report["resumed"] = zoo.resume(stopped, progress=False).evaluation.to_dict()
    Path(out, f"report-{RANK}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
