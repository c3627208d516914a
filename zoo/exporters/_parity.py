"""Runs an exported model from file to answer beside the model itself, and says where they part."""

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from zoo._model import get_fact, get_task
from zoo.data import decode_image, eval_transform, fit_image, read_image
from zoo.exporters._graph import ExportGraph
from zoo.exporters._predict import Predictor, normalise
from zoo.models import Look, predict_classes
from zoo.tasks import DEFAULT_TASK, SCORE_BOUND, Parity

BATCH = 8
NUMBERS = 1e-4  # by which normalised pixels may differ


class Example(NamedTuple):
    """An image to compare answers on.

    Attributes:
        name: For messages.
        source: What `predict` takes.
        target: Class or boxes; None: not known.
    """

    name: str
    source: Any
    target: Any = None


def answer(model: Any, examples: Sequence[Example]) -> list[Any]:
    """Return the model's own answers: of a classifier with all classes."""
    found, options = list[Any](), _options(model)
    for start in range(0, len(examples), BATCH):
        sources = [example.source for example in examples[start : start + BATCH]]
        found += _ask(model, sources, options)
    return found


def compare(
    model: Any, predictor: Predictor, examples: Sequence[Example], answers: Sequence[Any] | None = None
) -> Parity:
    """Return how far the answers of an exported model are from the model's own.

    Args:
        model: In eval mode.
        predictor: Runs the exported one, with its own reading and preprocessing.
        examples: Images.
        answers: The model's own of each image, if they are known.
    """
    task, classes, options = get_task(model, DEFAULT_TASK), get_fact(model, "classes"), _options(model)
    comparison = import_module(f"zoo.tasks.{task}.export").Comparison(classes)
    for example, ours in zip(examples, answer(model, examples) if answers is None else answers, strict=True):
        theirs = predictor.predict(take(example.source), **options)
        comparison.add(example.name, ours, theirs, example.target)
    found: Parity = comparison.compute()
    return found


def _options(model: Any) -> dict[str, Any]:
    return {"top_k": len(get_fact(model, "classes"))} if get_task(model, DEFAULT_TASK) == DEFAULT_TASK else {}


def locate(graph: ExportGraph, predictor: Predictor, source: Any) -> str:
    """Say where the answers to an image part: pixels, network, or what follows it."""
    mine = prepare(source, graph.how)
    theirs, _ = predictor.prepare(take(source))
    if (gap := int(np.abs(mine.astype(int) - theirs).max(initial=0))) if mine.shape == theirs.shape else True:
        return (
            f"preprocessing: pixels differ by up to {gap} of 255" if gap is not True else "preprocessing: sizes differ"
        )
    pixels = torch.from_numpy(mine[None])
    inputs = pixels if graph.takes_bytes else graph.normalise(pixels)
    if not graph.takes_bytes and (off := _measure(inputs, normalise(theirs[None], predictor.preprocess))) > NUMBERS:
        return f"preprocessing: normalised values differ by up to {off:.3g}"
    with torch.inference_mode():
        expected = graph(inputs)
    found = predictor.run(theirs[None])
    for name, value in zip(graph.outputs, expected, strict=True):
        if not np.allclose(value.numpy(), found[name], atol=SCORE_BOUND if name != "boxes" else 0.1):
            return f"network: {name} differ by up to {_measure(value, found[name]):.3g}"
    return "decoding or suppression"


def _measure(ours: torch.Tensor, theirs: Any) -> float:
    """Return the largest difference of two arrays of one shape."""
    return float(np.abs(ours.numpy() - theirs).max())


def sample_images() -> Iterator[Example]:
    """Yield photos that scikit-learn brings, if it is there, and noise: for a model without data."""
    try:
        from sklearn.datasets import load_sample_images

        yield from (Example(f"photo {number}", array) for number, array in enumerate(load_sample_images().images))
    except ImportError:
        pass
    random = np.random.default_rng(0)
    for number in range(8):
        height, width = random.integers(64, 640, 2)
        coarse = random.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
        noise = coarse.repeat(16, 0).repeat(16, 1)[:height, :width]
        yield Example(f"noise {number}", noise)


def _ask(model: Any, sources: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """Return the model's own answers; a module of the user's may be a classifier without `predict`."""
    if callable(getattr(model, "predict", None)):
        return model.predict(sources, batch_size=BATCH, **options)
    look = Look(batch_size=BATCH, image_size=None, tta=False, workers=None, **options)
    return predict_classes(model, sources, look, skip_bad=False, stream=False)


def take(source: Any) -> Any:
    """Return what the other side reads by itself: a path or the bytes of a file; or an image that has no file."""
    if isinstance(source, (str, Path)):
        return source
    return BytesIO(source) if isinstance(source, bytes) else read_image(source)


def prepare(source: Any, how: Any) -> Any:
    """Return the pixels `(H, W, 3)` that our preprocessing makes of an image, before they are normalised."""
    image, _, (width, height) = decode_image(source, how.need)
    if hasattr(how, "canvas_size"):
        canvas, _ = fit_image(image, how.replace(channels="rgb"), (height, width))
        return canvas.permute(1, 2, 0).numpy()
    return eval_transform(how, normalise=False)(image).permute(1, 2, 0).numpy()
