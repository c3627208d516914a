"""What a classifier says of images: from sources to class names with their probabilities."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from zoo._text import clean
from zoo.data import OnBad, Source, eval_transform, gather, iterate_sources, read_image, skipping
from zoo.errors import InputError


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one image.

    Attributes:
        source: The path, or the position in what was passed.
        names: Class names, the most probable first.
        probabilities: Their probabilities, 0 to 1.
    """

    source: str
    names: tuple[str, ...]
    probabilities: tuple[float, ...]

    @property
    def name(self) -> str:
        """The most probable class."""
        return self.names[0]

    @property
    def probability(self) -> float:
        """How probable it is, 0 to 1."""
        return self.probabilities[0]

    def __str__(self) -> str:
        pairs = zip(self.names, self.probabilities, strict=True)
        return clean(f"{self.source}: " + ", ".join(f"{name} {probability:.1%}" for name, probability in pairs))


def predict_classes(
    model: Any,
    sources: Any,
    top_k: int,
    batch_size: int,
    image_size: int | None,
    skip_bad: bool | OnBad,
    stream: bool,
) -> list[Prediction] | Iterator[Prediction]:
    """Name what is on images; arguments, result and errors are those of `Classifier.predict`."""
    if min(top_k, batch_size) < 1:
        raise InputError(f"top_k is {top_k}, batch_size {batch_size}; expected 1 or more of each.")
    preprocess = model.preprocess.replace(image_size=image_size) if image_size else model.preprocess
    transform = eval_transform(preprocess)
    reads = (partial(_read, source, transform) for source in iterate_sources(sources))
    answers = _name_all(model, reads, top_k, batch_size, skip_bad)
    return answers if stream else list(answers)


def _name_all(
    model: Any, reads: Iterable[Callable[[], tuple[str, Tensor]]], top_k: int, batch_size: int, skip_bad: bool | OnBad
) -> Iterator[Prediction]:
    with skipping(skip_bad) as on_bad:
        for batch in gather(reads, batch_size, on_bad):
            labels, images = zip(*batch, strict=True)
            yield from _name(model, labels, torch.stack(images), top_k)


# Not around the generator: whoever asks for answers would be in inference mode, too.
@torch.inference_mode()
def _name(model: Any, labels: Sequence[str], images: Tensor, top_k: int) -> list[Prediction]:
    """Return what is on images `(B, 3, H, W)`, float32 and normalised."""
    modes = [(module, module.training) for module in (*model.modules(), model.__dict__["network"])]
    model.eval()
    try:
        weight = next(model.parameters())
        logits = model(images.to(weight.device, weight.dtype))
    finally:
        for module, mode in modes:
            module.training = mode
    if len(model.classes) != logits.shape[-1]:
        raise InputError(
            f"the model has {logits.shape[-1]:,} outputs but {len(model.classes):,} class names. Set one name per "
            "output: model.classes = [...]."
        )
    best = logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32)).topk(
        min(top_k, model.num_classes), -1
    )
    rows = zip(labels, best.values.tolist(), best.indices.tolist(), strict=True)
    return [
        Prediction(label, tuple(model.classes[index] for index in indices), tuple(values))
        for label, values, indices in rows
    ]


def _read(source: Source, transform: Callable[[Image.Image], Tensor]) -> tuple[str, Tensor]:
    return source.label, transform(read_image(source.item))
