"""Which image of a data set comes when in an epoch, and how often: the same for the same seed, on any machine."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Sampler, WeightedRandomSampler

EPOCHS_APART = 1 << 32  # the number that stands for the epoch, when an image comes again in one


class EpochSampler(Sampler[tuple[int, int]]):
    """Order of the images in an epoch, as `(index, epoch)`: the same for the same seed and epoch, on any machine.

    Args:
        count: Number of images.
        shuffle: Whether each epoch has an order of its own.
        seed: Decides the orders.
        leave_out: How many images at the end of each epoch's order are not used.
        views: 2 or more: the second number is that of the epoch's view, which are taken in turn: 0 to views - 1.
        draw_weights: With `shuffle`: as many images are drawn with replacement, each as likely as its weight says. An
            image that comes again in an epoch has another second number, so that it is changed anew. None: each image
            comes once.
        repeats: With `shuffle`: how often each image comes in an epoch on average, 1 or more: its number rounded up or
            down, by lot. Epochs have the same length.
    """

    def __init__(
        self,
        count: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        leave_out: int = 0,
        views: int = 1,
        draw_weights: Sequence[float] | None = None,
        repeats: Sequence[float] | None = None,
    ) -> None:
        self.count, self.shuffle, self.seed, self.leave_out, self.views = count, shuffle, seed, leave_out, views
        self.draw_weights, self.repeats = draw_weights, repeats if shuffle else None
        self.places = (count if self.repeats is None else count_repeated(self.repeats)) - leave_out
        self.epoch, self.start = 0, 0

    def set_epoch(self, epoch: int, *, start: int = 0) -> None:
        """Choose the epoch of the next iteration, and how many of its images are passed over."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        """Return images per epoch; `start` does not change it."""
        return self.places

    def __iter__(self) -> Iterator[tuple[int, int]]:
        draws: Counter[int] = Counter()  # of each image so far
        for place, index in enumerate(self._order()[: len(self)]):
            again = draws[index]
            draws[index] += 1
            if place >= self.start:
                epoch = self.epoch + again * (1 if self.views > 1 else EPOCHS_APART)
                yield index, epoch % self.views if self.views > 1 else epoch

    def _order(self) -> list[int]:
        """Return the images of the epoch, from its first on."""
        if not self.shuffle:
            return list(range(self.count))
        generator = torch.Generator().manual_seed(mix_seeds(self.seed, self.epoch))
        if self.draw_weights is not None:
            return list(WeightedRandomSampler(self.draw_weights, self.count, generator=generator))
        indices = torch.arange(self.count)
        if self.repeats is not None:
            indices = indices.repeat_interleave(_round_by_lot(self.repeats, generator))
        order: list[int] = indices[torch.randperm(len(indices), generator=generator)].tolist()
        return order


def count_repeated(repeats: Sequence[float]) -> int:
    """Return how many images an epoch has in which each comes so often on average, by `EpochSampler`."""
    whole, part = _split_repeats(repeats)
    return int(whole.sum() + part.cumsum(0)[-1].floor())


def _round_by_lot(repeats: Sequence[float], generator: torch.Generator) -> Tensor:
    """Round numbers up or down, each to its own on average; their sum is `count_repeated` of them, or one more.

    One number moves all places between which a whole number lies (systematic sampling).
    """
    whole, part = _split_repeats(repeats)
    ends = part.cumsum(0) + torch.rand((), generator=generator, dtype=torch.float64)
    return whole + ends.floor().diff(prepend=torch.zeros(1, dtype=torch.float64)).long()


def _split_repeats(repeats: Sequence[float]) -> tuple[Tensor, Tensor]:
    numbers = torch.tensor(repeats, dtype=torch.float64)
    return numbers.floor().long(), numbers - numbers.floor()


def mix_seeds(*numbers: int) -> int:
    """Return a seed below 2**63 that tells all the numbers, in their order, apart."""
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:8]) >> 1
