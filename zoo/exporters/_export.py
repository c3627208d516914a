"""Writes a model for other runtimes, and keeps it only if its answers are those of the model."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zoo._model import get_fact
from zoo.errors import InputError, StorageError, ZooError, did_you_mean
from zoo.exporters._find import list_exporters
from zoo.exporters._graph import ExportGraph, trace
from zoo.exporters._job import Found
from zoo.exporters._lineage import trace_lineage
from zoo.exporters._page import write_page
from zoo.exporters._parity import Example, answer, compare, locate, sample_images
from zoo.exporters._precision import Measure, Smaller, check_precision, measure, remove_others, table
from zoo.exporters._predict import Predictor
from zoo.exporters._refusals import refuse_format
from zoo.files import describe_os_error, dump_json, make_folder, to_path, write_checksums, write_file
from zoo.models import describe_model, refuse_fixed, take_model
from zoo.progress import Progress, is_main_process
from zoo.tasks import Parity, task_of
from zoo.training import Run, load_model, open_folder, reopen_data, split_run

IMAGES = 200
NOTHING_FOUND = (
    "warning: the model finds nothing on the {images} images, so no answers could be compared: the file may be wrong. "
    "Pass other images (data=, --data), or lower the model's confidence threshold"
)
PROGRAM = Path(__file__).with_name("_predict.py")


@dataclass(frozen=True)
class Export:
    """A model in other formats.

    Attributes:
        folder: With the files, `predict.py`, `config.json`, `parity.json` and a page.
        files: Path of the model in each format; in other precisions than fp32 by names such as `onnx-int8`.
        parity: How far the answers of each are from the model's.
        measures: Size and speed of each and of the float32 file, if smaller precisions are among them; else empty.
    """

    folder: Path
    files: Mapping[str, Path]
    parity: Mapping[str, Parity]
    measures: Mapping[str, Measure] = field(default_factory=dict)

    def table(self) -> list[dict[str, str]]:
        """Return a row for each of `measures`: size, metric, what is lost, latency."""
        return table(self.parity, self.measures)


def export(
    model_or_run: Any,
    folder: str | os.PathLike[str],
    *,
    formats: str | Sequence[str] = "onnx",
    data: Any = None,
    images: int | None = IMAGES,
    takes: str = "bytes",
    raw: bool = False,
    precision: str | Sequence[str] = "fp32",
    max_drop: float = 0.5,
    accept_difference: bool = False,
    progress: bool = True,
) -> Export:
    """Export a model with its preprocessing, and compare its answers with the model's own, from file to metric.

    Args:
        model_or_run: A model from `zoo.get`, a `Run`, or a run folder.
        folder: A new folder.
        formats: `onnx`, `openvino`, `torch`, or several.
        data: Labelled images to compare on; None: the validation images of the run, or else photos and noise.
        images: How many images are compared; None: all.
        takes: `bytes`: the file takes `(N, H, W, 3)` uint8 RGB and normalises inside; `float`: `(N, 3, H, W)` float32.
        raw: The file gives logits, or boxes and scores of all places; what follows is left to `predict.py`.
        precision: `fp32`, `fp16`, `int8`, or several. int8 is calibrated on up to 300 training images.
        max_drop: Points of the metric, such as top-1 in percent, that fp16 and int8 may lose. Layers stay in float32
            until int8 holds it.
        accept_difference: Keep files whose answers differ.
        progress: Whether to show what happens.

    Raises:
        InputError: A package is missing, the model cannot be exported, its answers differ, or it loses too much.
    """
    chosen = [formats] if isinstance(formats, str) else list(dict.fromkeys(formats))
    writers = {name: _find_writer(name) for name in chosen}
    wanted = check_precision(precision, max_drop, chosen)
    if takes not in ("bytes", "float"):
        raise InputError(f"takes is {takes!r}; expected 'bytes' or 'float'.")
    if images is not None and (type(images) is not int or images < 1):
        raise InputError(f"images is {images!r}; expected a whole number, 1 or more, or None for all.")
    target = to_path(folder)
    if target.exists():
        raise InputError(f"{target} already exists. Choose a new folder.")
    with Progress(enabled=progress and is_main_process()) as show, _whole_folder(target) as place:
        model, run = _open(model_or_run)
        graph = ExportGraph(model, takes_bytes=takes == "bytes", raw=raw)
        examples, training = _choose(model, run, data, images, show, needs_training="int8" in wanted.smaller)
        wanted.check_images(examples, training)
        show.log(f"tracing {model.config.get('model') or type(model).__name__}")
        program = trace(graph)
        if (batch := _batch_of(program)) is not None:
            show.log(f"note: the network works with a fixed number of images only: the file takes {batch} at a time")
        files = {name: writer.FILE for name, writer in writers.items()}
        config = _describe(model, run, graph, wanted.files(files))
        _write_config(place, config, files | wanted.files(files))
        shutil.copyfile(PROGRAM, place / "predict.py")
        answers = answer(model, examples)
        smaller = Smaller(place, wanted, model, examples, answers, training, show, keeps_any=accept_difference)
        parity, found = dict[str, Parity](), dict[str, Found | None]()
        for name, writer in writers.items():
            show.log(f"writing {writer.FILE}")
            try:
                writer.write(program, graph.outputs, place / writer.FILE, _facts(config))
            except RuntimeError as error:  # of torch's exporters
                raise refuse_format(program, name, error) from error
            show.log(f"comparing {len(examples)} images with {name}")
            predictor = Predictor(place, name)
            parity[name], found[name] = compare(model, predictor, examples, answers), None
            if parity[name].is_empty:
                show.log(NOTHING_FOUND.format(images=len(examples)))
            if not parity[name].holds and not accept_difference:
                raise InputError(_tell_difference(name, parity[name], graph, predictor, examples))
            for variant, kind in wanted.variants(name):
                parity[variant], found[variant] = smaller.make(name, kind, program)
        measures = _finish(place, config, parity, found, examples[0].source)
    paths = {name: target / file for name, file in config["export"]["files"].items()}
    return Export(target, paths, parity, measures)


def _write_config(place: Path, config: dict[str, Any], files: Mapping[str, str]) -> None:
    shown = config | {"export": config["export"] | {"files": dict(files)}}
    write_file(place / "config.json", dump_json(shown, indent=1, ascii_only=False) + "\n")


def _finish(
    place: Path, config: dict[str, Any], parity: Mapping[str, Parity], found: Mapping[str, Found | None], image: Any
) -> dict[str, Measure]:
    """Write what has been found beside the files that are wanted, and remove the others; return size and speed."""
    measures = measure(place, found, image) if any(found.values()) else {}
    files = config["export"]["files"]
    remove_others(place, files)
    if made := {name: how.summary() for name, how in found.items() if how is not None}:
        config["export"]["precision"] = made
    _write_config(place, config, files)
    rows = {name: shown.to_dict() | (measures[name].to_dict() if measures else {}) for name, shown in parity.items()}
    write_file(place / "parity.json", dump_json(rows, indent=1) + "\n")
    write_file(place / "README.md", write_page(config, parity, table(parity, measures)))
    write_checksums(place, sorted(path.name for path in place.iterdir()))
    return measures


def _find_writer(name: str) -> Any:
    """Return the module of a format whose packages are installed."""
    names = [known for known in list_exporters() if hasattr(import_module(f"zoo.exporters.{known}"), "write")]
    if name not in names:
        raise InputError(f"unknown format {name!r}; expected {' or '.join(names)}.{did_you_mean(str(name), names)}")
    module = import_module(f"zoo.exporters.{name}")
    if missing := [package for package in module.MODULES if find_spec(package) is None]:
        raise InputError(
            f"format {name} needs {', '.join(missing)}. Install: pip install 'zoo-finetune[{module.EXTRA}]'"
        )
    return module


def _open(model_or_run: Any) -> tuple[Any, Path | None]:
    """Return the model, and the folder of its run."""
    folder = None
    if isinstance(model_or_run, (str, os.PathLike)):
        model, folder = load_model(model_or_run), open_folder(split_run(model_or_run)[0]).path
    elif isinstance(model_or_run, Run):
        model, folder = model_or_run.model, model_or_run.folder
    else:
        model = take_model(model_or_run)
        refuse_fixed(model)
    if get_fact(model, "preprocess") is None or not get_fact(model, "classes"):
        raise InputError(
            f"{type(model).__name__} has no preprocessing and no classes, so there are no answers to compare with. "
            "Expected a model from zoo.get, a run or its folder."
        )
    if get_fact(model, "thresholds"):
        raise InputError("models that name several labels cannot be exported yet. Use zoo predict or model.predict.")
    return model.eval(), folder


def _choose(
    model: Any, run: Path | None, data: Any, count: int | None, show: Progress, *, needs_training: bool
) -> tuple[list[Example], Any]:
    """Return the images to compare on, and those of the training, if they are needed and there are some."""
    task = task_of(model)
    images = training = None
    if data is not None:
        only = None if needs_training else "val"
        classes = tuple(get_fact(model, "classes"))
        opened = task.open_data(data, classes=classes, by_name=True, evaluation=True, only=only)
        images, training = opened.val, opened.train
    if run is not None and (images is None or (needs_training and training is None)):
        folder = open_folder(run)
        source = folder.read_json("data.json")["source"]
        if Path(source).is_absolute() and Path(source).exists():
            opened = reopen_data(folder, None, task, folder.load_preset(), show)
            images, training = opened.val if images is None else images, opened.train
    if images is None:
        show.log("note: there are no labelled images, so no metric is computed; pass data= (--data)")
        return list(sample_images()), training
    total = len(images)
    step = 1 if count is None else max(1, total / count)
    places = sorted({int(place * step) for place in range(total if count is None else min(count, total))})
    examples = [Example(images.names[index], images.find_source(index), _target(images, index)) for index in places]
    return examples, training


def _batch_of(program: Any) -> int | None:
    """Return the number of images of a program; None: any."""
    (images,) = program.example_inputs[0]
    node = next(node for node in program.graph.nodes if node.op == "placeholder" and node.name == "images")
    size = node.meta["val"].shape[0]
    return int(images.shape[0]) if isinstance(size, int) else None


def _target(images: Any, index: int) -> Any:
    boxes = getattr(images, "boxes", None)
    return images.targets[index] if boxes is None else boxes[index]


def _describe(model: Any, run: Path | None, graph: ExportGraph, files: Mapping[str, str]) -> dict[str, Any]:
    """Return what `predict.py` needs to know, and where the model comes from."""
    config, lineage = trace_lineage(describe_model(model), run)
    known = config.model_dump() | {"lineage": lineage}
    takes = "bytes" if graph.takes_bytes else "float"
    return known | {"export": {"files": dict(files), "input": takes, "outputs": list(graph.outputs), "raw": graph.raw}}


def _facts(config: Mapping[str, Any]) -> dict[str, str]:
    """Return what stands in the metadata of the file itself."""
    keys = ("task", "model", "classes", "preprocess", "postprocess", "licence", "lineage", "export")
    return {f"zoo.{key}": dump_json(config.get(key)) for key in keys}


def _tell_difference(
    name: str, parity: Parity, graph: ExportGraph, predictor: Predictor, examples: Sequence[Example]
) -> str:
    differing = next((example for example in examples if example.name == parity.first), None)
    where = locate(graph, predictor, differing.source) if differing else "the metric"
    scores = "" if parity.ours is None else f", {parity.metric} {parity.ours:.4f} and {parity.theirs:.4f}"
    return (
        f"the answers of the {name} file differ from the model's on {parity.images} images: scores by up to "
        f"{parity.largest:.3g}, agreement {parity.agreement:.2%}{scores}. First on {parity.first}: {where}. "
        "Nothing was written; accept_difference=True (--accept-difference) writes it all the same."
    )


@contextmanager
def _whole_folder(target: Path) -> Iterator[Path]:
    """Yield a folder that gets its name only when all of it is there.

    Raises:
        StorageError: It cannot be written, for example because the disk is full; nothing is left.
    """
    make_folder(target.parent)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as place:
            made = Path(place) / "export"
            made.mkdir()
            yield made
            made.rename(target)
    except OSError as error:
        cause = error.__cause__ if isinstance(error, ZooError) else error
        if not isinstance(cause, OSError) or (cause is not error and f".{target.name}." not in str(error)):
            raise  # of something that was read
        reason = describe_os_error(cause, target)
        raise StorageError(f"{target} cannot be written: {reason}. Nothing was written.") from error
