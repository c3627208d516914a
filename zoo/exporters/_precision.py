"""Smaller variants of an exported file, half precision and 8-bit integers, kept only if the metric holds."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from zoo.errors import InputError, did_you_mean
from zoo.exporters._job import Found, Job
from zoo.exporters._parity import Example, compare, take
from zoo.exporters._predict import Predictor
from zoo.progress import Progress
from zoo.tasks import Parity

PRECISIONS = ("fp32", "fp16", "int8")
CALIBRATION = 300  # images
ROUNDS = 20  # of the measurement of latency


@dataclass(frozen=True)
class Wanted:
    """Which precisions are wanted, the largest first, and how many points of the metric they may lose."""

    precisions: tuple[str, ...]
    max_drop: float

    @property
    def smaller(self) -> tuple[str, ...]:
        """Those that are smaller than fp32."""
        return tuple(name for name in self.precisions if name != "fp32")

    def variants(self, form: str) -> list[tuple[str, str]]:
        """Return names, such as `onnx-int8`, and precisions of the smaller files of a format."""
        return [(f"{form}-{precision}", precision) for precision in self.smaller]

    def files(self, largest: Mapping[str, str]) -> dict[str, str]:
        """Return the file of each variant, such as `model.int8.onnx`, from the float32 file of each format."""
        files = dict(largest) if "fp32" in self.precisions else {}
        for precision in self.smaller:
            for form, (stem, _, suffix) in ((form, file.rpartition(".")) for form, file in largest.items()):
                files[f"{form}-{precision}"] = f"{stem}.{precision}.{suffix}"
        return files

    def check_images(self, examples: Sequence[Example], training: Any) -> None:
        """Refuse what cannot be scored or calibrated.

        Raises:
            InputError: There are no labels, or no training images.
        """
        if self.smaller and all(example.target is None for example in examples):
            raise InputError(
                f"{self.smaller[-1]} files are kept for their score on labelled images, and there are none. Pass data= "
                "(--data), or export in fp32."
            )
        if "int8" in self.smaller and not (training is not None and len(training)):
            raise InputError(
                "int8 is calibrated on training images, and there are none. Expected a run whose data is there, or "
                "data= (--data) with a split train."
            )


@dataclass(frozen=True)
class Measure:
    """Size and speed of a file.

    Attributes:
        size_mb: In millions of bytes.
        latency_ms: Median for one image, from pixels to answer, on one thread.
        found: How a smaller file was made; None: it is fp32.
    """

    size_mb: float
    latency_ms: float
    found: Found | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        made = self.found.to_dict() if self.found else {"precision": "fp32"}
        return {"size_mb": round(self.size_mb, 3), "latency_ms": round(self.latency_ms, 3)} | made


def check_precision(precision: str | Sequence[str], max_drop: float, formats: Iterable[str]) -> Wanted:
    """Return which precisions are wanted.

    Raises:
        InputError: One is unknown, a format does not have it, or a package is missing.
    """
    names = [precision] if isinstance(precision, str) else list(precision)
    for name in names or [""]:
        if name not in PRECISIONS:
            expected = " or ".join(PRECISIONS)
            raise InputError(
                f"unknown precision {name!r}; expected {expected}.{did_you_mean(str(name), list(PRECISIONS))}"
            )
    if type(max_drop) not in (int, float) or not 0 <= max_drop <= 100:
        raise InputError(f"max_drop is {max_drop!r}; expected points of the metric, 0 to 100, such as 0.5.")
    wanted = Wanted(tuple(name for name in PRECISIONS if name in names), float(max_drop))
    for form in formats if wanted.smaller else ():
        if find_spec(_module_name(form)) is None:
            raise InputError(f"format {form} has fp32 only; leave out {' and '.join(wanted.smaller)}.")
        needed = {package for name in wanted.smaller for package in import_module(_module_name(form)).MODULES[name]}
        if missing := [package for package in sorted(needed) if find_spec(package) is None]:
            extra = import_module(f"zoo.exporters.{form}").EXTRA
            raise InputError(
                f"int8 of format {form} needs {', '.join(missing)}. Install: pip install 'zoo-finetune[{extra}]'"
            )
    return wanted


class Smaller:
    """Makes the smaller files of an export.

    Args:
        place: Folder that has the float32 files, and `config.json` with the names of all.
        wanted: Which.
        model: What the files are compared with.
        examples: Labelled images.
        answers: The model's own, image by image.
        training: Images to calibrate on; None where none are needed.
        show: Says what happens.
        keeps_any: Keep files that lose too much.
    """

    def __init__(
        self,
        place: Path,
        wanted: Wanted,
        model: Any,
        examples: Sequence[Example],
        answers: Sequence[Any],
        training: Any,
        show: Progress,
        *,
        keeps_any: bool,
    ) -> None:
        self.place, self.wanted, self.model, self.show = place, wanted, model, show
        self.examples, self.answers, self.keeps_any = examples, answers, keeps_any
        total = 0 if training is None else len(training)
        count = min(total, CALIBRATION)
        self.images = [training.find_source(int(number * total / count)) for number in range(count)]

    def make(self, form: str, precision: str, program: Any) -> tuple[Parity, Found]:
        """Write a file of a format, and return its score and how it was made.

        Args:
            form: `onnx` or `openvino`.
            precision: `fp16` or `int8`.
            program: What the float32 file was made of.

        Raises:
            InputError: It loses too much.
        """
        variant, part = f"{form}-{precision}", import_module(_module_name(form))
        reader = Predictor(self.place, form)
        files = {kind: self.place / reader.export["files"][kind] for kind in (form, variant)}
        self.show.log(f"writing {files[variant].name}")
        job = Job(
            source=files[form],
            target=files[variant],
            program=program,
            images=len(self.images),
            batch=partial(self._batch, reader),
            examples=len(self.examples),
            score=partial(self._score, reader, variant),
            max_drop=self.wanted.max_drop,
            keeps_any=self.keeps_any,
            show=self.show,
        )
        found: Found = part.halve(job) if precision == "fp16" else part.quantise(job)
        self.show.log(f"comparing {len(self.examples)} images with {variant}")
        parity = self._score(reader, variant)
        if not parity.holds and not self.keeps_any:
            raise InputError(_tell_drop(variant, parity, found))
        return parity, found

    def _batch(self, reader: Predictor, number: int) -> Any:
        """Return an image to calibrate on as the file takes it."""
        pixels, _ = reader.prepare(take(self.images[number]))
        return np.ascontiguousarray(reader.inputs(pixels[None]))

    def _score(
        self,
        reader: Predictor,
        variant: str,
        run: Callable[[Any], Any] | None = None,
        places: Sequence[int] | None = None,
    ) -> Parity:
        """Return how far a file is from the model, or what runs in its place."""
        predictor = Predictor(self.place, variant) if run is None else _Running(reader, run)
        places = range(len(self.examples)) if places is None else places
        examples, answers = ([every[place] for place in places] for every in (self.examples, self.answers))
        return replace(compare(self.model, predictor, examples, answers), max_drop=self.wanted.max_drop)


class _Running(Predictor):
    """Reads and prepares as a file's predictor does, and runs something else."""

    def __init__(self, reader: Predictor, run: Callable[[Any], Any]) -> None:
        vars(self).update(vars(reader))  # no file is opened: this is made for every image
        self._run = run


