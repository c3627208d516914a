"""Folds of a cross-validation, subsets of a learning curve, and the interval of a score over them."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zoo.errors import InputError
from zoo.optim.solvers import make_folds

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Score:
    """A score over the splits of a cross-validation.

    The interval is the corrected resampled t-interval: scores of heads that share most of their training images vary
    less than the score of the procedure does, so their variance counts `1 / J + held out / trained on` times instead of
    `1 / J` times. Source: Nadeau and Bengio, Inference for the generalization error, Machine Learning 52, 2003.

    Attributes:
        values: Of each split, 0 to 1; or differences of such, -1 to 1.
        mean: Of the values.
        deviation: Their sample standard deviation.
        low: Lower end of the 95 % interval of the mean.
        high: Upper end.
    """

    values: tuple[float, ...]
    mean: float
    deviation: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float], ratio: float, least: float = 0.0) -> "Score":
        """Return the score of values.

        Args:
            values: Two or more.
            ratio: Images that are held out for each that is trained on.
            least: The smallest possible value.
        """
        from scipy.stats import t

        mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
        reach = deviation * math.sqrt(1 / len(values) + ratio) * float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
        return cls(tuple(values), mean, deviation, max(mean - reach, least), min(mean + reach, 1.0))

    def to_dict(self) -> dict[str, float | list[float]]:
        """Return plain values."""
        return {
            "mean": self.mean,
            "standard_deviation": self.deviation,
            "low": self.low,
            "high": self.high,
            "values": list(self.values),
        }


def deal_folds(labels: Tensor, count: int, *, seed: int, groups: Tensor | None = None) -> Tensor:
    """Return the fold of each image, `(N,)`, int64: classes in equal shares, and groups whole.

    Args:
        labels: Class of each image, `(N,)`.
        count: Number of folds; fewer are made where groups are too unequal.
        seed: Decides the draw.
        groups: Number of the group of each image, `(N,)`; None: each image is its own.
    """
    if groups is None:
        return make_folds(labels, count, seed=seed)
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed % 2**32)
    folds, plain = np.zeros(len(labels), dtype=np.int64), labels.cpu().numpy()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        for number, (_, held) in enumerate(splitter.split(plain[:, None], plain, groups.cpu().numpy())):
            folds[held] = number
    return torch.as_tensor(torch.unique(torch.from_numpy(folds), return_inverse=True)[1], device=labels.device)


def check_groups_installed() -> None:
    """Refuse groups without the library that keeps them whole."""
    try:
        import sklearn.model_selection  # noqa: F401
    except ImportError:
        raise InputError(
            "groups in cross-validation need scikit-learn. Install it: pip install 'zoo-finetune[analysis]'."
        ) from None


def draw_subset(chosen: Tensor, labels: Tensor, share: float, *, seed: int, groups: Tensor | None = None) -> Tensor:
    """Return a part of some images: the same share of each class, one image at least; or a share of whole groups.

    Args:
        chosen: Indices of the images to draw from, `(n,)`.
        labels: Class of each of all images, `(N,)`.
        share: Above 0, up to 1.
        seed: Decides the draw; a smaller share of the same seed is a part of a larger one.
        groups: Group of each of all images, `(N,)`; None: images are drawn.
    """
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed)).to(chosen.device)
    mixed = chosen[order]
    if groups is None:
        mixed = mixed[labels[mixed].argsort(stable=True)]
        counts = torch.unique_consecutive(labels[mixed], return_counts=True)[1].tolist()
        return torch.cat([part[: math.ceil(share * len(part))] for part in torch.split(mixed, counts)])
    kept: list[Tensor] = []
    for group in dict.fromkeys(groups[mixed].tolist()):
        if sum(map(len, kept)) >= share * len(chosen):
            break
        kept.append(chosen[groups[chosen] == group])
    return torch.cat(kept)
