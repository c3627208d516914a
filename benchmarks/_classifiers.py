"""The contenders that train a classifier on an image folder: a loop by hand, other libraries, and this one.

All of them start from the same weights, read the same files, resize and crop them alike without random changes, take
the same steps (SGD with momentum, one rate, no decay) and score the validation images after each epoch.
"""

import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from _image_job import CROP_SHARE, MEAN, MOMENTUM, STD, BatchInMemory, Job, find_head, freeze, open_folder
from _measure import Result, Watch
from _peers import by_fastai, by_lightning, by_transformers

CALIBRATION_IMAGES = 256
READ_AHEAD = 2  # batches


def train(contender: str, *, job: dict[str, Any], first: str | None = None) -> Result:
    """Train once, and return seconds and top-1; imports, and making the model, are not counted.

    Args:
        contender: A key of `CONTENDERS`.
        job: Of `Job`.
        first: A small folder that is trained on before, for an epoch, so that imports and first uses are over.
    """
    build, run = CONTENDERS[contender]
    first_use = Watch()
    if first:
        small = Job(**job | {"data": first, "epochs": 1})
        run(small, build(small), Watch())
    before, wanted = first_use.seconds, Job(**job)
    model = build(wanted)
    watch = Watch()
    top1 = run(wanted, model, watch)
    return {
        "seconds": watch.seconds,
        "first_use_seconds": before,
        "top1": top1,
        **watch.to_dict(),
    }