def measure(place: Path, found: Mapping[str, Found | None], image: Any) -> dict[str, Measure]:
    """Return size and speed of the files of a folder, measured in turns.

    Args:
        place: The folder.
        found: How the file of each variant was made.
        image: What is predicted.
    """
    predictors = {name: Predictor(place, name, 1) for name in found}
    times: dict[str, list[float]] = {name: [] for name in found}
    pixels, _ = next(iter(predictors.values())).prepare(take(image))
    for _ in range(ROUNDS):
        for name, predictor in predictors.items():
            began = perf_counter()
            predictor.run(pixels[None])
            times[name].append(1000 * (perf_counter() - began))
    files = {name: place / predictor.export["files"][name] for name, predictor in predictors.items()}
    return {
        name: Measure(_size(files[name]) / 1e6, median(times[name][1:]), how)  # the first warms up
        for name, how in found.items()
    }


def remove_others(place: Path, files: Mapping[str, str]) -> None:
    """Remove the files of the model that are not among those named: float32 ones of which only smaller are wanted."""
    kept = {name for file in files.values() for name in (file, Path(file).with_suffix(".bin").name)}
    for path in place.glob("model.*"):
        if path.name not in kept:
            path.unlink()


def table(parity: Mapping[str, Parity], measures: Mapping[str, Measure]) -> list[dict[str, str]]:
    """Return a row for each variant: size, metric, what is lost, latency."""
    rows = []
    for name, measured in measures.items():
        scored, made = parity[name], measured.found
        row = {"file": name, "MB": f"{measured.size_mb:.1f}", "ms": f"{measured.latency_ms:.1f}"}
        if scored.theirs is not None:
            row |= {scored.metric: f"{scored.theirs:.2%}", "points lost": f"{scored.drop:.2f}"}
        if made is not None and made.layers:
            row["layers in float"] = f"{len(made.left_in_float)} of {made.layers}"
        rows.append(row)
    return rows


def _module_name(form: str) -> str:
    return f"zoo.exporters._{form}_smaller"


def _size(file: Path) -> int:
    """Return the bytes of a file, and of the weights beside it."""
    return sum(path.stat().st_size for path in {file, file.with_suffix(".bin")} if path.exists())


def _tell_drop(variant: str, parity: Parity, found: Found) -> str:
    start = (
        f"{variant} loses {parity.drop:.2f} points of {parity.metric} on {parity.images} images ({parity.ours:.2%} and "
        f"{parity.theirs:.2%})"
    )
    tries = "; ".join(f"{left}: {drop:.2f}" for left, drop in found.curve)
    searched = f", with as many as half of {found.layers} layers left in float32" if found.curve else ""
    curve = f" Points lost by layers left in float32: {tries}." if tries else ""
    return (
        f"{start}{searched}; at most {parity.max_drop:g} may be lost.{curve} Nothing was written. Allow more with "
        "max_drop (--max-drop), or use a larger precision."
    )
