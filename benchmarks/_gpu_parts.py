"""The checks of a machine: what `gpu.py` runs, each in a process of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import _classifiers
import _detectors
from _gpu_data import CLASSES, KINDS, QUICK, SCALES, Scale, write_boxed_folder
from _image_job import Job
from _images import write_folder
from _measure import Result, Watch

ROOT = Path(__file__).parents[1]
DETECTOR = "yolo_nas_s"
LEAST_RATIO = 0.8  # of the images per second of the loop by hand, on a GPU; on a busy CPU no ratio means much
YOLO_NAS_WAITS = 8  # per step: boxes checked and settled by their values; see tests/system/test_synchronisations.py
STEPS_UNHEARD, STEPS_LISTENED = 4, 12  # steps before the count begins; steps of the epoch
MODES = ("head", "low_lr", "full")
NEEDS_CUDA = {"skipped": "needs CUDA"}
PLAIN: dict[str, Any] = {
    "augment": "none", "progress": False, "schedule": "constant", "warmup_steps": 0, "cache": "off",
}  # fmt: skip
ENDS = re.compile(r"(\d+) (passed|failed|error|errors|skipped|deselected)")


class Timer(Watch):
    """Reads the clock at the end of the last step that does not count and of the last one, when the device is done."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self.scale, self.count, self.marks = scale, 0, [0.0, 0.0]

    def step(self, *_: Any) -> None:
        """Note that a step is over."""
        self.count += 1
        if self.count in (self.scale.skip, self.scale.steps):
            synchronize(self.scale)
            self.marks[self.count == self.scale.steps] = time.perf_counter()

    def images_per_second(self, batch: int) -> float:
        """Return the speed between both."""
        return (self.scale.steps - self.scale.skip) * batch / (self.marks[1] - self.marks[0])


def measure_speed(*, scale: str, task: str, mode: str) -> Result:
    """Measure training steps of this library and of a loop by hand, in turns, and the memory that they take."""
    import torch

    from zoo.engine.memory import peak_memory, release_memory

    work = SCALES[scale]
    speeds: dict[str, list[float]] = {"zoo": [], "by hand": []}
    memory = dict.fromkeys(speeds, 0)
    with tempfile.TemporaryDirectory() as folder:
        job, contenders = _prepare(work, task, mode, Path(folder))
        for number in range(work.rounds):
            for name in list(speeds)[:: 1 if number % 2 == 0 else -1]:
                build, run = contenders[name]
                timer, model = Timer(work), build(job)
                with peak_memory(torch.device(work.device)) as peak:
                    run(job, model, timer)
                speeds[name].append(timer.images_per_second(job.batch))
                memory[name] = max(memory[name], peak.bytes)
                del model
                release_memory(torch.device(work.device))
    found = {name: median(values) for name, values in speeds.items()}
    ratio = median(ours / theirs for ours, theirs in zip(speeds["zoo"], speeds["by hand"], strict=True))
    return {
        "passed": ratio >= LEAST_RATIO or work.device == "cpu",
        "text": f"{job.model}, {job.size} px, batches of {job.batch}, {_numbers(work)}",
        "images_per_second": found["zoo"],
        "by_hand_images_per_second": found["by hand"],
        "ratio": ratio,
        "memory_mb": memory["zoo"] / 1e6,
        "by_hand_memory_mb": memory["by hand"] / 1e6,
        "runs": speeds,
    }


def measure_compiled(*, scale: str) -> Result:
    """Measure compiled training steps of a classifier beside those that are not."""
    work = SCALES[scale] if SCALES[scale].device == "cuda" else QUICK  # compiling a large network takes a CPU minutes
    job, speeds = _image_job(work, "full"), {}
    for compiles in (False, True):
        fields = job.fields | {"compile": compiles}
        timer, wanted = Timer(work), Job(**vars(job) | {"fields": fields})
        _classifiers.by_zoo(wanted, _build_zoo(wanted), timer)
        speeds[compiles] = timer.images_per_second(job.batch)
    return {
        "passed": True,
        "text": f"{job.model}: {speeds[True] / speeds[False]:.2f} times the speed of uncompiled steps",
        "images_per_second": speeds[True],
        "uncompiled_images_per_second": speeds[False],
    }


