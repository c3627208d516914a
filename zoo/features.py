"""Frozen means free: features of a trunk that does not learn are computed once and kept in memory.

Only where that changes nothing: the whole trunk is frozen, no image is augmented, and one process trains.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from zoo.loader import EpochSampler, lay_channels_last
from zoo.lr_plan import Plan

MEMORY_SHARE = 0.25  # of what the machine has free


class HeadOnly(nn.Module):
    """The head of a model as a network of its own: features `(B, D)` in, logits `(B, C)` out."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor) -> Tensor:
        """Turn features into outputs."""
        outputs: Tensor = self.model.head(features)
        return outputs


class FeatureBatches:
    """Batches of kept features, in the order that the images themselves would have.

    Args:
        features: `(N, D)`, on the device that trains.
        targets: `(N,)`, int64, on the same device.
        sampler: Gives the order of each epoch.
        batch_size: Rows per batch.
    """

    def __init__(self, features: Tensor, targets: Tensor, sampler: EpochSampler, batch_size: int) -> None:
        self.features, self.targets, self.sampler, self.batch_size = features, targets, sampler, batch_size

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over one epoch, from a batch on."""
        self.sampler.set_epoch(epoch, start=start_batch * self.batch_size)
        order = torch.tensor([index for index, _ in self.sampler], device=self.features.device)
        for rows in torch.split(order, self.batch_size):
            yield self.features[rows], self.targets[rows]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.epoch(0)


def why_not_cached(
    model: nn.Module, plan: Plan, *, augmented: bool, epochs: int, images: int, processes: int
) -> str | None:
    """Return why features cannot be kept, or None if they can."""
    if why := why_not_frozen(model, plan):
        return why
    if augmented:
        return "the images are augmented anew in each epoch"
    if processes > 1:
        return "several processes train"
    if epochs < 2:
        return "there is one epoch only"
    needed = images * 4 * int(getattr(model, "num_features", 0))
    if needed > _free_memory() * MEMORY_SHARE:
        return f"the features need {needed / 2**30:.1f} GiB of memory"
    return None


def why_not_frozen(model: nn.Module, plan: Plan) -> str | None:
    """Return why a model's trunk does not stay as it is under a plan, or None if all of it is frozen."""
    prefixes = tuple(getattr(model, "head_prefixes", ()))
    if not (callable(getattr(model, "trunk", None)) and prefixes):
        return "the model has no trunk and head"
    learning = [name for group in plan.trained for name in group.names if not name.startswith(prefixes)]
    return f"the trunk learns ({learning[0]})" if learning else None


def compute_features(
    model: Any, batches: Iterable[tuple[Tensor, Tensor]], *, on_batch: Callable[[int], None] | None = None
) -> tuple[Tensor, Tensor]:
    """Run the trunk once over all images, in eval mode.

    Args:
        model: Has `trunk`.
        batches: Images `(B, 3, H, W)` and targets `(B,)`, on the model's device, in the order of the data set.
        on_batch: Called with the number of images done.

    Returns:
        Features `(N, D)`, float32, and targets `(N,)`, int64.
    """
    features, targets, done = [], [], 0
    model.eval()
    with torch.no_grad():
        for images, labels in batches:
            features.append(model.trunk(lay_channels_last(images)).float())
            targets.append(labels)
            done += len(labels)
            if on_batch:
                on_batch(done)
    return torch.cat(features), torch.cat(targets)


def _free_memory() -> float:
    import psutil

    return float(psutil.virtual_memory().available)
