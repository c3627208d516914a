"""Which anchors of a detector learn which box, and how strongly: the task-aligned and the static (ATSS) assigner.

All boxes of a batch are worked on together, one row each, whatever image they belong to. The result names the positive
anchors only; all others are background.

Sources: Feng et al. 2021, "TOOD", arXiv 2108.07755 (task-aligned); Zhang et al. 2020, "Bridging the Gap Between
Anchor-based and Anchor-free Detection", arXiv 1912.02424 (ATSS). Both as super-gradients 3.7.1 has them
(Deci-AI/super-gradients, commit e0ccacf).

Letters: N boxes of the batch, B images, L anchors of an image, C classes, P positive anchors.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torchvision.ops import box_convert

from zoo.errors import InputError
from zoo.models.families.yolo_nas.boxes import box_iou

MAX_ELEMENTS = 2_000_000  # of one intermediate; about ten of them exist at a time, 4 bytes per element
SMALLEST = 1e-9  # keeps a division by zero away; also how many pixels inside of a box its points are at least
ATSS_EPS = 1e-10

Part = TypeVar("Part", bound=tuple[Any, ...])


class Proposals(NamedTuple):
    """What a detector says of a batch at its anchors.

    Attributes:
        logits: `(B, L, C)` float32, before the sigmoid.
        boxes: `(B, L, 4)` float32, xyxy in pixels.
    """

    logits: Tensor
    boxes: Tensor


class Grid(NamedTuple):
    """Where the anchors of an image are, level after level.

    Attributes:
        points: `(L, 2)` x, y of each, in pixels.
        squares: `(L, 4)` a square around each point, xyxy in pixels; the static assigner compares boxes with them.
        level_sizes: Anchors of each level.
    """

    points: Tensor
    squares: Tensor
    level_sizes: Sequence[int] | Tensor


class Truths(NamedTuple):
    """The boxes of a batch, in any order of images.

    Attributes:
        images: `(N,)` int64, index of the image in the batch.
        labels: `(N,)` int64, class.
        boxes: `(N, 4)` float32, xyxy in pixels.
    """

    images: Tensor
    labels: Tensor
    boxes: Tensor


class Assignment(NamedTuple):
    """The positive anchors, in order of image and anchor.

    Attributes:
        images: `(P,)` int64.
        anchors: `(P,)` int64.
        labels: `(P,)` int64, the class that each is to say.
        boxes: `(P, 4)` float32, the box that each is to find, xyxy in pixels.
        scores: `(P,)` float32, 0 to 1: how sure it should be, and how much its box counts.
    """

    images: Tensor
    anchors: Tensor
    labels: Tensor
    boxes: Tensor
    scores: Tensor


class Assigner(Protocol):
    """What a detection loss asks which anchors are positive."""

    def __call__(self, proposals: Proposals, grid: Grid, truths: Truths) -> Assignment:
        """Return the positive anchors, on the device of the proposals."""


@dataclass(frozen=True, kw_only=True)
class TaskAlignedAssigner:
    """Prefers the anchors whose class and box are already the best: score^alpha * IoU^beta.

    Anchors of all levels compete. An anchor that several boxes want goes to the one that its predicted box overlaps
    most, among all boxes of the image. Works on the device of the proposals, and on the CPU if memory is short there.

    Attributes:
        candidates: How many anchors a box gets at most; their points must lie inside of it.
        alpha: Exponent of the score.
        beta: Exponent of the IoU.
        max_elements: Elements that an intermediate may have; beyond it boxes are worked on in chunks.
    """

    candidates: int = 13
    alpha: float = 1.0
    beta: float = 6.0
    max_elements: int = MAX_ELEMENTS

    def __post_init__(self) -> None:
        _check_counts(candidates=self.candidates, max_elements=self.max_elements)

    @torch.no_grad()
    def __call__(self, proposals: Proposals, grid: Grid, truths: Truths) -> Assignment:
        """Return the positive anchors of a batch."""
        return _run(self._assign, proposals, grid, truths)

    def _assign(self, proposals: Proposals, grid: Grid, truths: Truths) -> Assignment:
        chunks = _micro_batches(len(truths.images), len(grid.points), self.max_elements)
        pairs = [self._choose(proposals, grid.points, truths, rows) for rows in chunks]
        owners, images, anchors = _settle(pairs, proposals.boxes, truths, self.max_elements)
        assigned = proposals.boxes[images, anchors]
        logits = proposals.logits[images, anchors, truths.labels[owners]]
        overlap = box_iou(truths.boxes[owners], assigned)
        metric = self._metric(logits, overlap)
        best_metric, best_overlap = (_best(values, owners, truths) for values in (metric, overlap))
        scores = metric / (best_metric + SMALLEST) * best_overlap
        return Assignment(images, anchors, truths.labels[owners], truths.boxes[owners], scores)

    def _choose(self, proposals: Proposals, points: Tensor, truths: Truths, rows: slice) -> Tensor:
        """Return `(2, P')` row and anchor of what some boxes want."""
        images, labels, boxes = truths.images[rows], truths.labels[rows], truths.boxes[rows]
        overlap = box_iou(boxes[:, None], proposals.boxes[images])  # (rows, L), as all that follows
        metric = self._metric(proposals.logits.mT[images, labels], overlap)
        inside = _contains(boxes[:, None], points)
        top = (metric * inside).topk(min(self.candidates, len(points)), dim=1).indices
        return _pairs(rows, top, inside.gather(1, top))

    def _metric(self, logits: Tensor, overlap: Tensor) -> Tensor:
        return logits.sigmoid().pow(self.alpha) * overlap.pow(self.beta)


@dataclass(frozen=True, kw_only=True)
class StaticAssigner:
    """Adaptive training sample selection (ATSS): chooses by the anchors' places alone, whatever is predicted.

    Of each level the anchors nearest to the middle of a box are candidates. Those are positive whose square overlaps
    the box by more than the mean and one standard deviation of all candidates, and whose point is inside. An anchor
    that several boxes want goes to the one that its square overlaps most, among all boxes of the image. The score is
    the IoU of the predicted box. Works on the device of the proposals, and on the CPU if memory is short there.

    Attributes:
        candidates: Of each level.
        max_elements: Elements that an intermediate may have; beyond it boxes are worked on in chunks.
    """

    candidates: int = 9
    max_elements: int = MAX_ELEMENTS

    def __post_init__(self) -> None:
        _check_counts(candidates=self.candidates, max_elements=self.max_elements)

    @torch.no_grad()
    def __call__(self, proposals: Proposals, grid: Grid, truths: Truths) -> Assignment:
        """Return the positive anchors of a batch."""
        return _run(self._assign, proposals, grid, truths)

    def _assign(self, proposals: Proposals, grid: Grid, truths: Truths) -> Assignment:
        chunks = _micro_batches(len(truths.images), len(grid.points), self.max_elements)
        pairs = [self._choose(grid, truths, rows) for rows in chunks]
        squares = grid.squares.expand(len(proposals.boxes), -1, -1)
        owners, images, anchors = _settle(pairs, squares, truths, self.max_elements)
        scores = box_iou(truths.boxes[owners], proposals.boxes[images, anchors])
        return Assignment(images, anchors, truths.labels[owners], truths.boxes[owners], scores)

    def _choose(self, grid: Grid, truths: Truths, rows: slice) -> Tensor:
        """Return `(2, P')` row and anchor of what some boxes want."""
        boxes = truths.boxes[rows]
        nearest = self._nearest(boxes, grid)  # (rows, candidates of all levels), as all that follows
        overlap = box_iou(boxes[:, None], grid.squares[nearest], eps=ATSS_EPS)
        enough = overlap > overlap.mean(dim=1, keepdim=True) + overlap.std(dim=1, keepdim=True)
        return _pairs(rows, nearest, enough & _contains(boxes[:, None], grid.points[nearest]))

    def _nearest(self, boxes: Tensor, grid: Grid) -> Tensor:
        middles = box_convert(boxes, "xyxy", "cxcywh")
        across, down = (middles[:, axis, None] - grid.points[:, axis] for axis in (0, 1))
        distances = (across.square() + down.square()).sqrt()
        nearest, first = [], 0
        for size in map(int, grid.level_sizes):
            level = distances[:, first : first + size]
            nearest.append(first + level.topk(min(self.candidates, size), dim=1, largest=False).indices)
            first += size
        return torch.cat(nearest, dim=1)


def _check_counts(**counts: object) -> None:
    for name, value in counts.items():
        if type(value) is not int or value < 1:
            raise InputError(f"{name} is {value!r}; expected an integer, 1 or more.")


def _run(
    assign: Callable[[Proposals, Grid, Truths], Assignment], proposals: Proposals, grid: Grid, truths: Truths
) -> Assignment:
    if not len(truths.images):
        return Assignment(truths.images, truths.images, truths.labels, truths.boxes, truths.boxes.new_zeros(0))
    try:
        return assign(proposals, grid, truths)
    except torch.OutOfMemoryError:
        pass  # the rest is outside, because the error holds on to what was on the device
    device = proposals.boxes.device
    warnings.warn(f"{device} is low on memory: assigning boxes to anchors on the CPU, which is slow.", stacklevel=4)
    found = assign(_move(proposals, "cpu"), _move(grid, "cpu"), _move(truths, "cpu"))
    return _move(found, device)


def _move(part: Part, device: torch.device | str) -> Part:
    return type(part)(*(value.to(device) if isinstance(value, Tensor) else value for value in part))


def _micro_batches(count: int, width: int, max_elements: int) -> Iterator[slice]:
    """Split so many rows of so many columns."""
    step = max(1, max_elements // width)
    for start in range(0, count, step):
        yield slice(start, start + step)


def _contains(boxes: Tensor, points: Tensor) -> Tensor:
    """Say whether points lie inside of boxes and not on their border; the two are broadcast against each other."""
    x, y = points[..., 0], points[..., 1]
    across = torch.minimum(x - boxes[..., 0], boxes[..., 2] - x)
    return torch.minimum(across, torch.minimum(y - boxes[..., 1], boxes[..., 3] - y)) > SMALLEST


def _pairs(rows: slice, anchors: Tensor, chosen: Tensor) -> Tensor:
    """Return `(2, P')` row and anchor where `chosen` `(rows, candidates)` holds."""
    places, columns = chosen.nonzero(as_tuple=True)
    return torch.stack([rows.start + places, anchors[places, columns]])


def _settle(pairs: list[Tensor], boxes: Tensor, truths: Truths, max_elements: int) -> tuple[Tensor, Tensor, Tensor]:
    """Give each anchor to one box.

    Args:
        pairs: `(2, P')` row and anchor of what the boxes want.
        boxes: `(B, L, 4)` what the anchors are compared by if several boxes want them.
        truths: The boxes.
        max_elements: Elements that an intermediate may have.

    Returns:
        Row, image and anchor of the positive anchors, each `(P,)`.
    """
    rows, anchors = torch.cat(pairs, dim=1)
    places, inverse, counts = (truths.images[rows] * boxes.shape[1] + anchors).unique(
        return_inverse=True, return_counts=True
    )
    owners = torch.empty_like(places).scatter_(0, inverse, rows)
    images, anchors = places // boxes.shape[1], places % boxes.shape[1]
    table = _rows_of_images(truths.images, len(boxes))
    contested = (counts > 1).nonzero().squeeze(1)
    for chunk in _micro_batches(len(contested), table.shape[1], max_elements):
        some = contested[chunk]
        rivals = table[images[some]]  # (some, most boxes of an image); -1 is no box
        overlap = box_iou(truths.boxes[rivals], boxes[images[some], anchors[some]][:, None])
        best = overlap.masked_fill_(rivals < 0, -1).argmax(dim=1, keepdim=True)
        owners[some] = rivals.gather(1, best).squeeze(1)
    return owners, images, anchors


def _rows_of_images(images: Tensor, count: int) -> Tensor:
    """Return `(B, most boxes of an image)` rows of each image's boxes in their order, filled with -1."""
    order = images.argsort(stable=True)
    counts = images.bincount(minlength=count)
    places = torch.arange(len(images), device=images.device) - (counts.cumsum(0) - counts)[images[order]]
    table = images.new_full((count, int(counts.max())), -1)
    table[images[order], places] = order
    return table


def _best(values: Tensor, owners: Tensor, truths: Truths) -> Tensor:
    """Return for each of `(P,)` values the largest among those of the same box."""
    return values.new_zeros(len(truths.images)).scatter_reduce(0, owners, values, "amax")[owners]