def check_kept(*, scale: str) -> Result:
    """Train heads of a detector with features computed in each epoch, and with kept ones."""
    with _boxes(SCALES[scale], train=2 * SCALES[scale].detector_batch) as (data, place):
        train, epochs = _trainer(SCALES[scale], data), 4
        seconds, weights = {}, {}
        for cache in ("off", "memory"):
            ticks = _ticks()
            run = train(place / cache, "head", epochs=epochs, cache=cache, callbacks=ticks, cache_dtype="float32")
            seconds[cache] = median(after - before for before, after in pairwise(ticks.ends))
            weights[cache] = run.model.state_dict()
        kept = json.loads((run.folder / "features.json").read_text())
    apart, on_gpu = distance(weights["off"], weights["memory"]), kept["features_on"].startswith("cuda")
    text = (
        f"an epoch in {seconds['memory']:.2f} s instead of {seconds['off']:.2f} s, features "
        f"{'on the GPU' if on_gpu else 'in memory'}; weights {apart:.1e} apart"
    )
    passed = apart < 2e-2 and (on_gpu or SCALES[scale].device == "cpu")
    return {"passed": passed, "text": text, "apart": apart, "epoch_seconds": seconds, "on_gpu": on_gpu}


def check_chunks(*, scale: str) -> Result:
    """Train a classifier with `micro_batch_size="auto"`."""
    import torch
    import yaml

    from zoo.engine.memory import peak_memory

    batch = SCALES[scale].batch
    with _images(SCALES[scale], train=2 * batch) as (data, place):
        train = _trainer(SCALES[scale], data)
        with peak_memory(torch.device(SCALES[scale].device)) as peak:
            run = train(place / "run", "full", epochs=1, micro_batch_size="auto")
        chosen = yaml.safe_load((run.folder / "preset.yaml").read_text())["micro_batch_size"] or batch
    text = f"{chosen} of {batch} images at a time"
    return {"passed": 1 <= chosen <= batch, "text": text, "memory_mb": peak.bytes / 1e6}


def check_repeat(*, scale: str) -> Result:
    """Train twice alike, and once more with an interrupt in the second epoch and a resume."""
    import zoo
    from zoo.errors import Interrupted

    class Stop(zoo.Callback):
        def on_step_end(self, run: Any) -> None:
            if run.step == stop_at:
                os.kill(os.getpid(), signal.SIGINT)

    work = SCALES[scale]
    with _images(work, train=3 * work.batch) as (data, place):
        train, stop_at = _trainer(work, data), 4  # of three steps in an epoch
        runs = [train(place / name, "full", epochs=2) for name in ("first", "second")]
        try:
            train(place / "stopped", "full", epochs=2, callbacks=Stop())
        except Interrupted:
            runs.append(zoo.resume(place / "stopped", data, progress=False))
        else:
            return {"passed": False, "text": "an interrupt did not stop the run"}
    first, second, resumed = (run.model.state_dict() for run in runs)
    repeated, apart = distance(first, second), distance(first, resumed)
    exact = work.device == "cpu"
    return {
        "passed": (repeated == apart == 0.0) if exact else apart <= 10 * repeated + 1e-4,
        "text": f"two runs alike: {_tell_distance(repeated)}; interrupted and resumed: {_tell_distance(apart)}",
        "repeated": repeated,
        "resumed": apart,
    }


def count_waits(*, scale: str, task: str) -> Result:
    """Count how often a training step, after the first ones, makes the processor wait for the GPU."""
    work = SCALES[scale]
    if work.device != "cuda":
        return dict(NEEDS_CUDA)
    is_classifier, listeners = task == "classifier", {}
    batch = work.batch if is_classifier else work.detector_batch
    with (_images if is_classifier else _boxes)(work, train=STEPS_LISTENED * batch) as (data, place):
        for mode in MODES:
            listeners[mode] = _waits()
            _trainer(work, data)(place / mode, mode, epochs=1, callbacks=listeners[mode])
    found = {mode: listener.summary() for mode, listener in listeners.items()}
    allowed = 0 if is_classifier else YOLO_NAS_WAITS
    waits = ", ".join(f"{mode} {one['waits']:.1f}" for mode, one in found.items())
    passed = all(one["waits"] <= allowed and one["fetched"] <= one["may_fetch"] for one in found.values())
    return {"passed": passed, "text": f"waits in a step, {allowed} expected: {waits}", "modes": found}


