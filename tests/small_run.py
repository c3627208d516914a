"""The folder of a finished run as `zoo.finetune` leaves it, made by hand: no training, and every number is known."""

from pathlib import Path
from typing import Any

from PIL import Image

import zoo
from zoo.settings.preset import Preset
from zoo.training.run_claim import create_folder
from zoo.training.run_folder import RunFolder

TINY = "timm/test_resnet"
EVALUATION = {
    "top1": 0.75,
    "top5": 1.0,
    "loss": 0.5,
    "images": 8,
    "per_class": [
        {"class": "ant", "images": 4, "precision": 1.0, "recall": 0.5, "f1": 0.6667},
        {"class": "bee", "images": 4, "precision": None, "recall": 1.0, "f1": 0.8},
    ],
}
PLAN = {
    "groups": [
        {"name": "default", "lr": 0.0, "frozen": True, "parameters": 370_000},
        {"name": "fc", "lr": 0.01, "lr_scale": 0.5, "frozen": False, "parameters": 128, "unfreeze_at": 1},
        {"name": "fc (no decay)", "lr": 0.01, "lr_scale": 0.5, "frozen": False, "parameters": 2, "unfreeze_at": 1},
    ]
}
PROOF = {"tensors": 90, "moments": [{"when": "before the first step"}, {"when": "in model.safetensors"}]}
DATA = {
    "source": "/home/somebody/pictures/garden",
    "classes": ["ant", "bee"],
    "counts": {"train": {"ant": 10, "bee": 12}, "val": {"ant": 4, "bee": 4}},
}


def write_run(path: Path, **preset: Any) -> RunFolder:
    """Write a run of a tiny classifier of two classes; `preset` are fields of its preset."""
    run = create_folder(path, "unused")
    model = zoo.get(TINY, classes=["ant", "bee"], seed=1)
    run.save_model(model, model.state_dict())
    run.write_text("preset.yaml", Preset(**({"model": TINY, "epochs": 2} | preset)).to_yaml(full=True))
    run.write_metrics([{"epoch": 1, "loss": 0.7}, {"epoch": 2, "loss": 0.5}])
    for name, value in {"evaluation": EVALUATION, "plan": PLAN, "proof": PROOF, "data": DATA}.items():
        run.write_json(f"{name}.json", value)
    run.write_json("environment.json", {"command": ["/home/somebody/bin/zoo", "finetune"]})
    run.write_json("run.json", {"status": "finished"})
    run.write_text("rates.csv", "step,fc\n")
    for name in ("curves", "mistakes"):
        Image.new("RGB", (2, 2)).save(run.pictures / f"{name}.png")
    (run.pictures / "notes.txt").write_text("/home/somebody was here")
    return run


def change_config(run: RunFolder, **changes: Any) -> None:
    """Change keys of a run's configuration; those of `origin` are added to it."""
    config = run.read_json("config.json")
    origin = config["origin"] | changes.pop("origin", {})
    run.write_json("config.json", config | changes | {"origin": origin})
