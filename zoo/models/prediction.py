"""What a classifier says of images: from sources to class names with their probabilities."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from zoo._model import cut, get_fact
from zoo._text import clean
from zoo.data import (
    Halving,
    InputImage,
    Need,
    OnBad,
    check_workers,
    eval_transform,
    gather,
    has_stream,
    iterate_sources,
    read_ahead,
    read_image,
    skipping,
)
from zoo.errors import InputError
from zoo.tasks.classification import Ranked, rank_classes

NOWHERE = torch.empty(0)  # in place of the weights of a model that has none here: its runtime takes float32 on the CPU


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one image.

    Attributes:
        source: The path, or the position in what was passed.
        names: Class names, the most probable first; of a model with several labels those above their thresholds, which
            may be none.
        probabilities: Their probabilities, 0 to 1.
    """

    source: str
    names: tuple[str, ...]
    probabilities: tuple[float, ...]

    @property
    def name(self) -> str:
        """The most probable class; empty if no label is above its threshold."""
        return self.names[0] if self.names else ""

    @property
    def probability(self) -> float:
        """How probable it is, 0 to 1; 0 if no label is above its threshold."""
        return self.probabilities[0] if self.names else 0.0

    def __str__(self) -> str:
        pairs = zip(self.names, self.probabilities, strict=True)
        said = ", ".join(f"{name} {probability:.1%}" for name, probability in pairs)
        return clean(f"{self.source}: {said or 'none'}")


@dataclass(frozen=True, kw_only=True)
class Look:
    """How images are looked at: arguments of `Classifier.predict`."""

    top_k: int | None
    batch_size: int
    image_size: int | None
    tta: bool
    workers: int | None

    def __post_init__(self) -> None:
        if min(1 if self.top_k is None else self.top_k, self.batch_size) < 1:
            raise InputError(f"top_k is {self.top_k}, batch_size {self.batch_size}; expected 1 or more of each.")
        check_workers(self.workers)


def predict_classes(
    model: Any, sources: Any, look: Look, skip_bad: bool | OnBad, stream: bool
) -> list[Prediction] | Iterator[Prediction]:
    """Name what is on images; result and errors are those of `Classifier.predict`."""
    if has_stream(sources):
        raise InputError("cameras and streams are for detectors. Pass a classifier images.")
    answers = _name_all(model, _read_all(model, sources, look), look, skip_bad)
    return answers if stream else list(answers)


def embed_images(model: Any, sources: Any, look: Look) -> Tensor:
    """Return what the head of a model is shown of images, `(N, D)`, float32, on the CPU.

    Args:
        model: It says how it is cut into backbone and head, and has its preprocessing.
        sources: As `Classifier.predict` takes them.
        look: Batch and image size, and workers.

    Raises:
        InputError: An image cannot be read, or the backbone gives maps.
    """
    backbone, halving = getattr(model, cut(model).backbone), Halving()
    device, found = next(model.parameters()).device, list[Tensor]()
    for batch in gather(_read_all(model, sources, look), look.batch_size, None):
        images = torch.stack([image for _, image in batch])
        found += halving.call(partial(_embed, model, backbone), images, device)
    vectors = torch.stack(found).float()
    if vectors.ndim != 2:
        raise InputError("the backbone gives maps, not one vector for each image; use a classifier's.")
    return vectors


def _read_all(model: Any, sources: Any, look: Look) -> Iterable[Callable[[], tuple[str, Tensor]]]:
    own = get_fact(model, "preprocess")
    preprocess = own.replace(image_size=look.image_size) if look.image_size else own
    images = (InputImage(source.label, source.file, source.item) for source in iterate_sources(sources))
    return read_ahead(partial(_read, transform=eval_transform(preprocess), need=preprocess.need), images, look.workers)


def _name_all(
    model: Any, reads: Iterable[Callable[[], tuple[str, Tensor]]], look: Look, skip_bad: bool | OnBad
) -> Iterator[Prediction]:
    halving, device = Halving(), next(model.parameters(), NOWHERE).device
    with skipping(skip_bad) as on_bad:
        for batch in gather(reads, look.batch_size, on_bad):
            labels, images = zip(*batch, strict=True)
            found = halving.call(partial(_name, model, look=look), torch.stack(images), device)
            for label, (numbers, probabilities) in zip(labels, found, strict=True):
                yield Prediction(label, tuple(model.classes[number] for number in numbers), tuple(probabilities))


# Not around the generator: whoever asks for answers would be in inference mode, too.
@torch.inference_mode()
def _name(model: Any, images: Tensor, look: Look) -> list[Ranked]:
    """Return the numbers and probabilities of what is on images `(B, 3, H, W)`, normalised."""
    with _in_eval_mode(model):
        weight = next(model.parameters(), NOWHERE)
        inputs = images.to(weight.device, weight.dtype)
        looks = [model(inputs), *([model(inputs.flip(-1))] if look.tta else [])]
    logits = looks[0]
    if len(model.classes) != logits.shape[-1]:
        raise InputError(
            f"the model has {logits.shape[-1]:,} outputs but {len(model.classes):,} class names. Set one name per "
            "output: model.classes = [...]."
        )
    return rank_classes(looks, get_fact(model, "thresholds"), look.top_k)


@torch.inference_mode()
def _embed(model: Any, backbone: Callable[[Tensor], Tensor], images: Tensor) -> list[Tensor]:
    with _in_eval_mode(model):
        weight = next(model.parameters())
        return list(backbone(images.to(weight.device, weight.dtype)).cpu())


@contextmanager
def _in_eval_mode(model: Any) -> Iterator[None]:
    modes = [(module, module.training) for module in (*model.modules(), model.__dict__.get("network", model))]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _read(image: InputImage, transform: Callable[[Image.Image], Tensor], need: Need | None) -> tuple[str, Tensor]:
    return image.label, transform(read_image(image.item, need))
