"""The contenders that train YOLO-NAS on annotated images: a loop by hand, LibreYOLO, and this library.

All of them start from the same weights, see the same images at the same size without random changes, take the same
steps (AdamW, one rate) and score the validation images after each epoch. Each library uses its own loss and metric.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _measure import Result, Watch

WEIGHT_DECAY = 1e-4
CALIBRATION_IMAGES = 64
TRUNK = ("backbone.", "neck.")


@dataclass(frozen=True)
class Job:
    """What is to be trained.

    Attributes:
        model: A name of this library: `yolo_nas_s`, `_m` or `_l`.
        weights: A safetensors file, as `write_start` makes it.
        data: A folder that `_boxes.copy_part` made.
        classes: How many.
        size: Side of the input, in pixels.
        epochs: Passes over the training images.
        batch: Images per step.
        workers: Processes that load images for all but this library, which chooses its own.
        frozen: Whether the heads alone learn.
        lr: Learning rate.
        evaluate_every: Epochs from one scoring to the next; 0: none but one at the end, which not all can leave out.
        device: `cpu` or `cuda`.
        precision: `no` or `bf16`.
        channels_last: Whether the loop by hand lays images and weights out channels last.
        fields: Further fields of this library's preset.
    """

    model: str
    weights: str
    data: str
    classes: int
    size: int
    epochs: int
    batch: int = 8
    workers: int = 0
    frozen: bool = True
    lr: float = 1e-3
    evaluate_every: int = 1
    device: str = "cpu"
    precision: str = "no"
    channels_last: bool = False
    fields: dict[str, Any] = field(default_factory=dict)


def train(contender: str, *, job: dict[str, Any], first: str | None = None) -> Result:
    """Train once; return seconds, the score, and how far the backbone's tensors, statistics included, have moved.

    Args:
        contender: A key of `CONTENDERS`.
        job: Of `Job`.
        first: A folder of few images that is trained on before, for an epoch, so that first uses are over.
    """
    build, run = CONTENDERS[contender]
    first_use = Watch()
    if first:
        small = Job(**job | {"data": first, "epochs": 1})
        run(small, build(small), Watch())
    before, wanted = first_use.seconds, Job(**job)
    model = build(wanted)
    trunk = _backbone_tensors(model)
    watch = Watch()
    score = run(wanted, model, watch)
    seconds = watch.seconds
    after = _backbone_tensors(model)
    moved = [name for name, value in trunk.items() if name in after and not after[name].equal(value)]
    return {
        "seconds": seconds,
        "first_use_seconds": before,
        "map": score,
        **watch.to_dict(),
        "backbone_tensors": len(trunk),
        "backbone_tensors_moved": len(moved),
    }


def write_start(*, job: dict[str, Any], out: str, weights: str | None = None) -> Result:
    """Write the weights that all contenders start from: random ones, with statistics of some images.

    Args:
        job: Of `Job`.
        out: The file to write.
        weights: A file of this library to take backbone and neck from; its heads are left out.
    """
    import torch
    from safetensors.torch import load_file, save_file

    import zoo

    wanted = Job(**job)
    model = zoo.get(wanted.model, num_classes=wanted.classes)
    if weights:
        kept = {name: value for name, value in load_file(weights).items() if name.startswith(TRUNK)}
        model.load_state_dict(kept, strict=False)
    else:
        for module in model.modules():
            if hasattr(module, "running_mean"):
                module.momentum = None  # the mean over all batches
        model.train()
        seen = 0
        with torch.no_grad():
            for inputs, _ in _batches(wanted, model, "train"):
                model(inputs)
                seen += len(inputs)
                if seen >= CALIBRATION_IMAGES:
                    break
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, out)
    return {}


def build_model(job: Job) -> Any:
    """Return this library's model with the weights that all start from."""
    from safetensors.torch import load_file

    import zoo

    model = zoo.get(job.model, num_classes=job.classes)
    model.load_state_dict(load_file(job.weights))
    return model


def build_libreyolo(job: Job) -> Any:
    """Return LibreYOLO's model with the same weights, which have the same names there."""
    from libreyolo.models.yolonas.model import LibreYOLONAS
    from safetensors.torch import load_file

    size = job.model.removeprefix("yolo_nas_")
    return LibreYOLONAS(load_file(job.weights), size=size, nb_classes=job.classes, device=job.device)


