"""Losses of images with any number of labels: binary cross-entropy of each label, and its focal and asymmetric forms.

The loss of an image is the sum over its labels, that of a batch the mean over its images. So the gradient of a logit
is its probability less its target, as with the cross-entropy of one class per image, and learning rates keep their
meaning.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from zoo._model import find_loss, has_own_loss
from zoo.errors import InputError
from zoo.tasks.classification.balance import BETA, check_names
from zoo.tasks.classification.data import Data

GAMMA_NEGATIVE, GAMMA_POSITIVE, MARGIN = 4.0, 1.0, 0.05  # of the asymmetric loss, as in the paper's experiments
SMALLEST = 1e-8  # of a probability whose logarithm is taken


def check_loss(options: Any, model: Any) -> None:
    """Refuse options that mean one class per image, or that contradict each other.

    Raises:
        InputError: Naming the fields.
    """
    if options.sampler != "shuffle":
        raise InputError(
            f"sampler is {options.sampler}, but labels is multi: an image of a rare label has frequent ones, too. Use "
            "class_weights=balanced."
        )
    for name in ("mixup_alpha", "cutmix_alpha"):
        if getattr(options, name, 0):
            raise InputError(f"{name} is not possible with labels=multi: it mixes one class per image. Set it to 0.")
    is_focal = options.focal_gamma is not None
    if options.multi_label_loss == "asymmetric" and is_focal:
        raise InputError("multi_label_loss=asymmetric has its own gammas, so focal_gamma has no meaning. Remove one.")
    if options.label_smoothing and (is_focal or options.multi_label_loss != "bce"):
        named = "focal_gamma" if is_focal else f"multi_label_loss={options.multi_label_loss}"
        raise InputError(f"label_smoothing with {named} is not defined. Remove one of them.")
    defaults = {"class_weights": "none", "focal_gamma": None, "multi_label_loss": "bce"}
    said = [name for name, off in defaults.items() if getattr(options, name) != off]
    if said and has_own_loss(model):
        raise InputError(
            f"{said[0]} has no effect: {type(model).__name__} computes its own loss. Remove {' and '.join(said)}."
        )


def weigh_labels(data: Data, options: Any) -> dict[str, float]:
    """Return the weight of the images with a label, against 1 for those without it, by name; empty if there are none.

    `balanced`: images without the label / images with it; `effective`: the same ratio of effective numbers of images
    (Cui et al. 2019), (1 - β ** n) / (1 - β).

    Raises:
        InputError: A name is no label, or a label has no image.
    """
    said = options.class_weights
    if said == "none" or data.train is None:
        return {}
    if isinstance(said, Mapping):
        check_names(said, data.classes)
        return {name: float(said.get(name, 1.0)) for name in data.classes}
    images, counts = len(data.train), count_labels(data)
    if empty := [name for name, count in counts.items() if not count]:
        raise InputError(f"class_weights={said} needs images of every label; {empty[0]!r} has none in train.")

    def measure(count: int) -> float:
        return count if said == "balanced" else 1 - BETA**count

    return {name: measure(max(images - count, 1)) / measure(count) for name, count in counts.items()}


def count_labels(data: Data) -> dict[str, int]:
    """Return the training images with each label, by name."""
    numbers = () if data.train is None else data.train.list_numbers()
    counts = Counter(number for of in numbers for number in of)
    return {name: counts[number] for number, name in enumerate(data.classes)}


def make_loss(data: Data, options: Any, model: Any, device: torch.device | None) -> Callable[[Tensor, Tensor], Tensor]:
    """Return what makes a scalar of logits `(B, C)` and targets `(B, C)`, 0 or 1.

    Args:
        data: Opened data, whose labels are counted for their weights.
        options: The effective preset.
        model: Its own loss is taken if it has one that is not the plain cross-entropy.
        device: Where logits will be.
    """
    if has_own_loss(model):
        own: Any = find_loss(model)
        return lambda logits, targets: own(logits, targets, label_smoothing=options.label_smoothing)
    weights = weigh_labels(data, options)
    positive = torch.tensor(list(weights.values()), device=device) if weights else None
    gammas = (options.focal_gamma or 0.0,) * 2
    margin, smoothing = 0.0, options.label_smoothing
    if options.multi_label_loss == "asymmetric":
        gammas, margin = (GAMMA_POSITIVE, GAMMA_NEGATIVE), MARGIN

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        logits, targets = logits.float(), targets.to(logits.device, torch.float32)
        if not any(gammas):
            soft = targets * (1 - smoothing) + smoothing / 2
            losses = functional.binary_cross_entropy_with_logits(logits, soft, pos_weight=positive, reduction="none")
        else:
            losses = _focus(logits, targets, *gammas, margin, positive)
        return losses.sum(1).mean()

    return loss


def _focus(
    logits: Tensor, targets: Tensor, positive_gamma: float, negative_gamma: float, margin: float, weights: Tensor | None
) -> Tensor:
    """Return the losses of each label in focal form (Lin et al. 2017), or asymmetric (Ridnik et al. 2021).

    With p the probability: -(1 - p) ** gamma * log(p) where the label is there, -q ** gamma * log(1 - q) where it is
    not, q = max(p - margin, 0). The factors are not learnt through, as in the authors' code.
    """
    probability = logits.sigmoid()
    shifted = (probability - margin).clamp_min(0)
    with torch.no_grad():
        positive_factor, negative_factor = (1 - probability) ** positive_gamma, shifted**negative_gamma
    there = -functional.logsigmoid(logits) * positive_factor
    absent = functional.softplus(logits) if not margin else -(1 - shifted).clamp_min(SMALLEST).log()
    there = there if weights is None else there * weights
    return targets * there + (1 - targets) * absent * negative_factor
