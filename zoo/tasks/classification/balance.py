"""Classes with unequal numbers of images: their weights in the loss, focal loss, and how often images are drawn."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from zoo._model import has_own_loss
from zoo.errors import InputError, did_you_mean
from zoo.tasks.classification.data import Data

BETA = 0.9999  # of the effective number of images; Cui et al. 2019 (arXiv:1901.05555), section 5: long-tailed CIFAR-10
MOST_NAMED = 10  # classes in one message
SMALLEST = 1e-7  # 1 - p: below it, the slope of (1 - p) ** gamma may be infinite


def check_balance(options: Any, model: Any) -> None:
    """Refuse weights that a model's own loss would ignore, what no solver takes, and classes balanced twice.

    Raises:
        InputError: Naming the fields.
    """
    _check_solvable(options)
    if options.sampler == "repeat":
        raise InputError("sampler is 'repeat', which does not apply to a classifier. Use balanced instead.")
    said = [name for name, off in (("class_weights", "none"), ("focal_gamma", None)) if getattr(options, name) != off]
    if said and has_own_loss(model):
        raise InputError(
            f"{said[0]} has no effect: {type(model).__name__} computes its own loss. Weight the classes in its "
            f"method loss(), or remove {' and '.join(said)}."
        )
    if options.sampler == "balanced" and options.class_weights in ("balanced", "effective"):
        raise InputError(
            f"sampler=balanced and class_weights={options.class_weights} would balance the classes twice. Remove one "
            "of them."
        )


def _check_solvable(options: Any) -> None:
    """Refuse a loss that has no solution in closed form, and images that are mixed anew."""
    if options.solver is None and options.head_init is None:
        return
    fields = ("focal_gamma", "mixup_alpha", "cutmix_alpha") if options.solver else ("focal_gamma",)
    if said := [name for name in fields if getattr(options, name)]:
        raise InputError(
            f"{', '.join(said)} cannot be combined with solver or head_init: a head is solved for the cross-entropy, "
            "with class_weights and label_smoothing. Remove one of them."
        )


def weigh_classes(data: Data, options: Any) -> dict[str, float]:
    """Return the weight of each class in the loss, by name, with mean 1 over the classes; empty if there are none.

    `balanced`: n / (C · n_c), of n images in C classes, n_c of them in this one; `effective`: (1 - β) / (1 - β ** n_c)
    with β = 0.9999 (Cui et al. 2019). A mapping gives relative weights; a class that it does not name has 1.

    Raises:
        InputError: A name is no class, or there is nothing to count.
    """
    said = options.class_weights
    if said == "none":
        return {}
    if isinstance(said, Mapping):
        check_names(said, data.classes)
        weights = [said.get(name, 1.0) for name in data.classes]
    else:
        counts = _count(data, f"class_weights={said}").values()
        weights = [_rarity(count, said) for count in counts]
    mean = sum(weights) / len(weights)
    return {name: weight / mean for name, weight in zip(data.classes, weights, strict=True)}


def weigh_images(data: Data, options: Any) -> list[float] | None:
    """Return how likely each training image is drawn, relative to the others; None: each is used once per epoch.

    Raises:
        InputError: There is nothing to count.
    """
    if options.sampler != "balanced":
        return None
    counts = list(_count(data, "sampler=balanced").values())
    assert data.train is not None
    return [1 / counts[target] for target in data.train.targets]


def describe_balance(data: Data, options: Any) -> list[dict[str, str]]:
    """Return a table of each class: its training images, weight and share of an epoch; empty if nothing is balanced.

    Raises:
        InputError: As `weigh_classes` and `weigh_images`.
    """
    weights, draws = weigh_classes(data, options), weigh_images(data, options)
    if not weights and draws is None:
        return []
    counts = {} if data.train is None else _count_train(data)
    rows = []
    for name in data.classes:
        row = {"class": name} | ({"images": f"{counts[name]:,}"} if counts else {})
        row |= {"weight": f"{weights[name]:.3f}"} if weights else {}
        rows.append(row | ({"drawn": f"{100 / len(data.classes):.1f} %"} if draws else {}))
    return rows


def make_weighted_loss(data: Data, options: Any, device: torch.device | None) -> Callable[..., Tensor] | None:
    """Return the cross-entropy with the weights of the options and the focal factor; None if it is the plain one.

    The sum over a batch is divided by its number of images times the mean weight of the images that are drawn, where
    `torch.nn.functional.cross_entropy` divides by the weights of that batch. Over all training images both are the
    same. In batches this one has the same mean, whatever classes are in them, and micro-batches add up to their batch.
    The focal factor is (1 - p) ** gamma, p the probability of the true class (Lin et al. 2017, arXiv:1708.02002).

    Args:
        data: Opened data.
        options: `class_weights`, `focal_gamma` and `sampler`.
        device: Where logits will be.
    """
    weights, gamma = weigh_classes(data, options), options.focal_gamma
    if not weights and gamma is None:
        return None
    table = torch.tensor(list(weights.values()), device=device) if weights else None
    mean = _mean_weight(data, weights, options)

    def loss(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        weight = None if table is None else table.to(logits)
        losses = functional.cross_entropy(
            logits, targets, weight=weight, label_smoothing=label_smoothing, reduction="none"
        )
        if gamma is not None:
            log_p = logits.log_softmax(1).gather(1, targets[:, None])[:, 0]
            losses = losses * (-torch.expm1(log_p)).clamp_min(SMALLEST) ** gamma
        return losses.mean() / mean

    return loss


def _mean_weight(data: Data, weights: Mapping[str, float], options: Any) -> float:
    """Return the mean weight of the images of an epoch."""
    if not weights or options.sampler == "balanced" or data.train is None:  # classes are drawn alike, or not counted
        return 1.0
    counts = _count_train(data)
    return sum(counts[name] * weight for name, weight in weights.items()) / len(data.train)


def _rarity(count: int, kind: str) -> float:
    return 1 / count if kind == "balanced" else (1 - BETA) / (1 - BETA**count)


def _count(data: Data, wish: str) -> dict[str, int]:
    """Return the training images of each class, of which none may be empty."""
    if data.train is None:
        raise InputError(
            f"{wish} needs training images that can be counted, but the data are loaders. Pass data sets, give the "
            "weights as class_weights={name: weight}, or balance the classes in the loader."
        )
    counts = _count_train(data)
    if empty := [name for name, count in counts.items() if not count]:
        raise InputError(
            f"{wish} needs images of every class; {_list(empty)} has none in train. Add images, remove the class, or "
            "give the weights as class_weights={name: weight}."
        )
    return counts


def _count_train(data: Data) -> dict[str, int]:
    counts = Counter(() if data.train is None else data.train.targets)
    return {name: counts[number] for number, name in enumerate(data.classes)}


def check_names(said: Mapping[str, float], classes: Sequence[str]) -> None:
    """Refuse weights of classes that the data does not have.

    Raises:
        InputError: Naming them.
    """
    if unknown := [name for name in said if name not in classes]:
        told = "".join(f" {name!r}:{near}" for name in unknown[:MOST_NAMED] if (near := did_you_mean(name, classes)))
        raise InputError(
            f"class_weights names {_list(unknown)}, which the data does not have.{told} The classes are "
            f"{_list(classes)}."
        )


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(map(repr, names[:MOST_NAMED])) + more
