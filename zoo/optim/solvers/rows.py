"""Features of all images as rows of one matrix, in memory or read piece by piece."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

PIECE_BYTES = 64_000_000  # of the rows that are looked at together
HOLD_BYTES = 500_000_000  # of standardised rows that are kept for the next pass


class FeatureRows:
    """Rows of features, standardised as they are read: each column has mean 0 and standard deviation 1.

    Args:
        read: Returns the rows `start` to `stop` as `(n, D)`, of any floating type; it is called again in every pass.
        labels: Class of each row, `(N,)`, int64, on the device to compute on.
        hold: Bytes of standardised rows that may be kept from one pass to the next.

    Attributes:
        mean: Of each column, `(D,)`, float64.
        scale: Standard deviation of each column, `(D,)`, float64; 1 for a column that is constant.
    """

    def __init__(self, read: Callable[[int, int], Tensor], labels: Tensor, hold: int = HOLD_BYTES) -> None:
        self._read, self.labels, self._hold = read, labels, hold
        self.device, self.width = labels.device, int(read(0, 1).shape[1])
        self._held: dict[torch.dtype, list[Tensor]] = {}
        self.mean, self.scale = self._measure()

    @classmethod
    def of(cls, features: Tensor, labels: Tensor) -> "FeatureRows":
        """Return the rows of a matrix `(N, D)` in memory; it is moved to the device of the labels."""
        there = features.to(labels.device)
        return cls(lambda start, stop: there[start:stop], labels)

    def __len__(self) -> int:
        return len(self.labels)

    def pieces(self, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
        """Yield which rows, and the rows themselves, standardised, `(n, D)`."""
        if dtype in self._held:
            yield from zip(self._slices(dtype), self._held[dtype], strict=True)
            return
        keeps = len(self) * self.width * dtype.itemsize <= self._hold
        held: list[Tensor] = []
        for where in self._slices(dtype):
            rows = ((self._raw(where) - self.mean) / self.scale).to(dtype)
            if keeps:
                held.append(rows)
            yield where, rows
        if keeps:
            self._held = {dtype: held}  # one type at a time

    def sample(self, count: int) -> Tensor:
        """Return about so many standardised rows, evenly spread, `(n, D)`, float32."""
        stride = max(1, len(self) // count)
        return torch.cat([rows[(-where.start) % stride :: stride] for where, rows in self.pieces(torch.float32)])

    def unstandardise(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Return weight `(C, D)` and bias `(C,)` on features as they are, from `(D, C)` and `(C,)` on these rows."""
        raw = weight.double() / self.scale[:, None]
        return raw.T.contiguous(), bias.double() - self.mean @ raw

    def _slices(self, dtype: torch.dtype) -> Sequence[slice]:
        size = max(1, PIECE_BYTES // (dtype.itemsize * self.width))
        return [slice(start, min(start + size, len(self))) for start in range(0, len(self), size)]

    def _raw(self, where: slice) -> Tensor:
        return self._read(where.start, where.stop).to(self.device).double()

    def _measure(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of each column, in two passes: one loses digits where means are large."""
        slices = self._slices(torch.float64)
        mean = torch.stack([self._raw(where).sum(0) for where in slices]).sum(0) / len(self)
        squares = torch.stack([(self._raw(where) - mean).square().sum(0) for where in slices]).sum(0)
        scale = (squares / len(self)).sqrt()
        return mean, torch.where(scale > 0, scale, torch.ones_like(scale))