def run_tests(*, scale: str) -> Result:
    """Run the tests that need a GPU."""
    files = [str(path) for path in sorted((ROOT / "tests").glob("test_*.py")) if "mark.gpu" in path.read_text("utf8")]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "--tb=short"]
    command += ["-W", "default", *files]  # a warning of a library there is no failure
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    *_, last = (done.stdout.strip() or done.stderr.strip() or "no output").splitlines()
    counts = {word: int(number) for number, word in ENDS.findall(last)}
    if SCALES[scale].device != "cuda" and set(counts) <= {"skipped", "deselected"} and done.returncode == 0:
        return NEEDS_CUDA | {"counts": counts}
    text = ", ".join(f"{number} {word}" for word, number in counts.items()) or last
    passed = done.returncode == 0 and counts.get("passed", 0) > 0 and "skipped" not in counts
    return {"passed": passed, "text": text, "log": "" if passed else done.stdout[-4000:]}


def measure_device(*, scale: str) -> Result:
    """Measure a large matrix product and a large copy."""
    from _ceilings import measure_ceilings

    found = measure_ceilings(device=SCALES[scale].device, precision=SCALES[scale].precision)
    speeds = f"{found['matmul_flops'] / 1e12:,.2f} TFLOP/s, {found['copy_bytes'] / 1e9:,.0f} GB/s"
    return found | {"passed": True, "text": speeds}


PARTS: dict[str, Callable[..., Result]] = {
    "device": measure_device,
    "tests": run_tests,
    "speed": measure_speed,
    "compiled": measure_compiled,
    "kept": check_kept,
    "micro-batches": check_chunks,
    "repeat": check_repeat,
    "waits": count_waits,
}


def synchronize(scale: Scale) -> None:
    """Wait until the device has done what it was given."""
    import torch

    if scale.device == "cuda":
        torch.cuda.synchronize()


