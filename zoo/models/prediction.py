"""What a classifier says of images: from sources to class names with their probabilities."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from zoo._text import clean
from zoo.data import (
    Halving,
    InputImage,
    OnBad,
    check_workers,
    eval_transform,
    gather,
    iterate_sources,
    read_ahead,
    read_image,
    skipping,
)
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


@dataclass(frozen=True, kw_only=True)
class Look:
    """How images are looked at: arguments of `Classifier.predict`."""

    top_k: int
    batch_size: int
    image_size: int | None
    tta: bool
    workers: int | None

    def __post_init__(self) -> None:
        if min(self.top_k, self.batch_size) < 1:
            raise InputError(f"top_k is {self.top_k}, batch_size {self.batch_size}; expected 1 or more of each.")
        check_workers(self.workers)


def predict_classes(
    model: Any, sources: Any, look: Look, skip_bad: bool | OnBad, stream: bool
) -> list[Prediction] | Iterator[Prediction]:
    """Name what is on images; result and errors are those of `Classifier.predict`."""
    preprocess = model.preprocess.replace(image_size=look.image_size) if look.image_size else model.preprocess
    images = (InputImage(source.label, source.file, source.item) for source in iterate_sources(sources))
    reads = read_ahead(partial(_read, transform=eval_transform(preprocess)), images, look.workers)
    answers = _name_all(model, reads, look, skip_bad)
    return answers if stream else list(answers)


def _name_all(
    model: Any, reads: Iterable[Callable[[], tuple[str, Tensor]]], look: Look, skip_bad: bool | OnBad
) -> Iterator[Prediction]:
    halving, device = Halving(), next(model.parameters()).device
    with skipping(skip_bad) as on_bad:
        for batch in gather(reads, look.batch_size, on_bad):
            labels, images = zip(*batch, strict=True)
            found = halving.call(partial(_name, model, look=look), torch.stack(images), device)
            for label, (probabilities, indices) in zip(labels, found, strict=True):
                yield Prediction(label, tuple(model.classes[index] for index in indices), tuple(probabilities))


# Not around the generator: whoever asks for answers would be in inference mode, too.
@torch.inference_mode()
def _name(model: Any, images: Tensor, look: Look) -> list[tuple[list[float], list[int]]]:
    """Return the probabilities of the surest classes, and their numbers, of images `(B, 3, H, W)`, normalised."""
    modes = [(module, module.training) for module in (*model.modules(), model.__dict__["network"])]
    model.eval()
    try:
        weight = next(model.parameters())
        inputs = images.to(weight.device, weight.dtype)
        looks = [model(inputs), *([model(inputs.flip(-1))] if look.tta else [])]
    finally:
        for module, mode in modes:
            module.training = mode
    logits = looks[0]
    if len(model.classes) != logits.shape[-1]:
        raise InputError(
            f"the model has {logits.shape[-1]:,} outputs but {len(model.classes):,} class names. Set one name per "
            "output: model.classes = [...]."
        )
    exact = torch.promote_types(logits.dtype, torch.float32)
    chances = torch.stack([one.softmax(-1, dtype=exact) for one in looks]).mean(0)
    best = chances.topk(min(look.top_k, model.num_classes), -1)
    return list(zip(best.values.tolist(), best.indices.tolist(), strict=True))


def _read(image: InputImage, transform: Callable[[Image.Image], Tensor]) -> tuple[str, Tensor]:
    return image.label, transform(read_image(image.item))
