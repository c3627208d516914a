"""How fast a model answers: torch, and the runtimes of exported files, in turns on the same images."""

import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from PIL import Image

from zoo.errors import InputError
from zoo.exporters._facts import CONFIG
from zoo.exporters._graph import ExportGraph
from zoo.exporters._open import is_exported
from zoo.exporters._parity import prepare, sample_images
from zoo.exporters._predict import SUFFIXES, Predictor, find_images
from zoo.files import read_object, to_path
from zoo.models import describe_model
from zoo.progress import Progress

BATCHES = (1, 8)
ROUNDS = 8
TURN_SECONDS = 0.25  # of measured calls; at least one
PACKAGES = ("torch", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Contender:
    """A model in one runtime.

    Attributes:
        name: In the table.
        read: From the path of an image to the `(H, W, 3)` uint8 pixels that it takes.
        run: From `(N, H, W, 3)` pixels to answers.
    """

    name: str
    read: Callable[[Path], Any]
    run: Callable[[Any], Any]


@dataclass
class Timing:
    """What was measured of one contender.

    Attributes:
        name: Of the contender.
        batch: Images in a call.
        reads: Whether a call reads and resizes the files, too.
        seconds: Of each call.
    """

    name: str
    batch: int
    reads: bool
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Milliseconds of a call."""
        return 1000 * statistics.median(self.seconds)

    def to_dict(self, baseline: "Timing") -> dict[str, Any]:
        """Return plain values; `ratio` is how many times as many images per second as the baseline."""
        return {
            "runtime": self.name,
            "batch": self.batch,
            "reads_files": self.reads,
            "calls": len(self.seconds),
            "median_ms": self.median,
            "p95_ms": 1000 * float(np.percentile(self.seconds, 95)),
            "images_per_second": 1000 * self.batch / self.median,
            "ratio": baseline.median / self.median,
        }


@dataclass(frozen=True)
class Benchmark:
    """What a comparison has measured.

    Attributes:
        rows: As `Timing.to_dict` has them.
        setting: Processor, threads, rounds, versions, images.
    """

    rows: Sequence[Mapping[str, Any]]
    setting: Mapping[str, Any]

    def table(self) -> list[dict[str, str]]:
        """Return what a table shows."""
        return [
            {
                "runtime": row["runtime"],
                "batch": str(row["batch"]),
                "reading": "yes" if row["reads_files"] else "no",
                "ms": f"{row['median_ms']:.1f}",
                "p95 ms": f"{row['p95_ms']:.1f}",
                "img/s": f"{row['images_per_second']:.1f}",
                f"x {self.rows[0]['runtime']}": f"{row['ratio']:.2f}",
            }
            for row in self.rows
        ]

    def caption(self) -> str:
        """Return on what it was measured, as a line."""
        told = self.setting
        versions = ", ".join(f"{name} {number}" for name, number in told["versions"].items())
        return (
            f"{told['processor']}, threads of each: {told['threads']}; turns of each: {told['rounds']}, on "
            f"{told['images']}; {versions}"
        )


def benchmark(
    models: Sequence[Any],
    *,
    images: Any = None,
    batches: Sequence[int] = BATCHES,
    rounds: int = ROUNDS,
    threads: int | None = None,
    compiled: bool = True,
    progress: bool = True,
) -> Benchmark:
    """Measure how fast models answer on the CPU, from pixels or from files to what `predict` needs.

    All take turns, round by round, so that a processor that slows down slows down all of them.

    Args:
        models: Models of `zoo.get` or `zoo.load`, which torch runs, and paths of exported files or their folders.
        images: A file or folder to read; None: photos and noise.
        batches: Images in a call.
        rounds: Turns of each.
        threads: Of each runtime; None: as many as torch takes.
        compiled: Whether to compile the models of torch, too, if there is a compiler.
        progress: Whether to show what happens.

    Raises:
        InputError: There is nothing to measure or to read, a number is not 1 or more, or a runtime is missing.
    """
    counts = {"batches": batches, "rounds": [rounds], "threads": [1 if threads is None else threads]}
    for name, numbers in counts.items():
        if not numbers or any(type(number) is not int or number < 1 for number in numbers):
            given = ", ".join(map(str, numbers)) or "none"
            raise InputError(f"{name}: {given}; expected whole numbers, 1 or more.")
    before, count = torch.get_num_threads(), threads or torch.get_num_threads()
    try:
        torch.set_num_threads(count)
        with Progress(enabled=progress) as show, _image_files(images) as (files, described):
            contenders = list(_open(models, count))
            if compiled:
                contenders = list(_with_compiled(contenders, batches, files[0], show))
            timings = _measure(contenders, files, batches, rounds, show)
    finally:
        torch.set_num_threads(before)
    baselines = {(timing.batch, timing.reads): timing for timing in reversed(timings)}
    rows = [timing.to_dict(baselines[timing.batch, timing.reads]) for timing in timings]
    facts = {"processor": _name_processor(), "threads": count, "rounds": rounds, "images": described}
    return Benchmark(rows, facts | {"versions": _versions()})


def _open(models: Sequence[Any], threads: int) -> Iterator[Contender]:
    if not models:
        raise InputError("there is nothing to measure. Name a model, a run or an exported file.")
    for model in models:
        if isinstance(model, (str, os.PathLike)):
            yield from _open_exported(to_path(model), threads)
        else:
            yield _open_model(model)


def _open_model(model: Any) -> Contender:
    graph = ExportGraph(model.eval()).cpu().float().eval()
    name = describe_model(model).model or type(model).__name__
    return Contender(f"torch eager, {name}", lambda path: prepare(path, graph.how), _Runner(graph))


class _Runner:
    """Runs a graph without gradients.

    Args:
        graph: Takes pixels.
    """

    def __init__(self, graph: Any) -> None:
        self.graph = graph

    @torch.inference_mode()
    def __call__(self, pixels: Any) -> Any:
        return self.graph(torch.from_numpy(pixels))


def _open_exported(path: Path, threads: int) -> Iterator[Contender]:
    """Yield the files of a folder, or the one that is named."""
    folder = path if path.is_dir() else path.parent
    if not is_exported(folder):
        raise InputError(f"{path} is not a file or folder of zoo export.")
    files = read_object(folder / CONFIG)["export"]["files"]
    chosen = {form: name for form, name in files.items() if path.is_dir() or name == path.name}
    if not chosen:
        raise InputError(f"{path.name} is not a model of {folder}; expected {' or '.join(files.values())}.")
    for form, name in chosen.items():
        try:
            predictor = Predictor(folder, form, threads)
        except (ImportError, OSError, ValueError, RuntimeError) as error:
            raise InputError(f"{folder / name} cannot be opened: {error}") from error
        yield Contender(f"{folder.name}/{name}", partial(_prepare, predictor), predictor.run)


def _prepare(predictor: Predictor, file: Path) -> Any:
    return predictor.prepare(file)[0]


def _with_compiled(
    contenders: Sequence[Contender], batches: Sequence[int], file: Path, show: Progress
) -> Iterator[Contender]:
    """Yield each contender, and behind a model of torch its compiled form if it can be compiled here."""
    for contender in contenders:
        yield contender
        if not isinstance(contender.run, _Runner):
            continue
        name = contender.name.replace("eager", "compiled")
        show.log(f"compiling {name.partition(', ')[2]}")
        run = _Runner(torch.compile(contender.run.graph, dynamic=False))
        try:
            for batch in batches:
                run(_stack(contender, [file] * batch))
        except Exception as error:  # whatever a compiler says
            reason = str(error).strip().partition("\n")[0]
            show.log(f"note: without torch compiled: {reason} (torch.compile needs a C++ compiler)")
            continue
        yield Contender(name, contender.read, run)


def _measure(
    contenders: Sequence[Contender], files: Sequence[Path], batches: Sequence[int], rounds: int, show: Progress
) -> list[Timing]:
    timings, calls = [], []
    for batch in batches:
        chosen = [files[number % len(files)] for number in range(batch)]
        for reads in (False, True):
            for contender in contenders:
                timings.append(Timing(contender.name, batch, reads))
                calls.append(_make_call(contender, chosen, reads))
    for number in range(rounds):
        show.log(f"round {number + 1} of {rounds}")
        for timing, call in zip(timings, calls, strict=True):
            call()  # brings its weights and threads back
            began = now = perf_counter()
            while now - began < TURN_SECONDS:
                before = now
                call()
                now = perf_counter()
                timing.seconds.append(now - before)
    return timings


def _make_call(contender: Contender, files: Sequence[Path], reads: bool) -> Callable[[], Any]:
    if reads:
        return lambda: contender.run(_stack(contender, files))
    pixels = _stack(contender, files)
    return lambda: contender.run(pixels)


def _stack(contender: Contender, files: Sequence[Path]) -> Any:
    return np.stack([contender.read(file) for file in files])


@contextmanager
def _image_files(images: Any) -> Iterator[tuple[list[Path], str]]:
    """Yield the files to read, and what they are."""
    if images is not None:
        place = to_path(images)
        files = [path for path in find_images([place]) if path.is_file() and path.suffix.lower() in SUFFIXES][:64]
        if not files:
            raise InputError(f"there are no images in {place}. Expected an image file, or a folder with some.")
        yield files, f"{len(files)} images of {place.name}"
        return
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, example in enumerate(sample_images()):
            files.append(Path(folder) / f"{number}.jpg")
            Image.fromarray(example.source).save(files[-1], quality=90)
        yield files, f"{len(files)} JPEG files (photos and noise)"


def _name_processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