def distance(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Return the largest difference between two states of a model; 0.0 if they are equal to the bit."""
    return max(float((value.double().cpu() - other[name].double().cpu()).abs().max()) for name, value in one.items())


def _tell_distance(value: float) -> str:
    return "equal to the bit" if value == 0.0 else f"{value:.1e} apart"


def _numbers(scale: Scale) -> str:
    return "bf16" if scale.precision == "bf16" else "float32"


def _image_job(work: Scale, mode: str) -> Job:
    return Job(
        model=work.classifier, weights="", data="", size=work.classifier_size, epochs=1, batch=work.batch,
        frozen=mode == "head", lr=1e-3, device=work.device, precision=work.precision, channels_last=True,
        memory_steps=work.steps, fields={"mode": mode},
    )  # fmt: skip


def _prepare(work: Scale, task: str, mode: str, folder: Path) -> tuple[Any, dict[str, tuple[Any, Any]]]:
    """Return the job, and what makes the model of each contender and trains it."""
    if task == "classifier":
        job = _image_job(work, mode)
        return job, {"zoo": (_build_zoo, _classifiers.by_zoo), "by hand": (_build_timm, _classifiers.by_hand)}
    steps, batch, size = work.steps, work.detector_batch, work.detector_size
    write_boxed_folder(folder / "voc", train=steps * batch, val=batch, size=size)
    boxes = _detectors.Job(
        model=DETECTOR, weights="", data=str(folder), classes=len(KINDS), size=size, epochs=1, batch=batch,
        workers=_workers(work), frozen=mode == "head", lr=1e-4, evaluate_every=0, device=work.device,
        precision=work.precision, channels_last=True, fields={"mode": mode, "cache": "off"},
    )  # fmt: skip
    return boxes, {"zoo": (_build_detector, _detectors.by_zoo), "by hand": (_build_detector, _detectors.by_hand)}


def _workers(work: Scale) -> int:
    """Return as many processes that load as this library takes by itself."""
    from zoo.data.loader import default_workers

    return default_workers(work.steps * work.detector_batch, accelerator=work.device == "cuda")


def _build_zoo(job: Job) -> Any:
    import zoo

    return zoo.get(job.model, num_classes=min(job.batch, CLASSES))  # a loader has as many as its images have


def _build_timm(job: Job) -> Any:
    import timm

    return timm.create_model(job.model.removeprefix("timm/"), num_classes=min(job.batch, CLASSES))


def _build_detector(job: _detectors.Job) -> Any:
    import zoo

    return zoo.get(DETECTOR, num_classes=len(KINDS))


def _trainer(work: Scale, data: Path) -> Callable[..., Any]:
    """Return what trains a model of the same random weights on a folder of images, or of images with boxes."""
    import zoo

    boxed = (data / "Annotations").is_dir()
    batch, size = (work.detector_batch, work.detector_size) if boxed else (work.batch, work.classifier_size)
    fixed = {"batch_size": batch, "image_size": size, "device": work.device, "precision": work.precision}

    def train(out: Path, mode: str, **options: Any) -> Any:
        name, classes = (DETECTOR, len(KINDS)) if boxed else (work.classifier, CLASSES)
        model = zoo.get(name, num_classes=classes, seed=0)
        return zoo.finetune(model, data, 1e-3, mode=mode, out=out, **PLAIN | fixed | options)

    return train


@contextmanager
def _images(work: Scale, *, train: int) -> Iterator[tuple[Path, Path]]:
    """Make a folder of images; yield it and a place for runs."""
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder) / "data", train=max(train, CLASSES), val=CLASSES, processes=os.cpu_count() or 1)
        yield Path(folder) / "data", Path(folder)


@contextmanager
def _boxes(work: Scale, *, train: int) -> Iterator[tuple[Path, Path]]:
    """Make a folder of images with boxes; yield it and a place for runs."""
    with tempfile.TemporaryDirectory() as folder:
        write_boxed_folder(Path(folder) / "data", train=train, val=work.detector_batch, size=work.detector_size)
        yield Path(folder) / "data", Path(folder)


def _ticks() -> Any:
    """Return a callback that notes when each epoch, with its validation, was over."""
    import zoo

    class Ticks(zoo.Callback):
        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_epoch_end(self, run: Any) -> None:
            self.ends.append(time.perf_counter())

    return Ticks()


def _waits() -> Any:
    """Return a callback that collects where a run waits for the GPU, without its first steps and its last."""
    import torch

    import zoo
    from zoo.training.step import REPORT_SECONDS

    class Waits(zoo.Callback):
        def __init__(self) -> None:
            self.found: list[warnings.WarningMessage] = []
            self.listening, self.seconds = ExitStack(), 0.0

        def on_step_end(self, run: Any) -> None:
            if run.step == STEPS_UNHEARD:
                self.found = self.listening.enter_context(warnings.catch_warnings(record=True, action="always"))
                torch.cuda.set_sync_debug_mode("warn")
                self.seconds = -time.perf_counter()
            elif run.step == STEPS_LISTENED - 1:  # the last step of an epoch fetches the loss
                self.seconds += time.perf_counter()
                torch.cuda.set_sync_debug_mode("default")
                self.listening.close()

        def summary(self) -> Result:
            """Return waits in a step, without the loss that is fetched now and then; how often that was, and might."""
            real = [one for one in self.found if "synchronizing CUDA operation" in str(one.message)]
            places = Counter(f"{Path(one.filename).name}:{one.lineno}" for one in real)
            fetched = sum(count for place, count in places.items() if place.startswith("loop.py:"))
            waits = (len(real) - fetched) / (STEPS_LISTENED - 1 - STEPS_UNHEARD)
            may_fetch = 1 + self.seconds / REPORT_SECONDS
            return {"waits": waits, "fetched": fetched, "may_fetch": may_fetch, "places": dict(places)}

    return Waits()