def write_start(*, model: str, data: str, size: int, out: str, weights: str | None = None) -> Result:
    """Write the weights that all contenders start from.

    Without a file they are random; the statistics of the norms are then those of some training images, because a
    network with the statistics 0 and 1 of an untrained one gives no usable features in eval mode.

    Args:
        model: A name of timm.
        data: Folder of the images.
        size: Side of the input, in pixels.
        out: The file to write.
        weights: A safetensors file with timm's names to start from; its classifier is left out.
    """
    import timm
    import torch
    from safetensors.torch import load_file, save_file

    torch.manual_seed(0)
    network = timm.create_model(model, num_classes=len(list((Path(data) / "train").iterdir())))
    if weights:
        head = find_head(network)
        kept = {name: value for name, value in load_file(weights).items() if not name.startswith(f"{head}.")}
        network.load_state_dict(kept, strict=False)
    else:
        norms = [module for module in network.modules() if hasattr(module, "running_mean")]
        for norm in norms:
            norm.momentum = None  # the mean over all batches
        images = open_folder(data, "train", size)
        images = torch.utils.data.Subset(images, range(0, len(images), max(1, len(images) // CALIBRATION_IMAGES)))
        network.train()
        with torch.no_grad():
            for pictures, _ in torch.utils.data.DataLoader(images, batch_size=32):
                network(pictures)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, out)
    return {}


def build_network(job: Job) -> Any:
    """Return timm's network with the weights that all start from."""
    import timm
    from safetensors.torch import load_file

    weights = load_file(job.weights)
    network = timm.create_model(job.model, num_classes=10)
    network.load_state_dict(weights)
    return network


def build_model(job: Job) -> Any:
    """Return this library's model with the same weights."""
    from safetensors.torch import load_file

    import zoo
    from zoo.data.transforms import Preprocess

    model = zoo.get(job.model, num_classes=10)
    model.load_state_dict(load_file(job.weights))
    model.preprocess = Preprocess(image_size=job.size, crop_pct=CROP_SHARE, mean=MEAN, std=STD)
    return model


def by_hand(job: Job, network: Any, watch: Watch) -> float:
    """Train as most tutorials do."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader

    layout = {"memory_format": torch.channels_last} if job.channels_last else {}
    network.to(job.device, **layout)
    learning = freeze(job, network)
    options = {"batch_size": job.batch, "num_workers": job.workers, "pin_memory": job.device == "cuda"}
    if job.memory_steps:
        train_loader, val_loader = BatchInMemory(job, job.memory_steps), BatchInMemory(job, 1)
    else:
        train_loader = DataLoader(open_folder(job.data, "train", job.size), shuffle=True, **options)
        val_loader = DataLoader(open_folder(job.data, "val", job.size), **options)
    optimizer = torch.optim.SGD(learning, lr=job.lr, momentum=MOMENTUM)
    for _ in range(job.epochs):
        network.train()
        for images, targets in train_loader:
            images, targets = (
                images.to(job.device, non_blocking=True, **layout),
                targets.to(job.device, non_blocking=True),
            )
            with torch.autocast(job.device, torch.bfloat16, enabled=job.precision == "bf16"):
                loss = nn.functional.cross_entropy(network(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step()
        network.eval()
        right = seen = 0
        with torch.no_grad(), torch.autocast(job.device, torch.bfloat16, enabled=job.precision == "bf16"):
            for images, targets in val_loader:
                outputs = network(images.to(job.device, **layout))
                right += int((outputs.argmax(1) == targets.to(job.device)).sum())
                seen += len(targets)
        watch.epoch(right / seen)
    return right / seen


def by_zoo(job: Job, model: Any, watch: Watch) -> float:
    """Train with `zoo.finetune`, everything on: checks, plan, proof, checkpoints, images."""
    import zoo

    class Ticks(zoo.Callback):
        def on_step_end(self, run: Any) -> None:
            watch.step()

        def on_epoch_end(self, run: Any) -> None:
            watch.epoch(run.metrics[-1].get("top1"))

    steps = {"schedule": "constant", "warmup_steps": 0, "weight_decay": 0.0, "optimizer_params": {"momentum": MOMENTUM}}
    with tempfile.TemporaryDirectory() as out:
        run = zoo.finetune(
            model,
            (BatchInMemory(job, job.memory_steps), BatchInMemory(job, 1)) if job.memory_steps else job.data,
            lr=job.lr,
            optimizer="SGD",
            epochs=job.epochs,
            batch_size=job.batch,
            augment="none",
            device=job.device,
            precision=job.precision,
            progress=False,
            callbacks=Ticks(),
            out=Path(out) / "run",
            **{"mode": "head" if job.frozen else "full", **steps, **job.fields},
        )
    return float(run.metrics[-1]["top1"])


def infer_once(job: Job, network: Any, watch: Watch) -> float | None:
    """Run a network with folded norms over all images once, in inference mode: below this no training can be."""
    import torch

    from zoo.engine.frozen.folding import fold_norms

    network = network.eval().to(job.device, memory_format=torch.channels_last)
    fold_norms(network)
    with torch.inference_mode(), torch.autocast(job.device, torch.bfloat16, enabled=job.precision == "bf16"):
        for split in ("train", "val"):
            for images in _read_ahead(open_folder(job.data, split, job.size), job.batch):
                network(images.to(job.device, memory_format=torch.channels_last))
                watch.step()
    return None


def _read_ahead(folder: Any, batch: int) -> Iterator[Any]:
    """Yield batches of images that as many threads as torch has decode while one is worked on."""
    import torch

    places = [range(start, min(start + batch, len(folder))) for start in range(0, len(folder), batch)]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        coming: deque[list[Future[Any]]] = deque()
        for indices in [*places, *[range(0)] * READ_AHEAD]:
            coming.append([pool.submit(folder.__getitem__, index) for index in indices])
            if len(coming) > READ_AHEAD:
                yield torch.stack([future.result()[0] for future in coming.popleft()])


CONTENDERS: dict[str, tuple[Callable[[Job], Any], Callable[[Job, Any, Watch], float | None]]] = {
    "by hand": (build_network, by_hand),
    "fastai": (build_network, by_fastai),
    "lightning": (build_network, by_lightning),
    "transformers": (build_network, by_transformers),
    "zoo": (build_model, by_zoo),
    "floor": (build_network, infer_once),
}