def by_zoo(job: Job, model: Any, watch: Watch) -> float:
    """Train with `zoo.finetune`, everything on: checks, plan, proof, checkpoints, images."""
    import zoo

    class Ticks(zoo.Callback):
        def on_step_end(self, run: Any) -> None:
            watch.step()

        def on_epoch_end(self, run: Any) -> None:
            watch.epoch(run.metrics[-1].get("map"))

    with tempfile.TemporaryDirectory() as out:
        run = zoo.finetune(
            model,
            f"{job.data}/voc",
            lr=job.lr,
            optimizer="AdamW",
            weight_decay=WEIGHT_DECAY,
            schedule="constant",
            warmup_steps=0,
            epochs=job.epochs,
            batch_size=job.batch,
            image_size=job.size,
            augment="none",
            evaluate_every=job.evaluate_every or job.epochs,
            device=job.device,
            precision=job.precision,
            progress=False,
            callbacks=Ticks(),
            out=Path(out) / "run",
            **{"mode": "head" if job.frozen else "full", **job.fields},
        )
    return float(run.metrics[-1].get("map") or 0.0)


def by_hand(job: Job, model: Any, watch: Watch) -> float | None:
    """Train this library's model with its own loss and images in a plain loop, without a validation."""
    import torch

    layout = {"memory_format": torch.channels_last} if job.channels_last else {}
    model.to(job.device, **layout)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = not (job.frozen and name.startswith(TRUNK))
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=job.lr, weight_decay=WEIGHT_DECAY)
    for _ in range(job.epochs):
        model.train()
        for inputs, targets in _batches(job, model, "train", shuffle=True):
            with torch.autocast(job.device, torch.bfloat16, enabled=job.precision == "bf16"):
                outputs = model(inputs.to(**layout))
            loss = model.loss(outputs, targets.rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step()
        watch.epoch()
    return None


def by_libreyolo(job: Job, model: Any, watch: Watch) -> float:
    """Train with LibreYOLO's own trainer, backbone and neck frozen by its `freeze`."""
    if not job.evaluate_every:  # then every pass is that of a step
        model.model.register_forward_hook(watch.step)
    with tempfile.TemporaryDirectory() as out:
        results = model.train(
            f"{job.data}/yolo/data.yaml",
            epochs=job.epochs,
            batch=job.batch,
            imgsz=job.size,
            lr0=job.lr,
            optimizer="AdamW",
            weight_decay=WEIGHT_DECAY,
            min_lr_ratio=1.0,
            warmup_epochs=0,
            device=job.device,
            workers=job.workers,
            amp=job.precision == "bf16",
            amp_dtype="bfloat16",
            ema=False,
            freeze=["backbone", "neck"] if job.frozen else None,
            mosaic_prob=0.0,
            mixup_prob=0.0,
            hsv_prob=0.0,
            flip_prob=0.0,
            translate=0.0,
            mosaic_scale=(1.0, 1.0),
            eval_interval=job.evaluate_every,
            patience=0,
            project=out,
            callbacks=lambda event: watch.epoch(event.current_metric),
        )
    return float(results["best_mAP50_95"])


def infer_once(job: Job, model: Any, watch: Watch) -> float | None:
    """Run the folded backbone over all images once, in inference mode: below this no training of heads can be."""
    import torch

    trunk = model.eval().fuse().to(job.device, memory_format=torch.channels_last)
    with torch.inference_mode(), torch.autocast(job.device, torch.bfloat16, enabled=job.precision == "bf16"):
        for split in ("train", "val"):
            for inputs, _ in _batches(job, model, split):
                trunk.trunk(inputs.contiguous(memory_format=torch.channels_last))
                watch.step()
    if job.device == "cuda":
        torch.cuda.synchronize()
    return None


CONTENDERS: dict[str, tuple[Callable[[Job], Any], Callable[[Job, Any, Watch], float | None]]] = {
    "by hand": (build_model, by_hand),
    "libreyolo": (build_libreyolo, by_libreyolo),
    "zoo": (build_model, by_zoo),
    "floor": (build_model, infer_once),
}


def _batches(job: Job, model: Any, split: str, *, shuffle: bool = False) -> Iterator[tuple[Any, Any]]:
    """Yield inputs and targets of a split on the job's device, as this library reads them."""
    from accelerate.utils import send_to_device

    import zoo
    from zoo.data.letterbox import Letterbox, normalize_canvas
    from zoo.tasks.detection.batches import make_box_loader

    letterbox = Letterbox().resized(job.size, step=32)
    images = getattr(zoo.open_data(f"{job.data}/voc", task="detection"), split)
    for canvases, targets in make_box_loader(
        images, letterbox, batch_size=job.batch, shuffle=shuffle, num_workers=job.workers
    ):
        canvases, targets = send_to_device((canvases, targets), job.device)
        yield normalize_canvas(canvases, letterbox), targets


def _backbone_tensors(model: Any) -> dict[str, Any]:
    """Return copies of all tensors of backbone and neck."""
    network = getattr(model, "model", model)
    return {
        name: value.detach().cpu().clone()
        for name, value in network.state_dict().items()
        if name.startswith(TRUNK) and value.is_floating_point()
    }
