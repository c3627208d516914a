"""An image looked at several times: in tiles, mirrored, smaller; and what was found in all of them, put together.

Of the parts of supervision's slicer none is used: it leaves the pieces of things that a border cuts, and calls the
network tile by tile. Weighted box fusion is that of Solovyev, Wang and Gabruseva, "Weighted boxes fusion" (2019).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple, TypeAlias

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image

from zoo.data import Letterbox, Placement, fit_image
from zoo.errors import InputError
from zoo.tasks.detection.postprocess import Detections, Postprocess

SMALLEST_TILE = 32  # pixels
MOST_OVERLAP = 0.9
SMALLER = 0.83  # of the usual size
BORDER = 0.01  # of a tile: a box that ends so near to its border may go on beyond
MOST_COVERED = 0.5  # of a cut box may lie in a whole one
LOOSE_IOU = 0.7  # for models that suppress no boxes

Area: TypeAlias = tuple[int, int, int, int]  # left, top, right, bottom


class View(NamedTuple):
    """One look at an image.

    Attributes:
        area: Of the image, in pixels.
        is_mirrored: Whether left and right are exchanged.
        scale: Of the content on the canvas; 1 is as usual.
    """

    area: Area
    is_mirrored: bool = False
    scale: float = 1.0

    def draw(
        self, image: Image.Image, letterbox: Letterbox, size: tuple[int, int] | None = None
    ) -> tuple[Tensor, Placement]:
        """Return this look on a canvas, `(3, H, W)` uint8, and where it lies there.

        Args:
            image: A reduced one only if the area is all of it.
            letterbox: How it comes onto the canvas.
            size: Width and height in pixels of which the image is a reduced version; None: its own.
        """
        width, height = size or image.size
        is_whole = self.area == (0, 0, width, height)
        part = image if is_whole else image.crop(self.area)
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.is_mirrored else part
        if self.scale != 1:
            rows, columns = (max(1, round(side * self.scale)) for side in letterbox.content_size)
            letterbox = letterbox.replace(content_size=(rows, columns))
        return fit_image(part, letterbox, (height, width) if is_whole else None)

    def locate(self, found: Detections, place: Placement) -> Detections:
        """Bring what was found on the canvas into the image; boxes end where the area does."""
        left, top, right, bottom = self.area
        boxes = clip_boxes_to_image(place.to_image(found.boxes), (bottom - top, right - left))
        if self.is_mirrored:
            boxes = torch.stack([right - left - boxes[:, 2], boxes[:, 1], right - left - boxes[:, 0], boxes[:, 3]], 1)
        return found._replace(boxes=boxes + boxes.new_tensor([left, top, left, top]))


@dataclass(frozen=True, kw_only=True)
class Views:
    """How images are looked at.

    Attributes:
        tiles: Side of the tiles of an image that is larger, in pixels of the image; None: the image as it is.
        overlap: Of neighbouring tiles, 0 to 0.9 of the side.
        tta: Whether everything is looked at mirrored and smaller, too (test-time augmentation).
    """

    tiles: int | None = None
    overlap: float = 0.2
    tta: bool = False

    def __post_init__(self) -> None:
        if self.tiles is not None and (type(self.tiles) is not int or self.tiles < SMALLEST_TILE):
            raise InputError(f"tiles is {self.tiles!r}; expected the side in pixels, {SMALLEST_TILE} or more.")
        is_number = isinstance(self.overlap, (int, float)) and not isinstance(self.overlap, bool)
        if not is_number or not 0 <= self.overlap <= MOST_OVERLAP:
            raise InputError(f"overlap is {self.overlap!r}; expected a number from 0 to {MOST_OVERLAP:g}.")

    def look_at(self, width: int, height: int) -> Iterator[View]:
        """Yield the looks at an image, those at one area together; the whole image comes first."""
        for area in ((0, 0, width, height), *self._list_tiles(width, height)):
            yield View(area)
            if self.tta:
                yield View(area, is_mirrored=True)
                yield View(area, scale=SMALLER)

    def settings(self, settings: Postprocess) -> Postprocess:
        """Return which boxes of a look count: with several of them the mean score has to reach the threshold."""
        return settings.replace(conf=settings.conf / 3) if self.tta else settings

    def unite(self, found: Sequence[tuple[View, Detections]], settings: Postprocess) -> Detections:
        """Put together what was found in the looks at an image; a single look's is returned as it is.

        Args:
            found: Boxes are in pixels of the image.
            settings: Which boxes are kept.
        """
        settings = settings.replace(iou=min(settings.iou, LOOSE_IOU)) if settings.iou == 1 else settings
        areas = [
            (area, fuse([detections for _, detections in same], settings) if self.tta else next(same)[1])
            for area, same in groupby(found, key=lambda pair: pair[0].area)
        ]
        return areas[0][1] if len(areas) == 1 else self._join(areas, settings)

    def _list_tiles(self, width: int, height: int) -> Iterator[Area]:
        if self.tiles is None or max(width, height) <= self.tiles:
            return
        step = max(1, round(self.tiles * (1 - self.overlap)))
        lasts = (max(0, side - self.tiles) for side in (height, width))
        tops, lefts = ([*range(0, last, step), last] for last in lasts)  # the last tile ends where the image does
        for top in tops:
            for left in lefts:
                yield left, top, min(left + self.tiles, width), min(top + self.tiles, height)

    def _join(self, areas: Sequence[tuple[Area, Detections]], settings: Postprocess) -> Detections:
        """Join the boxes of the whole image and of its tiles.

        What fits into an overlap is whole in some tile. So of the whole image only longer boxes count, and of boxes
        that a tile's border cuts those that are not part of a whole one.
        """
        side = self.tiles or 0
        (whole_area, whole), *tiles = areas
        longer = (whole.boxes[:, 2:] - whole.boxes[:, :2]).amax(1) > side * self.overlap
        parts = [Detections(*(values[longer] for values in whole)), *(found for _, found in tiles)]
        cuts = [torch.zeros(len(parts[0].scores), dtype=torch.bool)]
        cuts += [_find_cut(area, found.boxes, whole_area, side * BORDER) for area, found in tiles]
        (boxes, scores, labels), source, cut = _stack(parts), _number(parts), torch.cat(cuts)
        groups = torch.zeros_like(labels) if settings.class_agnostic else labels
        kept = torch.ones(len(scores), dtype=torch.bool)
        for place in cut.nonzero().flatten().tolist():
            others = ~cut & (source != source[place]) & (groups == groups[place])
            kept[place] = not (_share_inside(boxes[place], boxes[others]) > MOST_COVERED).any()
        order = kept.nonzero().flatten()
        order = order[batched_nms(boxes[order], scores[order], groups[order], settings.iou)]
        return Detections(boxes[order], scores[order], labels[order])


def fuse(found: Sequence[Detections], settings: Postprocess) -> Detections:
    """Fuse what several looks at the same area found: boxes of one thing become their mean, weighted by their scores.

    The score is the mean over the looks of the best one there, 0 where a look found nothing.
    """
    (boxes, scores, labels), source = _stack(found), _number(found)
    if not len(scores):
        return Detections(boxes, scores, labels)
    groups = torch.zeros_like(labels) if settings.class_agnostic else labels
    heads = batched_nms(boxes, scores, groups, settings.iou)
    own = (box_iou(boxes, boxes[heads]) * (groups[:, None] == groups[heads])).argmax(1)
    weights = scores[:, None] * nn.functional.one_hot(own, len(heads))
    means = (weights.T @ boxes) / weights.sum(0)[:, None]
    best = torch.zeros(len(heads) * len(found)).scatter_reduce(0, own * len(found) + source, scores, "amax")
    score = best.view(len(heads), len(found)).mean(1)
    order = score.argsort(descending=True, stable=True)
    order = order[score[order] >= settings.conf][: settings.max_predictions]
    return Detections(means[order], score[order], labels[heads[order]])


def _stack(found: Sequence[Detections]) -> Detections:
    return Detections(*(torch.cat(values) for values in zip(*found, strict=True)))


def _number(found: Sequence[Detections]) -> Tensor:
    """Return of which of several each box is."""
    return torch.cat([torch.full((len(part.scores),), number) for number, part in enumerate(found)])


def _find_cut(area: Area, boxes: Tensor, whole: Area, near: float) -> Tensor:
    """Return which boxes `(N,)` end at a border of their tile that is none of the image."""
    inner = torch.tensor([own != of_image for own, of_image in zip(area, whole, strict=True)])
    return (((boxes - boxes.new_tensor(area)).abs() <= near) & inner).any(1)


def _share_inside(box: Tensor, others: Tensor) -> Tensor:
    """Return the share of a box `(4,)` that lies in each of others `(N, 4)`."""
    sides = (torch.minimum(box[2:], others[:, 2:]) - torch.maximum(box[:2], others[:, :2])).clamp(min=0)
    return sides.prod(1) / (box[2:] - box[:2]).prod().clamp(min=1e-9)
